import logging
import os
import resource
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import orjson
import pytest

from exporter.api.calls import read_session_page
from exporter.destinations.resolve import resolve_destination
from exporter.errors import (
    DeadlineError,
    DestinationError,
    ExporterError,
    IncompleteError,
    NetworkError,
    ReplayError,
)
from exporter.journal.journal import (
    MAX_LOST,
    MAX_UNWRITTEN_BYTES,
    MAX_UNWRITTEN_S,
    Journal,
    is_flush_due,
    is_worth_resuming,
)
from exporter.journal.segments import (
    SegmentRow,
    estimate_journal_bytes,
    pack_body,
    pack_segment,
    read_segment,
    unpack_body,
)
from exporter.journal.spool import remove_stale
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.listing.replay import NO_ANSWER_LOG, RecordedAnswer
from exporter.model import Gateway, SessionPage
from exporter.runs.resume import find_start, place_journal

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
OTHER = replace(GATEWAY, gateway_id="lc-2")
STARTED_AT = datetime(2026, 7, 1, 12, tzinfo=UTC)
LATER = STARTED_AT + timedelta(hours=1)
IDENTITY = {"exporter_version": "0.1.0", "output": "out.parquet", "page_size": 100, "until": None}


def open_journal(path: Path, **changes: Any) -> Journal:
    known: dict[str, Any] = {
        "identity": IDENTITY,
        "gateways": [GATEWAY, OTHER],
        "run_id": "r-1",
        "started_at": STARTED_AT,
        "resume_within_s": 24 * 3600.0,
        "utc_now": lambda: STARTED_AT,
        "now_s": lambda: 0.0,
    }
    return Journal(path, **known | changes)


def build_page(page_num: int) -> SessionPage:
    session = {"sessionId": f"livy-{page_num}", "name": "每日"}
    return read_session_page(orjson.dumps({"totalCount": 900, "sessions": [session] * 3}))


class AnswerWriter:
    """Records answers of one listing, one after the other."""

    def __init__(self, gateway: Gateway = GATEWAY) -> None:
        self._listing = FullListing(gateway, page_size=100)
        self.written: list[RecordedAnswer] = []

    def record(self, journal: Journal, count: int = 1, *, flush: bool = True) -> None:
        async def record_all() -> None:
            for _ in range(count):
                self._record(journal)
                if flush:
                    await journal.flush_if_due()

        anyio.run(record_all)

    def _record(self, journal: Journal) -> None:
        self._listing.next_request()
        number = len(self.written) + 1
        request = PageRequest(self._listing.gateway, number, 100, number, "sweep")
        page = build_page(number)
        journal.record(self._listing, request, page)
        self.written.append(RecordedAnswer(request, self._listing.asked_count, page.body))


def write_journal(path: Path, answer_count: int, **changes: Any) -> list[RecordedAnswer]:
    """Write answers, each in a segment of its own."""
    journal, writer = open_journal(path, **changes), AnswerWriter()
    writer.record(journal, answer_count)
    journal.close()
    return writer.written


def read_all(journal: Journal) -> list[RecordedAnswer]:
    return [answer for answers in journal.read_recorded() for answer in answers]


def reopen(path: Path, **changes: Any) -> tuple[Journal, list[RecordedAnswer]]:
    journal = open_journal(path, **{"run_id": "r-2", "started_at": LATER} | changes)
    recorded = read_all(journal)
    return journal, recorded


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "spool" / ".out.parquet.journal"


@pytest.mark.parametrize("body", [b"", b"{}", bytes(200_000), bytes(range(256)) * 99], ids=len)
def test_segment_is_read_as_it_was_packed(body: bytes) -> None:
    rows = [
        SegmentRow(0, 1, 1, 1, 100, "sweep", len(body), pack_body(body)),
        SegmentRow(7, 2**40, 2**40, 2**33, 1, "repair", len(body), pack_body(body)),
        SegmentRow(0, 3, 2, 5, 57, "sentinel", 0, pack_body(b"")),
    ]

    found = read_segment(pack_segment(rows))

    assert found == rows
    assert [unpack_body(row) for row in found] == [body, body, b""]


