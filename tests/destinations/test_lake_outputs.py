"""The contract of a table's output: one suite, inherited once a format."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable as DeltaReader
from deltalake import write_deltalake
from pyiceberg.catalog import Catalog, load_catalog
from pypaimon_rust.datafusion import PaimonCatalog, SQLContext

from exporter.errors import DestinationError, LockLostError, UsageError
from exporter.model import Gateway, RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks.interface import OutputFacts
from exporter.tables import delta, iceberg, paimon
from exporter.tables.iceberg import IcebergTable
from exporter.tables.iceberg_compat import build_row_schema, build_schema
from exporter.tables.interface import Commit, CommitConflict, Table, TableMode, TableRequest
from exporter.tables.output import TableOutput, compact
from exporter.tables.spool import SpilledRows
from tests.support.tables import (
    CREATED_MS,
    EXPORTED_AT,
    FIRST,
    FIRST_ROW,
    HOUR_MS,
    SECOND,
    open_table_output,
    publish_sessions,
    query,
    raw_session,
    raw_sessions,
)

pytestmark = pytest.mark.campaign

EITHER_MODE = pytest.mark.parametrize("mode", ["replace", "upsert"])


class TableOutputContract(ABC):
    @abstractmethod
    def open_table(self, **options: Any) -> Table: ...

    @abstractmethod
    def load(self, number: int = -1) -> pa.Table:
        """All rows after a commit, by default the last one, read by the library's own reader."""

    @abstractmethod
    def run_ids(self) -> list[str | None]: ...

    @abstractmethod
    def list_files(self) -> list[Path]:
        """The files that an unpublished run must not change: all in a plain folder, else data."""

    def open_output(self, table: Table, *, mode: TableMode, run_id: str) -> TableOutput:
        return open_table_output(table, mode=mode, run_id=run_id)

    def export(
        self,
        sessions: list[RawSession],
        *,
        mode: TableMode = "replace",
        run_id: str = "run-1",
        gateway: Gateway = FIRST,
    ) -> OutputFacts:
        output = self.open_output(self.open_table(), mode=mode, run_id=run_id)
        return publish_sessions(output, sessions, gateway=gateway)

    def read(self, columns: str = "session_id, state") -> list[tuple[Any, ...]]:
        return query(self.load(), columns)

    def test_values_come_back_as_they_were(self) -> None:
        odd = {"sessionId": "livy-2", "name": "数据 🦆 \x00", "createTime": 0, "new": [1]}

        facts = self.export([raw_session(1), odd])

        rows = self.load().sort_by("session_id").to_pylist()
        assert facts.session_count == 2
        assert rows[0] == FIRST_ROW
        assert rows[1]["name"] == "数据 🦆 \x00"
        assert rows[1]["create_time"] is None
        assert rows[1]["extra"] == '{"new":[1]}'
        assert self.read("epoch_ms(create_time)") == [(CREATED_MS + HOUR_MS,), (None,)]

    def test_run_that_replaces_is_one_commit_and_the_past_stays(self) -> None:
        self.export(raw_sessions(1, 2), run_id="run-1")

        self.export(raw_sessions(3), run_id="run-2")

        assert self.read() == [("livy-3", "terminated")]
        assert self.run_ids() == ["run-1", "run-2"]
        assert self.load(0).num_rows == 2

    def test_run_that_adds_replaces_the_sessions_it_has_read(self) -> None:
        self.export(raw_sessions(*range(10), state="running"))
        self.export(raw_sessions(3), mode="upsert", run_id="run-2", gateway=SECOND)

        self.export(raw_sessions(3, 11), mode="upsert", run_id="run-3")

        assert self.read("compute_id, session_id, state") == sorted(
            [
                *(("lc-1", f"livy-{n}", "terminated" if n == 3 else "running") for n in range(10)),
                ("lc-1", "livy-11", "terminated"),
                ("lc-2", "livy-3", "terminated"),
            ]
        )
        assert self.run_ids() == ["run-1", "run-2", "run-3"]

    def test_session_that_a_run_reads_twice_is_there_as_it_was_last(self) -> None:
        sessions = [*raw_sessions(1, state="running"), *raw_sessions(2, 1)]

        self.export(sessions, mode="upsert")

        assert self.read() == [("livy-1", "terminated"), ("livy-2", "terminated")]

    def test_export_of_nothing_empties_the_table(self) -> None:
        self.export([], run_id="run-1")
        assert self.read() == []
        self.export(raw_sessions(1), run_id="run-2")

        self.export([], run_id="run-3")

        assert self.read() == []
        assert self.run_ids() == ["run-1", "run-2", "run-3"]

    def test_run_that_adds_nothing_commits_nothing(self) -> None:
        self.export(raw_sessions(1))

        facts = self.export([], mode="upsert", run_id="run-2")

        assert facts == OutputFacts(session_count=0, coerced_value_count=0, files=())
        assert self.run_ids() == ["run-1"]

    @EITHER_MODE
    @pytest.mark.parametrize("partition_by", [(), ("state",)], ids=["whole", "by state"])
    def test_nothing_is_written_before_it_is_published(
        self, mode: TableMode, partition_by: tuple[str, ...]
    ) -> None:
        table = self.open_table(partition_by=partition_by)
        publish_sessions(self.open_output(table, mode="replace", run_id="run-1"), raw_sessions(1))
        before = self.list_files()

        cut_off = self.open_output(table, mode=mode, run_id="run-2")
        cut_off.write(FIRST, raw_sessions(*range(100), state="error"))
        cut_off.discard()
        closed = self.open_output(table, mode=mode, run_id="run-3")
        closed.write(FIRST, raw_sessions(*range(100), state="error"))
        closed.close()
        assert self.list_files() == before
        closed.discard()
        closed.discard()

        assert self.list_files() == before
        assert self.read() == [("livy-1", "terminated")]

    def test_discard_after_publish_removes_nothing(self) -> None:
        output = self.open_output(self.open_table(), mode="replace", run_id="run-1")
        output.write(FIRST, raw_sessions(1))
        output.close()
        output.publish()

        output.discard()

        assert self.read() == [("livy-1", "terminated")]

    @EITHER_MODE
    def test_rows_that_wait_on_disk_are_all_there(self, mode: TableMode) -> None:
        rows = [raw_session(n, webUI=f"http://{n**5:x}") for n in range(70_000)]

        facts = self.export([*rows[:10], *rows] if mode == "upsert" else rows, mode=mode)

        assert facts.session_count == 70_000 + 10 * (mode == "upsert")
        assert self.load().num_rows == 70_000
        assert self.read("count(DISTINCT session_id), count(web_ui)") == [(70_000, 70_000)]

    @EITHER_MODE
    def test_commit_is_made_again_on_what_somebody_else_committed(self, mode: TableMode) -> None:
        self.export(raw_sessions(1, 2, state="running"))
        output = self.open_output(self.open_table(), mode=mode, run_id="run-2")
        output.write(FIRST, raw_sessions(2, 3))
        output.close()
        self.export(raw_sessions(3, 4, state="error"), mode="upsert", run_id="run-x")

        output.publish()
        output.discard()

        ours = [("livy-2", "terminated"), ("livy-3", "terminated")]
        theirs = [("livy-1", "running"), ("livy-4", "error")]
        assert self.read() == (ours if mode == "replace" else sorted(ours + theirs))
        assert self.run_ids() == ["run-1", "run-x", "run-2"]
        self.open_table().remove_leftovers("run-2", keep_s=0)
        assert self.load().num_rows == (2 if mode == "replace" else 4)

    @EITHER_MODE
    def test_table_that_somebody_else_made_first_is_taken(self, mode: TableMode) -> None:
        output = self.open_output(self.open_table(), mode=mode, run_id="run-1")
        output.write(FIRST, raw_sessions(1))
        output.close()
        self.export(raw_sessions(2), run_id="run-x")

        output.publish()

        expected = [("livy-1", "terminated"), ("livy-2", "terminated")]
        assert self.read() == (expected[:1] if mode == "replace" else expected)

    def test_table_that_others_change_all_the_time_is_left_to_them(self) -> None:
        self.export(raw_sessions(1), run_id="run-1")
        busy = Busy(self.open_table(), self.commit_as_another)
        output = self.open_output(busy, mode="upsert", run_id="run-2")
        output.write(FIRST, raw_sessions(1, 2))
        output.close()

        with pytest.raises(DestinationError, match="others changed it 5 times") as caught:
            output.publish()
        output.discard()

        assert caught.value.hint is not None
        assert [row[0] for row in self.read()] == ["livy-1", "livy-5"]

    def commit_as_another(self, number: int) -> None:
        self.export(raw_sessions(1, 5), mode="upsert", run_id=f"other-{number}")

    @EITHER_MODE
    def test_run_that_has_committed_commits_nothing_again(self, mode: TableMode) -> None:
        self.export(raw_sessions(1), mode=mode, run_id="run-1")

        self.export(raw_sessions(2), mode=mode, run_id="run-1")

        assert self.read() == [("livy-1", "terminated")]
        assert self.run_ids() == ["run-1"]

    def test_table_names_the_commit_of_a_run(self) -> None:
        table = self.open_table()
        assert table.find_commit("run-1") is None

        self.export(raw_sessions(1), run_id="run-1")

        assert table.find_commit("run-1")
        assert table.find_commit("run-2") is None

    @EITHER_MODE
    def test_lock_that_was_lost_ends_the_commit(self, mode: TableMode) -> None:
        self.export(raw_sessions(1), run_id="run-1")
        before = self.list_files()
        output = self.open_output(self.open_table(), mode=mode, run_id="run-2")
        output.write(FIRST, raw_sessions(2))
        output.close()

        with pytest.raises(LockLostError):
            output.publish(LostLock())
        output.discard()

        assert self.read() == [("livy-1", "terminated")]
        assert self.list_files() == before

    @EITHER_MODE
    def test_commit_of_another_run_after_the_lock_was_checked_is_not_undone(
        self, mode: TableMode
    ) -> None:
        """A run that is suspended between the check and its commit finds that it was late."""
        self.export(raw_sessions(1), run_id="run-1")
        lock = LateLock(lambda: self.export(raw_sessions(3), run_id="run-3"))
        output = self.open_output(self.open_table(), mode=mode, run_id="run-2")
        output.write(FIRST, raw_sessions(2))
        output.close()

        with pytest.raises(LockLostError):
            output.publish(lock)
        output.discard()

        assert self.read() == [("livy-3", "terminated")]
        assert self.run_ids() == ["run-1", "run-3"]

    def test_small_files_are_merged_and_no_row_is_lost(self) -> None:
        for number in range(10):
            self.append(number)

        compact(self.open_table(), Commit(run_id="run-1", exporter_version="1"), output="it")

        assert self.count_files() == 1
        assert self.load().num_rows == 10
        assert len(self.read("DISTINCT session_id")) == 10

    @abstractmethod
    def append(self, number: int) -> None:
        """Append the row of a session of that number, as another program would."""

    @abstractmethod
    def count_files(self) -> int:
        """Data files of the table."""

    def build_row(self, number: int) -> pa.Table:
        rows = build_batch(FIRST, raw_sessions(number), EXPORTED_AT).rows
        return pa.Table.from_batches([rows]).cast(build_row_schema(build_schema()))

    def test_table_keeps_its_partitions(self) -> None:
        table = self.open_table(partition_by=("dt",))
        publish_sessions(self.open_output(table, mode="replace", run_id="run-1"), raw_sessions(1))

        with pytest.raises(UsageError, match="is partitioned by dt, not by state"):
            self.open_table(partition_by=("state",))


