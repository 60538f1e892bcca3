"""Iceberg tables over a real catalog, SQLite and a folder; pyiceberg and DuckDB read."""

import json
import math
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.schema import Schema
from pyiceberg.table import Table, Transaction
from pyiceberg.types import IntegerType, LongType, NestedField, StringType, TimestampType

from exporter.errors import DestinationError, UsageError
from exporter.model import Gateway, RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks.interface import OutputFacts
from exporter.tables import iceberg
from exporter.tables.iceberg import MAX_SMALL, IcebergTable
from exporter.tables.iceberg_compat import build_row_schema, build_schema
from exporter.tables.interface import Commit, TableMode, TableRequest
from exporter.tables.output import TableOutput
from tests.support.patience import HANG_S
from tests.support.tables import (
    CREATED_MS,
    EXPORTED_AT,
    FIRST,
    HOUR_MS,
    MODEL_COLUMNS,
    PARTITIONINGS,
    RUNS,
    Run,
    few_examples,
    open_table_output,
    publish_runs,
    publish_sessions,
    query,
    raw_session,
    raw_sessions,
)

pytestmark = pytest.mark.campaign

OUTPUT = "iceberg://lake/ops.sessions"
OpenTable = Callable[..., IcebergTable]


@pytest.fixture
def warehouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", f"file://{tmp_path}/warehouse")
    return tmp_path / "warehouse"


@pytest.fixture
def catalog(warehouse: Path) -> Iterator[Catalog]:
    """The catalog as somebody else sees it."""
    catalog = load_catalog(
        "lake",
        uri=f"sqlite:///{warehouse.parent}/catalog.db",
        warehouse=f"file://{warehouse}",
    )
    yield catalog
    catalog.close()


@pytest.fixture
def open_table(warehouse: Path) -> Iterator[OpenTable]:
    opened = []

    def open_one(output: str = OUTPUT, **options: Any) -> IcebergTable:
        opened.append(iceberg.open_table(TableRequest(output=output, **options)))
        return opened[-1]

    yield open_one
    for table in opened:
        table.close()


def open_output(table: IcebergTable, *, mode: TableMode, run_id: str) -> TableOutput:
    return open_table_output(table, mode=mode, run_id=run_id)


def export(
    table: IcebergTable,
    sessions: list[RawSession],
    *,
    mode: TableMode = "replace",
    run_id: str = "run-1",
    gateway: Gateway = FIRST,
) -> OutputFacts:
    output = open_output(table, mode=mode, run_id=run_id)
    return publish_sessions(output, sessions, gateway=gateway)


def load(catalog: Catalog) -> Table:
    return catalog.load_table("ops.sessions")


def read(catalog: Catalog, columns: str = "session_id, state") -> list[tuple[Any, ...]]:
    """The rows that pyiceberg reads, as DuckDB sees them."""
    sessions = load(catalog).scan().to_arrow()
    return query(sessions, columns)


def data_files(warehouse: Path) -> list[Path]:
    return sorted(warehouse.rglob("*.parquet"))


def test_new_table_has_our_types_and_key(open_table: OpenTable, catalog: Catalog) -> None:
    export(open_table(), raw_sessions(1))

    schema = load(catalog).schema()
    assert schema.column_names == SCHEMA.names
    assert schema.identifier_field_names() == {
        "region_id",
        "workspace_id",
        "compute_id",
        "session_id",
    }
    assert str(schema.find_type("create_time")) == "timestamptz"
    assert [field.name for field in schema.fields if field.required] == [
        field.name for field in SCHEMA if not field.nullable
    ]


def test_session_gets_its_create_time_later(open_table: OpenTable, catalog: Catalog) -> None:
    export(open_table(partition_by=("dt",)), raw_sessions(1, 2, createTime=0))

    export(open_table(), raw_sessions(2), mode="upsert", run_id="run-2")
    export(open_table(), raw_sessions(1, 2, createTime=None), mode="upsert", run_id="run-3")

    assert read(catalog, "session_id, create_time") == [("livy-1", None), ("livy-2", None)]


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_nothing_is_visible_before_publish_and_the_history_names_the_run(
    mode: TableMode, open_table: OpenTable, catalog: Catalog
) -> None:
    table = open_table()
    export(table, raw_sessions(1))
    output = open_output(table, mode=mode, run_id="run-2")
    output.write(FIRST, raw_sessions(1, 2, state="error"))

    output.close()

    assert read(catalog) == [("livy-1", "terminated")]
    assert open_table().find_commit("run-2") is None
    output.publish()
    assert read(catalog) == [("livy-1", "error"), ("livy-2", "error")]
    snapshot = load(catalog).current_snapshot()
    assert snapshot is not None
    assert open_table().find_commit("run-2") == str(snapshot.snapshot_id)


