"""Delta tables in a folder; deltalake and DuckDB read."""

import json
import math
import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from deltalake import DeltaTable as Reader
from deltalake import Field, Schema, write_deltalake
from deltalake.schema import PrimitiveType
from hypothesis import given

from exporter.errors import DestinationError, UsageError
from exporter.gateway import Gateway
from exporter.records import RawSession
from exporter.records.schema import SCHEMA
from exporter.sinks import OutputFacts, Table, TableMode
from exporter.sinks.delta import DeltaTable
from exporter.sinks.delta_output import DeltaCommitter
from exporter.sinks.delta_storage import DeltaStorage, open_delta_storage
from exporter.sinks.lake_output import MOST_SMALL, TableOutput
from exporter.stores.addresses import StoreAccess
from exporter.stores.local import LocalStore
from tests.patience import HANG_S
from tests.tables import (
    CREATED_MS,
    EXPORTED_AT,
    FIRST,
    HOUR_MS,
    MODEL_COLUMNS,
    PARTITIONINGS,
    RUNS,
    Run,
    few_examples,
    publish_runs,
    publish_sessions,
    query,
    raw_session,
    raw_sessions,
)


def run_id_of(number: int) -> str:
    return f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{number:06x}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ses sions"


def open_table(folder: Path, **options: Any) -> DeltaTable:
    output = f"{folder}/"
    return DeltaTable(output, storage=open_delta_storage(output, StoreAccess()), **options)


def open_output(
    table: DeltaTable,
    *,
    mode: TableMode,
    run_id: str,
    target_bytes: int = 128 << 20,
) -> TableOutput[Any, Any, Any]:
    committer = DeltaCommitter(
        table._table,
        mode=mode,
        run_id=run_id,
        exporter_version="1.2.3",
        codec="zstd",
        target_bytes=target_bytes,
    )
    return TableOutput(committer, mode=mode, exported_at=EXPORTED_AT, sleep=lambda _: None)


def export(
    table: DeltaTable,
    sessions: list[RawSession],
    *,
    mode: TableMode = "replace",
    run_id: str = "run-1",
    gateway: Gateway = FIRST,
    target_bytes: int = 128 << 20,
) -> OutputFacts:
    output = open_output(table, mode=mode, run_id=run_id, target_bytes=target_bytes)
    return publish_sessions(output, sessions, gateway=gateway)


def read(folder: Path, columns: str = "session_id, state") -> list[tuple[Any, ...]]:
    """What DuckDB makes of what deltalake reads."""
    sessions = Reader(folder).to_pyarrow_table()
    return query(sessions, columns)


def count_rows(folder: Path, version: int | None = None) -> int:
    return int(Reader(folder, version=version).to_pyarrow_table().num_rows)


def data_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if "livy-exporter-" in path.name)


def run_ids(folder: Path) -> list[str | None]:
    return [each.get("livyExporterRunId") for each in reversed(Reader(folder).history())]


def removed_count(folder: Path) -> int:
    return int(Reader(folder).history(1)[0]["operationMetrics"]["numRemovedFiles"])


def test_new_table_has_our_types(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))

    fields = json.loads(Reader(folder).schema().to_json())["fields"]
    assert [field["name"] for field in fields] == SCHEMA.names
    assert {field["name"]: field["type"] for field in fields if field["type"] != "string"} == {
        "create_time": "timestamp",
        "end_time": "timestamp",
        "cu_hours": "double",
        "vcore_seconds": "long",
        "mb_seconds": "long",
        "exported_at": "timestamp",
    }
    assert [field["name"] for field in fields if not field["nullable"]] == [
        field.name for field in SCHEMA if not field.nullable
    ]
    protocol = Reader(folder).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


def test_commit_names_the_run_and_the_exporter(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))

    [commit] = Reader(folder).history()
    assert commit["livyExporterRunId"] == "run-1"
    assert commit["engineInfo"] == "livy-exporter/1.2.3"
    assert commit["operation"] == "WRITE"


