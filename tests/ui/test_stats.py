"""Claims about counting a run, in simulated time."""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.events import (
    Event,
    GatewaysDiscovered,
    ListingStarted,
    PaceLearnt,
    PageRead,
    RequestEnded,
    RequestStarted,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SessionsWritten,
)
from exporter.model import Gateway
from exporter.ui.stats import RATE_WINDOW_S, RunStats
from tests.support.events import listing_finished

ONE = Gateway("cn-hangzhou", "w-1", "lc-1")
TWO = Gateway("cn-hangzhou", "w-1", "lc-2")

ONE_OF_EACH: list[Event] = [
    RunStarted("r-1", "out.parquet", datetime(2026, 1, 1, tzinfo=UTC)),
    GatewaysDiscovered(1),
    ListingStarted(ONE, total_count=200, page_count=2),
    RequestStarted(in_flight=1),
    RequestEnded("ok", in_flight=0, elapsed_s=0.1),
    RetryScheduled("page 2 of w-1/lc-1", attempt=1, wait_s=0.5, error="Throttling.User"),
    PaceLearnt(40.0),
    PageRead(ONE, page_num=1, session_count=100),
    SessionsWritten(100),
    listing_finished(ONE, 200, "quiescent"),
    RunFinished("out.parquet", "complete", session_count=200, size_bytes=10, elapsed_s=1.0),
]


def stats_of(events: Iterable[Event], *, at_s: float = 0.0) -> RunStats:
    stats = RunStats()
    for event in events:
        stats.apply(event, at_s)
    return stats


def steady(stats: RunStats, *, from_s: float, to_s: float, per_s: int) -> None:
    """One write each tenth of a second."""
    for step in range(round((to_s - from_s) * 10)):
        stats.apply(SessionsWritten(per_s // 10), from_s + (step + 1) / 10)


def test_every_kind_of_event_can_be_counted() -> None:
    stats = stats_of(ONE_OF_EACH)

    assert {type(event) for event in ONE_OF_EACH} == set(get_args(Event))
    assert (stats.run_id, stats.output) == ("r-1", "out.parquet")
    assert (stats.sessions_written, stats.pages_read, stats.retries) == (100, 1, 1)
    assert stats.finished == ONE_OF_EACH[-1]


def test_new_stats_are_empty() -> None:
    stats = RunStats()

    assert stats.fraction is None
    assert stats.rate(100.0) is None
    assert stats.overall_rate(100.0) is None
    assert stats.eta_s(100.0) is None
    assert stats.elapsed_s(100.0) == 0.0


def test_requests_are_counted_by_outcome() -> None:
    stats = stats_of(
        [
            RequestStarted(in_flight=1),
            RequestStarted(in_flight=2),
            RequestStarted(in_flight=3),
            RequestEnded("ok", in_flight=2, elapsed_s=0.1),
            RequestEnded("throttled", in_flight=1, elapsed_s=0.1),
        ]
    )

    assert stats.requests_sent == 3
    assert (stats.requests_ok, stats.requests_throttled, stats.requests_failed) == (1, 1, 0)
    assert stats.in_flight == 1

    stats.apply(RequestEnded("failed", in_flight=0, elapsed_s=0.1), 1.0)

    assert stats.requests_failed == 1
    assert stats.in_flight == 0


def test_expected_counts_are_summed_over_gateways() -> None:
    some = stats_of([GatewaysDiscovered(2), ListingStarted(ONE, 12_000, 120)])
    stats = stats_of(
        [GatewaysDiscovered(2), ListingStarted(ONE, 12_000, 120), ListingStarted(TWO, 8_000, 80)]
    )

    assert not some.has_all_totals
    assert stats.has_all_totals
    assert (stats.sessions_expected, stats.pages_expected) == (20_000, 200)


def test_gateways_without_a_total_are_taken_to_be_average() -> None:
    stats = stats_of([GatewaysDiscovered(4), ListingStarted(ONE, 300, 3)])

    assert stats.sessions_estimated == 1_200

    stats.apply(ListingStarted(TWO, 100, 1), 0.0)

    assert stats.sessions_estimated == 800


def test_a_finished_listing_counts_with_its_real_number() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 100, 1), SessionsWritten(103)])

    ended = listing_finished(ONE, 103, "anchored")
    stats.apply(ended, 1.0)

    assert stats.sessions_expected == 103
    assert stats.gateways[ONE].facts is ended.facts
    assert stats.fraction == 1.0


