"""Full listings of lists that mislead: what is proven is complete, and a listing that can be proven
costs about its pages.
"""

from collections.abc import Mapping

import pytest

from exporter.emulator.churn import (
    Churn,
    Cleanup,
    DoubledRow,
    Flow,
    LateShow,
    Order,
    OrderBy,
    PageFault,
    Place,
    TimeForm,
    Timeless,
)
from exporter.model import ALL_TIME, TimeRange
from tests.support.simulation import NEWEST_MS, Outcome, build_list, read_in_full

SESSIONS = 3_000
PAGES = 30
SPACING_MS = 60_000
GROWS = Flow(per_s=20)
SEEDS = range(1, 6)

PROVEN: Mapping[str, Churn] = {
    "total capped at a multiple of the page size": Churn(total_cap=2_000),
    "total capped while sessions come": Churn(total_cap=1_000, insertions=GROWS),
    "total that lags at a multiple of the page size": Churn(
        total_lag_s=1.0, insertions=Flow(per_s=100, burst=100)
    ),
    "total cached for a minute": Churn(total_cache_s=60.0, insertions=GROWS, expiries=GROWS),
    "second looks at page 1 that are empty": Churn(
        insertions=GROWS,
        deletions=Flow(per_s=5),
        page_faults=(PageFault(page_nums=(1,), once=True, zero_total=True),),
    ),
    "one answer that says empty": Churn(
        insertions=GROWS, page_faults=(PageFault(answers=(1,), zero_total=True),)
    ),
    "a row that hides its neighbour": Churn(doubled_rows=(DoubledRow(rate=0.05),)),
    "one session in a hundred without a time": Churn(
        timeless=Timeless(share=0.01, form=TimeForm.MIXED), insertions=GROWS, expiries=GROWS
    ),
    "times as text": Churn(
        timeless=Timeless(share=1.0, form=TimeForm.TEXT), insertions=GROWS, expiries=GROWS
    ),
    "by update time": Churn(
        order_by=OrderBy.UPDATE,
        touches=Flow(per_s=5),
        insertions=Flow(per_s=5),
        run_s=60.0,
        max_run_s=3_600.0,
    ),
    "by end time": Churn(
        order_by=OrderBy.END, run_s=60.0, max_run_s=3_600.0, insertions=Flow(per_s=10)
    ),
    "times rounded to a minute and a half of a page's rows": Churn(
        time_step_ms=50 * SPACING_MS, insertions=GROWS, expiries=GROWS
    ),
    "times that a page and a half share": Churn(
        time_step_ms=150 * SPACING_MS, insertions=GROWS, expiries=GROWS
    ),
    "a cleanup of many rows at the end": Churn(
        insertions=GROWS, cleanups=(Cleanup(at_s=0.1, count=900, place=Place.END),)
    ),
    "a cleanup of many rows at the head": Churn(
        cleanups=(Cleanup(at_s=0.1, count=300, place=Place.HEAD),)
    ),
    "two copies, one behind": Churn(
        replicas=(0.0, 3.0), insertions=Flow(per_s=5), expiries=Flow(per_s=5)
    ),
    "sessions that are shown late": Churn(insertions=GROWS, late=LateShow(share=0.3, lag_s=2.0)),
    "oldest first, and the oldest expire": Churn(
        order=Order.OLDEST_FIRST, insertions=GROWS, expiries=Flow(per_s=800)
    ),
}


def read(
    churn: Churn, seed: int, *, in_flight: int = 8, time_range: TimeRange = ALL_TIME
) -> Outcome:
    return read_in_full(
        build_list(churn, SESSIONS, seed=seed),
        in_flight=in_flight,
        latency_s=0.04,
        seed=seed,
        time_range=time_range,
    )


@pytest.mark.parametrize("churn", PROVEN.values(), ids=PROVEN)
def test_list_that_misleads_is_complete_and_proven(churn: Churn) -> None:
    for seed in SEEDS:
        outcome = read(churn, seed)

        assert outcome.facts is not None
        assert outcome.lost_count == outcome.doubled_count == outcome.foreign_count == 0
        assert outcome.facts.proof != "unproven", outcome.facts.missing
        assert outcome.request_count <= 4 * PAGES


@pytest.mark.parametrize("session_count", [1_000, 3_000])
def test_total_of_two_thirds_costs_a_look_behind_the_end(session_count: int) -> None:
    churn = Churn(total_cap=session_count * 2 // 3 // 100 * 100)
    sessions = build_list(churn, session_count, seed=1)

    outcome = read_in_full(sessions, in_flight=8, latency_s=0.04, seed=1)

    assert outcome.lost_count == 0
    assert outcome.request_count <= session_count / 100 * 1.5 + 4


@pytest.mark.parametrize("depth", [1_000, 1_234, 2_900])
def test_depth_proves_nothing_and_is_reported_within_one_and_a_half_times_the_pages(
    depth: int,
) -> None:
    for seed in SEEDS:
        outcome = read(Churn(depth=depth), seed)

        assert outcome.facts is not None
        assert outcome.facts.proof == "unproven"
        assert (
            outcome.facts.missing == f"the service shows no more than {depth:,} sessions of 3,000"
        )
        assert outcome.request_count <= 1.5 * PAGES


@pytest.mark.parametrize("order_by", [OrderBy.END, OrderBy.UPDATE])
def test_single_old_rows_end_no_range(order_by: OrderBy) -> None:
    churn = Churn(order_by=order_by, run_s=600.0, max_run_s=86_400.0)
    time_range = TimeRange(NEWEST_MS - 1_000 * SPACING_MS)

    for seed in SEEDS:
        outcome = read(churn, seed, time_range=time_range)

        assert outcome.facts is not None
        assert outcome.facts.proof == "unproven" or outcome.lost_count == 0


def test_sessions_that_end_move_past_the_reader_and_join_nothing() -> None:
    churn = Churn(
        order_by=OrderBy.END,
        order=Order.OLDEST_FIRST,
        running_last=True,
        insertions=Flow(per_s=0.7),
        expiries=Flow(per_s=0.7),
        run_s=3.77,
        max_run_s=8.81,
    )

    for seed in (0, 4, 7, 12):
        sessions = build_list(churn, 881, seed=seed, spacing_ms=100)
        outcome = read_in_full(sessions, in_flight=1, latency_s=0.4, seed=seed, page_size=20)

        assert outcome.facts is not None
        assert outcome.facts.proof == "unproven" or outcome.lost_count == 0


def test_many_sessions_that_are_touched_at_once_join_nothing() -> None:
    churn = Churn(
        order_by=OrderBy.UPDATE,
        insertions=Flow(per_s=0.4),
        touches=Flow(per_s=4, burst=200),
        run_s=30.0,
        max_run_s=300.0,
    )

    for seed in (0, 3, 4):
        sessions = build_list(churn, 943, seed=seed, spacing_ms=1_000)
        outcome = read_in_full(sessions, in_flight=16, latency_s=0.4, seed=seed, page_size=20)

        assert outcome.facts is not None
        assert outcome.facts.proof == "unproven" or outcome.lost_count == 0


def test_shuffled_ties_of_a_small_list_prove_nothing_by_chance() -> None:
    for seed in range(60):
        sessions = build_list(Churn(tie_size=9, page_cap=3), 9, seed=seed)
        outcome = read_in_full(sessions, in_flight=4, latency_s=0.04, seed=seed, page_size=10)

        assert outcome.facts is not None
        assert outcome.facts.proof == "unproven" or outcome.lost_count == 0
