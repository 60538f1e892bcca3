"""What stores and tables of a lake cost the whole program, next to a local Parquet file."""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.benchmarks.measuring import (
    EXPORTER,
    GATEWAY,
    WORKSPACE,
    Cost,
    Row,
    emulator,
    measure,
    spread,
)
from tests.support.object_server import ObjectServer, serving_objects

SESSIONS = 500_000
PLAIN = "a local Parquet file"
BUCKET = "benchmark"


def build_outputs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Flags, by what the table calls them."""
    return {
        PLAIN: ("--output", f"{folder}/out.parquet"),
        "a dataset by day": ("--output", f"{folder}/set/", "--partition-by", "dt"),
        "a Parquet object on S3": ("--output", f"s3://{BUCKET}/out.parquet"),
        "a Delta table": ("--output", f"{folder}/delta/", "--format", "delta"),
        "a Delta table on S3": ("--output", f"s3://{BUCKET}/delta/", "--format", "delta"),
        "an Iceberg table": ("--output", "iceberg://bench/ops.sessions"),
    }


def build_environ(folder: Path, server: ObjectServer) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": server.url,
        "PYICEBERG_CATALOG__BENCH__URI": f"sqlite:///{folder}/catalog.db",
        "PYICEBERG_CATALOG__BENCH__WAREHOUSE": f"file://{folder}/warehouse",
    }


def export(flags: tuple[str, ...], environ: Mapping[str, str]) -> Cost:
    named = ("--workspace", WORKSPACE, "--gateway", GATEWAY)
    return measure([*EXPORTER, "export", *named, *flags, "--no-resume", "-q"], dict(environ))


def benchmark_lake(runs: int, folder: Path) -> Iterator[Row]:
    """Every output in turn, replaced each time; the emulator and the store in their own processes,
    whose costs are not counted. Without the journal, which only local outputs have.
    """
    costs: dict[str, list[Cost]] = defaultdict(list)
    flags = ("--sessions", str(SESSIONS), "--gateways", "1", "--anonymous")
    with serving_objects() as server, emulator(*flags) as env:
        client = server.client()
        client.create_bucket(Bucket=BUCKET)
        client.close()
        environ = {**env, **build_environ(folder, server)}
        for _ in range(runs):
            for name, output in build_outputs(folder).items():
                costs[name].append(export(output, environ))
    for name, found in costs.items():
        yield from compare(name, found, costs[PLAIN])


def compare(name: str, found: list[Cost], plain: list[Cost]) -> Iterator[Row]:
    seconds = spread([each.cpu_s for each in found])
    ratios = [ours.cpu_s / theirs.cpu_s for ours, theirs in zip(found, plain, strict=True)]
    peaks = spread([each.peak_mib for each in found], ".0f")
    more = statistics.median(
        ours.peak_mib - theirs.peak_mib for ours, theirs in zip(found, plain, strict=True)
    )
    relative = "" if name == PLAIN else f", {spread(ratios)} times"
    yield Row(f"{SESSIONS:,} sessions to {name}, CPU", f"{seconds} s{relative}")
    yield Row("  peak memory", f"{peaks} MiB" + ("" if name == PLAIN else f", {more:+.0f}"))


BENCHMARKS = {"lake": benchmark_lake}
