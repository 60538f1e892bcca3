"""Delta tables in a folder; deltalake and DuckDB read."""

import json
import random
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest
from deltalake import DeltaTable as Reader
from deltalake import Field, Schema, write_deltalake
from deltalake.exceptions import CommitFailedError
from deltalake.schema import PrimitiveType
from hypothesis import given

from exporter.errors import DestinationError, UsageError
from exporter.model import Gateway, RawSession
from exporter.records.schema import SCHEMA
from exporter.sinks.interface import OutputFacts
from exporter.tables import delta
from exporter.tables.delta import MAX_SMALL, DeltaLakeTable
from exporter.tables.delta_compat import FEATURES
from exporter.tables.interface import Commit, Table, TableMode, TableRequest
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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "ses sions"


def open_table(folder: Path, **options: Any) -> DeltaLakeTable:
    return delta.open_table(TableRequest(output=f"{folder}/", **options))


def open_output(table: Table, *, mode: TableMode, run_id: str) -> TableOutput:
    return open_table_output(table, mode=mode, run_id=run_id)


def export(
    table: Table,
    sessions: list[RawSession],
    *,
    mode: TableMode = "replace",
    run_id: str = "run-1",
    gateway: Gateway = FIRST,
) -> OutputFacts:
    output = open_output(table, mode=mode, run_id=run_id)
    return publish_sessions(output, sessions, gateway=gateway)


def read(folder: Path, columns: str = "session_id, state") -> list[tuple[Any, ...]]:
    """The rows that deltalake reads, as DuckDB sees them."""
    sessions = pa.table(Reader(folder).scan())
    return query(sessions, columns)


def count_rows(folder: Path, version: int | None = None) -> int:
    return int(Reader(folder, version=version).to_pyarrow_table().num_rows)


def data_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.parquet"))


def run_ids(folder: Path) -> list[str | None]:
    return [each.get("livyExporterRunId") for each in reversed(Reader(folder).history())]


def removed_count(folder: Path) -> int:
    metrics = Reader(folder).history(1)[0]["operationMetrics"]
    return int(metrics["num_target_files_removed"])


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
    assert commit["livyExporterVersion"] == "1.2.3"
    assert commit["operation"] == "WRITE"


def test_readers_skip_files_by_their_statistics(folder: Path) -> None:
    sessions = [*raw_sessions(1, 5), raw_session(2, cuHours=None)]
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
def test_nothing_is_visible_before_publish_and_the_log_names_the_run(
    mode: TableMode, folder: Path
) -> None:
    table = open_table(folder)
    export(table, raw_sessions(1))
    output = open_output(table, mode=mode, run_id="run-2")
    output.write(FIRST, raw_sessions(1, 2, state="error"))

    output.close()

    assert read(folder) == [("livy-1", "terminated")]
    assert open_table(folder).find_commit("run-2") is None
    assert open_table(folder).find_commit("run-1") is not None
    output.publish()
    assert read(folder) == [("livy-1", "error"), ("livy-2", "error")]
    assert open_table(folder).find_commit("run-2") is not None


def test_table_is_not_made_before_the_first_commit(folder: Path) -> None:
    table = open_table(folder)
    assert not folder.exists()
    output = open_output(table, mode="replace", run_id="run-1")
    output.write(FIRST, raw_sessions(1))
    output.close()

    assert not (folder / "_delta_log").exists()
    assert table.find_commit("run-1") is None

    output.discard()

    assert data_files(folder) == []


