"""What several exporters, long windows and lost quotas come to, in simulated time and over many
seeds: eight for each run.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

from exporter.emulator.quota import Quota, QuotaKind
from tests.benchmarks.measuring import Row, spread
from tests.support.pacing_simulation import (
    STARVED_S,
    Sharing,
    measure_recovery_s,
    measure_sharing,
    measure_windows,
)

SEEDS_PER_RUN = 8

QUOTAS = (
    ("40/s, burst 5", Quota(rate_per_s=40, burst=5)),
    ("10/s, burst 5", Quota(rate_per_s=10, burst=5)),
    ("100/s, burst 20", Quota(rate_per_s=100, burst=20)),
    ("40 in each second", Quota(rate_per_s=40, kind="fixed-window")),
)
WINDOWS = ((30, 10), (100, 10), (400, 10), (60, 60), (300, 60), (1000, 60), (6000, 60))
WINDOW_NAMES: dict[QuotaKind, str] = {
    "fixed-window": "in each fixed",
    "sliding-window": "in any",
}


def benchmark_windows(runs: int, folder: Path) -> Iterator[Row]:
    """Windows of many seconds, from the third on."""
    for kind, name in WINDOW_NAMES.items():
        for count, window_s in WINDOWS:
            quota = Quota(rate_per_s=count / window_s, kind=kind, window_s=window_s)
            measured = [measure_windows(quota, seed=seed) for seed in range(SEEDS_PER_RUN * runs)]
            used, refused = ([100 * each[place] for each in measured] for place in (0, 1))
            figure = f"{spread(used, '.1f')} % used, {spread(refused, '.1f')} % refused"
            yield Row(f"{count} {name} {window_s} s", figure, "90 % used, at most 5 % refused")


def benchmark_recovery(runs: int, folder: Path) -> Iterator[Row]:
    """Seconds from the end of a minute's want until nine tenths of the quota are used again."""
    seeds = range(SEEDS_PER_RUN * runs)
    for name, quota in QUOTAS:
        took_s = [measure_recovery_s(quota, seed=seed, left_rps=0) for seed in seeds]
        yield Row(f"{name}, taken away", f"{spread(took_s, '.1f')} s", "30 s")
        for share in (0.5, 1.5):
            others_rps = share * quota.rate_per_s
            took_s = [measure_recovery_s(quota, seed=seed, others_rps=others_rps) for seed in seeds]
            yield Row(
                f"{name}, others ask for {100 * share:.0f} %", f"{spread(took_s, '.1f')} s", "30 s"
            )


def benchmark_sharing(runs: int, folder: Path) -> Iterator[Row]:
    """Two to four exporters on one quota, which start together or 13 s apart."""
    for name, quota in QUOTAS:
        for exporter_count in (2, 3, 4):
            for apart_s in (0.0, 13.0):
                measured = [
                    measure_sharing(
                        quota, exporter_count=exporter_count, apart_s=apart_s, seed=seed
                    )
                    for seed in range(SEEDS_PER_RUN * runs)
                ]
                start = "together" if apart_s == 0 else f"{apart_s:.0f} s apart"
                yield describe_sharing(f"{exporter_count} on {name}, {start}", measured)


def describe_sharing(name: str, measured: list[Sharing]) -> Row:
    starved_count = sum(each.starved_from_s < math.inf for each in measured)
    figure = (
        f"{100 * min(each.used for each in measured):.1f} % used at least;"
        f" half a share for {STARVED_S:.0f} s in {len(measured) - starved_count} of"
        f" {len(measured)}; the least {median(each.min_share for each in measured):.2f} of its"
        f" share ({min(each.min_share for each in measured):.2f})"
    )
    return Row(name, figure, "95 % used; in 95 %")


BENCHMARKS: dict[str, Callable[[int, Path], Iterator[Row]]] = {
    "windows": benchmark_windows,
    "recovery": benchmark_recovery,
    "sharing": benchmark_sharing,
}