def test_a_listing_that_finishes_unannounced_is_counted() -> None:
    ended = listing_finished(ONE, 0, "quiescent")
    stats = stats_of([GatewaysDiscovered(1), ended])

    assert stats.is_read
    assert stats.gateways[ONE].facts is ended.facts


def test_fraction_never_passes_one_when_sessions_appear_meanwhile() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 100, 1), SessionsWritten(150)])

    assert stats.fraction == 1.0
    assert not stats.is_read


def test_an_empty_gateway_is_done_when_its_listing_is() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 0, 1)])

    assert stats.fraction == 0.0

    stats.apply(listing_finished(ONE, 0, "quiescent"), 1.0)

    assert stats.fraction == 1.0
    assert stats.eta_s(1.0) == 0.0


def test_rate_waits_for_enough_time() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 1_000, 10)])

    stats.apply(SessionsWritten(100), 0.01)

    assert stats.rate(0.01) is None
    assert stats.rate(1.0) == pytest.approx(100)


def test_rate_follows_the_last_seconds_and_overall_rate_the_whole() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 100_000, 1_000)])

    steady(stats, from_s=0, to_s=50, per_s=1_000)
    steady(stats, from_s=50, to_s=70, per_s=100)

    assert stats.rate(70) == pytest.approx(100, rel=0.02)
    assert stats.overall_rate(70) == pytest.approx(52_000 / 70)


def test_rate_falls_while_nothing_comes() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 100_000, 1_000)])

    steady(stats, from_s=0, to_s=20, per_s=1_000)

    assert stats.rate(20) == pytest.approx(1_000, rel=0.02)
    assert stats.rate(30) == pytest.approx(500, rel=0.05)
    assert stats.rate(10_000) == pytest.approx(1, rel=0.05)


def test_eta_is_unknown_until_something_is_written() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 1_000, 10)])

    assert stats.eta_s(5.0) is None


def test_eta_counts_down_at_a_steady_rate() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 20_000, 200)])

    steady(stats, from_s=0, to_s=5, per_s=1_000)
    eta_early_s = stats.eta_s(5)
    steady(stats, from_s=5, to_s=15, per_s=1_000)
    eta_late_s = stats.eta_s(15)

    assert eta_early_s == pytest.approx(15)
    assert eta_late_s == pytest.approx(5)


def test_eta_includes_gateways_whose_total_is_unknown() -> None:
    stats = stats_of([GatewaysDiscovered(2), ListingStarted(ONE, 10_000, 100)])

    steady(stats, from_s=0, to_s=5, per_s=1_000)

    assert stats.eta_s(5) == pytest.approx(15)


def test_samples_are_bounded_however_many_writes_come() -> None:
    stats = stats_of([GatewaysDiscovered(1), ListingStarted(ONE, 1_000_000, 10_000)])

    for step in range(100_000):
        stats.apply(SessionsWritten(1), step / 1_000)

    assert len(stats._samples) <= RATE_WINDOW_S / 0.25 + 2


@given(
    events=st.lists(
        st.one_of(
            st.builds(SessionsWritten, st.integers(0, 500)),
            st.builds(
                ListingStarted,
                st.builds(Gateway, st.just("r"), st.just("w"), st.text(min_size=1, max_size=3)),
                st.integers(0, 1_000),
                st.integers(0, 10),
            ),
            st.builds(
                listing_finished,
                st.builds(Gateway, st.just("r"), st.just("w"), st.text(min_size=1, max_size=3)),
                st.integers(0, 1_000),
                st.just("anchored"),
            ),
            st.builds(GatewaysDiscovered, st.integers(0, 5)),
        ),
        max_size=40,
    ),
    steps_s=st.lists(st.floats(0, 20), min_size=40, max_size=40),
)
def test_numbers_make_sense_after_any_events(events: list[Event], steps_s: list[float]) -> None:
    stats = RunStats()
    now_s = 0.0

    for event, step_s in zip(events, steps_s, strict=False):
        now_s += step_s
        stats.apply(event, now_s)

        assert stats.fraction is None or 0.0 <= stats.fraction <= 1.0
        assert (stats.rate(now_s) or 0.0) >= 0.0
        assert (stats.eta_s(now_s) or 0.0) >= 0.0
