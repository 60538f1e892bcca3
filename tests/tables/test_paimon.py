"""Paimon tables of a local warehouse and of a REST catalog: what they take, refuse and promise."""

import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypaimon_rust.datafusion import PaimonCatalog, SQLContext
from pypaimon_rust.datafusion import Table as LoadedTable

from exporter.errors import (
    CredentialsError,
    DestinationError,
    ExporterError,
    LockLostError,
    UsageError,
)
from exporter.records.schema import SCHEMA
from exporter.settings.catalogs import Catalogs
from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.tables import paimon
from exporter.tables.interface import Commit, CommitConflict, TableMode, TableRequest
from exporter.tables.output import TableOutput
from exporter.tables.paimon import PaimonTable, open_table
from exporter.tables.paimon_names import resolve_name
from tests.support.paimon_catalog import PaimonServer, put_file, serve
from tests.support.tables import (
    EXPORTED_AT,
    FIRST,
    FIRST_ROW,
    MODEL_COLUMNS,
    RUNS,
    SECOND,
    Run,
    few_examples,
    publish_runs,
    publish_sessions,
    query,
    raw_session,
    raw_sessions,
)

pytestmark = pytest.mark.campaign

OUTPUT = "paimon://lake/ops.sessions"
KEY = "region_id, workspace_id, compute_id, session_id"
COLUMNS = (
    "session_id STRING NOT NULL, region_id STRING NOT NULL, workspace_id STRING NOT NULL,"
    " compute_id STRING NOT NULL, state STRING"
)


@dataclass
class Lake:
    """A catalog, seen by the program and by another user of the library."""

    options: dict[str, str]
    catalogs: Catalogs
    folder: Path
    """The folder of all its files."""
    server: PaimonServer | None = None
    context: SQLContext = field(init=False)

    def __post_init__(self) -> None:
        self.context = SQLContext()
        self.context.register_catalog("lake", self.options, "")

    def open(self, *partition_by: str) -> PaimonTable:
        request = TableRequest(output=OUTPUT, partition_by=partition_by, catalogs=self.catalogs)
        return open_table(request)

    def make(self, columns: str = COLUMNS, key: str = KEY, more: str = "", **options: str) -> None:
        """A table that somebody else has made."""
        settings = {"bucket": "1", **{name.replace("_", "-"): options[name] for name in options}}
        texts = ", ".join(f"'{name.replace('--', '.')}' = '{settings[name]}'" for name in settings)
        self.context.sql("CREATE SCHEMA IF NOT EXISTS lake.ops")
        primary = f", PRIMARY KEY ({key})" if key else ""
        self.context.sql(
            f"CREATE TABLE lake.ops.sessions ({columns}{primary}) {more} WITH ({texts})"
        )

    def read(self) -> pa.Table:
        table = PaimonCatalog(self.options).get_table("ops.sessions")
        builder = table.new_read_builder()
        batches = builder.new_read().read(builder.new_scan().plan().splits())
        return pa.Table.from_batches(batches) if batches else pa.table({"session_id": []})

    def states(self) -> dict[str, str]:
        rows = self.read().to_pylist()
        states = {f"{row['compute_id']} {row['session_id']}": row["state"] for row in rows}
        assert len(states) == len(rows)
        return states

    def runs(self) -> list[str]:
        found = self.context.sql("SELECT commit_user FROM lake.ops.`sessions$snapshots`")
        return [user for rows in found for user in rows["commit_user"].to_pylist()]

    def data_files(self) -> list[Path]:
        return sorted(self.folder.rglob("data-*"))


class LostLock:
    """Another run has taken it over."""

    def ensure_held(self) -> float:
        raise LockLostError("another run has taken over")


class RacedTable(PaimonTable):
    """A table to which somebody else commits whenever a run has written its rows."""

    def __init__(self, lake: Lake, be_faster: Callable[[], None]) -> None:
        super().__init__(resolve_name(OUTPUT, lake.catalogs, {}), partition_by=())
        self._be_faster = be_faster

    def _require_newest(self, loaded: LoadedTable, snapshot_id: int) -> None:
        self._be_faster()
        super()._require_newest(loaded, snapshot_id)


