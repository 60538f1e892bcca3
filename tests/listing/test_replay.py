"""Killed at any answer, and resumed from what was on disk at that instant."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.emulator.churn import Churn, Flow, Order
from exporter.errors import ReplayError
from exporter.events import Event, ListingFinished, ListingStarted, PageRead
from exporter.journal.journal import MAX_LOST, Journal
from exporter.listing.fetch import fetch_sessions
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.listing.replay import RecordedAnswer, Replay
from exporter.listing.schedule import MIN_WINDOW
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage
from tests.support.examples import scale_examples, thin_out
from tests.support.patience import HANG_S
from tests.support.simulation import GATEWAY, ChurningFetch, build_list

STARTED_AT = datetime(2026, 7, 1, 12, tzinfo=UTC)


class KilledError(BaseException):
    """The process is gone."""


@dataclass
class Reading:
    """One process: what it took in, what it handed on, and what it said."""

    kill_at: int | None = None
    """The answer that is not taken in any more, from 1."""
    disk: bytes = b""
    """The journal at the kill."""
    noted_count: int = 0
    facts: Sequence[ListingFacts] = ()
    rows: list[tuple[Gateway, str]] = field(default_factory=list)
    max_held: int = 0
    events: list[Event] = field(default_factory=list)

    @property
    def is_killed(self) -> bool:
        return not self.facts


@dataclass
class Bench:
    """Lists behind a network, and the place of a journal, which outlive processes."""

    fetch: ChurningFetch
    gateways: Sequence[Gateway]
    path: Path
    page_size: int = 10
    concurrency: int = 8

    def read(self, *, kill_at: int | None = None, page_size: int | None = None) -> Reading:
        reading = Reading(kill_at)
        listings = [
            FullListing(gateway, page_size=page_size or self.page_size) for gateway in self.gateways
        ]
        journal = Journal(
            self.path,
            identity={},
            gateways=self.gateways,
            run_id="r-1",
            started_at=STARTED_AT,
            resume_within_s=24 * 3600,
            utc_now=lambda: STARTED_AT + timedelta(seconds=self.fetch.now_s),
            now_s=lambda: self.fetch.now_s,
        )

        def view(request: PageRequest, page: SessionPage) -> SessionPage:
            if reading.noted_count + 1 == kill_at:
                reading.disk = self.path.read_bytes()
                raise KilledError
            reading.noted_count += 1
            return page

        async def on_rows(gateway: Gateway, sessions: list[RawSession]) -> None:
            held = sum(listing.held_count for listing in listings)
            reading.max_held = max(reading.max_held, held)
            reading.rows += [(gateway, session["sessionId"]) for session in sessions]
            await anyio.lowlevel.checkpoint()

        async def run() -> Sequence[ListingFacts]:
            with anyio.fail_after(HANG_S):
                return await fetch_sessions(
                    listings,
                    fetch_page=self.fetch,
                    on_rows=on_rows,
                    page_size=self.page_size,
                    concurrency=self.concurrency,
                    emit=reading.events.append,
                    view=view,
                    journal=journal,
                    sleep=lambda _: anyio.lowlevel.checkpoint(),
                )

        try:
            reading.facts = anyio.run(run)
        except (KilledError, BaseExceptionGroup) as exc:
            killed = exc if isinstance(exc, KilledError) else exc.exceptions[0]
            if not isinstance(killed, KilledError):
                raise
            # Whatever our own clean-up wrote after that instant never was.
            journal.remove()
            self.path.write_bytes(reading.disk)
        else:
            journal.remove()
        return reading


def build_bench(folder: Path, *counts: int, churn: Churn | None = None, seed: int = 0) -> Bench:
    gateways = [replace(GATEWAY, gateway_id=f"lc-{place}") for place in range(len(counts))]
    lists = {
        gateway: build_list(churn or Churn(), count, seed=seed)
        for gateway, count in zip(gateways, counts, strict=True)
    }
    fetch = ChurningFetch(lists, latency_s=0.04, seed=seed)
    return Bench(fetch, gateways, folder / "journal")


FLOWS = st.builds(Flow, per_s=st.sampled_from([0.0, 5.0, 50.0]), burst=st.sampled_from([1, 5]))
CHURNS = st.builds(
    Churn,
    insertions=FLOWS,
    expiries=FLOWS,
    deletions=FLOWS,
    order=st.sampled_from([Order.NEWEST_FIRST, Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
    tie_size=st.sampled_from([1, 1, 4]),
)


@dataclass(frozen=True)
class Fate:
    count: int
    kills: list[float]
    """Pages that each process reads before it is killed, as a share of all."""
    pause_s: float
    concurrency: int
    seed: int


FATES = st.builds(
    Fate,
    count=st.sampled_from([0, 5, 60, 400, 1500]),
    kills=st.lists(st.floats(0, 0.99), min_size=1, max_size=3),
    pause_s=st.sampled_from([0.0, 1.0, 20.0]),
    concurrency=st.sampled_from([1, 4, 16]),
    seed=st.integers(0, 2**32),
)


@settings(max_examples=scale_examples(150), deadline=None)
@given(churn=CHURNS, fate=FATES)
def test_killed_run_is_resumed_with_every_session_once(churn: Churn, fate: Fate) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = build_bench(Path(folder), fate.count, churn=churn, seed=fate.seed)
        bench.concurrency = fate.concurrency
        reading = None
        for share in fate.kills:
            # Maybe while it still takes in what is recorded.
            reading = bench.read(kill_at=1 + int(share * (fate.count / 10 + 5)))
            if not reading.is_killed:
                break
            bench.fetch.now_s += fate.pause_s
        if reading is None or reading.is_killed:
            reading = bench.read()

        seen = Counter(session_id for _, session_id in reading.rows)
        truth = bench.fetch.lists[bench.gateways[0]].truth()
        assert max(seen.values(), default=1) == 1
        assert not truth.foreign(seen)
        if reading.facts[0].proof != "unproven":
            assert not truth.lost(seen)
        assert reading.facts[0].session_count == len(seen)


KINDS = {
    "insertions": Churn(insertions=Flow(per_s=20)),
    "retention": Churn(insertions=Flow(per_s=20), expiries=Flow(per_s=20)),
    "deletions": Churn(insertions=Flow(per_s=10), deletions=Flow(per_s=5)),
    # How much of the journal a kill leaves depends on threads, and with that which requests follow:
    # a list of ties that moves faster is unproven after some of them.
    "ties": Churn(tie_size=9, insertions=Flow(per_s=5)),
    "oldest first": Churn(order=Order.OLDEST_FIRST, insertions=Flow(per_s=20)),
}


@pytest.mark.parametrize("churn", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("pause_s", thin_out([20.0, 0.0], 2))
def test_list_that_moved_meanwhile_is_proven_after_the_resume(
    tmp_path: Path, churn: Churn, pause_s: float
) -> None:
    for seed in range(3):
        bench = build_bench(tmp_path, 5_000, churn=churn, seed=seed)
        bench.page_size = 100
        killed = bench.read(kill_at=25)
        bench.fetch.now_s += pause_s
        reading = bench.read()

        assert killed.is_killed
        assert reading.facts[0].proof != "unproven"
        truth = bench.fetch.lists[bench.gateways[0]].truth()
        assert not truth.lost(session_id for _, session_id in reading.rows)


@settings(max_examples=scale_examples(60), deadline=None)
@given(
    counts=st.lists(st.sampled_from([0, 1, 10, 95, 800]), min_size=1, max_size=4),
    share=st.floats(0, 1),
    concurrency=st.sampled_from([1, 8, 32]),
    seed=st.integers(0, 2**32),
)
def test_resumed_run_reports_and_delivers_the_same_as_one_without_a_kill(
    counts: list[int], share: float, concurrency: int, seed: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = build_bench(Path(folder), *counts, seed=seed)
        bench.concurrency = concurrency
        whole = bench.read()
        request_count = len(bench.fetch.requests)
        killed = bench.read(kill_at=1 + int(share * (whole.noted_count - 1)))
        bench.fetch.requests.clear()

        resumed = bench.read()

        assert killed.is_killed
        assert resumed.rows == whole.rows
        assert resumed.facts == whole.facts
        again = len(bench.fetch.requests) + killed.noted_count - request_count
        assert again <= max(1, MAX_LOST * killed.noted_count)


def test_resumed_run_asks_for_the_rest_only(tmp_path: Path) -> None:
    bench = build_bench(tmp_path, 10_000)
    bench.page_size, bench.concurrency = 50, 16
    bench.read(kill_at=101)
    bench.fetch.requests.clear()

    resumed = bench.read()

    # 200 pages, the one behind the last full one, and the sentinel's; 100 were answered.
    assert resumed.noted_count == 202
    assert len(bench.fetch.requests) <= 102 + 5


def test_replayed_pages_are_reported_as_resumed_once(tmp_path: Path) -> None:
    bench = build_bench(tmp_path, 300, 50)
    killed = bench.read(kill_at=33)
    resumed = bench.read()

    read = [event for event in resumed.events if isinstance(event, PageRead)]
    started = [event.gateway for event in resumed.events if isinstance(event, ListingStarted)]
    finished = [event.gateway for event in resumed.events if isinstance(event, ListingFinished)]
    replayed = [event for event in read if event.resumed]
    assert read[: len(replayed)] == replayed
    assert 0 < len(replayed) <= killed.noted_count == 32
    assert [replace(event, resumed=False) for event in replayed] == [
        event for event in killed.events if isinstance(event, PageRead)
    ][: len(replayed)]
    assert sorted(started) == sorted(finished) == bench.gateways


def test_replay_holds_no_more_than_the_window(tmp_path: Path) -> None:
    bench = build_bench(tmp_path, 20_000, 3_000)
    bench.read(kill_at=2_250)

    resumed = bench.read()

    assert len(resumed.rows) == 23_000
    assert resumed.max_held <= 2 * MIN_WINDOW + bench.concurrency


def test_listing_that_asks_for_something_else_is_refused(tmp_path: Path) -> None:
    bench = build_bench(tmp_path, 300)
    bench.read(kill_at=20)

    with pytest.raises(ReplayError, match="answers page 1 of w-1/lc-0 as request 1"):
        bench.read(page_size=20)


def test_answer_without_a_request_is_refused() -> None:
    request = PageRequest(GATEWAY, 1, 10, 1, "sweep")
    elsewhere = replace(GATEWAY, gateway_id="lc-9")
    replay = Replay([FullListing(GATEWAY, page_size=10)])

    with pytest.raises(ReplayError, match="lc-9, which is not read"):
        replay.advance(RecordedAnswer(replace(request, gateway=elsewhere), 1, b""))
    with pytest.raises(ReplayError, match="where nothing is asked for"):
        replay.advance(RecordedAnswer(request, 5, b""))
    with pytest.raises(ReplayError, match="where nothing is asked for"):
        replay.advance(RecordedAnswer(replace(request, number=2), 1, b""))