def test_readers_skip_files_by_their_statistics(folder: Path) -> None:
    sessions = [*raw_sessions(1, 5, queue="q" * 100), raw_session(2, cuHours=None)]
    export(open_table(folder), sessions)

    [file] = pa.table(Reader(folder).get_add_actions(flatten=True)).to_pylist()

    assert file["num_records"] == 3
    assert (file["min.session_id"], file["max.session_id"]) == ("livy-1", "livy-5")
    assert (file["null_count.cu_hours"], file["min.cu_hours"], file["max.cu_hours"]) == (
        1,
        0.25,
        1.25,
    )
    assert file["min.create_time"].timestamp() * 1000 == CREATED_MS + HOUR_MS
    assert file.get("min.queue") is None
    dataset = Reader(folder).to_pyarrow_dataset()
    assert dataset.count_rows(filter=pa.compute.field("session_id") == "livy-2") == 1


def test_run_that_adds_again_after_a_crash_changes_nothing(folder: Path) -> None:
    export(open_table(folder), raw_sessions(*range(10), state="running"))
    export(open_table(folder), raw_sessions(3, 11), mode="upsert", run_id="run-2")
    once = read(folder, "*")

    export(open_table(folder), raw_sessions(3, 11), mode="upsert", run_id="run-3")

    assert read(folder, "*") == once


def test_session_gets_its_create_time_later(folder: Path) -> None:
    export(open_table(folder, partition_by=("dt",)), raw_sessions(1, 2, createTime=0))

    export(open_table(folder), raw_sessions(2), mode="upsert", run_id="run-2")
    export(open_table(folder), raw_sessions(1, 2, createTime=None), mode="upsert", run_id="run-3")

    assert read(folder, "session_id, create_time, dt") == [
        ("livy-1", None, None),
        ("livy-2", None, None),
    ]


def test_columns_are_read_back_with_those_of_partitions(folder: Path) -> None:
    table: Table = open_table(folder, partition_by=("state", "dt"))
    assert list(table.read_columns(["session_id"])) == []
    export(open_table(folder, partition_by=("state", "dt")), raw_sessions(1, 2, 30))

    assert sum(rows.num_rows for rows in table.read_columns(["dt"])) == 3
    rows = pa.Table.from_batches(list(table.read_columns(["state", "session_id", "dt"])))

    assert sorted(rows.to_pylist(), key=str) == [
        {"state": "terminated", "session_id": f"livy-{n}", "dt": date(2026, 1, day)}
        for n, day in ((1, 12), (2, 12), (30, 13))
    ]


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_nothing_is_visible_before_publish_and_the_table_tells(
    mode: TableMode, folder: Path
) -> None:
    table = open_table(folder)
    export(table, raw_sessions(1))
    output = open_output(table, mode=mode, run_id="run-2")
    output.write(FIRST, raw_sessions(1, 2, state="error"))

    output.close()

    assert read(folder) == [("livy-1", "terminated")]
    assert not open_table(folder).has_committed("run-2")
    assert open_table(folder).has_committed("run-1")
    output.publish()
    assert read(folder) == [("livy-1", "error"), ("livy-2", "error")]
    assert open_table(folder).has_committed("run-2")


def test_table_is_not_made_before_the_first_commit(folder: Path) -> None:
    table = open_table(folder)
    assert not folder.exists()
    output = open_output(table, mode="replace", run_id="run-1")
    output.write(FIRST, raw_sessions(1))
    output.close()

    assert not (folder / "_delta_log").exists()
    assert not table.has_committed("run-1")

    output.discard()

    assert data_files(folder) == []


@pytest.mark.parametrize("partition_by", [(), ("queue", "dt")])
def test_files_of_a_killed_run_are_removed_and_those_of_the_past_are_not(
    partition_by: tuple[str, ...], folder: Path
) -> None:
    table = open_table(folder, partition_by=partition_by)
    export(table, raw_sessions(1, 2, queue="a b%/=ü"), run_id=run_id_of(1))
    export(table, raw_sessions(2, 3, queue="a b%/=ü"), mode="upsert", run_id=run_id_of(2))
    before = sorted(folder.rglob("*"))
    killed = open_output(table, mode="replace", run_id=run_id_of(3))
    killed.write(FIRST, raw_sessions(4))
    killed.close()
    (folder / "livy-exporter-20200101T000000Z-000000-0-00000.parquet").write_text("old")
    assert sorted(folder.rglob("*")) != before

    open_table(folder).remove_leftovers()

    (folder / "livy-exporter-20200101T000000Z-000000-0-00000.parquet").unlink()
    assert sorted(folder.rglob("*")) == before
    assert count_rows(folder, version=0) == 2