def test_table_is_not_made_before_the_first_commit(
    open_table: OpenTable, catalog: Catalog, warehouse: Path
) -> None:
    table = open_table()
    output = open_output(table, mode="replace", run_id="run-1")
    output.write(FIRST, raw_sessions(1))
    output.close()

    assert not catalog.table_exists("ops.sessions")
    assert table.find_commit("run-1") is None
    assert table.location == open_table().location == f"file://{warehouse}/ops/sessions"

    output.discard()

    assert data_files(warehouse) == []


class Killed(BaseException):
    """Stands for the death of the process: nothing catches it."""


def kill_before_the_commit(
    table: IcebergTable, monkeypatch: pytest.MonkeyPatch, *, mode: TableMode, run_id: str
) -> None:
    """Publish up to the commit: the files are written, and stay."""
    output = open_output(table, mode=mode, run_id=run_id)
    output.write(FIRST, raw_sessions(2, 4))
    output.close()

    def kill(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(Transaction, "commit_transaction", kill)
        with pytest.raises(Killed):
            output.publish()


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_files_of_a_killed_run_are_removed_and_those_of_others_are_not(
    mode: TableMode,
    open_table: OpenTable,
    catalog: Catalog,
    warehouse: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = open_table()
    export(table, raw_sessions(1, 2), run_id="run-1")
    export(table, raw_sessions(2, 3), mode="upsert", run_id="run-2")
    before = sorted(warehouse.rglob("*"))
    kill_before_the_commit(table, monkeypatch, mode=mode, run_id="run-3")
    assert len(data_files(warehouse)) > 2

    open_table().remove_leftovers("run-4", keep_s=0)
    open_table().remove_leftovers("run-2", keep_s=0)
    assert sorted(warehouse.rglob("*")) != before
    open_table().remove_leftovers("run-3", keep_s=0)

    assert sorted(warehouse.rglob("*")) == before
    first = load(catalog).snapshots()[0]
    assert load(catalog).scan(snapshot_id=first.snapshot_id).count() == 2


def test_files_of_a_run_that_may_still_commit_them_stay(
    open_table: OpenTable, warehouse: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = open_table()
    export(table, raw_sessions(1, 2), run_id="run-1")
    before = sorted(warehouse.rglob("*.parquet"))
    kill_before_the_commit(table, monkeypatch, mode="upsert", run_id="run-2")
    left = data_files(warehouse)

    open_table().remove_leftovers("run-2", keep_s=86_400)
    assert data_files(warehouse) == left
    for path in warehouse.rglob("*"):  # long ago, when another snapshot was the current one
        os.utime(path, (1_700_000_000, 1_700_000_000))
    open_table().remove_leftovers("run-2", keep_s=math.inf)

    assert data_files(warehouse) == before


def test_days_are_partitions(open_table: OpenTable, catalog: Catalog, warehouse: Path) -> None:
    table = open_table(partition_by=("dt", "state"))
    numbers = range(-24 * 20, 24 * 20)
    export(table, [raw_session(n, state="error" if n % 2 else "terminated") for n in numbers])

    export(table, raw_sessions(3), mode="upsert", run_id="run-2")

    assert str(load(catalog).spec().fields[0].transform) == "day"
    assert len({path.parent for path in data_files(warehouse)}) == 41 * 2
    states = {f"livy-{n}": "error" if n % 2 else "terminated" for n in numbers}
    assert read(catalog) == sorted((states | {"livy-3": "terminated"}).items())
    day = load(catalog).scan("create_time < '2025-12-25T00:00:00+00:00'")
    assert 0 < len(list(day.plan_files())) <= 6


def test_only_files_with_changed_sessions_are_rewritten(
    open_table: OpenTable, catalog: Catalog
) -> None:
    table = open_table(partition_by=("dt",))
    export(table, raw_sessions(*range(24 * 30)))

    export(table, raw_sessions(100, 700, 720), mode="upsert", run_id="run-2")

    summary = load(catalog).snapshots()[-1].summary
    assert summary is not None
    assert summary.additional_properties["deleted-data-files"] == "2"
    assert summary.additional_properties["total-records"] == "721"


def test_large_export_is_files_of_the_target_size(open_table: OpenTable, catalog: Catalog) -> None:
    table = open_table()
    export(table, [])
    with load(catalog).transaction() as transaction:
        transaction.set_properties({"write.target-file-size-bytes": "1000000"})
    sessions = [raw_session(n, webUI=f"http://{n**5:x}") for n in range(200_000)]

    export(table, sessions, run_id="run-2")

    counts = [task.file.record_count for task in load(catalog).scan().plan_files()]
    assert 20 < len(counts) < 80
    assert min(counts) > max(counts) // 3
    assert load(catalog).scan().count() == 200_000
    export(table, raw_sessions(7), mode="upsert", run_id="run-3")
    summary = load(catalog).snapshots()[-1].summary
    assert summary is not None
    assert summary.additional_properties["deleted-data-files"] == "1"


def test_hourly_runs_leave_few_files(open_table: OpenTable, catalog: Catalog) -> None:
    table = open_table()
    export(table, raw_sessions(0))

    for hour in range(1, 60):
        export(table, raw_sessions(hour), mode="upsert", run_id=f"hour-{hour}")
        table.compact(Commit(run_id=f"hour-{hour}", exporter_version="1"))

    assert load(catalog).scan().count() == 60
    assert len(list(load(catalog).scan().plan_files())) <= MAX_SMALL
    snapshot = load(catalog).current_snapshot()
    assert snapshot is not None
    assert len(snapshot.manifests(load(catalog).io)) <= 20


def test_missing_columns_are_added_and_columns_of_the_user_are_kept(
    open_table: OpenTable, catalog: Catalog
) -> None:
    export(open_table(), raw_sessions(1, 2))
    with load(catalog).update_schema(allow_incompatible_changes=True) as update:
        update.delete_column("queue")
        update.add_column("team", StringType())
    load(catalog).append(
        pa.table(
            {
                name: pa.array([f"x-{name}"])
                for name in ("session_id", "region_id", "workspace_id", "compute_id", "team")
            }
            | {"exported_at": pa.array([EXPORTED_AT], pa.timestamp("us", "UTC"))},
            schema=pa.schema(
                [
                    pa.field(name, pa.string(), nullable=name == "team")
                    for name in ("session_id", "region_id", "workspace_id", "compute_id", "team")
                ]
                + [pa.field("exported_at", pa.timestamp("us", "UTC"), nullable=False)]
            ),
        )
    )

    export(open_table(), raw_sessions(2, 3, queue="q"), mode="upsert", run_id="run-2")

    assert read(catalog, "session_id, queue, team") == [
        ("livy-1", None, None),
        ("livy-2", "q", None),
        ("livy-3", "q", None),
        ("x-session_id", None, "x-team"),
    ]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (NestedField(2, "vcore_seconds", IntegerType()), "its 'vcore_seconds' is int, not long"),
        (
            NestedField(2, "create_time", TimestampType()),
            "its 'create_time' is timestamp, not timestamptz",
        ),
        (NestedField(2, "team", LongType(), required=True), "it requires 'team', which no session"),
        (
            NestedField(2, "name", StringType(), required=True),
            "it requires 'name', which a session",
        ),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_table_that_does_not_fit_is_left_alone(
    field: NestedField, reason: str, open_table: OpenTable, catalog: Catalog
) -> None:
    catalog.create_namespace("ops")
    catalog.create_table("ops.sessions", Schema(NestedField(1, "id", StringType()), field))

    with pytest.raises(DestinationError, match=reason) as caught:
        open_table()

    assert caught.value.hint is not None
    assert load(catalog).schema().column_names == ["id", field.name]


@pytest.mark.parametrize("name", ["State", "SESSION_ID"])
def test_column_that_differs_from_ours_only_in_case_is_refused(
    name: str, open_table: OpenTable, catalog: Catalog
) -> None:
    catalog.create_namespace("ops")
    catalog.create_table("ops.sessions", Schema(NestedField(1, name, StringType())))

    with pytest.raises(DestinationError, match=f"has a column '{name}'") as caught:
        open_table()

    assert caught.value.hint == f"rename that column to '{name.lower()}', or name another table"


def test_table_of_a_format_that_is_too_new_is_refused(
    open_table: OpenTable, catalog: Catalog, warehouse: Path
) -> None:
    catalog.create_namespace("ops")
    catalog.create_table("ops.sessions", build_schema())
    [path] = warehouse.rglob("*.metadata.json")
    metadata = json.loads(path.read_text())
    path.write_text(json.dumps({**metadata, "format-version": 3, "next-row-id": 0}))

    with pytest.raises(DestinationError, match="format version 3") as caught:
        open_table()

    assert caught.value.hint is not None


def test_columns_of_files_without_ids_are_found_by_the_name_mapping(
    open_table: OpenTable, catalog: Catalog, warehouse: Path
) -> None:
    add_files_under_other_names(catalog, warehouse.parent / "theirs.parquet", raw_sessions(1, 2))

    export(open_table(), raw_sessions(2, 3, state="error"), mode="upsert", run_id="run-2")

    assert read(catalog, "session_id, state, name") == [
        ("livy-1", "terminated", "nightly 1"),
        ("livy-2", "error", "nightly 2"),
        ("livy-3", "error", "nightly 3"),
    ]


def add_files_under_other_names(catalog: Catalog, path: Path, sessions: list[RawSession]) -> None:
    """A table that another program has made of its own file, and then renamed to our columns."""
    others = {"session_id": "id", "state": "status"}
    fields = [
        field.model_copy(update={"name": others.get(field.name, field.name)})
        for field in build_schema().fields
    ]
    catalog.create_namespace("ops")
    table = catalog.create_table("ops.sessions", Schema(*fields))
    rows = pa.Table.from_batches([build_batch(FIRST, sessions, EXPORTED_AT).rows])
    rows = rows.cast(build_row_schema(build_schema()))
    pq.write_table(rows.rename_columns([field.name for field in fields]), path)
    table.add_files([f"file://{path}"])
    with table.update_schema() as update:
        for name, other in others.items():
            update.rename_column(other, name)


@pytest.mark.parametrize("partition_by", [(), ("dt",)])
def test_session_whose_create_time_changed_is_one_row(
    partition_by: tuple[str, ...], open_table: OpenTable, catalog: Catalog
) -> None:
    table = open_table(partition_by=partition_by)
    export(table, raw_sessions(*range(48)))

    moved_ms = CREATED_MS + 1000 * HOUR_MS
    export(table, raw_sessions(3, createTime=moved_ms), mode="upsert", run_id="run-2")

    moved = dict(read(catalog, "session_id, epoch_ms(create_time)"))
    assert load(catalog).scan().count() == len(moved) == 48
    assert moved["livy-3"] == moved_ms


def test_upsert_is_one_snapshot(open_table: OpenTable, catalog: Catalog) -> None:
    export(open_table(), raw_sessions(1, 2))

    export(open_table(), raw_sessions(2, 3), mode="upsert", run_id="run-2")

    assert len(load(catalog).snapshots()) == 2
    assert [each.sequence_number for each in load(catalog).snapshots()] == [1, 2]


def test_commit_whose_answer_is_lost_is_found_again(
    open_table: OpenTable, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(open_table(), raw_sessions(1))
    commit = Transaction.commit_transaction

    def commit_and_forget(transaction: Transaction) -> Table:
        commit(transaction)
        raise OSError("connection reset")

    monkeypatch.setattr(Transaction, "commit_transaction", commit_and_forget)
    export(open_table(), raw_sessions(2), mode="upsert", run_id="run-2")

    assert read(catalog) == [("livy-1", "terminated"), ("livy-2", "terminated")]
    assert len(load(catalog).snapshots()) == 2


@pytest.mark.parametrize(
    "output",
    [
        "iceberg://",
        "iceberg://lake",
        "iceberg://lake/sessions",
        "iceberg://lake/ops.",
        "iceberg://lake/.sessions",
        "iceberg://lake/ops/sessions",
        "iceberg:///ops.sessions",
    ],
)
def test_name_of_no_table_is_refused(output: str) -> None:
    with pytest.raises(UsageError, match="names no Iceberg table") as caught:
        iceberg.open_table(TableRequest(output=output))

    assert caught.value.hint == "name it as iceberg://catalog/namespace.table"


def test_catalog_that_is_not_configured_is_refused(open_table: OpenTable) -> None:
    with pytest.raises(UsageError, match="pyiceberg knows no catalog 'other'") as caught:
        open_table("iceberg://other/ops.sessions")

    assert caught.value.hint == "it knows lake"


def test_partition_column_that_does_not_exist_is_refused(
    open_table: OpenTable, catalog: Catalog
) -> None:
    with pytest.raises(UsageError, match="no column 'day' to partition by") as caught:
        open_table(partition_by=("day",))

    assert caught.value.hint is not None
    assert catalog.list_namespaces() == []


def test_catalog_that_does_not_answer_is_named(
    open_table: OpenTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("PYICEBERG_CATALOG__GONE__URI", f"http://user:secret@127.0.0.1:{port}")

    with pytest.raises(DestinationError) as caught:
        open_table("iceberg://gone/ops.sessions")

    assert str(caught.value) == (
        "cannot write to 'iceberg://gone/ops.sessions': its catalog does not answer:"
        " [Errno 111] Connection refused"
    )


def test_catalog_of_no_known_kind_is_refused(
    open_table: OpenTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__ODD__URI", "ftp://user:secret@example.com/x")

    with pytest.raises(UsageError, match="the catalog 'odd' cannot be used") as caught:
        open_table("iceberg://odd/ops.sessions")

    assert "secret" not in str(caught.value)


def test_warehouse_that_cannot_be_written_is_found_before_the_first_row(
    open_table: OpenTable, warehouse: Path, catalog: Catalog
) -> None:
    warehouse.write_text("no folder")

    with pytest.raises(DestinationError) as caught:
        open_output(open_table(), mode="replace", run_id="run-1")

    assert "\n" not in str(caught.value)
    assert not catalog.table_exists("ops.sessions")


def test_extra_that_is_not_installed_is_named() -> None:
    program = (
        "import sys\n"
        "sys.modules['pyiceberg'] = None\n"
        "from exporter.errors import ExporterError\n"
        "from exporter.tables.interface import TableRequest\n"
        "from exporter.tables.registry import open_table\n"
        "try:\n"
        "    open_table('iceberg', TableRequest(output='iceberg://lake/ops.sessions'))\n"
        "except ExporterError as exc:\n"
        "    print(exc, exc.hint, exc.exit_code, sep='|')\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=HANG_S
    )

    assert ended.stdout == (
        "an Iceberg table needs the extra 'iceberg'|pip install 'livy-exporter[iceberg]'|2\n"
    )


def test_user_sees_nothing_of_the_library(warehouse: Path) -> None:
    program = (
        "from datetime import datetime, UTC\n"
        "from exporter.model import Gateway\n"
        "from exporter.tables.interface import Commit, TableRequest\n"
        "from exporter.tables.output import TableOutput, compact\n"
        "from exporter.tables.registry import open_table\n"
        f"table = open_table('iceberg', TableRequest(output={OUTPUT!r}, partition_by=('dt',)))\n"
        "def write(mode, run_id):\n"
        "    commit = Commit(run_id=run_id, exporter_version='1')\n"
        "    output = TableOutput(table, output='x', mode=mode, commit=commit,"
        " exported_at=datetime.now(UTC))\n"
        "    output.write(Gateway('r', 'w', 'c'), [{'sessionId': run_id}])\n"
        "    output.close()\n"
        "    return output\n"
        "write('replace', 'a').publish()\n"
        "slower, faster = write('upsert', 'b'), write('upsert', 'c')\n"
        "faster.publish()\n"
        "slower.publish()\n"
        "compact(table, Commit(run_id='d', exporter_version='1'), output='x')\n"
        "table.close()\n"
    )

    ended = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_S,
    )

    assert (ended.stdout, ended.stderr) == ("", "")


@given(runs=RUNS, partition_by=PARTITIONINGS)
@few_examples
def test_table_is_a_dictionary_by_key(
    runs: list[Run], partition_by: tuple[str, ...], catalog: Catalog
) -> None:
    if catalog.table_exists("ops.sessions"):
        catalog.purge_table("ops.sessions")
    table = iceberg.open_table(TableRequest(output=OUTPUT, partition_by=partition_by))

    # Files are named after their run, and the library remembers files of the table before.
    example = uuid.uuid4()
    expected = publish_runs(
        runs, lambda mode, run_id: open_output(table, mode=mode, run_id=f"{example}-{run_id}")
    )
    table.close()

    assert read(catalog, MODEL_COLUMNS) == expected
