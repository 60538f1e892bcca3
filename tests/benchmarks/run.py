"""All measurements, each a ratio within one run, since machines differ and are noisy.

    python -m tests.benchmarks.run [NAME ...] [--runs N]

The emulator always runs in a process of its own. Figures are medians, with the least and the most.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import orjson

from exporter import Settings, export
from exporter.events import Event, PageRead, RequestStarted
from tests.benchmarks import increments, lakes, pacing, resuming, streams, throttling
from tests.benchmarks.measuring import (
    EXPORTER,
    FOLDER,
    GATEWAY,
    WORKSPACE,
    Row,
    describe_machine,
    emulator,
    measure,
    read_stats,
    reset,
    spread,
)

SESSIONS = 200_000


def export_command(output: Path) -> list[str]:
    return [
        *EXPORTER,
        "export",
        *("--workspace", WORKSPACE, "--gateway", GATEWAY, "--output", str(output), "-q"),
    ]


def history(session_count: int, *more: str) -> tuple[str, ...]:
    """The emulator's flags for one gateway with so many sessions, 10 ms away."""
    return ("--sessions", str(session_count), "--gateways", "1", "--latency", "10ms", *more)


def benchmark_cpu(runs: int, folder: Path) -> Iterator[Row]:
    """CPU of a whole export, with its journal and without, against the bare work, in turn."""
    ratios, plain_ratios, ours, bare = [], [], [], []
    with emulator(*history(SESSIONS, "--anonymous")) as env:
        endpoint = env["LIVY_EXPORTER_ENDPOINT"]
        url = f"{endpoint}/api/v1/workspaces/{WORKSPACE}/livycompute/{GATEWAY}/session"
        bare_output = str(folder / "bare.parquet")
        bare_command = [sys.executable, str(FOLDER / "bare.py"), url, bare_output, "32"]
        for turn in range(runs + 1):
            a = measure(export_command(folder / "out.parquet"), env)
            plain = measure([*export_command(folder / "out.parquet"), "--no-resume"], env)
            b = measure(bare_command, env)
            # The first turn warms the page cache of both sides.
            if turn > 0:
                ours.append(a.cpu_s)
                bare.append(b.cpu_s)
                ratios.append(a.cpu_s / b.cpu_s)
                plain_ratios.append(plain.cpu_s / b.cpu_s)
    yield Row(f"{SESSIONS:,} sessions to Parquet, CPU", f"{spread(ours)} s")
    yield Row("the bare work: aiohttp, orjson, Arrow, Parquet, nothing else", f"{spread(bare)} s")
    yield Row("ratio of the two, pair by pair", spread(ratios), "at most 1.3")
    yield Row("the same with --no-resume, so without a journal", spread(plain_ratios))


def benchmark_memory(runs: int, folder: Path) -> Iterator[Row]:
    """Peak memory at three sizes of history."""
    peaks: dict[int, list[float]] = {}
    for session_count in (50_000, 200_000, 500_000):
        with emulator(*history(session_count)) as env:
            peaks[session_count] = [
                measure(export_command(folder / "out.parquet"), env).peak_mib for _ in range(runs)
            ]
        figure = f"{spread(peaks[session_count], '.0f')} MiB"
        yield Row(f"{session_count:,} sessions to Parquet, peak memory", figure, "at most 256 MiB")
    least, most = statistics.median(peaks[50_000]), statistics.median(peaks[500_000])
    growth = (most - least) * 2**20 / 450_000
    yield Row("growth from 50,000 to 500,000", f"{growth:.0f} bytes a session", "at most 48")


