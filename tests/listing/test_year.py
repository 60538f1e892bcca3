"""A year of hourly runs, in simulated time, over a list that also moves while it is read."""

from collections import Counter
from statistics import fmean
from typing import Any

import pytest

from exporter.emulator.churn import Churn, Flow
from exporter.listing.bookmark import Bookmark, Watch
from exporter.listing.incremental import IncrementalListing
from tests.support.examples import thin_out
from tests.support.simulation import GATEWAY, NEWEST_MS, Wire, build_list, drive

HOUR_S = 3600.0
SESSIONS = 500
CHURNS = {
    "that only grows": Churn(insertions=Flow(per_s=1 / HOUR_S), run_s=1.5 * HOUR_S),
    "with retention": Churn(
        insertions=Flow(per_s=2 / HOUR_S), expiries=Flow(per_s=2 / HOUR_S), run_s=1.5 * HOUR_S
    ),
}


@pytest.mark.parametrize("days", thin_out([20, 365], 2))
@pytest.mark.parametrize("name", CHURNS)
def test_union_of_hourly_runs_is_the_truth(name: str, days: int) -> None:
    sessions = build_list(CHURNS[name], SESSIONS, seed=1, spacing_ms=1_800_000)
    bookmark: Bookmark | None = None
    union: dict[str, dict[str, Any]] = {}
    modes: Counter[str] = Counter()
    costs: list[int] = []
    now_s = 0.0
    for number in range(days * 24):
        watch = Watch(now_ms=NEWEST_MS + round(now_s * 1000), settle_ms=3_600_000)
        listing = IncrementalListing(GATEWAY, bookmark, page_size=100, watch=watch)
        # Ten seconds for each answer: in a year some runs meet a list that moves under them.
        wire = Wire(sessions, latency_s=10.0, seed=number, now_s=now_s)
        rows = list(drive(listing, wire, in_flight=8))
        assert listing.facts is not None
        assert listing.facts.proof != "unproven"
        assert len({row["sessionId"] for row in rows}) == len(rows)
        union.update((row["sessionId"], row) for row in rows)
        modes[listing.facts.mode] += 1
        costs.append(wire.request_count)
        bookmark = listing.bookmark
        now_s = (number + 1) * HOUR_S

    assert sessions.truth(sessions.answer_count).lost(union) == frozenset()
    changing = {each.session_id for each in bookmark.unfinished} if bookmark is not None else set()
    for row in sessions.sessions():
        assert union[row["sessionId"]] == row or row["sessionId"] in changing
    assert modes["full"] <= 10
    # Page 1 has all that is new or unfinished; where any have gone, one more near the end.
    assert fmean(costs[1:]) < 2.1
