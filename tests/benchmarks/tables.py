"""What a table of a lake costs next to a local Parquet file, and how long an upsert takes.

    python -m tests.benchmarks.tables delta|iceberg|paimon [--runs N] [--library]

Rows are made in the process that writes them, alike for every output: no service, no network. With
`--library`, the library's own upsert is timed too: pyiceberg's with a tenth of the changes.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

import pyarrow as pa

from exporter.destinations import resolve_destination
from exporter.emulator.history import SessionSeries
from exporter.gateway import Gateway
from exporter.outputs import open_output
from exporter.records import RawSession
from exporter.records.schema import build_batch
from exporter.sinks import Output, TableMode
from exporter.sinks.delta import DeltaTable
from exporter.sinks.delta_storage import open_delta_storage
from exporter.sinks.iceberg import IcebergTable
from exporter.sinks.lake import KEY_COLUMNS
from exporter.stores.addresses import StoreAccess
from tests.benchmarks.measuring import Cost, Row, describe_machine, measure, spread

HOME = Gateway("cn-hangzhou", "w-bench", "lc-bench")
TABLE = "iceberg://bench/lake.sessions"
DELTA = {"delta": (), "delta by day": ("dt",)}
"""Tables, and what they are partitioned by."""
PAIMON = "warehouse/ops.db/sessions"
BATCH_ROWS = 2_000
EXPORTED, KEPT, CHANGED = 500_000, 1_000_000, 20_000
DELTA_CHANGED = 2_000

SERIES = SessionSeries(HOME, seed=1, oldest_created_ms=1_700_000_000_000, spacing_ms=60_000)


def newest_first(serials: range) -> Iterator[RawSession]:
    return map(SERIES.session, reversed(serials))


def changed(kind: str, count: int, *, kept: int = KEPT) -> Iterator[RawSession]:
    """Three quarters of them are in the table, the rest is new; or all of them are there."""
    if kind == "all":
        for session in newest_first(range(count)):
            yield {**session, "state": "error"}
        return
    old, new = count * 3 // 4, count // 4
    step = kept // old if kind == "scattered" else 1
    for session in newest_first(range(kept, kept + new)):
        yield session
    for session in newest_first(range(kept - old * step, kept, step)):
        yield {**session, "state": "error"}


def open_named(name: str, folder: Path, *, mode: TableMode, run_id: str) -> Output:
    exported_at = datetime.now(UTC)
    if name in DELTA:
        return open_delta(name, folder).open_output(
            mode=mode, run_id=run_id, exporter_version="bench", exported_at=exported_at
        )
    if name == "iceberg":
        return IcebergTable(TABLE).open_output(
            mode=mode, run_id=run_id, exporter_version="bench", exported_at=exported_at
        )
    destination = (
        resolve_destination(str(folder / PAIMON), chosen="paimon")
        if name == "paimon"
        else resolve_destination(str(folder / "out.parquet"), chosen=None)
    )
    return open_output(
        destination,
        run_id=run_id,
        exporter_version="bench",
        exported_at=exported_at,
        parquet_codec="zstd",
        adds=mode == "upsert",
        partition_by=(),
        target_bytes=128 << 20,
    )


def open_delta(name: str, folder: Path) -> DeltaTable:
    storage = open_delta_storage(str(folder / name), StoreAccess())
    return DeltaTable(str(folder / name), storage=storage, partition_by=DELTA[name])


def write(output: Output, sessions: Iterable[RawSession]) -> None:
    rest = iter(sessions)
    while batch := list(islice(rest, BATCH_ROWS)):
        output.write(HOME, batch)
    output.close()
    output.publish()


def upsert_by_the_library(count: int) -> None:
    from pyiceberg.catalog import load_catalog

    rows = build_batch(HOME, list(changed("recent", count)), datetime.now(UTC)).rows
    table = load_catalog("bench").load_table("lake.sessions")
    table.upsert(pa.Table.from_batches([rows]))


def merge_by_the_library(folder: Path, count: int) -> None:
    from deltalake import DeltaTable as LoadedTable

    rows = build_batch(HOME, list(changed("recent", count, kept=EXPORTED)), datetime.now(UTC)).rows
    key = " AND ".join(f"t.{name} = s.{name}" for name in KEY_COLUMNS)
    merger = LoadedTable(folder / "delta").merge(
        pa.Table.from_batches([rows]), key, source_alias="s", target_alias="t", streamed_exec=False
    )
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def act(folder: Path, name: str, what: str, count: int) -> None:
    """One child process: what is measured and nothing else."""
    match what:
        case "export":
            write(
                open_named(name, folder, mode="replace", run_id="bulk"), newest_first(range(count))
            )
        case "library" if name in DELTA:
            merge_by_the_library(folder, count)
        case "library":
            upsert_by_the_library(count)
        case kind:
            kept = KEPT if name == "iceberg" else EXPORTED
            output = open_named(name, folder, mode="upsert", run_id=kind)
            write(output, changed(kind, count, kept=kept))


def benchmark_iceberg(folder: Path, runs: int, *, library: bool) -> Iterator[Row]:
    environ = {
        **os.environ,
        "PYICEBERG_CATALOG__BENCH__URI": f"sqlite:///{folder}/catalog.db",
        "PYICEBERG_CATALOG__BENCH__WAREHOUSE": f"file://{folder}/warehouse",
    }

    def run(name: str, what: str, count: int) -> Cost:
        return run_child(folder, name, what, count, environ=environ)

    def start_again(count: int) -> Cost:
        shutil.rmtree(folder / "warehouse", ignore_errors=True)
        (folder / "catalog.db").unlink(missing_ok=True)
        return run("iceberg", "export", count)

    table: list[Cost] = []
    file: list[Cost] = []
    for _ in range(runs):
        file.append(run("parquet", "export", EXPORTED))
        table.append(start_again(EXPORTED))
    yield from describe(f"{EXPORTED:,} sessions to one Parquet file", file)
    yield from describe(f"{EXPORTED:,} sessions to an Iceberg table", table)
    ratios = [ours.cpu_s / plain.cpu_s for ours, plain in zip(table, file, strict=True)]
    yield Row("ratio of CPU, pair by pair", spread(ratios))
    for kind in ("recent", "scattered"):
        costs = []
        for _ in range(runs):
            start_again(KEPT)
            costs.append(run("iceberg", kind, CHANGED))
        yield from describe(f"upsert of {CHANGED:,} {kind} changes into {KEPT:,}", costs, "60 s")
    if library:
        start_again(KEPT)
        cost = run("iceberg", "library", CHANGED // 10)
        yield from describe(f"pyiceberg's own upsert of {CHANGED // 10:,} recent changes", [cost])


def benchmark_delta(folder: Path, runs: int, *, library: bool) -> Iterator[Row]:
    def run(name: str, what: str, count: int) -> Cost:
        return run_child(folder, name, what, count, environ=os.environ)

    def start_again(name: str) -> Cost:
        shutil.rmtree(folder / name, ignore_errors=True)
        return run(name, "export", EXPORTED)

    file = [run("parquet", "export", EXPORTED) for _ in range(runs)]
    yield from describe(f"{EXPORTED:,} sessions to one Parquet file", file)
    for name in DELTA:
        table = [start_again(name) for _ in range(runs)]
        yield from describe(f"{EXPORTED:,} sessions to a table, {name}", table)
        ratios = [ours.cpu_s / plain.cpu_s for ours, plain in zip(table, file, strict=True)]
        yield Row("  ratio of CPU, run by run", spread(ratios))
        for kind in ("recent", "scattered"):
            costs = []
            for _ in range(runs):
                start_again(name)
                costs.append(run(name, kind, DELTA_CHANGED))
            measured = f"upsert of {DELTA_CHANGED:,} {kind} changes into {EXPORTED:,}, {name}"
            yield from describe(measured, costs)
    if library:
        start_again("delta")
        cost = run("delta", "library", DELTA_CHANGED)
        yield from describe(f"deltalake's own merge of {DELTA_CHANGED:,} recent changes", [cost])


def benchmark_paimon(folder: Path, runs: int, *, library: bool) -> Iterator[Row]:
    del library  # there is nothing else than the library's own upsert

    def run(name: str, what: str, count: int) -> Cost:
        return run_child(folder, name, what, count, environ=os.environ)

    def start_again() -> Cost:
        shutil.rmtree(folder / "warehouse", ignore_errors=True)
        return run("paimon", "export", EXPORTED)

    table: list[Cost] = []
    file: list[Cost] = []
    for _ in range(runs):
        file.append(run("parquet", "export", EXPORTED))
        table.append(start_again())
    yield from describe(f"{EXPORTED:,} sessions to one Parquet file", file)
    yield from describe(f"{EXPORTED:,} sessions to a Paimon table", table)
    ratios = [ours.cpu_s / plain.cpu_s for ours, plain in zip(table, file, strict=True)]
    yield Row("ratio of CPU, pair by pair", spread(ratios))
    for kind, count, goal in (
        ("recent", DELTA_CHANGED, "1 s"),
        ("scattered", DELTA_CHANGED, "1 s"),
        ("all", EXPORTED, "30 s"),
    ):
        costs = []
        for _ in range(runs):
            start_again()
            costs.append(run("paimon", kind, count))
        yield from describe(f"upsert of {count:,}, {kind}, into {EXPORTED:,}", costs, goal)


def describe(measured: str, costs: list[Cost], goal: str = "") -> Iterator[Row]:
    yield Row(measured, f"{spread([each.wall_s for each in costs])} s", goal)
    yield Row("  CPU", f"{spread([each.cpu_s for each in costs])} s")
    yield Row("  peak memory", f"{spread([each.peak_mib for each in costs], '.0f')} MiB")


def run_child(
    folder: Path, name: str, what: str, count: int, *, environ: Mapping[str, str]
) -> Cost:
    command = [sys.executable, "-m", "tests.benchmarks.tables", name]
    return measure([*command, "--act", what, str(count), str(folder)], dict(environ))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=("iceberg", "paimon", "parquet", *DELTA))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--library", action="store_true")
    parser.add_argument("--act", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.act is not None:
        what, count, folder = options.act
        act(Path(folder), options.name, what, int(count))
        return
    print(describe_machine())
    with tempfile.TemporaryDirectory() as name:
        benchmark = {"iceberg": benchmark_iceberg, "paimon": benchmark_paimon}.get(
            options.name, benchmark_delta
        )
        for row in benchmark(Path(name), options.runs, library=options.library):
            print(f"{row.measured:60} {row.figure:32} {row.goal}", flush=True)


if __name__ == "__main__":
    main()