def test_files_of_a_run_that_was_killed_before_the_first_commit_are_removed(folder: Path) -> None:
    killed = open_output(open_table(folder), mode="replace", run_id=run_id_of(1))
    killed.write(FIRST, raw_sessions(4))
    killed.close()

    open_table(folder).remove_leftovers()

    assert data_files(folder) == []
    export(open_table(folder), raw_sessions(1))
    assert count_rows(folder) == 1


ENDLESS = """
import sys
from datetime import UTC, datetime
from itertools import count
from exporter.gateway import Gateway
from exporter.sinks.delta import DeltaTable
from exporter.sinks.delta_storage import open_delta_storage
from exporter.stores.addresses import StoreAccess

folder = sys.argv[1]
table = DeltaTable(folder, storage=open_delta_storage(folder, StoreAccess()))
for number in count(int(sys.argv[2])):
    now = datetime.now(UTC)
    output = table.open_output(
        mode="upsert",
        run_id=f"{now:%Y%m%dT%H%M%SZ}-{number:06x}",
        exporter_version="1",
        exported_at=now,
    )
    output.write(Gateway("r", "w", "c"), [{"sessionId": f"{number:06}"}, {"sessionId": "last"}])
    output.close()
    print(f"{now:%Y%m%dT%H%M%SZ}-{number:06x}", flush=True)
    output.publish()
"""


def test_killed_writer_leaves_whole_versions_and_the_table_tells_which(folder: Path) -> None:
    first = folder / "_delta_log/00000000000000000000.json"
    for _ in range(6):
        before = len(read(folder)) - 1 if first.exists() else 0
        with subprocess.Popen(
            [sys.executable, "-c", ENDLESS, str(folder), str(before)],
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.uniform(0, 0.1))  # noqa: S311 - any moment
            process.kill()
            closed = process.stdout.read().split()

        table = open_table(folder)
        table.remove_leftovers()

        if not first.exists():
            continue
        sessions = [row[0] for row in read(folder)]
        done = len(sessions) - 1
        assert sessions == [*(f"{number:06}" for number in range(done)), "last"]
        unsure = closed[-1:]
        for run_id in unsure:
            assert table.has_committed(run_id) == (int(run_id[-6:], 16) == done - 1)
        named = {unquote(path) for path in Reader(folder).file_uris()}
        assert {f"{folder}/{path.name}" for path in data_files(folder)} >= named


def test_commit_of_another_program_is_seen(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1, 2))
    output = open_output(open_table(folder), mode="upsert", run_id="run-2")
    output.write(FIRST, raw_sessions(2, 3, state="error"))
    output.close()
    Reader(folder).delete("session_id = 'livy-1'")

    output.publish()

    assert read(folder) == [("livy-2", "error"), ("livy-3", "error")]


def test_writers_that_publish_at_once_lose_nothing(folder: Path) -> None:
    export(open_table(folder), raw_sessions(0), run_id="first")
    outputs = [
        open_output(open_table(folder), mode="upsert", run_id=f"run-{number}")
        for number in range(4)
    ]
    for number, output in enumerate(outputs):
        output.write(FIRST, raw_sessions(0, number + 1, state=f"of {number}"))
        output.close()

    with ThreadPoolExecutor() as threads:
        list(threads.map(TableOutput.publish, outputs))

    found = dict(read(folder))
    last = run_ids(folder)[-1]
    assert found.pop("livy-0") == f"of {str(last).removeprefix('run-')}"
    assert found == {f"livy-{number + 1}": f"of {number}" for number in range(4)}