def test_run_takes_over_what_the_one_before_it_recorded(path: Path) -> None:
    written = write_journal(path, 5)

    journal, recorded = reopen(path)

    assert recorded == written
    assert journal.resumed is not None
    assert journal.resumed.run_id == "r-1"
    assert journal.resumed.started_at == STARTED_AT
    assert journal.resumed.answer_count == 5
    assert journal.dropped is None
    journal.close()


def test_what_is_decided_by_time_is_decided_as_by_the_killed_run(path: Path) -> None:
    write_journal(path, 10)

    journal = open_journal(path, run_id="r-2", started_at=LATER)
    fresh = open_journal(path.with_name("other"), started_at=LATER)

    assert find_start(LATER, journal) == STARTED_AT
    assert find_start(LATER, fresh) == find_start(LATER, NO_ANSWER_LOG) == LATER


def test_resumed_run_is_resumed_again_with_all_answers(path: Path) -> None:
    first, second = open_journal(path), AnswerWriter()
    second.record(first)
    first.close()
    again, recorded = reopen(path)
    assert recorded == second.written
    second.record(again)
    again.close()

    last, recorded = reopen(path, run_id="r-3")

    assert recorded == second.written
    assert last.resumed is not None
    assert (last.resumed.run_id, last.resumed.answer_count) == ("r-1", 2)
    last.close()


def test_answers_of_several_gateways_stay_in_one_order(path: Path) -> None:
    journal, one, two = open_journal(path), AnswerWriter(), AnswerWriter(OTHER)
    for writer in (one, two, two, one, one):
        writer.record(journal)
    journal.close()

    journal, recorded = reopen(path)

    gateways = [answer.request.gateway for answer in recorded]
    assert gateways == [GATEWAY, OTHER, OTHER, GATEWAY, GATEWAY]
    assert [each for each in recorded if each.request.gateway == OTHER] == two.written
    journal.close()


def test_close_writes_what_waits(path: Path) -> None:
    journal, writer = open_journal(path), AnswerWriter()
    writer.record(journal, 7, flush=False)
    journal.close()

    journal, recorded = reopen(path)

    assert recorded == writer.written
    journal.close()


def test_journal_without_an_answer_resumes_nothing(path: Path) -> None:
    open_journal(path).close()

    journal, recorded = reopen(path)

    assert (journal.resumed, journal.dropped, recorded) == (None, None, [])
    journal.close()


def test_removed_journal_leaves_no_file(path: Path) -> None:
    journal = open_journal(path)
    AnswerWriter().record(journal)
    journal.remove()

    assert not path.exists()
    journal.close()
    assert not path.exists()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"identity": IDENTITY | {"page_size": 50}}, "another page size"),
        ({"identity": IDENTITY | {"until": "2026-01-01"}}, "another until"),
        ({"identity": IDENTITY | {"exporter_version": "0.2.0"}}, "another exporter version"),
        ({"identity": IDENTITY | {"journal_version": 99}}, "another journal version"),
        ({"identity": IDENTITY | {"since": "7d"}}, "another since"),
        ({"gateways": [OTHER, GATEWAY]}, "another gateways"),
        ({"gateways": [GATEWAY]}, "another gateways"),
        ({"utc_now": lambda: STARTED_AT + timedelta(hours=24, seconds=1)}, "older than 24 h"),
        ({"utc_now": lambda: STARTED_AT - timedelta(hours=25)}, "older than 24 h"),
        ({"fresh": True}, "a fresh start"),
    ],
)
def test_journal_that_does_not_fit_is_dropped_with_a_reason(
    path: Path, changes: dict[str, Any], reason: str
) -> None:
    write_journal(path, 3)

    journal, recorded = reopen(path, **changes)

    assert recorded == []
    assert journal.resumed is None
    assert journal.dropped is not None
    assert reason in journal.dropped
    # The journal belongs to this run now.
    writer = AnswerWriter()
    writer.record(journal)
    journal.close()
    journal, recorded = reopen(path, **{**changes, "fresh": False})
    assert recorded == writer.written
    journal.close()


