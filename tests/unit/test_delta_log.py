"""What a commit writes to a Delta table's log, without a table."""

import io
import json
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.errors import DestinationError
from exporter.records.schema import SCHEMA
from exporter.sinks.delta_fit import check_features
from exporter.sinks.delta_log import (
    DataFile,
    Metadata,
    Partition,
    build_entry,
    build_fields,
    build_stats,
    name_entry,
    number_of,
)
from exporter.sinks.lake_files import EndedFile
from exporter.stores import FileFacts

NOW = datetime(2026, 1, 12, 10, 24, 0, 123456, tzinfo=UTC)
NOW_MS = 1_768_213_440_123


def build_metadata(**changes: Any) -> Metadata:
    values: dict[str, Any] = {
        "table_id": "an-id",
        "name": None,
        "description": None,
        "fields": build_fields(("dt",)),
        "partition_columns": ("dt",),
        "configuration": {},
        "created_ms": 1,
    }
    return Metadata(**values | changes)


def write_parquet(groups: int = 1, **columns: pa.Array) -> pq.FileMetaData:
    stream = io.BytesIO()
    table = pa.table(columns)
    pq.write_table(table, stream, row_group_size=max(1, table.num_rows // groups))
    return pq.read_metadata(stream)


def read_actions(entry: bytes) -> list[dict[str, Any]]:
    assert entry.endswith(b"}\n")
    return [json.loads(line) for line in entry.splitlines()]


def test_entry_of_a_new_table_makes_it() -> None:
    entry = build_entry(
        mode="replace",
        version=0,
        metadata=build_metadata(),
        is_changed=True,
        added=[],
        removed=[],
        run_id="run-1",
        exporter_version="1.2.3",
        now=NOW,
    )

    info, protocol, metadata, transaction = read_actions(entry)
    assert info["commitInfo"]["timestamp"] == NOW_MS
    assert "readVersion" not in info["commitInfo"]
    assert protocol == {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}}
    schema = json.loads(metadata["metaData"]["schemaString"])
    assert [field["name"] for field in schema["fields"]] == [*SCHEMA.names, "dt"]
    assert schema["fields"][-1]["type"] == "date"
    assert metadata["metaData"]["partitionColumns"] == ["dt"]
    assert transaction == {
        "txn": {"appId": "livy-exporter", "version": number_of("run-1"), "lastUpdated": NOW_MS}
    }


def test_entry_of_a_later_version_adds_and_removes_files() -> None:
    partition: Partition = ("2026-01-12",)
    added = EndedFile(
        partition,
        FileFacts("dt=2026-01-12/a %é.parquet", 10, "00"),
        row_count=1,
        metadata=write_parquet(session_id=pa.array(["a"])),
    )
    removed = DataFile("dt=2026-01-11/a%20b.parquet", 9, (None,), created_us=None)

    entry = build_entry(
        mode="upsert",
        version=7,
        metadata=build_metadata(),
        is_changed=False,
        added=[added],
        removed=[removed],
        run_id="run-1",
        exporter_version="1.2.3",
        now=NOW,
    )

    info, _, remove, add = read_actions(entry)
    assert info["commitInfo"]["readVersion"] == 6
    assert all(isinstance(each, str) for each in info["commitInfo"]["operationMetrics"].values())
    assert remove["remove"]["path"] == "dt=2026-01-11/a%20b.parquet"
    assert remove["remove"]["partitionValues"] == {"dt": None}
    assert add["add"]["path"] == "dt=2026-01-12/a%20%25%C3%A9.parquet"
    assert add["add"]["partitionValues"] == {"dt": "2026-01-12"}
    assert json.loads(add["add"]["stats"])["numRecords"] == 1


def test_versions_are_names_in_order() -> None:
    assert name_entry(0) == "_delta_log/00000000000000000000.json"
    assert name_entry(9) < name_entry(10)


def test_runs_have_numbers_that_every_reader_can_hold() -> None:
    numbers = {number_of(f"run-{n}") for n in range(1000)}

    assert len(numbers) == 1000
    assert all(0 <= number < 2**63 for number in numbers)


def test_bounds_are_those_of_all_row_groups() -> None:
    instants = pa.array([5, None, 3, 4], pa.timestamp("ms", "UTC"))
    metadata = write_parquet(
        groups=2, session_id=pa.array(["b", "a", "é", "c"]), create_time=instants, other=instants
    )

    stats = build_stats(metadata)

    assert metadata.num_row_groups == 2
    assert stats == {
        "numRecords": 4,
        "minValues": {"session_id": "a", "create_time": "1970-01-01T00:00:00.003Z"},
        "maxValues": {"session_id": "é", "create_time": "1970-01-01T00:00:00.005Z"},
        "nullCount": {"session_id": 0, "create_time": 1},
    }


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("queue", pa.array(["q" * 65, "q"])),
        ("queue", pa.array([None, None], pa.string())),
        ("cu_hours", pa.array([float("inf"), 1.0])),
        ("create_time", pa.array([1, 2], pa.timestamp("us", "UTC"))),
    ],
    ids=["long text", "nulls", "infinite", "finer than the log"],
)
def test_value_that_the_log_cannot_have_is_no_bound(name: str, values: pa.Array) -> None:
    stats = build_stats(write_parquet(**{name: values}))

    assert stats["minValues"] == stats["maxValues"] == {}
    assert stats["nullCount"] == {name: values.null_count}
    json.dumps(stats, allow_nan=False)


@pytest.mark.parametrize(
    "metadata",
    [
        build_metadata(configuration={"delta.enableChangeDataFeed": "true"}),
        build_metadata(configuration={"delta.columnMapping.mode": "none"}),
        build_metadata(configuration={"delta.appendOnly": "false"}),
    ],
    ids=["change data feed", "no mapping", "not append-only"],
)
def test_table_of_another_engine_can_be_written_to(metadata: Metadata) -> None:
    check_features(
        "lake/",
        metadata,
        versions=(1, 7),
        reader_features=(),
        writer_features=("appendOnly", "invariants", "changeDataFeed"),
    )


MARKED = {"name": "a", "type": "string", "nullable": True, "metadata": {"delta.invariants": "{}"}}


@pytest.mark.parametrize(
    ("metadata", "versions", "features", "named"),
    [
        (build_metadata(), (3, 7), ("deletionVectors",), "deletionVectors"),
        (build_metadata(), (1, 8), (), "version 8 of the protocol"),
        (build_metadata(fields=(MARKED,)), (1, 2), (), r"delta\.invariants"),
        (
            build_metadata(configuration={"delta.columnMapping.mode": "name"}),
            (2, 5),
            (),
            r"delta\.columnMapping\.mode",
        ),
        (
            build_metadata(configuration={"delta.constraints.x": "a > 1"}),
            (1, 3),
            (),
            r"delta\.constraints\.x",
        ),
    ],
)
def test_table_that_asks_more_of_its_writers_is_refused(
    metadata: Metadata, versions: tuple[int, int], features: tuple[str, ...], named: str
) -> None:
    with pytest.raises(DestinationError, match=f"uses {named}, which") as caught:
        check_features(
            "lake/", metadata, versions=versions, reader_features=(), writer_features=features
        )

    assert caught.value.hint is not None
