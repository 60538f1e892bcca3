"""What a table of a lake costs next to a local Parquet file, and how long an upsert takes.

    python -m tests.benchmarks.tables NAME [--runs N] [--kept N] [--changed N]

where NAME is one of "delta", "delta by day", "iceberg", "iceberg by day" and "paimon".

Rows are made in the process that writes them, alike for every output: no service, no network. Time
and memory of an upsert are those of its commit, next to what the process takes before it.
"""

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from exporter.destinations.open import open_output
from exporter.destinations.resolve import resolve_destination
from exporter.emulator.generated_list import SessionSeries
from exporter.model import FileFormat, Gateway, RawSession, TableFormat
from exporter.sinks.interface import Output
from tests.benchmarks.measuring import Cost, Row, describe_machine, measure, spread

HOME = Gateway("cn-hangzhou", "w-bench", "lc-bench")
BATCH_ROWS = 2_000
EXPORTED, CHANGED = 500_000, 2_000


@dataclass(frozen=True)
class Target:
    """An output that is measured."""

    output: str
    """`{folder}` stands for the place of the run."""
    chosen: FileFormat | TableFormat | None = None
    partition_by: tuple[str, ...] = ()


TARGETS = {
    "parquet": Target("{folder}/out.parquet"),
    "delta": Target("{folder}/delta", "delta"),
    "delta by day": Target("{folder}/delta", "delta", ("dt",)),
    "iceberg": Target("iceberg://bench/lake.sessions"),
    "iceberg by day": Target("iceberg://bench/lake.sessions", None, ("dt",)),
    "paimon": Target("{folder}/warehouse/ops.db/sessions", "paimon"),
}
"""Another kind of table is one more line."""

SERIES = SessionSeries(HOME, seed=1, oldest_created_ms=1_700_000_000_000, spacing_ms=60_000)


def newest_first(serials: range) -> Iterator[RawSession]:
    return map(SERIES.session, reversed(serials))


def changed(kind: str, count: int, *, kept: int) -> Iterator[RawSession]:
    """Three quarters of them are in the table, the rest is new; or each one that is there."""
    if kind == "all":
        for session in newest_first(range(kept)):
            yield {**session, "state": "error"}
        return
    old, new = count * 3 // 4, count // 4
    step = kept // old if kind == "spread" else 1
    yield from newest_first(range(kept, kept + new))
    for session in newest_first(range(kept - old * step, kept, step)):
        yield {**session, "state": "error"}


def open_named(name: str, folder: Path, *, adds: bool, run_id: str) -> Output:
    target = TARGETS[name]
    destination = resolve_destination(
        target.output.format(folder=folder), chosen=target.chosen, partition_by=target.partition_by
    )
    return open_output(
        destination,
        run_id=run_id,
        exporter_version="bench",
        exported_at=datetime.now(UTC),
        parquet_codec="zstd",
        adds=adds,
        partition_by=target.partition_by,
        target_bytes=128 << 20,
    )


def write(output: Output, sessions: Iterable[RawSession]) -> None:
    rest = iter(sessions)
    while batch := list(islice(rest, BATCH_ROWS)):
        output.write(HOME, batch)
    output.close()


def act(folder: Path, name: str, what: str, count: int, kept: int) -> None:
    """One child process: what is measured and nothing else."""
    adds = what != "export"
    output = open_named(name, folder, adds=adds, run_id=what)
    write(output, changed(what, count, kept=kept) if adds else newest_first(range(kept)))
    before_mib = read_peak_mib()
    started_s = time.perf_counter()
    output.publish()
    publish_s = time.perf_counter() - started_s
    told = {"publish_s": publish_s, "added_mib": read_peak_mib() - before_mib}
    (folder / "told.json").write_text(json.dumps(told))


def read_peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@dataclass(frozen=True)
class Published:
    """What a child process took as a whole, and what its publish did."""

    cost: Cost
    publish_s: float
    added_mib: float


def benchmark(
    folder: Path, name: str, *, runs: int, kept: int, changed_count: int
) -> Iterator[Row]:
    def run(name: str, what: str) -> Published:
        return run_child(folder, name, what, count=changed_count, kept=kept)

    def start_again() -> Published:
        for each in list(folder.iterdir()):
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        return run(name, "export")

    table: list[Published] = []
    file: list[Published] = []
    for _ in range(runs):
        file.append(run("parquet", "export"))
        table.append(start_again())
    yield from describe(f"{kept:,} sessions to one Parquet file", file)
    yield from describe(f"{kept:,} sessions to a table, {name}", table)
    ratios = [ours.cost.cpu_s / plain.cost.cpu_s for ours, plain in zip(table, file, strict=True)]
    yield Row("  ratio of CPU, pair by pair", spread(ratios))
    for kind in ("recent", "spread", "all"):
        costs = []
        for _ in range(runs):
            start_again()
            costs.append(run(name, kind))
        count = kept if kind == "all" else changed_count
        yield from describe(f"upsert of {count:,} into {kept:,}, {kind}", costs)


def describe(measured: str, costs: list[Published]) -> Iterator[Row]:
    yield Row(measured, f"{spread([each.cost.wall_s for each in costs])} s")
    yield Row("  CPU", f"{spread([each.cost.cpu_s for each in costs])} s")
    yield Row("  peak memory", f"{spread([each.cost.peak_mib for each in costs], '.0f')} MiB")
    yield Row("  of that, its commit", f"{spread([each.publish_s for each in costs])} s")
    yield Row("  on top of before", f"{spread([each.added_mib for each in costs], '.0f')} MiB")


def run_child(folder: Path, name: str, what: str, *, count: int, kept: int) -> Published:
    command = [sys.executable, "-m", "tests.benchmarks.tables", name]
    cost = measure(
        [*command, "--act", what, str(count), str(kept), str(folder)], build_environ(folder)
    )
    told = json.loads((folder / "told.json").read_text())
    return Published(cost, told["publish_s"], told["added_mib"])


def build_environ(folder: Path) -> dict[str, str]:
    configured: Mapping[str, str] = {
        "PYICEBERG_CATALOG__BENCH__URI": f"sqlite:///{folder}/catalog.db",
        "PYICEBERG_CATALOG__BENCH__WAREHOUSE": f"file://{folder}/warehouse",
    }
    return {**os.environ, **configured}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=TARGETS)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--kept", type=int, default=EXPORTED)
    parser.add_argument("--changed", type=int, default=CHANGED)
    parser.add_argument("--act", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.act is not None:
        what, count, kept, folder = options.act
        act(Path(folder), options.name, what, int(count), int(kept))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        rows = benchmark(
            Path(folder),
            options.name,
            runs=options.runs,
            kept=options.kept,
            changed_count=options.changed,
        )
        for row in rows:
            print(f"{row.measured:60} {row.figure:32} {row.goal}", flush=True)


if __name__ == "__main__":
    main()