@pytest.fixture(params=["local", "rest"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    warehouse = tmp_path / "warehouse"
    if request.param == "local":
        options = {"warehouse": str(warehouse)}
        yield Lake(options, {"lake": options}, warehouse)
        return
    server = PaimonServer(str(warehouse), put_file(warehouse), token="s3cret-value")
    with serve(server) as url:
        options = {
            "metastore": "rest",
            "uri": url,
            "warehouse": "lake",
            "token.provider": "bear",
            "token": "s3cret-value",
        }
        catalogs = {"lake": {**options, "sidecars": str(tmp_path / "sidecars")}}
        yield Lake(options, catalogs, warehouse, server)


def export(
    table: PaimonTable,
    numbers: range,
    *,
    mode: TableMode = "replace",
    run_id: str = "run-1",
    lock: HeldLock = NO_LOCK,
    gateway: Any = FIRST,
    **fields: Any,
) -> None:
    output = build_output(table, mode, run_id)
    sessions = raw_sessions(*numbers, **fields)
    for start in range(0, len(sessions), 2000):
        output.write(gateway, sessions[start : start + 2000])
    output.close()
    output.publish(lock)
    output.discard()


def build_output(
    table: PaimonTable,
    mode: TableMode,
    run_id: str,
) -> TableOutput:
    return TableOutput(
        table,
        output=OUTPUT,
        mode=mode,
        commit=Commit(run_id=run_id, exporter_version="1"),
        exported_at=EXPORTED_AT,
        sleep=lambda _: None,
    )


def test_table_is_made_by_its_first_commit_and_upserted_by_key(lake: Lake) -> None:
    table = lake.open()
    assert table.find_commit("run-1") is None
    assert list(table.read_columns(["session_id"])) == []

    export(table, range(3), state="running")
    export(table, range(2, 4), mode="upsert", run_id="run-2", state="error")
    export(table, range(1), mode="upsert", run_id="run-3", gateway=SECOND)

    assert lake.states() == {
        "lc-1 livy-0": "running",
        "lc-1 livy-1": "running",
        "lc-1 livy-2": "error",
        "lc-1 livy-3": "error",
        "lc-2 livy-0": "terminated",
    }
    assert lake.runs() == ["run-1", "run-2", "run-3"]
    assert [table.find_commit(f"run-{number}") for number in (1, 2, 3, 4)] == ["1", "2", "3", None]
    names = pa.Table.from_batches(table.read_columns(["session_id", "state"])).column_names
    assert names == ["session_id", "state"]


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_run_that_commits_again_changes_nothing(mode: TableMode, lake: Lake) -> None:
    export(lake.open(), range(3), mode=mode, state="first")

    export(lake.open(), range(5), mode=mode, state="second")

    assert lake.states() == {f"lc-1 livy-{number}": "first" for number in range(3)}
    assert lake.runs() == ["run-1"]


def test_session_whose_create_time_changed_is_one_row(lake: Lake) -> None:
    export(lake.open(), range(3), createTime=0)

    export(lake.open(), range(1, 3), mode="upsert", run_id="run-2", createTime=1_768_213_240_123)

    times = lake.read().sort_by("session_id")["create_time"].to_pylist()
    seen_at = datetime(2026, 1, 12, 10, 20, 40, 123000, tzinfo=UTC)
    assert times == [None, seen_at, seen_at]


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_rows_of_somebody_who_was_faster_are_older(mode: TableMode, lake: Lake) -> None:
    """Both have written before either commits, so their sequence numbers overlap."""
    export(lake.open(), range(2), state="old")
    others = iter(["run-x"])

    def be_faster() -> None:
        for run_id in others:
            export(lake.open(), range(3, -1, -1), mode="upsert", run_id=run_id, state="theirs")

    table = RacedTable(lake, be_faster)

    export(table, range(1, 3), mode=mode, run_id="run-2", state="ours")

    ours = {"lc-1 livy-1": "ours", "lc-1 livy-2": "ours"}
    theirs = {"lc-1 livy-0": "theirs", "lc-1 livy-3": "theirs"}
    assert lake.states() == (ours if mode == "replace" else ours | theirs)
    assert lake.runs() == ["run-1", "run-x", "run-2"]


@pytest.mark.parametrize("lake", ["rest"], indirect=True)
@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_commit_that_a_server_refuses_is_made_of_rows_written_again(
    mode: TableMode, lake: Lake
) -> None:
    export(lake.open(), range(2), state="old")
    assert lake.server is not None
    lake.server.before_commit = lambda: export(
        lake.open(), range(3, -1, -1), mode="upsert", run_id="run-x", state="theirs"
    )

    export(lake.open(), range(1, 3), mode=mode, run_id="run-2", state="ours")

    ours = {"lc-1 livy-1": "ours", "lc-1 livy-2": "ours"}
    theirs = {"lc-1 livy-0": "theirs", "lc-1 livy-3": "theirs"}
    assert lake.states() == (ours if mode == "replace" else ours | theirs)
    assert lake.runs() == ["run-1", "run-x", "run-2"]


@pytest.mark.parametrize("lake", ["local"], indirect=True)
def test_compaction_by_somebody_else_is_no_conflict(lake: Lake) -> None:
    export(lake.open(), range(2), state="old")
    snapshots = lake.folder / "ops.db" / "sessions" / "snapshot"

    def compact() -> None:
        compacted = json.loads((snapshots / "snapshot-1").read_text())
        compacted |= {"id": 2, "commitKind": "COMPACT", "commitUser": "flink"}
        (snapshots / "snapshot-2").write_text(json.dumps(compacted))
        (snapshots / "LATEST").write_text("2")

    export(RacedTable(lake, compact), range(1, 3), mode="upsert", run_id="run-2", state="new")

    assert lake.runs() == ["run-1", "flink", "run-2"]
    assert sorted(lake.states().values()) == ["new", "new", "old"]


def test_table_that_others_change_all_the_time_is_left_to_them(lake: Lake) -> None:
    export(lake.open(), range(1))
    others = iter(range(100))

    def be_faster() -> None:
        export(lake.open(), range(1), mode="upsert", run_id=f"other-{next(others)}")

    table = RacedTable(lake, be_faster)
    files = len(lake.data_files())

    with pytest.raises(DestinationError, match="others changed it 5 times"):
        export(table, range(5), mode="upsert", run_id="run-2")

    assert len(lake.data_files()) == files + 5
    assert "run-2" not in lake.runs()


@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_run_that_has_lost_its_lease_commits_nothing_and_leaves_no_file(
    mode: TableMode, lake: Lake
) -> None:
    export(lake.open(), range(2))
    before = lake.data_files()

    with pytest.raises(LockLostError):
        export(lake.open(), range(5), mode=mode, run_id="run-2", lock=LostLock())

    assert lake.runs() == ["run-1"]
    assert lake.data_files() == before


def test_proof_of_a_table_leaves_nothing(lake: Lake) -> None:
    export(lake.open("workspace_id"), range(2))
    before = sorted(lake.folder.rglob("*"))

    lake.open().prove_writable("run-2")

    left = set(lake.folder.rglob("*")) - set(before)
    assert all(path.is_dir() for path in left)
    assert lake.runs() == ["run-1"]


@pytest.mark.parametrize("partition_by", [(), ("workspace_id",), ("region_id", "compute_id")])
def test_full_run_replaces_all_partitions(partition_by: tuple[str, ...], lake: Lake) -> None:
    export(lake.open(*partition_by), range(3))
    export(lake.open(*partition_by), range(3), mode="upsert", run_id="run-2", gateway=SECOND)

    export(lake.open(), range(1), run_id="run-3", state="last")

    assert lake.states() == {"lc-1 livy-0": "last"}
    loaded = PaimonCatalog(lake.options).get_table("ops.sessions")
    assert tuple(loaded.schema().partition_keys()) == partition_by
    export(lake.open(), range(0), run_id="run-4")
    assert lake.states() == {}


@pytest.mark.parametrize("name", ["dt", "state", "queue"])
def test_partitions_that_a_session_could_leave_are_refused(name: str, lake: Lake) -> None:
    with pytest.raises(UsageError, match=f"cannot be partitioned by '{name}'") as caught:
        lake.open("region_id", name)

    assert caught.value.hint is not None
    assert "workspace_id" in caught.value.hint


def test_table_keeps_its_partitions(lake: Lake) -> None:
    export(lake.open("workspace_id"), range(1))

    with pytest.raises(UsageError, match="is partitioned by workspace_id, not by region_id"):
        lake.open("region_id")


def test_columns_that_a_table_lacks_are_added_and_its_own_stay(lake: Lake) -> None:
    lake.make(f"{COLUMNS}, owner STRING, born DATE, at TIMESTAMP(6), create_time TIMESTAMPTZ(6)")
    lake.context.sql(
        "INSERT INTO lake.ops.sessions (region_id, workspace_id, compute_id, session_id, owner)"
        " VALUES ('r', 'w', 'c', 's', 'me')"
    )

    export(lake.open(), range(2), mode="upsert")

    rows = lake.read().sort_by("session_id").to_pylist()
    assert [row["session_id"] for row in rows] == ["livy-0", "livy-1", "s"]
    assert [row["owner"] for row in rows] == [None, None, "me"]
    assert [row["vcore_seconds"] for row in rows] == [2**53 + 1, 2**53 + 1, None]
    assert rows[1]["create_time"] - rows[0]["create_time"] == timedelta(hours=1)
    assert set(SCHEMA.names) <= rows[0].keys()


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({"key": "session_id"}, r"its primary key is \(session_id\)"),
        ({"key": ""}, "it has no primary key"),
        ({"key": f"{KEY}, state"}, "its primary key is"),
        (
            {"columns": f"{COLUMNS}, `State` STRING"},
            "has a column 'State', and a session has 'state'",
        ),
        ({"columns": f"{COLUMNS}, vcore_seconds STRING"}, "its 'vcore_seconds' is STRING, not BIG"),
        ({"columns": f"{COLUMNS}, create_time TIMESTAMP(3)"}, "its 'create_time' is TIMESTAMP"),
        ({"columns": f"{COLUMNS}, name STRING NOT NULL"}, "it requires 'name'"),
        ({"columns": f"{COLUMNS}, owner STRING NOT NULL"}, "it requires 'owner'"),
        ({"columns": f"{COLUMNS}, tags ARRAY<STRING>"}, "its 'tags' is ARRAY"),
        ({"more": "PARTITIONED BY (state)"}, "it is partitioned by 'state'"),
        ({"merge_engine": "first-row"}, "its merge-engine is 'first-row'"),
        ({"merge_engine": "partial-update"}, "its merge-engine is 'partial-update'"),
        ({"sequence__field": "state"}, "sequence.field"),
        ({"rowkind__field": "state"}, "rowkind.field"),
        ({"deletion_vectors__enabled": "true"}, "deletion-vectors.enabled"),
        ({"bucket": "-2"}, "bucket = -2"),
    ],
    ids=lambda value: " ".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_table_that_does_not_fit_is_refused_when_it_is_opened(
    made: dict[str, str], says: str, lake: Lake
) -> None:
    lake.make(**made)

    with pytest.raises(DestinationError, match=says) as caught:
        lake.open()

    assert caught.value.hint is not None


@pytest.mark.parametrize("bucket", ["-1", "4"])
def test_tables_in_any_number_of_buckets_have_one_row_a_session(bucket: str, lake: Lake) -> None:
    lake.make(bucket=bucket)

    export(lake.open(), range(50), state="running")
    export(lake.open(), range(20, 60), mode="upsert", run_id="run-2", state="error")

    assert len(lake.states()) == 60
    assert sum(state == "error" for state in lake.states().values()) == 40


@pytest.mark.parametrize("partition_by", [(), ("compute_id",)])
def test_local_table_of_many_files_is_rewritten(
    partition_by: tuple[str, ...], lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paimon, "MAX_FILES", 4)
    table = lake.open(*partition_by)
    commit = Commit(run_id="run-9", exporter_version="1")
    table.compact(commit)
    runs = [f"run-{number}" for number in range(4)]
    for number, run_id in enumerate(runs):
        export(table, range(number, number + 2), mode="upsert", run_id=run_id, state=run_id)
        before = lake.runs()

        table.compact(commit)

        is_due = lake.server is None and number == 3
        assert lake.runs() == [*before, *(["run-9-compaction"] if is_due else [])]
    assert list(lake.states().values()) == ["run-0", "run-1", "run-2", "run-3", "run-3"]
    assert (table._count_files() == 1) == (lake.server is None)
    assert table.find_commit("run-9") is None


@pytest.mark.parametrize("lake", ["local"], indirect=True)
def test_table_that_is_rewritten_keeps_columns_of_others(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paimon, "MAX_FILES", 1)
    lake.make(f"{COLUMNS}, owner STRING, at TIMESTAMPTZ(6)")
    lake.context.sql(
        "INSERT INTO lake.ops.sessions (region_id, workspace_id, compute_id, session_id, owner)"
        " VALUES ('r', 'w', 'c', 's', 'me')"
    )
    export(lake.open(), range(1), mode="upsert")

    lake.open().compact(Commit(run_id="run-1", exporter_version="1"))

    rows = lake.read().sort_by("session_id").to_pylist()
    assert [(row["session_id"], row["owner"]) for row in rows] == [("livy-0", None), ("s", "me")]
    assert "run-1-compaction" in lake.runs()


@pytest.mark.parametrize("lake", ["local"], indirect=True)
def test_compaction_gives_way_to_who_was_faster(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paimon, "MAX_FILES", 1)
    export(lake.open(), range(2))
    table = RacedTable(lake, lambda: export(lake.open(), range(3), mode="upsert", run_id="run-x"))

    with pytest.raises(CommitConflict):
        table.compact(Commit(run_id="run-2", exporter_version="1"))

    assert lake.runs() == ["run-1", "run-x"]
    assert len(lake.states()) == 3


@pytest.mark.parametrize(("bucket", "file_count"), [("1", 3), ("-1", 1)])
@pytest.mark.parametrize("mode", ["replace", "upsert"])
def test_rows_beyond_what_memory_holds_are_more_files_of_one_commit(
    mode: TableMode, bucket: str, file_count: int, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Except where buckets are dynamic: two writers would choose different ones."""
    lake.make(bucket=bucket)
    monkeypatch.setattr(paimon, "MAX_BYTES", 1)

    export(lake.open(), range(5000), mode=mode)

    assert len(lake.states()) == 5000
    assert lake.runs() == ["run-1"]
    assert len(lake.data_files()) == file_count


@given(
    runs=RUNS,
    partition_by=st.sampled_from([(), ("compute_id",), ("region_id", "workspace_id")]),
    max_bytes=st.sampled_from([1, paimon.MAX_BYTES]),
)
@few_examples
def test_table_is_a_dictionary_by_key(
    runs: list[Run], partition_by: tuple[str, ...], max_bytes: int, tmp_path: Path
) -> None:
    folder = Path(tempfile.mkdtemp(dir=tmp_path)) / "ops.db" / "sessions"
    request = TableRequest(output=str(folder), partition_by=partition_by)
    table = open_table(request)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paimon, "MAX_BYTES", max_bytes)
        patch.setattr(paimon, "MAX_FILES", 3)

        expected = publish_runs(runs, lambda mode, run_id: build_output(table, mode, run_id))
        table.compact(Commit(run_id="last", exporter_version="1"))

    rows = pa.Table.from_batches(table.read_columns(SCHEMA.names), SCHEMA)
    assert query(rows, MODEL_COLUMNS) == expected


def test_values_come_back_as_they_were(lake: Lake) -> None:
    odd = {"sessionId": "livy-2", "name": "数据 🦆 \x00", "createTime": 0, "new": [1]}
    publish_sessions(build_output(lake.open(), "replace", "run-1"), [raw_session(1), odd])

    rows = lake.read().sort_by("session_id").to_pylist()

    assert rows[0] == FIRST_ROW
    assert (rows[1]["name"], rows[1]["create_time"]) == ("数据 🦆 \x00", None)
    assert rows[1]["extra"] == '{"new":[1]}'


def test_lost_answer_of_a_server_that_has_committed_is_no_failure(tmp_path: Path) -> None:
    server = PaimonServer(str(tmp_path), put_file(tmp_path), token="t-1")
    with serve(server) as url:
        options = {
            "metastore": "rest",
            "uri": url,
            "warehouse": "lake",
            "token.provider": "bear",
            "token": "t-1",
        }
        lake = Lake(options, {"lake": {**options, "sidecars": str(tmp_path / "mine")}}, tmp_path)
        modes: list[TableMode] = ["replace", "upsert", "replace"]
        for number, mode in enumerate(modes):
            server.losing = True
            export(lake.open(), range(number, 4), mode=mode, run_id=f"run-{number}")

        assert lake.runs() == ["run-0", "run-1", "run-2"]
        assert len(lake.states()) == 2


def test_server_is_asked_with_the_options_and_names_no_secret(tmp_path: Path) -> None:
    server = PaimonServer(str(tmp_path), put_file(tmp_path), token="never")
    with serve(server) as url:
        dlf = {
            "metastore": "rest",
            "uri": url,
            "warehouse": "lake",
            "token.provider": "dlf",
            "dlf.region": "cn-hangzhou",
            "dlf.access-key-id": "LTAI-the-key",
            "dlf.access-key-secret": "s3cret-value",
            "sidecars": str(tmp_path / "mine"),
        }
        lake = Lake({n: v for n, v in dlf.items() if n != "sidecars"}, {"lake": dlf}, tmp_path)
        export(lake.open(), range(2))
        assert len(lake.states()) == 2
        for status, kind in (
            (401, CredentialsError),
            (403, CredentialsError),
            (500, DestinationError),
        ):
            said = "no LTAI-the-key with s3cret-value"
            server.failing = (status, {"message": said, "code": status})

            with pytest.raises(kind, match=r"no \*\*\* with \*\*\*") as caught:
                lake.open()

            assert_hidden(caught.value, "LTAI-the-key", "s3cret-value")


def assert_hidden(error: ExporterError, *secrets: str) -> None:
    assert error.hint is not None
    chained: BaseException | None = error
    while chained is not None:
        text = f"{chained!r} {chained} {getattr(chained, 'hint', '')}"
        assert not any(secret in text for secret in secrets)
        chained = chained.__cause__ or (
            None if chained.__suppress_context__ else chained.__context__
        )


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"uri": "http://127.0.0.1:9"}, DestinationError, "does not answer: Connection refused"),
        ({"uri": "not a uri"}, ExporterError, "cannot write to"),
        ({"token.provider": "none"}, UsageError, "Unknown auth provider"),
        ({"token.provider": "dlf", "dlf.region": "cn-one"}, UsageError, "token"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_catalog_that_cannot_be_reached_is_reported(
    options: dict[str, str], kind: type[ExporterError], says: str
) -> None:
    rest = {
        "metastore": "rest",
        "uri": "http://127.0.0.1:9",
        "warehouse": "w",
        "token.provider": "bear",
        "token": "s3cret-value",
        "sidecars": "/nowhere",
    }
    request = TableRequest(output=OUTPUT, catalogs={"lake": {**rest, **options}})

    with pytest.raises(kind, match=says) as caught:
        open_table(request)

    assert_hidden(caught.value, "s3cret-value")


def test_conflict_of_the_library_is_answered_and_not_reported() -> None:
    assert issubclass(CommitConflict, DestinationError)
