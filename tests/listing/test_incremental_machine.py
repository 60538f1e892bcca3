"""The promise over many runs: their union is the truth of the list, whatever happened between and
during them.
"""

from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.emulator.churn import Churn, Flow, Order, PageFault
from exporter.listing.bookmark import Bookmark, Watch
from exporter.listing.incremental import IncrementalListing
from exporter.model import ListingFacts
from tests.support.examples import scale_examples
from tests.support.simulation import GATEWAY, NEWEST_MS, Wire, build_list, drive

FLOWS = st.builds(
    Flow,
    per_s=st.sampled_from([0.0, 0.01, 0.1, 1.0, 5.0, 30.0]),
    burst=st.sampled_from([1, 1, 3, 30]),
)
HONEST: dict[str, Any] = {
    "insertions": FLOWS,
    "expiries": FLOWS,
    "deletions": st.sampled_from([Flow(), Flow(), Flow(per_s=0.01), Flow(per_s=1.0)]),
    "order": st.sampled_from([*[Order.NEWEST_FIRST] * 4, *Order]),
    "tie_size": st.sampled_from([1, 1, 1, 2, 9]),
    "keep_count": st.sampled_from([None, None, 0, 5, 50, 200]),
    "run_s": st.sampled_from([None, 1.0, 20.0, 200.0]),
    "page_cap": st.sampled_from([None, None, None, 3, 7]),
    "null_when_empty": st.booleans(),
}
FAULTS = st.builds(
    PageFault,
    missing_count=st.sampled_from([None, 1, 3]),
    rate=st.sampled_from([0.0, 0.05, 0.3]),
    page_nums=st.sampled_from([(), (1,), (2,), (3, 5)]),
    once=st.booleans(),
)
SETTLE_MS = 60_000
MAX_ANSWERS = 1000
"""Where a list grows about as fast as it is read, a run asks for thousands of pages."""
CHURNS = st.one_of(
    st.builds(Churn, **HONEST), st.builds(Churn, page_faults=st.tuples(FAULTS), **HONEST)
)


@settings(max_examples=scale_examples(200), deadline=None)
@given(
    churn=CHURNS,
    session_count=st.sampled_from([0, 1, 9, 10, 11, 60, 200]),
    page_size=st.sampled_from([5, 10, 10, 20, 100]),
    in_flight=st.sampled_from([1, 2, 4, 8]),
    pauses=st.lists(st.sampled_from([0.0, 1.0, 10.0, 100.0]), min_size=2, max_size=6),
    seed=st.integers(0, 2**32),
)
def test_union_of_all_runs_is_the_truth(
    *,
    churn: Churn,
    session_count: int,
    page_size: int,
    in_flight: int,
    pauses: list[float],
    seed: int,
) -> None:
    sessions = build_list(churn, session_count, seed=seed)
    bookmark: Bookmark | None = None
    union: dict[str, dict[str, Any]] = {}
    now_s = 0.0
    for number, pause_s in enumerate(pauses):
        asked_before, began_s = sessions.answer_count, now_s
        watch = Watch(now_ms=NEWEST_MS + round(now_s * 1000), settle_ms=SETTLE_MS)
        listing = IncrementalListing(GATEWAY, bookmark, page_size=page_size, watch=watch)
        wire = Wire(sessions, latency_s=0.04, seed=seed + number, now_s=now_s)
        rows = list(drive(listing, wire, in_flight=in_flight))

        facts = facts_of(listing)
        counts = Counter(row["sessionId"] for row in rows)
        truth = sessions.truth(asked_before + 1)
        assert max(counts.values(), default=1) == 1
        assert facts.session_count == len(rows)
        assert facts.page_count == wire.request_count == listing.asked_count
        assert not truth.foreign(counts)
        union.update((row["sessionId"], row) for row in rows)
        if facts.proof == "unproven":
            assert listing.bookmark is None
        else:
            assert not truth.lost(union)
            began_ms = NEWEST_MS + 1000 * began_s
            for row in sessions.sessions():
                # What had ended by the first answer was read as it is since then.
                if row["sessionId"] in truth.owed and (row.get("endTime") or began_ms) < began_ms:
                    assert union[row["sessionId"]] == row
        if sessions.answer_count > MAX_ANSWERS:
            return
        bookmark = listing.bookmark
        now_s = wire.now_s + pause_s


def facts_of(listing: IncrementalListing) -> ListingFacts:
    assert listing.facts is not None
    return listing.facts
