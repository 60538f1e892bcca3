"""What the output of every kind of table promises: one suite, inherited once a kind."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable as DeltaReader
from pyiceberg.catalog import Catalog, load_catalog

from exporter.errors import DestinationError, UsageError
from exporter.gateway import Gateway
from exporter.records import RawSession
from exporter.sinks import OutputFacts, Table, TableMode
from exporter.sinks.delta import DeltaTable
from exporter.sinks.delta_output import DeltaCommitter
from exporter.sinks.delta_storage import open_delta_storage
from exporter.sinks.iceberg import IcebergTable
from exporter.sinks.iceberg_output import IcebergCommitter
from exporter.sinks.lake_output import Committer, TableOutput
from exporter.stores.addresses import StoreAccess
from tests.tables import (
    CREATED_MS,
    EXPORTED_AT,
    FIRST,
    FIRST_ROW,
    HOUR_MS,
    SECOND,
    publish_sessions,
    query,
    raw_session,
    raw_sessions,
)

AnyOutput = TableOutput[Any, Any, Any]
EITHER_MODE = pytest.mark.parametrize("mode", ["replace", "upsert"])


class TableOutputContract(ABC):
    @abstractmethod
    def open_table(self, **options: Any) -> Table: ...

    @abstractmethod
    def build_committer(
        self, table: Any, *, mode: TableMode, run_id: str
    ) -> Committer[Any, Any, Any]: ...

    @abstractmethod
    def load(self, number: int = -1) -> pa.Table:
        """All rows by the library's own reader, as the last commit left them or another one."""

    @abstractmethod
    def run_ids(self) -> list[str | None]: ...

    @abstractmethod
    def list_files(self) -> list[Path]:
        """What a discard leaves as it was: data files, and on a plain folder all there is."""

    def open_output(self, table: Table, *, mode: TableMode, run_id: str) -> AnyOutput:
        committer = self.build_committer(table, mode=mode, run_id=run_id)
        return TableOutput(committer, mode=mode, exported_at=EXPORTED_AT, sleep=lambda _: None)

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
    def test_discard_removes_what_was_written(
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

    def test_cancelled_writer_leaves_no_partial_file(self) -> None:
        output = self.open_output(self.open_table(), mode="replace", run_id="run-1")
        for start in range(0, 100_000, 2000):
            output.write(FIRST, raw_sessions(*range(start, start + 2000)))
        assert self.list_files() != []

        output.discard()

        assert self.list_files() == []

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
        self.open_table().remove_leftovers()
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
        others = iter(range(100))
        output = self.open_output(self.open_table(), mode="upsert", run_id="run-2")
        output.write(FIRST, raw_sessions(1, 2))
        output.close()
        commit = output._commit

        def commit_too_late(change: Any) -> None:
            self.export(raw_sessions(1, 5), mode="upsert", run_id=f"other-{next(others)}")
            commit(change)

        output._commit = commit_too_late  # type: ignore[method-assign]

        with pytest.raises(DestinationError, match="others changed it 5 times") as caught:
            output.publish()
        output.discard()

        assert caught.value.hint is not None
        assert [row[0] for row in self.read()] == ["livy-1", "livy-5"]
        assert [path for path in self.list_files() if "run-2" in path.name] == []

    def test_table_keeps_its_partitions(self) -> None:
        table = self.open_table(partition_by=("dt",))
        publish_sessions(self.open_output(table, mode="replace", run_id="run-1"), raw_sessions(1))

        with pytest.raises(UsageError, match="is partitioned by dt, not by state"):
            self.open_table(partition_by=("state",))


class TestDelta(TableOutputContract):
    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "ses sions"

    def open_table(self, **options: Any) -> DeltaTable:
        output = f"{self.folder}/"
        return DeltaTable(output, storage=open_delta_storage(output, StoreAccess()), **options)

    def build_committer(
        self, table: DeltaTable, *, mode: TableMode, run_id: str
    ) -> Committer[Any, Any, Any]:
        return DeltaCommitter(
            table._table, mode=mode, run_id=run_id, exporter_version="1.2.3", codec="zstd"
        )

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

    def open_table(self, **options: Any) -> IcebergTable:
        self.opened.append(IcebergTable("iceberg://lake/ops.sessions", **options))
        return self.opened[-1]

    def build_committer(
        self,
        table: IcebergTable,
        *,
        mode: TableMode,
        run_id: str,
    ) -> Committer[Any, Any, Any]:
        return IcebergCommitter(table._table, run_id=run_id, exporter_version="1.2.3", codec="zstd")

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
        return sorted(self.warehouse.rglob("livy-exporter-*"))
