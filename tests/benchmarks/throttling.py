"""How a hidden quota is found and kept, and what broken answers cost.

The emulator is a process of its own; the exporter runs in this one, so that each of its requests is
seen with its time and outcome. *Steady state* is the second half of a run's granted requests.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pyarrow.parquet as pq

from exporter import Settings, export
from exporter.events import Event, PageRead, RequestEnded, RequestStarted
from tests.benchmarks.measuring import GATEWAY, WORKSPACE, Row, emulator, spread


@dataclass(slots=True)
class Seen:
    """When requests ended, in seconds of one clock, by outcome."""

    granted: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    sent_count: int = 0
    started_s: float | None = None
    read: list[float] = field(default_factory=list)

    def note(self, event: Event) -> None:
        now_s = time.perf_counter()
        match event:
            case RequestStarted():
                self.sent_count += 1
                if self.started_s is None:
                    self.started_s = now_s
            case RequestEnded(outcome="ok"):
                self.granted.append(now_s)
            case RequestEnded(outcome="throttled"):
                self.refused.append(now_s)
            case PageRead():
                self.read.append(now_s)
            case _:
                pass

    def steady(self) -> tuple[float, float]:
        """Granted requests a second, and the share of requests refused, in steady state."""
        middle_s, end_s = self.granted[len(self.granted) // 2], self.granted[-1]
        granted = sum(middle_s < at for at in self.granted)
        refused = sum(middle_s < at <= end_s for at in self.refused)
        return granted / (end_s - middle_s), refused / (granted + refused)

    def count(self, *, from_s: float, until_s: float) -> tuple[int, int]:
        """Granted and refused requests between two moments after the first request."""
        start_s = self.started_s or 0.0
        return (
            sum(from_s <= at - start_s < until_s for at in self.granted),
            sum(from_s <= at - start_s < until_s for at in self.refused),
        )


def serve(folder: Path, text: str) -> tuple[str, str]:
    """The emulator's flags for a scenario written as TOML."""
    path = folder / "scenario.toml"
    path.write_text(text, encoding="utf-8")
    return ("--scenario", str(path))


def run_exports(env: dict[str, str], folder: Path, *, count: int = 1) -> list[Seen]:
    """So many exports of the same gateway at once, each with a pacer of its own."""
    seen = [Seen() for _ in range(count)]

    async def run_one(number: int) -> None:
        settings = Settings(
            endpoint=env["LIVY_EXPORTER_ENDPOINT"],
            region=env["LIVY_EXPORTER_REGION"],
            workspace=(WORKSPACE,),
            gateway=(GATEWAY,),
            output=str(folder / f"out-{number}.parquet"),
            retries=50,
            timeout=2.0,
        )
        await export(settings, listener=seen[number].note, environ=env)

    async def run_all() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(count):
                tasks.start_soon(run_one, number)

    anyio.run(run_all)
    return seen


def scenario(pages: int, quota: str, *, latency_ms: int = 40) -> str:
    return (
        f"gateway_count = 1\nsession_count = {pages * 100}\n"
        f"latency_s = {latency_ms / 1000}\njitter_s = {latency_ms / 4000}\n{quota}\n"
    )


def benchmark_quota(runs: int, folder: Path) -> Iterator[Row]:
    """Share of a hidden quota used, and requests refused, in steady state."""
    cases = (
        ("40/s, burst 5", 40, 600, "quota = {rate_per_s = 40, burst = 5}"),
        ("10/s, burst 5", 10, 600, "quota = {rate_per_s = 10, burst = 5}"),
        (
            "25/s, burst 25, HTTP 400",
            25,
            600,
            (
                "quota = {rate_per_s = 25, burst = 25,"
                ' style = {code = "Throttling.User", status = 400}}'
            ),
        ),
        ("200/s, burst 20", 200, 2000, "quota = {rate_per_s = 200, burst = 20}"),
        (
            "40 in each second",
            40,
            600,
            'quota = {rate_per_s = 40, kind = "fixed-window", hint = "x-acs-retry-after"}',
        ),
    )
    for name, rate, pages, quota in cases:
        used, refused = [], []
        for _ in range(runs):
            with emulator(*serve(folder, scenario(pages, quota))) as env:
                rate_rps, share = run_exports(env, folder)[0].steady()
            used.append(100 * rate_rps / rate)
            refused.append(100 * share)
        figure = f"{spread(used, '.1f')} % used, {spread(refused, '.1f')} % refused"
        yield Row(f"hidden quota {name}, {pages} pages", figure, "97 % used, at most 1 % refused")