def test_columns_that_were_changed_meanwhile_end_a_run_that_replaces(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    output = open_output(open_table(folder), mode="replace", run_id="run-2")
    output.write(FIRST, raw_sessions(2))
    output.close()
    add_column(folder, "team", "string")

    with pytest.raises(DestinationError, match="were changed meanwhile"):
        output.publish()
    output.discard()

    assert read(folder) == [("livy-1", "terminated")]


class ForgetfulStore(LocalStore):
    """One that writes and loses the answer, or says that somebody else was faster."""

    answer: Callable[[], bool]

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
        super().create(name, content)
        return self.answer()


def fail() -> bool:
    raise DestinationError("the store gave no whole answer")


@pytest.mark.parametrize("answer", [fail, lambda: False], ids=["lost", "sent twice"])
def test_commit_whose_answer_is_lost_is_found_again(
    answer: Callable[[], bool], folder: Path
) -> None:
    export(open_table(folder), raw_sessions(1))
    store = ForgetfulStore(f"{folder}/")
    store.answer = answer
    table = DeltaTable(f"{folder}/", storage=DeltaStorage(store, str(folder), dict))

    export(table, raw_sessions(2), run_id="run-2")

    assert read(folder) == [("livy-2", "terminated")]
    assert run_ids(folder) == ["run-1", "run-2"]


def test_days_are_partitions(folder: Path) -> None:
    table = open_table(folder, partition_by=("dt", "state"))
    numbers = range(-24 * 20, 24 * 20)
    export(table, [raw_session(n, state="error" if n % 2 else "terminated") for n in numbers])

    export(table, raw_sessions(3), mode="upsert", run_id="run-2")

    assert Reader(folder).metadata().partition_columns == ["dt", "state"]
    assert len({path.parent for path in data_files(folder)}) == 41 * 2
    states = {f"livy-{n}": "error" if n % 2 else "terminated" for n in numbers}
    assert read(folder) == sorted((states | {"livy-3": "terminated"}).items())
    assert read(folder, "count(*) FILTER (dt <> (create_time AT TIME ZONE 'UTC')::DATE)") == [(0,)]
    days = pa.table(Reader(folder).get_add_actions(flatten=True))["partition.dt"].to_pylist()
    assert days.count(date(2025, 12, 25)) == 2


def test_partitions_of_any_text_are_read_back(folder: Path) -> None:
    queues = ["a b", "a/b", "a%2Fb", "=", "数据", "x" * 300, "..", None]
    sessions = [raw_session(n, queue=queue) for n, queue in enumerate(queues)]
    table = open_table(folder, partition_by=("queue",))
    export(table, sessions)

    export(table, sessions, mode="upsert", run_id="run-2")

    assert read(folder, "session_id, queue") == [
        (f"livy-{n}", queue) for n, queue in enumerate(queues)
    ]
    assert removed_count(folder) == len(queues)


def test_only_files_with_changed_sessions_are_written_anew(folder: Path) -> None:
    table = open_table(folder, partition_by=("dt",))
    export(table, raw_sessions(*range(24 * 30)))

    export(table, raw_sessions(100, 700, 720), mode="upsert", run_id="run-2")

    assert removed_count(folder) == 2
    assert count_rows(folder) == 721


def test_large_export_is_files_of_the_target_size(folder: Path) -> None:
    table = open_table(folder)
    sessions = [raw_session(n, webUI=f"http://{n**5:x}") for n in range(200_000)]

    facts = export(table, sessions, target_bytes=1_000_000)

    sizes = [file.facts.size_bytes for file in facts.files]
    assert len(sizes) > 2
    assert all(1_000_000 <= size < 2_000_000 for size in sizes[:-1])
    assert sum(file.row_count for file in facts.files) == 200_000
    assert count_rows(folder) == 200_000
    export(table, raw_sessions(7), mode="upsert", run_id="run-3", target_bytes=1_000_000)
    assert removed_count(folder) == 1


def test_hourly_runs_leave_few_files_and_checkpoints(folder: Path) -> None:
    table = open_table(folder)
    export(table, raw_sessions(0))

    for hour in range(1, 60):
        export(table, raw_sessions(hour), mode="upsert", run_id=f"hour-{hour}")

    assert count_rows(folder) == 60
    assert len(Reader(folder).file_uris()) <= MOST_SMALL + 1
    checkpoint = json.loads((folder / "_delta_log/_last_checkpoint").read_text())
    assert checkpoint["version"] == 50
    assert open_table(folder).has_committed("hour-59")


def build_schema(*fields: pa.Field) -> Schema:
    """For a table that another program makes."""
    instant = pa.timestamp("us", tz="UTC")
    return Schema.from_arrow(
        pa.schema(
            field.with_type(instant) if pa.types.is_timestamp(field.type) else field
            for field in fields
        )
    )


def add_column(folder: Path, name: str, type_name: str) -> None:
    Reader(folder).alter.add_columns(Field(name, PrimitiveType(type_name), nullable=True))


def test_missing_columns_are_added_and_columns_of_the_user_are_kept(folder: Path) -> None:
    theirs = pa.table(
        {
            name: pa.array([f"x-{name}"])
            for name in ("session_id", "region_id", "workspace_id", "compute_id", "team")
        }
        | {
            "exported_at": pa.array([EXPORTED_AT], pa.timestamp("us", "UTC")),
            "tags": pa.array([[{"key": "a"}]]),
        }
    )
    write_deltalake(folder, theirs)

    export(open_table(folder), raw_sessions(2, 3, queue="q"), mode="upsert", run_id="run-2")
    own = {"sessionId": "x-session_id", "computeId": "x-compute_id", "queue": "new"}
    export(
        open_table(folder),
        [own],
        mode="upsert",
        run_id="run-3",
        gateway=Gateway("x-region_id", "x-workspace_id", "x-compute_id"),
    )
    export(open_table(folder), raw_sessions(3, queue="r"), mode="upsert", run_id="run-4")

    assert read(folder, "session_id, queue, team") == [
        ("livy-2", "q", None),
        ("livy-3", "r", None),
        ("x-session_id", "new", None),
    ]
    assert Reader(folder, version=1).to_pyarrow_table()["team"].to_pylist().count("x-team") == 1
    assert run_ids(folder) == [None, "run-2", "run-3", "run-4"]
    assert {field.name for field in Reader(folder).schema().fields} == {
        *SCHEMA.names,
        "team",
        "tags",
    }


def test_run_that_replaces_adds_missing_columns_in_its_commit(folder: Path) -> None:
    Reader.create(folder, build_schema(*(field for field in SCHEMA if field.name != "queue")))

    export(open_table(folder, partition_by=()), raw_sessions(1, queue="q"))

    assert read(folder, "session_id, queue") == [("livy-1", "q")]
    assert Reader(folder).version() == 1


def test_rows_of_the_user_keep_their_values(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1, 2))
    add_column(folder, "team", "string")
    Reader(folder).update({"team": "'blue'"}, predicate="session_id = 'livy-1'")

    export(open_table(folder), raw_sessions(2, 3), mode="upsert", run_id="run-2")

    assert read(folder, "session_id, team") == [
        ("livy-1", "blue"),
        ("livy-2", None),
        ("livy-3", None),
    ]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (pa.field("vcore_seconds", pa.int32()), "its 'vcore_seconds' is integer, not long"),
        (pa.field("dt", pa.int32()), "its 'dt' is integer, not date"),
        (pa.field("create_time", pa.string()), "its 'create_time' is string, not timestamp"),
        (pa.field("team", pa.int64(), nullable=False), "it requires 'team', which no session"),
        (pa.field("name", pa.string(), nullable=False), "it requires 'name', which a session"),
    ],
    ids=lambda each: getattr(each, "name", None),
)
def test_table_that_does_not_fit_is_left_alone(field: pa.Field, reason: str, folder: Path) -> None:
    schema = pa.schema([pa.field("id", pa.string()), field])
    Reader.create(folder, Schema.from_arrow(schema))

    with pytest.raises(DestinationError, match=reason) as caught:
        open_table(folder)

    assert caught.value.hint is not None
    assert [each.name for each in Reader(folder).schema().fields] == ["id", field.name]


