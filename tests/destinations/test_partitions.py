"""Partitioned datasets as engines read them: by paths, and by the files alone."""

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset as ds
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from exporter.destinations.open import open_output
from exporter.destinations.resolve import resolve_destination
from exporter.model import FileFormat, Gateway, RawSession
from exporter.runs.prepare import build_run_id
from exporter.sinks.hive import NO_VALUE
from exporter.sinks.interface import OutputFacts
from tests.support.examples import scale_examples

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
EXPORTED_AT = datetime(2026, 1, 12, 10, 24, tzinfo=UTC)
NOON_MS = 1_768_219_200_000
DAY_MS = 86_400_000


def export(
    folder: Path,
    sessions: list[RawSession],
    *partition_by: str,
    output_format: FileFormat = "parquet",
) -> OutputFacts:
    output = open_output(
        resolve_destination(f"{folder}/", chosen=output_format),
        run_id=build_run_id(EXPORTED_AT),
        exporter_version="1.2.3",
        exported_at=EXPORTED_AT,
        parquet_codec="zstd",
        adds=False,
        partition_by=partition_by,
        target_bytes=128 << 20,
    )
    output.write(GATEWAY, sessions)
    facts = output.close()
    output.publish()
    return facts


def query(text: str, *values: object) -> Sequence[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(text, values).fetchall()


DAYS = [
    {
        "sessionId": f"livy-{number:02}",
        "queue": f"queue {number % 3}/ü",
        "state": "error" if number % 5 == 0 else "terminated",
        "createTime": NOON_MS - number * DAY_MS // 2,
        "cuHours": number / 4,
    }
    for number in range(20)
]
ROWS = [
    (each["sessionId"], each["queue"], each["state"], each["createTime"], each["cuHours"])
    for each in DAYS
]
COLUMNS = ["session_id", "queue", "state", "create_time", "cu_hours"]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    export(tmp_path / "set", DAYS, "dt", "queue")
    return tmp_path / "set"


@pytest.mark.parametrize("by_path", ["true", "false"])
def test_duckdb_reads_all_rows(by_path: str, dataset: Path) -> None:
    text = (
        "SELECT session_id, queue, state, epoch_ms(create_time), cu_hours"
        " FROM read_parquet(?, hive_partitioning = BY_PATH) ORDER BY 1"
    )

    rows = query(text.replace("BY_PATH", by_path), f"{dataset}/**/*.parquet")

    assert rows == ROWS


@pytest.mark.campaign
@pytest.mark.parametrize("by_path", [True, False])
def test_polars_reads_all_rows(by_path: bool, dataset: Path) -> None:
    import polars as pl

    frame = pl.read_parquet(f"{dataset}/**/*.parquet", hive_partitioning=by_path)

    ordered = frame.sort("session_id").with_columns(pl.col("create_time").dt.epoch("ms"))
    assert ordered.select(COLUMNS).rows() == ROWS


@pytest.mark.parametrize("partitioning", ["hive", None])
def test_arrow_reads_all_rows(partitioning: str | None, dataset: Path) -> None:
    table = ds.dataset(str(dataset), format="parquet", partitioning=partitioning).to_table()

    found = table.sort_by("session_id").select(COLUMNS).to_pylist()
    assert [
        (*list(row.values())[:3], int(row["create_time"].timestamp() * 1000), row["cu_hours"])
        for row in found
    ] == ROWS


def test_date_is_that_of_the_create_time_and_prunes(dataset: Path) -> None:
    rows = query(
        "SELECT count(*), count(*) FILTER (dt = create_time::TIMESTAMP::DATE)"
        " FROM read_parquet(?, hive_partitioning = true)",
        f"{dataset}/**/*.parquet",
    )
    plan = query(
        "EXPLAIN ANALYZE SELECT count(*) FROM read_parquet(?, hive_partitioning = true)"
        " WHERE dt >= DATE '2026-01-12' AND queue = 'queue 0/ü'",
        f"{dataset}/**/*.parquet",
    )

    assert rows == [(20, 20)]
    assert "Scanning Files: 1/" in plan[0][1]


def test_lines_are_partitioned_as_rows_are(tmp_path: Path) -> None:
    parquet = export(tmp_path / "parquet", DAYS, "dt", "queue")
    ndjson = export(tmp_path / "ndjson", DAYS, "dt", "queue", output_format="ndjson")

    rows = query(
        "SELECT sessionId, queue, state, createTime, cuHours"
        " FROM read_json(?, hive_partitioning = true) ORDER BY 1",
        f"{tmp_path}/ndjson/**/*.ndjson",
    )

    assert rows == ROWS
    assert [(file.facts.path.rpartition("/")[0], file.row_count) for file in ndjson.files] == [
        (file.facts.path.rpartition("/")[0], file.row_count) for file in parquet.files
    ]


def test_export_of_nothing_has_the_columns(tmp_path: Path) -> None:
    export(tmp_path / "set", [], "dt", "queue")

    files = f"{tmp_path}/set/**/*.parquet"
    described = query("DESCRIBE SELECT * FROM read_parquet(?, hive_partitioning = true)", files)

    assert {name for name, *_ in described} >= {"dt", "queue", "session_id", "extra"}
    assert query("SELECT count(*) FROM read_parquet(?)", files) == [(0,)]


VALUES = (
    st.none()
    | st.text(max_size=5)
    | st.text(st.sampled_from("/%=:\\ '\"*?#[]{}^.~\x00\n\x7fü🦆a1"), max_size=8)
    | st.sampled_from(["", ".", "..", "007", "1", "true", "null", "2026-01-01", NO_VALUE])
    | st.integers(190, 400).map(lambda count: "x" * count)
    | st.integers(60, 100).map(lambda count: "数" * count)
)


def by_path(value: str | None) -> str | None:
    """The value that a path can hold."""
    if value in (None, "", NO_VALUE) or escaped_bytes(str(value)) > 200:
        return None
    return value


def escaped_bytes(value: str) -> int:
    special = set("\"#%'*/:=?\\\x7f{[]^") | {chr(code) for code in range(32)}
    return sum(3 if each in special else len(each.encode()) for each in value)


@settings(
    max_examples=scale_examples(40),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=st.lists(VALUES, min_size=1, max_size=6))
def test_any_value_of_a_partition_comes_back(values: list[str | None], tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "set", ignore_errors=True)
    rows = [{"sessionId": f"livy-{n}", "queue": value} for n, value in enumerate(values)]
    facts = export(tmp_path / "set", rows, "queue")
    files = [str(tmp_path / "set" / file.facts.path) for file in facts.files]

    exact = query(
        "SELECT queue FROM read_parquet(?, hive_partitioning = false) ORDER BY session_id", files
    )
    arrow = ds.dataset(str(tmp_path / "set"), format="parquet").to_table().sort_by("session_id")
    named = query(
        "SELECT queue FROM read_parquet(?, hive_partitioning = true,"
        " hive_types_autocast = false) ORDER BY session_id",
        files,
    )

    assert [value for (value,) in exact] == arrow.column("queue").to_pylist() == values
    assert [value for (value,) in named] == [by_path(value) for value in values]