def test_listing_touches_nothing_but_the_proof(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    before = sorted(folder.rglob("*"))

    output = open_output(open_table(folder), mode="upsert", run_id="run-2")
    output.write(FIRST, raw_sessions(*range(2000)))
    output.close()

    assert sorted(folder.rglob("*")) == before
    output.discard()


def test_files_of_a_run_that_was_killed_in_the_first_commit_are_no_obstacle(folder: Path) -> None:
    export(open_table(folder), raw_sessions(4))
    (folder / "_delta_log" / f"{0:020}.json").unlink()
    [left] = data_files(folder)

    export(open_table(folder), raw_sessions(1))

    assert read(folder) == [("livy-1", "terminated")]
    assert left.exists()


ENDLESS = """
import sys
from datetime import UTC, datetime
from itertools import count
from exporter.model import Gateway
from exporter.tables.delta import open_table
from exporter.tables.interface import Commit, TableRequest
from exporter.tables.output import TableOutput

table = open_table(TableRequest(output=sys.argv[1]))
for number in count(int(sys.argv[2])):
    now = datetime.now(UTC)
    commit = Commit(run_id=f"{now:%Y%m%dT%H%M%SZ}-{number:06x}", exporter_version="1")
    output = TableOutput(table, output="x", mode="upsert", commit=commit, exported_at=now)
    output.write(Gateway("r", "w", "c"), [{"sessionId": f"{number:06}"}, {"sessionId": "last"}])
    output.close()
    print(f"{now:%Y%m%dT%H%M%SZ}-{number:06x}", flush=True)
    output.publish()
"""


def test_killed_writer_leaves_whole_versions_and_the_log_names_the_last_run(folder: Path) -> None:
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

        if not first.exists():
            continue
        sessions = [row[0] for row in read(folder)]
        done = len(sessions) - 1
        assert sessions == [*(f"{number:06}" for number in range(done)), "last"]
        unsure = closed[-1:]
        for run_id in unsure:
            is_done = int(run_id[-6:], 16) == done - 1
            assert (table.find_commit(run_id) is not None) == is_done
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


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_column_that_was_added_meanwhile_stays(mode: TableMode, folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    output = open_output(open_table(folder), mode=mode, run_id="run-2")
    output.write(FIRST, raw_sessions(1))
    output.close()
    add_column(folder, "team", "string")

    output.publish()
    output.discard()

    assert read(folder, "session_id, team") == [("livy-1", None)]


class Forgetful:
    """Reports the first commit as refused or unanswered, although it was made."""

    def __init__(self, answer: Exception) -> None:
        self.left = [answer]

    def __call__(self, *arguments: Any, **options: Any) -> None:
        write_deltalake(*arguments, **options)
        if self.left:
            raise self.left.pop()


@pytest.mark.parametrize(
    "answer",
    [CommitFailedError("Failed to commit transaction: 0"), OSError("connection reset")],
    ids=["sent twice", "lost"],
)
def test_commit_whose_answer_is_lost_is_found_again(
    answer: Exception, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(open_table(folder), raw_sessions(1))
    monkeypatch.setattr(delta, "write_deltalake", Forgetful(answer))

    export(open_table(folder), raw_sessions(2), run_id="run-2")

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
    queues = ["a b", "a/b", "a%2Fb", "=", "数据", "x" * 200, "..", None]
    sessions = [raw_session(n, queue=queue) for n, queue in enumerate(queues)]
    table = open_table(folder, partition_by=("queue",))
    export(table, sessions)

    export(table, sessions, mode="upsert", run_id="run-2")

    assert read(folder, "session_id, queue") == [
        (f"livy-{n}", queue) for n, queue in enumerate(queues)
    ]
    assert removed_count(folder) == len(queues)


def test_only_files_with_changed_sessions_are_rewritten(folder: Path) -> None:
    table = open_table(folder, partition_by=("dt",))
    export(table, raw_sessions(*range(24 * 30)))

    export(table, raw_sessions(100, 700, 720), mode="upsert", run_id="run-2")

    assert removed_count(folder) == 2
    assert count_rows(folder) == 721


def last_predicate(folder: Path) -> str:
    return str(Reader(folder).history(1)[0]["operationParameters"]["mergePredicate"])


def test_merge_reads_the_partitions_of_its_sessions(folder: Path) -> None:
    export(open_table(folder, partition_by=("dt",)), raw_sessions(1, 30, 60))

    export(open_table(folder), raw_sessions(30, 90, state="error"), mode="upsert", run_id="run-2")

    assert "2026-01-13" in last_predicate(folder)
    assert "2026-01-12" not in last_predicate(folder)
    assert read(folder) == [
        ("livy-1", "terminated"),
        ("livy-30", "error"),
        ("livy-60", "terminated"),
        ("livy-90", "error"),
    ]


def test_merge_of_sessions_that_no_partition_has_only_adds(folder: Path) -> None:
    export(open_table(folder, partition_by=("dt",)), raw_sessions(1))

    export(open_table(folder), raw_sessions(2, 90), mode="upsert", run_id="run-2")

    assert [name for name, _ in read(folder)] == ["livy-1", "livy-2", "livy-90"]


@pytest.mark.parametrize("state", ["it's", 'a "b"', "100%", "a\\b", "x=y/z", "", None])
def test_session_leaves_a_partition_of_any_name(state: str | None, folder: Path) -> None:
    export(open_table(folder, partition_by=("state", "name")), raw_sessions(1, state=state))
    export(open_table(folder), raw_sessions(2), mode="upsert", run_id="run-2")

    export(open_table(folder), raw_sessions(1, name=None), mode="upsert", run_id="run-3")
    export(open_table(folder), raw_sessions(1, state="busy"), mode="upsert", run_id="run-4")

    assert read(folder) == [("livy-1", "busy"), ("livy-2", "terminated")]


def test_partition_column_of_another_program_may_have_any_name(folder: Path) -> None:
    theirs = pa.field('A "b c"', pa.string())
    Reader.create(folder, build_schema(*SCHEMA, theirs), partition_by=['A "b c"'])
    export(open_table(folder), raw_sessions(1), mode="upsert", run_id="run-1")

    export(open_table(folder), raw_sessions(1, 2, state="x"), mode="upsert", run_id="run-2")

    assert read(folder) == [("livy-1", "x"), ("livy-2", "x")]


def test_large_export_is_files_of_the_target_size(folder: Path) -> None:
    configuration = {"delta.targetFileSize": "1000000"}
    Reader.create(folder, build_schema(*SCHEMA), configuration=configuration)
    sessions = [raw_session(n, webUI=f"http://{n**5:x}") for n in range(200_000)]

    export(open_table(folder), sessions)

    sizes = [path.stat().st_size for path in data_files(folder)]
    assert len(sizes) > 2
    assert max(sizes) < 3_000_000
    assert count_rows(folder) == 200_000


def test_small_files_are_merged_where_they_pile_up(folder: Path) -> None:
    table = open_table(folder, partition_by=("dt",))
    export(table, raw_sessions(0, 30))
    for number in range(1, MAX_SMALL):
        rows = Reader(folder).to_pyarrow_table()
        row = rows.filter(pa.compute.equal(rows["session_id"], "livy-0"))
        row = row.set_column(0, "session_id", pa.array([f"theirs-{number}"]))
        write_deltalake(folder, row, mode="append")

    table.compact(Commit(run_id="run-1", exporter_version="1"))

    assert Reader(folder).history(1)[0]["operation"] == "OPTIMIZE"
    assert len(Reader(folder).file_uris()) == 2
    assert count_rows(folder) == MAX_SMALL + 1
    assert open_table(folder).find_commit("run-1") is not None
    table.compact(Commit(run_id="run-1", exporter_version="1"))
    assert Reader(folder).version() == MAX_SMALL


def test_hourly_runs_leave_few_files(folder: Path) -> None:
    table = open_table(folder)
    export(table, raw_sessions(0))

    for hour in range(1, 40):
        export(table, raw_sessions(hour), mode="upsert", run_id=f"hour-{hour}")
        table.compact(Commit(run_id=f"hour-{hour}", exporter_version="1"))

    assert count_rows(folder) == 40
    assert len(Reader(folder).file_uris()) <= MAX_SMALL
    assert open_table(folder).find_commit("hour-39") is not None


def build_schema(*fields: pa.Field) -> Schema:
    """The schema of a table that another program creates."""
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
        ("x-session_id", "new", "x-team"),
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
        ({"delta.columnMapping.mode": "name"}, "delta.columnMapping.mode"),
    ],
)
def test_table_that_asks_more_of_writers_is_left_alone(
    configuration: dict[str, str], feature: str, folder: Path
) -> None:
    Reader.create(folder, build_schema(*SCHEMA), configuration=configuration)

    with pytest.raises(DestinationError, match=f"uses {feature}, which is not supported"):
        open_table(folder)


@pytest.mark.parametrize(
    "feature", ["rowTracking", "inCommitTimestamp", "icebergCompatV2", "identityColumns", "newest"]
)
def test_feature_that_the_library_does_not_write_is_refused_before_the_listing(
    feature: str, folder: Path
) -> None:
    export(open_table(folder), raw_sessions(1))
    amend_log(folder, "protocol", add_feature(feature))

    with pytest.raises(DestinationError, match=f"uses {feature}, which is not supported"):
        open_table(folder)


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_accepted_feature_is_one_that_the_library_writes(feature: str, folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    amend_log(folder, "protocol", add_feature(feature))

    export(open_table(folder), raw_sessions(1, 2), mode="upsert", run_id="run-2")
    export(open_table(folder), raw_sessions(3), run_id="run-3")

    assert run_ids(folder) == ["run-1", "run-2", "run-3"]


def add_feature(feature: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A change of the protocol entry; the feature is for readers too where the protocol says so."""
    by_reader = {"columnMapping", "deletionVectors", "timestampNtz", "v2Checkpoint", "variantType"}

    def change(protocol: dict[str, Any]) -> dict[str, Any]:
        return {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": [feature] if feature in by_reader else [],
            "writerFeatures": [feature],
        }

    return change


def amend_log(
    folder: Path, action: str, change: Callable[[dict[str, Any]], dict[str, Any]]
) -> None:
    """Rewrite an action in the first entry of the log, as another engine would have written it."""
    path = folder / "_delta_log" / f"{0:020}.json"
    actions = [json.loads(line) for line in path.read_text().splitlines()]
    changed = [
        {name: change(value) if name == action else value for name, value in each.items()}
        for each in actions
    ]
    path.write_text("".join(f"{json.dumps(each)}\n" for each in changed))


def test_constraint_of_a_table_is_kept_to(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    Reader(folder).alter.add_constraint({"known": "state <> 'odd'"})

    export(open_table(folder), raw_sessions(1, 2), mode="upsert", run_id="run-2")
    with pytest.raises(DestinationError, match="failed validation check") as caught:
        export(open_table(folder), raw_sessions(3, state="odd"), mode="upsert", run_id="run-3")

    assert "livy-3" not in str(caught.value)
    assert caught.value.hint is not None
    assert "constraint" in caught.value.hint
    assert [row[0] for row in read(folder)] == ["livy-1", "livy-2"]


def test_change_data_feed_tells_updates_from_inserts(folder: Path) -> None:
    configuration = {"delta.enableChangeDataFeed": "true"}
    Reader.create(folder, build_schema(*SCHEMA), configuration=configuration)
    export(open_table(folder), raw_sessions(1, 2))

    export(open_table(folder), raw_sessions(2, 3, state="error"), mode="upsert", run_id="run-2")

    feed = pa.table(Reader(folder).load_cdf(starting_version=2).read_all())
    assert query(feed, "session_id, _change_type, state") == [
        ("livy-2", "update_postimage", "error"),
        ("livy-2", "update_preimage", "terminated"),
        ("livy-3", "insert", "error"),
    ]


def test_row_that_a_deletion_vector_hides_stays_hidden(folder: Path) -> None:
    export(open_table(folder), raw_sessions(0, 1, 2))
    hide_row(folder, 1)

    seen = [
        row["session_id"]
        for rows in open_table(folder).read_columns(["session_id"])
        for row in rows.to_pylist()
    ]
    export(open_table(folder), raw_sessions(2, 3, state="error"), mode="upsert", run_id="run-2")

    assert sorted(seen) == ["livy-0", "livy-2"]
    assert read(folder) == [("livy-0", "terminated"), ("livy-2", "error"), ("livy-3", "error")]


def hide_row(folder: Path, number: int) -> None:
    """Commit an inline deletion vector for one row of the table's only file."""
    [add] = [
        json.loads(line)["add"]
        for line in (folder / "_delta_log" / f"{0:020}.json").read_text().splitlines()
        if "add" in json.loads(line)
    ]
    bitmap = struct.pack("<iqi", 1681511377, 1, 0)  # the magic number, one bitmap, its key
    bitmap += struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, number)  # one array of one value
    content = bitmap + b"\0" * (-len(bitmap) % 4)
    vector = {
        "storageType": "i",
        "pathOrInlineDv": encode_z85(content),
        "sizeInBytes": len(bitmap),
        "cardinality": 1,
    }
    features = ["deletionVectors"]
    entry: list[dict[str, Any]] = [
        {"commitInfo": {"timestamp": 1, "operation": "DELETE", "operationParameters": {}}},
        {
            "protocol": {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": features,
                "writerFeatures": features,
            }
        },
        {"remove": {"path": add["path"], "deletionTimestamp": 1, "dataChange": True}},
        {"add": {**add, "deletionVector": vector}},
    ]
    path = folder / "_delta_log" / f"{1:020}.json"
    path.write_text("".join(f"{json.dumps(each)}\n" for each in entry))


Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def encode_z85(content: bytes) -> str:
    text = ""
    for start in range(0, len(content), 4):
        number = int.from_bytes(content[start : start + 4], "big")
        text += "".join(Z85[number // 85**place % 85] for place in range(4, -1, -1))
    return text


@pytest.mark.parametrize("name", ["State", "SESSION_ID"])
def test_column_that_differs_from_ours_only_in_case_is_refused(name: str, folder: Path) -> None:
    Reader.create(folder, build_schema(pa.field(name, pa.string())))

    with pytest.raises(DestinationError, match=f"has a column '{name}'") as caught:
        open_table(folder)

    assert caught.value.hint == f"rename that column to '{name.lower()}', or name another table"
    assert Reader(folder).version() == 0


@pytest.mark.parametrize("partition_by", [(), ("dt",)])
def test_session_whose_create_time_changed_is_one_row(
    partition_by: tuple[str, ...], folder: Path
) -> None:
    table = open_table(folder, partition_by=partition_by)
    export(table, raw_sessions(*range(48)))

    moved_ms = CREATED_MS + 1000 * HOUR_MS
    export(table, raw_sessions(3, createTime=moved_ms), mode="upsert", run_id="run-2")

    assert count_rows(folder) == 48
    moved = read(folder, "session_id, epoch_ms(create_time)")
    assert dict(moved)["livy-3"] == moved_ms


OLD = Path(__file__).parents[1] / "data" / "delta_0_1_0"
"""A table by day, as version 0.1.0 wrote it: 30 sessions, then two runs that added."""


def test_table_of_an_earlier_version_goes_on(folder: Path) -> None:
    shutil.copytree(OLD, folder)
    table = open_table(folder)
    states = dict(read(folder))
    assert table.find_commit("20260103T000000Z-000003") is not None

    export(table, raw_sessions(4, 32, 50, state="error"), mode="upsert", run_id="run-4")

    assert read(folder) == sorted(
        {**states, "livy-4": "error", "livy-32": "error", "livy-50": "error"}.items()
    )
    assert table.find_commit("20260103T000000Z-000003") is None
    assert Reader(folder).metadata().partition_columns == ["dt"]
    export(table, raw_sessions(1), run_id="run-5")
    assert read(folder) == [("livy-1", "terminated")]
    assert count_rows(folder, version=2) == 32


@pytest.mark.parametrize("name", ["part-0.parquet", "deep/er/data.csv"])
def test_folder_that_holds_something_else_is_left_alone(name: str, folder: Path) -> None:
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text("mine")

    with pytest.raises(DestinationError, match="is no Delta table and holds") as caught:
        open_output(open_table(folder), mode="replace", run_id="run-1")

    assert caught.value.hint is not None
    assert [path for path in folder.rglob("*") if path.is_file()] == [folder / name]


def test_damaged_table_is_reported_in_one_line(folder: Path) -> None:
    export(open_table(folder), raw_sessions(1))
    (folder / "_delta_log/00000000000000000000.json").write_text("{")

    with pytest.raises(DestinationError, match="cannot use the table") as caught:
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
    output.close()

    with pytest.raises(DestinationError, match="cannot use the table") as caught:
        output.publish()
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

    with pytest.raises(UsageError, match="a Delta table needs a folder") as caught:
        open_table(folder)

    assert caught.value.hint is not None


def test_extra_that_is_not_installed_is_named(folder: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules['deltalake'] = None\n"
        "from exporter.errors import ExporterError\n"
        "from exporter.tables.interface import TableRequest\n"
        "from exporter.tables.registry import open_table\n"
        "try:\n"
        f"    open_table('delta', TableRequest(output={str(folder)!r}))\n"
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
        "from exporter.model import Gateway\n"
        "from exporter.tables.interface import Commit, TableRequest\n"
        "from exporter.tables.output import TableOutput, compact\n"
        "from exporter.tables.registry import open_table\n"
        f"request = TableRequest(output={str(folder)!r}, partition_by=('dt',))\n"
        "table = open_table('delta', request)\n"
        "for number in range(12):\n"
        "    commit = Commit(run_id=f'{number}', exporter_version='1')\n"
        "    output = TableOutput(table, output='x', mode='upsert', commit=commit,"
        " exported_at=datetime.now(UTC))\n"
        "    output.write(Gateway('r', 'w', 'c'), [{'sessionId': 'a'}])\n"
        "    output.close()\n"
        "    output.publish()\n"
        "    compact(table, commit, output='x')\n"
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