def benchmark_paging(runs: int, folder: Path) -> Iterator[Row]:
    """200 pages at 60 ms and 20 in flight: time from the first request to the last page."""
    latency_s, pages, in_flight = 0.06, 200, 20
    # Page 1 tells how many there are; the others can only be asked for after it.
    ideal_s = latency_s * (1 + -(-(pages - 1) // in_flight))
    paging, most = [], set()
    flags = ("--sessions", str(pages * 100), "--gateways", "1", "--latency", "60ms")
    with emulator(*flags) as env:
        settings = Settings(
            endpoint=env["LIVY_EXPORTER_ENDPOINT"],
            region=env["LIVY_EXPORTER_REGION"],
            workspace=(WORKSPACE,),
            gateway=(GATEWAY,),
            concurrency=in_flight,
            output=str(folder / "out.parquet"),
        )
        for turn in range(runs + 1):
            reset(env)
            times = time_requests(settings, env)
            if turn > 0:
                # The last two are the sentinel's: asked and read after every page is there.
                paging.append(times[-3] - times[0])
                most.add(orjson.loads(read_stats(env))["most_in_flight"])
    measured = f"{pages} pages, 60 ms each, {in_flight} in flight"
    yield Row(measured, f"{spread(paging)} s", f"ideal {ideal_s:.2f} s")
    yield Row("ratio to the ideal", spread([each / ideal_s for each in paging]), "at most 1.15")
    yield Row("most in flight, seen by the server", str(sorted(most)), f"{in_flight}")


def time_requests(settings: Settings, environ: dict[str, str]) -> list[float]:
    """Export in this process; when each request began and each page was read, in seconds."""
    times: list[float] = []

    def note(event: Event) -> None:
        if isinstance(event, RequestStarted | PageRead):
            times.append(time.perf_counter())

    async def run() -> None:
        await export(settings, listener=note, environ=environ)

    anyio.run(run)
    return times


def benchmark_startup(runs: int, folder: Path) -> Iterator[Row]:
    """`--help` against a bare interpreter, in turn."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    ratios, helps = [], []
    for turn in range(4 * runs + 1):
        a = measure([*EXPORTER, "--help"], environment).wall_s
        b = measure([sys.executable, "-c", "pass"], environment).wall_s
        if turn > 0:
            helps.append(1000 * a)
            ratios.append(a / b)
    yield Row("`livy-exporter --help`", f"{spread(helps, '.0f')} ms")
    yield Row("ratio to a bare interpreter's start", spread(ratios, ".1f"), "at most 10")


def benchmark_sdk(runs: int, folder: Path) -> Iterator[Row]:
    """Wall and CPU of the official SDK's async client over the same list, 32 in flight."""
    ours, theirs, wall, cpu = [], [], [], []
    with emulator(*history(SESSIONS)) as env:
        endpoint = env["LIVY_EXPORTER_ENDPOINT"]
        script = str(FOLDER / "official_sdk.py")
        sdk_command = [sys.executable, script, endpoint, WORKSPACE, GATEWAY, "32"]
        for turn in range(runs + 1):
            a = measure(export_command(folder / "out.parquet"), env)
            b = measure(sdk_command, env)
            if turn > 0:
                ours.append(a.wall_s)
                theirs.append(b.wall_s)
                wall.append(b.wall_s / a.wall_s)
                cpu.append(b.cpu_s / a.cpu_s)
    yield Row(f"{SESSIONS:,} sessions to Parquet, wall", f"{spread(ours)} s")
    yield Row("official SDK, async, 32 in flight, fetched and not written", f"{spread(theirs)} s")
    yield Row("times faster, wall", spread(wall, ".1f"))
    yield Row("times less CPU", spread(cpu, ".1f"))


BENCHMARKS: dict[str, Callable[[int, Path], Iterator[Row]]] = {
    "cpu": benchmark_cpu,
    "memory": benchmark_memory,
    "paging": benchmark_paging,
    "startup": benchmark_startup,
    "sdk": benchmark_sdk,
    **throttling.BENCHMARKS,
    **pacing.BENCHMARKS,
    **increments.BENCHMARKS,
    **resuming.BENCHMARKS,
    **lakes.BENCHMARKS,
    **streams.BENCHMARKS,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--runs", type=int, default=5)
    arguments = parser.parse_args()
    print(f"{describe_machine()}; {arguments.runs} runs\n")
    print("| measured | median (least-most) | goal |\n| --- | --- | --- |")
    for name in arguments.names or BENCHMARKS:
        if name not in BENCHMARKS:
            parser.error(f"unknown benchmark {name!r}: {', '.join(BENCHMARKS)}")
        with tempfile.TemporaryDirectory() as folder:
            for row in BENCHMARKS[name](arguments.runs, Path(folder)):
                print(f"| {row.measured} | {row.figure} | {row.goal} |", flush=True)


if __name__ == "__main__":
    main()
