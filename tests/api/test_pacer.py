import math
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.api.pacer import (
    FIRST_CUT,
    FIRST_IN_FLIGHT,
    FIRST_RPS,
    MAX_HINT_S,
    MAX_WALL_REST_S,
    REST_REQUESTS,
    TIMER_LATE_S,
    Pacer,
)
from exporter.api.rates import (
    CONTEST_DECREASE,
    MAX_CUT,
    MAX_UNCERTAINTY,
    MIN_CONTEST_RPS,
    MIN_RPS,
    MIN_UNCERTAINTY,
    Climb,
    Contest,
)
from exporter.emulator.quota import Hint, Quota, QuotaKind, RateChange
from tests.support.examples import scale_examples
from tests.support.pacing_simulation import LATENCIES, Exporter, Simulation, build_exporter

SEEDS = range(7)

quotas = st.builds(
    Quota,
    rate_per_s=st.floats(8.0, 250.0),
    burst=st.integers(3, 60),
    kind=st.sampled_from(get_args(QuotaKind)),
    hint=st.sampled_from(["none", "x-acs-retry-after"]),
    hint_ms=st.sampled_from([None, 1, 500]),
    refusal_latency_s=st.sampled_from([None, 0.0]),
)
latencies = st.floats(0.005, 0.1)
seeds = st.integers(0, 1000)


def build_climbing_pacer() -> Pacer:
    """A pacer that met a quota and has nothing in flight."""
    pacer = Pacer(max_in_flight=32, max_rps=None)
    for ticket in [pacer.send(0.0) for _ in range(FIRST_IN_FLIGHT)]:
        pacer.end(0.1, ticket, throttled=True, retry_after_s=None)
    return pacer


