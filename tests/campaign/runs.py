"""One sequence of incremental runs of the campaign, each run judged."""

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from exporter.emulator.moving_list import MovingSessions
from exporter.listing.bookmark import Bookmark, Watch
from exporter.listing.changes import EMPTY, TURNED_OVER
from exporter.listing.incremental import IncrementalListing
from exporter.runs.state import FullRunNeeded, State, dump_state, read_state
from tests.campaign.listings import Judgement, build_sessions, choose_examples, count_pages
from tests.campaign.sequences import SEQUENCES_BY_NAME, draw_sequence
from tests.campaign.wire import FAULTS_OF_LISTINGS, CampaignWire, Trace, find_max_requests, no_trace
from tests.support.simulation import GATEWAY, NEWEST_MS, drive

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def open_incremental(
    bookmark: Bookmark | None, *, page_size: int, now_s: float
) -> IncrementalListing:
    """`now_s` counts from `NEWEST_MS`."""
    watch = Watch(now_ms=NEWEST_MS + round(now_s * 1000), settle_ms=3_600_000)
    return IncrementalListing(GATEWAY, bookmark, page_size=page_size, watch=watch)


def reload_bookmark(bookmark: Bookmark | None, now_s: float) -> Bookmark | None:
    """The bookmark as the next run reads it from the state file."""
    if bookmark is None:
        return None
    state = State(
        run_id="r",
        exporter_version="1",
        exported_at=EPOCH + timedelta(milliseconds=NEWEST_MS + round(now_s * 1000)),
        region_id=GATEWAY.region_id,
        output="o",
        format_name="parquet",
        gateways={GATEWAY: bookmark},
    )
    text = dump_state(state)
    found = read_state(text, output="o", region_id=GATEWAY.region_id, gateways=[GATEWAY])
    assert not isinstance(found, FullRunNeeded), found.reason
    return found.gateways[GATEWAY]


def judge_sequence(name: str, seed: int, *, trace: Trace = no_trace) -> Iterator[Judgement]:
    """A run that proves nothing publishes nothing: the next one goes on from the one before it."""
    sequence = draw_sequence(SEQUENCES_BY_NAME[name], seed)
    sessions = build_sessions(sequence.case, seed)
    union: dict[str, dict[str, Any]] = {}
    bookmark: Bookmark | None = None
    now_s = 0.0
    for number, pause_s in enumerate((0.0, *sequence.pauses_s)):
        now_s += pause_s
        page_size = sequence.page_sizes[number]
        case = replace(sequence.case, shape=replace(sequence.case.shape, page_size=page_size))
        listing = open_incremental(bookmark, page_size=page_size, now_s=now_s)
        wire = CampaignWire(
            sessions,
            latency_s=case.shape.latency_s,
            straggler_share=case.shape.straggler_share,
            seed=random.Random(f"{seed}/{number}").getrandbits(32),  # noqa: S311 - no secret
            now_s=now_s,
            trace=trace,
        )
        first_answer = sessions.answer_count + 1
        rows: list[dict[str, Any]] = []
        trouble = ""
        max_requests = find_max_requests(case.shape.page_count)
        try:
            rows.extend(
                drive(listing, wire, in_flight=case.shape.in_flight, max_requests=max_requests)
            )
        except FAULTS_OF_LISTINGS as exc:
            trouble = repr(exc)
        facts = listing.facts
        proof = "unproven" if facts is None else facts.proof
        if proof != "unproven":
            union.update((row["sessionId"], row) for row in rows)
            bookmark = reload_bookmark(listing.bookmark, wire.now_s)
        is_full = facts is not None and facts.mode == "full"
        yield judge_run(
            sessions,
            first_answer,
            Counter(row["sessionId"] for row in rows),
            union,
            masks=sequence.masks and not is_full,
            run=Judgement(
                kind=name,
                seed=seed,
                proof=proof,
                request_count=wire.request_count,
                page_count=count_pages(sessions, case, first_answer),
                trouble=trouble,
                fell_back=facts is not None and facts.full_because not in {"", TURNED_OVER, EMPTY},
                because="" if facts is None else facts.full_because or facts.missing,
            ),
        )
        if trouble:
            return
        now_s = wire.now_s


def judge_run(
    sessions: MovingSessions,
    first_answer: int,
    seen: Counter[str],
    union: dict[str, dict[str, Any]],
    *,
    masks: bool,
    run: Judgement,
) -> Judgement:
    truth = sessions.truth(first_answer)
    lost = truth.lost(union)
    stale = [
        session_id
        for session_id, row in sessions.owed_rows(first_answer).items()
        if session_id not in lost and union[session_id] != row
    ]
    return replace(
        run,
        examples=choose_examples([*lost, *stale]),
        lost_count=0 if masks else len(lost),
        unnoticed_count=len(lost) if masks else 0,
        stale_count=len(stale),
        doubled_count=seen.total() - len(seen),
        foreign_count=len(truth.foreign(seen)),
    )