@pytest.mark.parametrize("hours", [-23, 0, 23])
def test_age_counts_from_the_newest_answer(path: Path, hours: int) -> None:
    written_at = STARTED_AT + timedelta(hours=40)
    written = write_journal(path, 3, utc_now=lambda: written_at)

    journal, recorded = reopen(path, utc_now=lambda: written_at + timedelta(hours=hours))

    assert recorded == written
    journal.close()


def test_segment_torn_at_any_byte_costs_itself_only(path: Path) -> None:
    write_journal(path, 2)
    start = path.stat().st_size
    write_more(path, 1)
    whole = path.read_bytes()

    for size_bytes in range(start, len(whole)):
        path.write_bytes(whole[:size_bytes])
        journal, recorded = reopen(path)

        assert [answer.request.number for answer in recorded] == [1, 2]
        assert path.stat().st_size == start
        journal.close()


def write_more(path: Path, answer_count: int) -> None:
    journal, recorded = reopen(path)
    writer = AnswerWriter()
    writer.written = recorded
    writer.record(journal, answer_count)
    journal.close()


def test_answers_recorded_after_a_torn_segment_are_kept(path: Path) -> None:
    write_journal(path, 3)
    path.write_bytes(path.read_bytes()[:-5])
    write_more(path, 2)

    journal, recorded = reopen(path)

    assert [answer.request.number for answer in recorded] == [1, 2, 3, 4]
    journal.close()


def test_flipped_byte_anywhere_leaves_a_prefix_or_nothing(path: Path) -> None:
    written = write_journal(path, 4)
    whole = path.read_bytes()

    for place in range(0, len(whole), 7):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        journal, recorded = reopen(path)

        assert len(recorded) < len(written)
        assert recorded == written[: len(recorded)]
        assert (journal.resumed is None) == (recorded == [])
        journal.close()