@pytest.mark.parametrize(
    ("configuration", "feature"),
    [
        ({"delta.appendOnly": "true"}, "delta.appendOnly"),
        ({"delta.enableDeletionVectors": "true"}, "deletionVectors"),
    ],
)
def test_table_that_asks_more_of_writers_is_left_alone(
    configuration: dict[str, str], feature: str, folder: Path
) -> None:
    Reader.create(folder, build_schema(*SCHEMA), configuration=configuration)

    with pytest.raises(DestinationError, match=f"uses {feature}, which is not supported"):
        open_table(folder)


def test_table_with_a_constraint_is_left_alone(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    Reader(folder).alter.add_constraint({"known": "state <> 'odd'"})

    with pytest.raises(DestinationError, match=r"uses delta\.constraints\.known"):
        open_table(folder)


@pytest.mark.parametrize("name", ["part-0.parquet", "deep/er/data.csv"])
def test_folder_that_holds_something_else_is_left_alone(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")

    with pytest.raises(DestinationError, match="is no Delta table and holds") as caught:
        open_table(folder)

    assert caught.value.hint is not None
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]


def test_damaged_table_is_told_in_one_line(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    (folder / "_delta_log/00000000000000000000.json").write_text("{")

    with pytest.raises(DestinationError, match="cannot read the table") as caught:
        open_table(folder)

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", [b"PAR1", None], ids=["cut off", "gone"])
def test_damaged_data_file_ends_a_run_that_adds(damage: bytes | None, folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    [file] = data_files(folder)
    file.unlink()
    if damage is not None:
        file.write_bytes(damage)
    output = open_output(open_table(folder), mode="upsert", run_id="run-2")
    output.write(FIRST, raw_sessions(1))

    with pytest.raises(DestinationError, match="cannot read") as caught:
        output.close()
    output.discard()

    assert "\n" not in str(caught.value)
    assert run_ids(folder) == ["run-1"]


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        ("day", "there is no column 'day' to partition by"),
        ("create_time", "a table cannot be partitioned by 'create_time'"),
    ],
)
def test_table_cannot_be_partitioned_by_any_column(column: str, reason: str, folder: Path) -> None:
    with pytest.raises(UsageError, match=reason) as caught:
        open_table(folder, partition_by=(column,))

    assert caught.value.hint is not None
    assert not folder.exists()


def test_table_of_another_program_is_partitioned_as_it_was(folder: Path) -> None:
    own = [pa.field("dt", pa.string()), pa.field("load_date", pa.date32())]
    schema = build_schema(*SCHEMA, *own)
    Reader.create(folder, schema, partition_by=["dt", "load_date"])

    export(open_table(folder), raw_sessions(1))
    export(open_table(folder), raw_sessions(1, 2), mode="upsert", run_id="run-2")

    assert read(folder, "session_id, dt, load_date") == [
        ("livy-1", "2026-01-12", None),
        ("livy-2", "2026-01-12", None),
    ]


def test_folder_that_cannot_be_written_is_found_before_the_first_row(folder: Path) -> None:
    folder.write_text("no folder")

    with pytest.raises(DestinationError) as caught:
        open_output(open_table(folder), mode="replace", run_id="run-1")

    assert "\n" not in str(caught.value)


def test_extra_that_is_not_installed_is_named(folder: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['deltalake'] = None\n"
        "from exporter.errors import ExporterError\n"
        "from exporter.sinks.delta import DeltaTable\n"
        "from exporter.sinks.delta_storage import open_delta_storage\n"
        "from exporter.stores.addresses import StoreAccess\n"
        "try:\n"
        f"    DeltaTable('x', storage=open_delta_storage({str(folder)!r}, StoreAccess()))\n"
        "except ExporterError as exc:\n"
        "    print(exc, exc.hint, exc.exit_code, sep='|')\n"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=HANG_S
    )

    assert (
        ended.stdout
        == "a Delta table needs the extra 'delta'|pip install 'livy-exporter[delta]'|2\n"
    )


def test_user_sees_nothing_of_the_library(folder: Path) -> None:
    program = (
        "from datetime import datetime, UTC\n"
        "from exporter.gateway import Gateway\n"
        "from exporter.sinks.delta import DeltaTable\n"
        "from exporter.sinks.delta_storage import open_delta_storage\n"
        "from exporter.stores.addresses import StoreAccess\n"
        f"storage = open_delta_storage({str(folder)!r}, StoreAccess())\n"
        "table = DeltaTable('x', storage=storage, partition_by=('dt',))\n"
        "for number in range(12):\n"
        "    output = table.open_output(mode='upsert', run_id=f'{number}', exporter_version='1',"
        " exported_at=datetime.now(UTC))\n"
        "    output.write(Gateway('r', 'w', 'c'), [{'sessionId': 'a'}])\n"
        "    output.close()\n"
        "    output.publish()\n"
        "table.remove_leftovers()\n"
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
    runs: list[Run], partition_by: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("table")
    table = open_table(folder, partition_by=partition_by)

    expected = publish_runs(runs, lambda mode, run_id: open_output(table, mode=mode, run_id=run_id))

    assert read(folder, MODEL_COLUMNS) == expected
