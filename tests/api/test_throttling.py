"""The promises about long throttling, for a few seeds; the benchmarks `windows`, `recovery` and
`sharing` measure the same for many.
"""

from itertools import pairwise
from statistics import median

import pytest

from exporter.api.pacer import MAX_HINT_S
from exporter.emulator.quota import Quota, QuotaKind
from tests.support.pacing_simulation import (
    Others,
    build_exporter,
    build_simulation,
    measure_recovery_s,
    measure_sharing,
    measure_windows,
)

SEEDS = range(4)

BUCKET = Quota(rate_per_s=40, burst=5)
SMALL_BUCKET = Quota(rate_per_s=10, burst=5)
EVERY_SECOND = Quota(rate_per_s=40, kind="fixed-window")


@pytest.mark.parametrize("kind", ["fixed-window", "sliding-window"])
@pytest.mark.parametrize(
    ("count", "window_s"), [(30, 10), (100, 10), (400, 10), (60, 60), (300, 60), (1000, 60)]
)
def test_window_of_many_seconds_is_learnt_within_two(
    count: int, window_s: float, kind: QuotaKind
) -> None:
    quota = Quota(rate_per_s=count / window_s, kind=kind, window_s=window_s)

    used, refused = zip(*[measure_windows(quota, seed=seed) for seed in SEEDS], strict=True)

    assert median(used) >= 0.9
    assert median(refused) <= 0.05


@pytest.mark.parametrize("quota", [BUCKET, SMALL_BUCKET, EVERY_SECOND])
def test_quota_that_was_taken_away_for_a_minute_is_used_again_within_half_a_minute(
    quota: Quota,
) -> None:
    assert max(measure_recovery_s(quota, seed=seed, left_rps=0) for seed in SEEDS) <= 30


@pytest.mark.parametrize("share", [0.5, 1.5])
@pytest.mark.parametrize("quota", [BUCKET, SMALL_BUCKET, EVERY_SECOND])
def test_quota_that_others_asked_for_is_used_within_half_a_minute_of_their_end(
    quota: Quota, share: float
) -> None:
    others_rps = share * quota.rate_per_s

    took_s = [measure_recovery_s(quota, seed=seed, others_rps=others_rps) for seed in SEEDS]

    assert max(took_s) <= 30


@pytest.mark.parametrize("apart_s", [0.0, 13.0])
@pytest.mark.parametrize("exporter_count", [2, 3, 4])
@pytest.mark.parametrize("quota", [BUCKET, EVERY_SECOND])
def test_exporters_that_share_a_quota_use_it_up_and_none_is_starved(
    quota: Quota, exporter_count: int, apart_s: float
) -> None:
    measured = [
        measure_sharing(quota, exporter_count=exporter_count, apart_s=apart_s, seed=seed)
        for seed in SEEDS
    ]

    assert min(each.used for each in measured) >= 0.95
    assert min(each.min_share for each in measured) >= 0.6
    # One in twenty may have bad luck.
    assert sum(each.starved_from_s < float("inf") for each in measured) <= 1


@pytest.mark.parametrize("rate_per_s", [0.2, 0.5])
@pytest.mark.parametrize("hint", ["none", "retry-after"])
def test_quota_of_less_than_one_a_second_is_used_without_asking_all_the_time(
    rate_per_s: float, hint: str
) -> None:
    quota = Quota(rate_per_s=rate_per_s, burst=3, hint="none" if hint == "none" else "retry-after")
    exporter = build_exporter()

    build_simulation(quota, seed=1).run(exporter, until_s=1000)

    granted_count = exporter.count_granted(500, 1000)
    assert granted_count >= 0.9 * 500 * rate_per_s
    assert exporter.count_refused(500, 1000) <= granted_count / 2
    # One every two seconds until the quota is found.
    assert exporter.count_refused(0, 500) <= 250


def test_small_quota_is_shared_in_the_long_run() -> None:
    measured = [
        measure_sharing(
            Quota(rate_per_s=1, burst=2), exporter_count=3, apart_s=0, seed=seed, lasts_s=600
        )
        for seed in SEEDS
    ]

    assert min(each.used for each in measured) >= 0.9
    assert median(each.min_share for each in measured) >= 0.6


def test_quota_that_is_used_up_by_others_is_asked_about_every_few_seconds() -> None:
    exporter = build_exporter()
    others = [Others(400.0, 20.0, 320.0)]

    build_simulation(BUCKET, seed=3, others=others).run(exporter, until_s=330)

    asked_s = [at for at in exporter.sent_s if 60 <= at < 320]
    gaps_s = [later - sooner for sooner, later in pairwise(asked_s)]
    assert max(gaps_s) <= 10
    assert exporter.count_refused(60, 320) <= 400


def test_hint_that_is_longer_than_the_truth_costs_a_minute_at_most() -> None:
    quota = Quota(rate_per_s=1, burst=5, hint="retry-after", hint_ms=86_400_000)
    exporter = build_exporter()

    build_simulation(quota, seed=0).run(exporter, until_s=600)

    gaps_s = [later - sooner for sooner, later in pairwise(exporter.sent_s)]
    assert max(gaps_s) <= MAX_HINT_S + 1