def benchmark_burst(runs: int, folder: Path) -> Iterator[Row]:
    """200 pages at 50/s with a burst of 50, 10 ms away: the quota's own time is 3.0 s."""
    took, refused = [], []
    for _ in range(runs):
        text = scenario(200, "quota = {rate_per_s = 50, burst = 50}", latency_ms=10)
        with emulator(*serve(folder, text)) as env:
            seen = run_exports(env, folder)[0]
        # The last page read is the sentinel.
        took.append(seen.read[-2] - (seen.started_s or 0.0))
        refused.append(len(seen.refused))
    measured = "200 pages at 50/s, burst 50, up to 32 in flight"
    figure = f"{spread(took)} s, {spread(refused, '.0f')} refused"
    yield Row(measured, figure, "at most 3.3 s, fewer than 5 refused")


def benchmark_changes(runs: int, folder: Path) -> Iterator[Row]:
    """The quota of 40/s halved or doubled 8 s into the run: the next but one 10 s."""
    for name, rate, pages in (("halved", 20, 700), ("doubled", 80, 1800)):
        used, refused = [], []
        for _ in range(runs):
            change = f"changes = [{{rate_per_s = {rate}, at_s = 8}}]"
            quota = f"quota = {{rate_per_s = 40, burst = 5, {change}}}"
            with emulator(*serve(folder, scenario(pages, quota))) as env:
                granted, denied = run_exports(env, folder)[0].count(from_s=18, until_s=23)
            used.append(100 * granted / 5 / rate)
            refused.append(100 * denied / (granted + denied))
        figure = f"{spread(used, '.1f')} % used, {spread(refused, '.1f')} % refused"
        yield Row(f"quota {name}, 10 to 15 s later", figure, "settled within 10 s")


def benchmark_shared(runs: int, folder: Path) -> Iterator[Row]:
    """Two exporters on one quota of 40/s, in steady state."""
    used, smaller = [], []
    for _ in range(runs):
        quota = "quota = {rate_per_s = 40, burst = 5}"
        with emulator(*serve(folder, scenario(900, quota))) as env:
            seen = run_exports(env, folder, count=2)
        end_s = min(each.granted[-1] for each in seen)
        start_s = min(each.started_s or 0.0 for each in seen)
        middle_s = (start_s + end_s) / 2
        rates = [
            sum(middle_s < at <= end_s for at in each.granted) / (end_s - middle_s) for each in seen
        ]
        used.append(100 * sum(rates) / 40)
        smaller.append(100 * min(rates) / sum(rates))
    figure = f"{spread(used, '.1f')} % used, the smaller share {spread(smaller, '.0f')} %"
    yield Row("two exporters on 40/s", figure, "95 % used, none under 35 %")


def benchmark_broken(runs: int, folder: Path) -> Iterator[Row]:
    """A tenth of all answers broken in every survivable way."""
    pages = 300
    ratios = []
    for turn in range(runs):
        faults = f"seed = {turn}\nfaults = [{{rate = 0.1, hang_s = 3, slow_s = 0.5}}]"
        text = f"{faults}\n{scenario(pages, '', latency_ms=10)}"
        with emulator(*serve(folder, text)) as env:
            seen = run_exports(env, folder)[0]
        ids = pq.read_table(folder / "out-0.parquet", columns=["session_id"])["session_id"]
        if len(ids) != pages * 100 or len(set(ids.to_pylist())) != len(ids):
            raise SystemExit(f"{len(ids)} rows of {pages * 100}: lost or doubled")
        ratios.append(seen.sent_count / (pages + 1))
    measured = "a tenth of all answers broken: requests relative to a clean run"
    yield Row(measured, f"{spread(ratios)}, no row lost or doubled", "at most 1.25")


BENCHMARKS: dict[str, Callable[[int, Path], Iterator[Row]]] = {
    "quota": benchmark_quota,
    "burst": benchmark_burst,
    "changes": benchmark_changes,
    "shared": benchmark_shared,
    "broken": benchmark_broken,
}
