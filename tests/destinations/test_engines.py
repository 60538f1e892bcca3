"""One table read by DuckDB, Polars and PySpark: equal rows, with the edges of every type.

Delta and Iceberg are read by what needs no download: Spark would fetch jars for them.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import anyio
import polars as pl
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from pyiceberg.catalog import load_catalog

from exporter import Settings, export
from exporter.records.schema import SCHEMA
from tests.support.lake import (
    REGION,
    TIMES,
    Account,
    Row,
    newest_first,
    odd_sessions,
    parse_extra,
    read_parquet,
    read_table,
    typed_row,
)
from tests.support.program import environ_for, serving
from tests.support.spark_reader import Spark, running_spark

pytestmark = pytest.mark.campaign

CATALOG = "PYICEBERG_CATALOG__ENGINES__"


@pytest.fixture(scope="module")
def spark() -> Iterator[Spark]:
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java 17 or newer")
    with running_spark() as running:
        yield running


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Lake"]:
    """The same sessions in every kind of table."""
    folder = tmp_path_factory.mktemp("engines")
    account = Account()
    account.put(newest_first(range(1, 300)), odd_sessions(), newest_first(range(5)))
    with serving(account.scenario) as emulator, pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"{CATALOG}URI", f"sqlite:///{folder}/catalog.db")
        patch.setenv(f"{CATALOG}WAREHOUSE", f"file://{folder}/warehouse")
        for output, changes in OUTPUTS.items():
            settings = Settings(
                endpoint=emulator.endpoint,
                region=REGION,
                workspace=("all",),
                output=output if "://" in output else f"{folder}/{output}",
                **changes,
            )
            environ = environ_for(emulator, folder)
            anyio.run(lambda s=settings, e=environ: export(s, environ=e))  # type: ignore[misc]
        truth = [typed_row(key, session) for key, session in account.sessions().items()]
        yield Lake(folder, truth)


OUTPUTS: dict[str, dict[str, Any]] = {
    "sessions.parquet": {},
    "by-day/": {"partition_by": ("dt", "compute_id")},
    "delta/": {"format": "delta"},
    "iceberg://engines/ops.sessions": {},
}


POLARS_TYPES = {
    "string": pl.String(),
    "double": pl.Float64(),
    "int64": pl.Int64(),
}
SPARK_COLUMNS = [
    f"unix_millis({name}) AS {name}" if name in TIMES else name for name in SCHEMA.names
]


class Lake:
    """The exported tables, and the rows that they should have."""

    def __init__(self, folder: Path, truth: list[Row]) -> None:
        self.file = folder / "sessions.parquet"
        self.dataset = folder / "by-day"
        self.delta = folder / "delta"
        self.truth = sorted(truth, key=order)

    def load_iceberg(self) -> Any:
        catalog = load_catalog("engines", uri=f"sqlite:///{self.file.parent}/catalog.db")
        try:
            return catalog.load_table("ops.sessions")
        finally:
            catalog.close()

    def assert_equal(self, rows: Iterable[Row]) -> None:
        found = sorted(rows, key=order)
        exported_at = {row.pop("exported_at") for row in found}
        assert found == self.truth
        assert len(exported_at) == 1
        # Of floats that are equal, 0.0 has a sign.
        assert [str(row["cu_hours"]) for row in found] == [
            str(row["cu_hours"] if row["cu_hours"] is None else float(row["cu_hours"]))
            for row in self.truth
        ]


def order(row: Row) -> tuple[str, str, str]:
    return (row["workspace_id"], row["compute_id"], row["session_id"])


def read_frame(frame: pl.LazyFrame) -> list[Row]:
    """The rows that Polars sees; every column must have our type."""
    columns = frame.select(SCHEMA.names)
    for name, found in columns.collect_schema().items():
        if name in TIMES:
            assert isinstance(found, pl.Datetime)
            assert found.time_zone == "UTC"
        else:
            assert found == POLARS_TYPES[str(SCHEMA.field(name).type)]
    epochs = columns.with_columns(pl.col(name).dt.epoch("ms") for name in TIMES)
    return parse_extra(epochs.collect().to_dicts())


def test_columns_of_few_values_are_encoded_by_dictionaries(lake: Lake) -> None:
    row_group = pq.read_metadata(lake.file).row_group(0)

    by_name = {
        row_group.column(index).path_in_schema: row_group.column(index).encodings
        for index in range(row_group.num_columns)
    }

    assert all("RLE_DICTIONARY" in by_name[name] for name in ("state", "queue", "compute_id"))


def test_duckdb_reads_a_file(lake: Lake) -> None:
    lake.assert_equal(read_parquet([lake.file]))


@pytest.mark.parametrize("hive", [True, False])
def test_duckdb_reads_a_partitioned_dataset(hive: bool, lake: Lake) -> None:
    lake.assert_equal(read_parquet(list(lake.dataset.rglob("*.parquet")), hive=hive))


def test_polars_reads_a_file(lake: Lake) -> None:
    lake.assert_equal(read_frame(pl.scan_parquet(lake.file)))


@pytest.mark.parametrize("hive", [True, False])
def test_polars_reads_a_partitioned_dataset(hive: bool, lake: Lake) -> None:
    files = lake.dataset / "**/*.parquet"

    lake.assert_equal(read_frame(pl.scan_parquet(files, hive_partitioning=hive)))


def test_spark_reads_a_file(lake: Lake, spark: Spark) -> None:
    lake.assert_equal(parse_extra(spark.read(lake.file, SPARK_COLUMNS)))


def test_spark_reads_a_partitioned_dataset(lake: Lake, spark: Spark) -> None:
    lake.assert_equal(parse_extra(spark.read(lake.dataset, SPARK_COLUMNS)))


def test_spark_sees_our_types(lake: Lake, spark: Spark) -> None:
    types = {"string": "string", "double": "double", "int64": "bigint"}

    (found,) = spark.read(lake.file, [f"typeof({name}) AS {name}" for name in SCHEMA.names])[:1]

    assert found == {field.name: types.get(str(field.type), "timestamp") for field in SCHEMA}


def test_spark_shows_times_in_the_zone_of_its_session(lake: Lake, spark: Spark) -> None:
    rows = spark.read(lake.file, ["session_id", "string(create_time) AS shown"])

    shown = {row["session_id"]: row["shown"] for row in rows}
    assert shown["livy-000001"] == "2026-01-12 06:20:40.123"


def test_deltalake_reads_a_delta_table(lake: Lake) -> None:
    lake.assert_equal(read_table(DeltaTable(lake.delta).to_pyarrow_table()))


def test_polars_reads_a_delta_table(lake: Lake) -> None:
    lake.assert_equal(read_frame(pl.scan_delta(str(lake.delta))))


def test_pyiceberg_reads_an_iceberg_table(lake: Lake) -> None:
    lake.assert_equal(read_table(lake.load_iceberg().scan().to_arrow()))


def test_polars_reads_an_iceberg_table(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # without a package of its own

    lake.assert_equal(read_frame(pl.scan_iceberg(lake.load_iceberg())))
