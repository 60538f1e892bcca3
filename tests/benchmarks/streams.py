"""The Arrow stream of a program, relative to an export to Parquet of the same sessions.

    python -m tests.benchmarks.streams

reads the sessions of the environment's endpoint and all of their rows, and counts them.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from exporter import Settings, read_sessions
from tests.benchmarks.measuring import EXPORTER, GATEWAY, WORKSPACE, Row, emulator, measure, spread

SESSIONS = 500_000


def benchmark_stream(runs: int, folder: Path) -> Iterator[Row]:
    """CPU and peak memory of `read_sessions` with all rows read, in turn with an export."""
    flags = ("--sessions", str(SESSIONS), "--gateways", "1", "--latency", "10ms")
    where = ("--workspace", WORKSPACE, "--gateway", GATEWAY)
    export = [*EXPORTER, "export", *where, "--output", str(folder / "out.parquet"), "-q"]
    read = [sys.executable, "-m", "tests.benchmarks.streams"]
    ratios, peaks = [], []
    with emulator(*flags) as env:
        for _ in range(runs):
            exported, streamed = measure(export, env), measure(read, env)
            ratios.append(streamed.cpu_s / exported.cpu_s)
            peaks.append(streamed.peak_mib)
    measured = f"{SESSIONS:,} sessions by read_sessions"
    yield Row(f"{measured}: CPU, relative to Parquet", spread(ratios), "at most 1.15")
    yield Row(f"{measured}: peak memory", f"{spread(peaks, '.0f')} MiB", "at most 250 MiB")


BENCHMARKS: dict[str, Callable[[int, Path], Iterator[Row]]] = {"stream": benchmark_stream}


def main() -> None:
    import os

    settings = Settings(
        endpoint=os.environ["LIVY_EXPORTER_ENDPOINT"],
        region=os.environ["LIVY_EXPORTER_REGION"],
        workspace=(WORKSPACE,),
        gateway=(GATEWAY,),
    )
    with read_sessions(settings) as sessions:
        print(sum(batch.num_rows for batch in sessions.to_reader()))


if __name__ == "__main__":
    main()