class LostLock:
    """Another run has it."""

    def ensure_held(self) -> float:
        raise LockLostError("another run has it")


class LateLock:
    """Is held at the first check, and taken by another run right after."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act
        self._is_lost = False

    def ensure_held(self) -> float:
        if self._is_lost:
            raise LockLostError("another run has it")
        self._is_lost = True
        self._act()
        return 60.0


class Busy:
    """A table that another program changes before each commit."""

    def __init__(self, table: Table, change: Callable[[int], None]) -> None:
        self._table = table
        self._change = change
        self._count = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    @property
    def location(self) -> str:
        return self._table.location

    def commit_rows(self, rows: SpilledRows, commit: Commit, *, mode: TableMode) -> None:
        self._count += 1
        lock = LateLock(lambda: self._change(self._count))
        with pytest.raises(CommitConflict) as caught:
            self._table.commit_rows(rows, replace(commit, lock=lock), mode=mode)
        raise caught.value


class TestDelta(TableOutputContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "ses sions"

    def open_table(self, **options: Any) -> Table:
        return delta.open_table(TableRequest(output=f"{self.folder}/", **options))

    def append(self, number: int) -> None:
        write_deltalake(self.folder, self.build_row(number), mode="append")

    def count_files(self) -> int:
        return len(DeltaReader(self.folder).file_uris())

    def load(self, number: int = -1) -> pa.Table:
        return DeltaReader(self.folder, version=None if number < 0 else number).to_pyarrow_table()

    def run_ids(self) -> list[str | None]:
        history = DeltaReader(self.folder).history()
        return [each.get("livyExporterRunId") for each in reversed(history)]

    def list_files(self) -> list[Path]:
        return sorted(self.folder.rglob("*"))


class TestIceberg(TableOutputContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.warehouse = tmp_path / "warehouse"
        uri, warehouse = f"sqlite:///{tmp_path}/catalog.db", f"file://{self.warehouse}"
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", uri)
        monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", warehouse)
        self.opened: list[IcebergTable] = []
        self.catalog: Catalog = load_catalog("lake", uri=uri, warehouse=warehouse)
        yield
        self.catalog.close()
        for table in self.opened:
            table.close()

    def open_table(self, **options: Any) -> Table:
        request = TableRequest(output="iceberg://lake/ops.sessions", **options)
        self.opened.append(iceberg.open_table(request))
        return self.opened[-1]

    def append(self, number: int) -> None:
        if not self.catalog.table_exists("ops.sessions"):
            self.catalog.create_namespace("ops")
            self.catalog.create_table("ops.sessions", build_schema())
        self.catalog.load_table("ops.sessions").append(self.build_row(number))

    def count_files(self) -> int:
        return len(list(self.catalog.load_table("ops.sessions").scan().plan_files()))

    def load(self, number: int = -1) -> pa.Table:
        table = self.catalog.load_table("ops.sessions")
        return table.scan(snapshot_id=table.snapshots()[number].snapshot_id).to_arrow()

    def run_ids(self) -> list[str | None]:
        return [
            each.summary.additional_properties.get("livy_exporter.run_id")
            for each in self.catalog.load_table("ops.sessions").snapshots()
            if each.summary is not None
        ]

    def list_files(self) -> list[Path]:
        return sorted(self.warehouse.rglob("*.parquet"))


class TestPaimon(TableOutputContract):
    """Its rows never leave their partition, so the suite's partition columns are replaced."""

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.options = {"warehouse": str(tmp_path / "warehouse")}
        self.folder = tmp_path / "warehouse" / "ops.db" / "sessions"
        monkeypatch.setattr(paimon, "MAX_FILES", 10)

    def open_table(self, partition_by: tuple[str, ...] = (), **options: Any) -> Table:
        named = {"dt": "compute_id", "state": "workspace_id"}
        request = TableRequest(
            output="paimon://lake/ops.sessions",
            partition_by=tuple(named[each] for each in partition_by),
            catalogs={"lake": self.options},
            **options,
        )
        return paimon.open_table(request)

    def append(self, number: int) -> None:
        output = self.open_output(self.open_table(), mode="upsert", run_id=f"other-{number}")
        publish_sessions(output, raw_sessions(number))

    def count_files(self) -> int:
        context = SQLContext()
        context.register_catalog("lake", self.options, "")
        found = context.sql("SELECT count(*) AS files FROM lake.ops.`sessions$files`")
        return int(found[0]["files"][0].as_py())

    def load(self, number: int = -1) -> pa.Table:
        table = PaimonCatalog(self.options).get_table("ops.sessions")
        numbers = sorted(each.id() for each in table.list_snapshots())
        builder = table.new_read_builder({"scan.snapshot-id": str(numbers[number])})
        batches = builder.new_read().read(builder.new_scan().plan().splits())
        return pa.Table.from_batches(
            [pa.RecordBatch.from_arrays(each.columns, schema=SCHEMA) for each in batches], SCHEMA
        )

    def run_ids(self) -> list[str | None]:
        context = SQLContext()
        context.register_catalog("lake", self.options, "")
        found = context.sql("SELECT commit_user FROM lake.ops.`sessions$snapshots`")
        return [user for rows in found for user in rows["commit_user"].to_pylist()]

    def list_files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def test_table_keeps_its_partitions(self) -> None:
        table = self.open_table(partition_by=("dt",))
        publish_sessions(self.open_output(table, mode="replace", run_id="run-1"), raw_sessions(1))

        with pytest.raises(UsageError, match="is partitioned by compute_id, not by workspace_id"):
            self.open_table(partition_by=("state",))