def measure_second_half(exporter: Exporter, rate_per_s: float) -> tuple[float, float]:
    """The used share of the quota, and the refused share of the requests."""
    answers = sorted(exporter.granted_s)
    from_s, to_s = answers[len(answers) // 2], answers[-1]
    granted = exporter.count_granted(from_s, to_s)
    refused = exporter.count_refused(from_s, to_s)
    return granted / (to_s - from_s) / rate_per_s, refused / (granted + refused)


@given(
    quota=quotas,
    latency_s=latencies,
    jitter_s=st.floats(0.0, 0.05),
    seed=seeds,
    max_in_flight=st.integers(1, 40),
    max_rps=st.none() | st.floats(2.0, 200.0),
)
@settings(deadline=None, max_examples=scale_examples(60))
def test_neither_limit_is_passed_and_every_page_is_served(
    *,
    quota: Quota,
    latency_s: float,
    jitter_s: float,
    seed: int,
    max_in_flight: int,
    max_rps: float | None,
) -> None:
    exporter = build_exporter(150, max_in_flight=max_in_flight, max_rps=max_rps)
    simulation = Simulation(quota, latency_s=latency_s, jitter_s=jitter_s, seed=seed)

    simulation.run(exporter, until_s=300.0)

    assert len(exporter.granted_s) == 150
    assert exporter.pacer.in_flight == 0
    assert exporter.max_in_flight <= max_in_flight
    if max_rps is not None:
        sent = exporter.sent_s
        for first in range(len(sent)):
            for last in range(first + 1, min(first + 30, len(sent))):
                allowed = (sent[last] - sent[first] + TIMER_LATE_S) * max_rps + 1
                assert last - first <= allowed + 1e-6


@given(
    rate_per_s=st.floats(8.0, 250.0),
    burst=st.integers(5, 60),
    latency_s=latencies,
    seed=seeds,
)
@settings(deadline=None, max_examples=scale_examples(60))
def test_a_token_bucket_of_any_size_is_found_and_nearly_used_up(
    rate_per_s: float, burst: int, latency_s: float, seed: int
) -> None:
    exporter = build_exporter(int(1000 + 10 * rate_per_s), max_in_flight=64)
    simulation = Simulation(
        Quota(rate_per_s=rate_per_s, burst=burst),
        latency_s=latency_s,
        jitter_s=latency_s / 3,
        seed=seed,
    )

    simulation.run(exporter)

    used, refused = measure_second_half(exporter, rate_per_s)
    assert used >= 0.95
    assert refused <= 0.025
    assert exporter.pacer.learnt_rps == pytest.approx(rate_per_s, rel=0.06)


@pytest.mark.parametrize("hint", ["none", "x-acs-retry-after"])
@pytest.mark.parametrize(("latency_s", "jitter_s"), LATENCIES)
@pytest.mark.parametrize(
    ("quota", "page_count", "min_used", "max_refused"),
    [
        (Quota(rate_per_s=40, burst=5), 600, 0.97, 0.014),
        (Quota(rate_per_s=10, burst=5), 600, 0.97, 0.014),
        (Quota(rate_per_s=25, burst=25), 600, 0.97, 0.014),
        (Quota(rate_per_s=200, burst=20), 3000, 0.97, 0.014),
        # A window saves no permits, and no refusal shows its edge.
        (Quota(rate_per_s=40, kind="fixed-window"), 600, 0.95, 0.02),
    ],
)
def test_steady_state_uses_the_quota_and_is_hardly_ever_refused(
    *,
    quota: Quota,
    page_count: int,
    min_used: float,
    max_refused: float,
    latency_s: float,
    jitter_s: float,
    hint: Hint,
) -> None:
    quota = replace(quota, hint=hint)
    measured = []

    for seed in SEEDS:
        exporter = build_exporter(page_count)
        Simulation(quota, latency_s=latency_s, jitter_s=jitter_s, seed=seed).run(exporter)
        measured.append(measure_second_half(exporter, quota.rate_per_s))

    assert median(used for used, _ in measured) >= min_used
    assert median(refused for _, refused in measured) <= max_refused


@pytest.mark.parametrize("hint_ms", [None, 500])
@pytest.mark.parametrize("refusal_latency_s", [None, 0.0])
def test_200_pages_through_a_deep_bucket_take_a_tenth_longer_than_they_must(
    hint_ms: int | None, refusal_latency_s: float | None
) -> None:
    quota = Quota(
        rate_per_s=50.0,
        burst=50,
        hint="none" if hint_ms is None else "x-acs-retry-after",
        hint_ms=hint_ms,
        refusal_latency_s=refusal_latency_s,
    )
    took_s, refused = [], []

    for seed in SEEDS:
        exporter = build_exporter(201)
        Simulation(quota, latency_s=0.01, jitter_s=0.003, seed=seed).run(exporter)
        took_s.append(exporter.granted_s[-1])
        refused.append(len(exporter.refused_s))

    assert median(took_s) <= 3.3
    assert median(refused) <= 5
    assert max(refused) <= 7


@pytest.mark.parametrize(("latency_s", "jitter_s"), LATENCIES)
@pytest.mark.parametrize("rate_per_s", [20.0, 80.0])
def test_a_halved_or_doubled_quota_is_used_again_within_10_s(
    rate_per_s: float, latency_s: float, jitter_s: float
) -> None:
    quota = Quota(rate_per_s=40.0, burst=5, changes=(RateChange(rate_per_s=rate_per_s, at_s=10.0),))

    for seed in SEEDS:
        exporter = build_exporter(3000)
        Simulation(quota, latency_s=latency_s, jitter_s=jitter_s, seed=seed).run(
            exporter, until_s=30.0
        )

        granted = exporter.count_granted(20.0, 30.0)
        assert granted / 10.0 / rate_per_s >= 0.93
        refused = exporter.count_refused(20.0, 30.0)
        assert refused / (granted + refused) <= 0.02


def test_without_a_quota_no_request_waits_for_a_rate() -> None:
    exporter = build_exporter(1000, max_in_flight=20)
    simulation = Simulation(None, latency_s=0.06)

    simulation.run(exporter)

    # Three at first, as the latency is unknown, then twenty.
    assert simulation.now_s == pytest.approx(0.06 * (1 + math.ceil(997 / 20)), rel=0.001)
    assert exporter.pacer.rate_rps is None
    assert exporter.pacer.learnt_rps is None


def test_a_fast_service_is_asked_by_all_that_may_be_in_flight_after_a_second() -> None:
    exporter = build_exporter(10_000, max_in_flight=32)

    Simulation(None, latency_s=0.01).run(exporter, until_s=1.05)

    assert exporter.pacer.in_flight == 32


def test_in_flight_does_not_grow_while_the_run_itself_is_the_limit() -> None:
    pacer = Pacer(max_in_flight=32, max_rps=None)

    for second in range(100):
        pacer.end(second + 0.01, pacer.send(second), throttled=False, retry_after_s=None)

    allowed = 0
    while pacer.wait_s(100.0) == 0.0:
        pacer.send(100.0)
        allowed += 1
    assert allowed == FIRST_IN_FLIGHT


def test_the_rate_does_not_climb_while_the_run_itself_is_the_limit() -> None:
    pacer = build_climbing_pacer()
    rate_rps = pacer.rate_rps

    for second in range(1, 100):
        assert pacer.wait_s(second) == 0.0
        pacer.end(second + 0.01, pacer.send(second), throttled=False, retry_after_s=None)

    assert pacer.rate_rps == rate_rps


def test_a_burst_of_refusals_cuts_once() -> None:
    pacers = [build_climbing_pacer() for _ in range(2)]
    for pacer, refused_count in zip(pacers, (1, 8), strict=True):
        tickets = [pacer.send(1.0 + number / 10) for number in range(20)]
        for ticket in tickets[:12]:
            pacer.end(3.0, ticket, throttled=False, retry_after_s=None)

        for ticket in tickets[12 : 12 + refused_count]:
            pacer.end(3.0, ticket, throttled=True, retry_after_s=None)

    assert pacers[0].learnt_rps == pacers[1].learnt_rps
    assert pacers[0].rate_rps == pacers[1].rate_rps


def test_refusals_at_a_wall_wait_longer_and_teach_nothing() -> None:
    pacer = build_climbing_pacer()
    learnt_rps, now_s, waits_s = pacer.learnt_rps, 0.1, []

    for _ in range(30):
        now_s += pacer.wait_s(now_s)
        ticket = pacer.send(now_s)
        pacer.end(now_s, ticket, throttled=True, retry_after_s=None)
        waits_s.append(pacer.wait_s(now_s))

    assert pacer.learnt_rps == learnt_rps
    assert all(later >= 0.9 * sooner for sooner, later in pairwise(waits_s))
    assert waits_s[-1] <= MAX_WALL_REST_S
    assert now_s > 1.0


@given(hint_s=st.floats(-10.0, 1e300), refused_count=st.integers(1, 8))
def test_a_wait_that_is_asked_for_stops_everybody(hint_s: float, refused_count: int) -> None:
    pacer = Pacer(max_in_flight=8, max_rps=None)
    first = pacer.send(0.0)
    pacer.end(0.1, first, throttled=False, retry_after_s=None)
    tickets = [pacer.send(0.1) for _ in range(refused_count)]

    for ticket in tickets:
        pacer.end(0.2, ticket, throttled=True, retry_after_s=hint_s)

    rest_s = REST_REQUESTS / (FIRST_RPS / FIRST_CUT)
    assert pacer.wait_s(0.2) >= min(hint_s, MAX_HINT_S) - 1e-9
    assert pacer.wait_s(0.2) <= max(rest_s, min(hint_s, MAX_HINT_S)) + 1e-9


def test_permits_left_by_a_needlessly_long_wait_are_caught_up() -> None:
    quota = Quota(rate_per_s=50.0, burst=50, hint="x-acs-retry-after", hint_ms=500)
    exporter = build_exporter(1000)

    Simulation(quota, latency_s=0.01).run(exporter)

    used, _ = measure_second_half(exporter, 50.0)
    assert used >= 0.97


climbs = st.builds(
    Climb,
    quota_rps=st.floats(MIN_RPS, 1000.0),
    uncertainty=st.floats(MIN_UNCERTAINTY, MAX_UNCERTAINTY),
    window_s=st.sampled_from([0.0, 10.0, 60.0]),
)


@given(climb=climbs, epochs=st.floats(0.0, 20.0), low_share=st.floats(0.0, 2.0))
def test_next_climb_starts_below_the_rate_that_was_refused(
    climb: Climb, epochs: float, low_share: float
) -> None:
    held_s = epochs * climb.epoch_s
    high_rps = climb.compute_rps(held_s)

    following = climb.cut(held_s, low_rps=low_share * high_rps)

    assert MIN_RPS <= following.quota_rps <= max(MIN_RPS, high_rps * (1 + 1e-9))
    assert following.quota_rps >= high_rps / MAX_CUT * (1 - 1e-9)
    assert MIN_UNCERTAINTY <= following.uncertainty <= MAX_UNCERTAINTY
    assert following.window_s == climb.window_s
    assert following.compute_rps(0.0) < high_rps or following.quota_rps == MIN_RPS


@given(climb=climbs, held_s=st.lists(st.floats(0.0, 1e6), min_size=2, max_size=9))
def test_climb_crosses_the_quota_after_one_epoch_and_never_falls(
    climb: Climb, held_s: list[float]
) -> None:
    rates_rps = [climb.compute_rps(each) for each in sorted(held_s)]

    assert climb.compute_rps(0.0) == pytest.approx((1 - climb.uncertainty) * climb.quota_rps)
    assert climb.compute_rps(climb.epoch_s) == pytest.approx(climb.quota_rps)
    assert all(sooner <= later for sooner, later in pairwise(rates_rps))


@given(start_rps=st.floats(MIN_CONTEST_RPS, 1000.0), held_s=st.floats(0.0, 1e6))
def test_contestants_grow_and_give_way_by_the_same_share_whatever_their_rates(
    start_rps: float, held_s: float
) -> None:
    contest, other = Contest(start_rps), Contest(10.0)

    growth = contest.compute_rps(held_s) / start_rps
    cut = contest.cut(held_s)

    assert growth == pytest.approx(other.compute_rps(held_s) / 10.0)
    assert growth >= 1.0
    assert cut.start_rps == pytest.approx(
        max(MIN_CONTEST_RPS, (1 - CONTEST_DECREASE) * growth * start_rps)
    )