@pytest.mark.parametrize(
    "found", [b"x", b"PAR1" + bytes(1000), b"[]", b"LXF1" + b"\xff" * 60], ids=repr
)
def test_file_that_is_no_journal_is_replaced(path: Path, found: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(found)

    journal, recorded = reopen(path)

    assert recorded == []
    assert journal.dropped == "its beginning is damaged"
    journal.close()
    assert reopen(path)[0].dropped is None


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """Limit the size of this process's files, as a full disk does."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk_ends_the_journal_with_one_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal, writer = open_journal(path), AnswerWriter()
    writer.record(journal, 2)
    kept = path.stat().st_size

    with caplog.at_level(logging.WARNING), files_limited_to(kept + 100):
        writer.record(journal, 50)
    writer.record(journal)
    journal.close()

    assert len(caplog.records) == 1
    assert "File too large" in caplog.text
    assert path.stat().st_size == kept
    journal, recorded = reopen(path)
    assert recorded == writer.written[:2]
    journal.close()


def test_journal_does_not_outgrow_its_bound(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        write_journal(path, 50, max_bytes=10_000)

    assert path.stat().st_size <= 10_000
    assert len(caplog.records) == 1
    journal, recorded = reopen(path)
    assert 0 < len(recorded) < 50
    journal.close()


def test_folder_that_cannot_be_written_costs_the_journal_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()

    with caplog.at_level(logging.WARNING):
        written = write_journal(tmp_path / "file" / "journal", 3)

    assert len(written) == 3
    assert len(caplog.records) == 1


def test_journal_that_another_run_writes_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mine, writer = open_journal(path), AnswerWriter()
    writer.record(mine)
    with caplog.at_level(logging.WARNING):
        theirs, recorded = reopen(path)
        AnswerWriter().record(theirs)
        theirs.remove()
    mine.close()

    assert recorded == []
    assert "another run writes it" in caplog.text
    assert reopen(path)[1] == writer.written


def test_flush_is_due_before_a_twentieth_is_unwritten() -> None:
    for answer_count in range(20, 5000):
        most = next(
            count
            for count in range(1, answer_count)
            if is_flush_due(
                unwritten_count=count, answer_count=answer_count, unwritten_bytes=0, waited_s=0
            )
        )

        assert most - 1 <= MAX_LOST * answer_count


@pytest.mark.parametrize(
    ("changes", "due"),
    [
        ({}, False),
        ({"unwritten_bytes": MAX_UNWRITTEN_BYTES}, True),
        ({"waited_s": MAX_UNWRITTEN_S}, True),
        ({"unwritten_count": 0, "waited_s": 100.0}, False),
        ({"unwritten_count": 0, "answer_count": 0}, False),
        ({"answer_count": 1}, True),
    ],
)
def test_flush_is_due_by_count_bytes_and_time(changes: dict[str, Any], due: bool) -> None:
    waiting = {"unwritten_count": 1, "answer_count": 1000, "unwritten_bytes": 9, "waited_s": 0.0}

    assert is_flush_due(**waiting | changes) is due


def test_segments_of_a_long_run_are_few(path: Path) -> None:
    journal, writer = open_journal(path), AnswerWriter()
    writer.record(journal, 2000)
    sizes = [len(answers) for answers in reread(journal, path)]

    assert sum(sizes) > 0.95 * 2000
    assert len(sizes) < 200


def reread(journal: Journal, path: Path) -> Sequence[Sequence[RecordedAnswer]]:
    journal.close()
    again = open_journal(path)
    found = list(again.read_recorded())
    again.close()
    return found


def test_estimate_is_about_what_a_page_takes() -> None:
    page = build_page(1)

    estimate = estimate_journal_bytes(3000, page)

    assert 0 < estimate < 1000 * len(page.body) * 2
    assert estimate_journal_bytes(6000, page) == pytest.approx(2 * estimate, rel=0.01)
    assert estimate_journal_bytes(0, SessionPage(0, [], [])) == 0


def test_journal_stands_beside_a_local_output_and_in_the_spool_for_any(tmp_path: Path) -> None:
    file = resolve_destination(str(tmp_path / "out.parquet"), chosen=None)
    folder = resolve_destination(f"{tmp_path}/new/", chosen=None)
    assert file.sidecars is not None
    assert folder.sidecars is not None

    assert (
        place_journal(file.sidecars, key=file.key, spool=None) == tmp_path / ".out.parquet.journal"
    )
    assert place_journal(folder.sidecars, key=folder.key, spool=None) == (
        tmp_path / "new" / "_exporter" / "journal"
    )
    places = [
        place_journal(each.sidecars, key=each.key, spool=tmp_path / "spool")
        for each in (file, folder)
        if each.sidecars is not None
    ]
    assert len(set(places)) == 2
    assert {each.parent for each in places if each is not None} == {tmp_path / "spool"}


def test_stale_journals_of_a_spool_are_removed_and_nothing_else(tmp_path: Path) -> None:
    names = [f"{number:032x}.journal" for number in range(5)]
    stale, recent, held, unmarked, empty = (tmp_path / name for name in names)
    for path in (stale, recent):
        write_journal(path, 2)
    journal = open_journal(held)
    unmarked.write_bytes(b"a ledger of somebody else's")
    empty.touch()
    others = [tmp_path / name for name in ("notes.txt", "mine.journal", f"{names[0]}.journal")]
    for path in others:
        shutil.copy(stale, path)
    for path in (stale, held, unmarked, empty, *others):
        os.utime(path, (0, 0))

    remove_stale(tmp_path, now=datetime.now(UTC), resume_within_s=3600)

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {*names[1:], *(path.name for path in others)}
    journal.close()


def test_identity_may_hold_what_json_writes_in_another_way(path: Path) -> None:
    changes = {"identity": {"filters": ("a", "b"), "since": STARTED_AT}}
    written = write_journal(path, 2, **changes)

    journal, recorded = reopen(path, **changes)

    assert recorded == written
    journal.close()


@pytest.mark.parametrize(
    ("error", "worth"),
    [
        (NetworkError("cut off"), True),
        (DeadlineError("too long"), True),
        (DestinationError("full"), True),
        (KeyboardInterrupt(), True),
        (ExceptionGroup("", [NetworkError("a"), NetworkError("b")]), True),
        (ExceptionGroup("", [NetworkError("a"), ValueError("b")]), False),
        (IncompleteError("unproven"), False),
        (ReplayError("does not fit"), False),
        (ExporterError("too deep"), False),
        (ValueError("a bug"), False),
    ],
    ids=repr,
)
def test_journal_is_kept_after_what_passes(error: BaseException, worth: bool) -> None:
    assert is_worth_resuming(error) is worth
