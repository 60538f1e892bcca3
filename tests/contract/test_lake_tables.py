"""Tables through the whole program, on every store; their own libraries read, and DuckDB."""

from collections.abc import Mapping
from typing import ClassVar

import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError

from tests.lake import Row, odd_sessions, read_table
from tests.lake_contract import AddingContract


class TableContract(AddingContract):
    seen_when_shown = "new"
    folder: ClassVar[str]

    def assert_only_data(self) -> None:
        assert all(name.startswith(f"{self.folder}/") for name in self.data_names())

    def count_rows(self, begun: int, changed: int) -> int:
        return len(self.truth())

    @pytest.mark.parametrize("place", ["local", "s3"], indirect=True)
    def test_table_by_day_takes_an_increment(self) -> None:
        self.account.put([], odd_sessions())
        self.export("--partition-by", "dt")
        self.begin()

        self.change()
        self.export("--incremental", "--partition-by", "dt")

        seen, truth = self.see(), self.truth()
        assert {key: seen.newest[key] for key in truth} == truth
        assert len({name.rpartition("/")[0] for name in self.data_names()}) > 5
        self.assert_whole()


class TestIceberg(TableContract):
    name = "ops.sessions"
    folder = "ops/sessions"
    manifest = "ops/sessions.manifest.json"
    state = "ops/sessions.state.json"
    lock = "ops/.sessions.lock"

    @property
    def output(self) -> str:
        return "iceberg://lake/ops.sessions"

    def properties(self) -> dict[str, str]:
        url = self.place.url.rstrip("/")
        return {
            "uri": f"sqlite:///{self.home}/catalog.db",
            "warehouse": f"file://{url}" if url.startswith("/") else url,
            **self.place.iceberg,
        }

    def more_environ(self) -> Mapping[str, str]:
        return {
            "PYICEBERG_CATALOG__LAKE__" + name.upper().replace(".", "__").replace("-", "_"): value
            for name, value in self.properties().items()
        }

    def read(self) -> list[Row]:
        catalog = load_catalog("lake", **self.properties())
        try:
            return read_table(catalog.load_table("ops.sessions").scan().to_arrow())
        except NoSuchTableError:
            return []
        finally:
            catalog.close()

    def runs(self) -> list[str]:
        catalog = load_catalog("lake", **self.properties())
        try:
            return [
                run_id
                for each in catalog.load_table("ops.sessions").snapshots()
                if each.summary is not None
                and (run_id := each.summary.additional_properties.get("livy_exporter.run_id"))
            ]
        finally:
            catalog.close()


class TestDelta(TableContract):
    name = "sessions/"
    flags = ("--format", "delta")
    folder = "sessions"
    manifest = "sessions.manifest.json"
    state = "sessions.state.json"
    lock = ".sessions.lock"

    def open_table(self) -> DeltaTable:
        place = self.place.url.replace("oss://", "s3://")  # one server speaks for both
        return DeltaTable(f"{place}sessions", storage_options=dict(self.place.delta))

    def read(self) -> list[Row]:
        try:
            return read_table(self.open_table().to_pyarrow_table())
        except TableNotFoundError:
            return []

    def runs(self) -> list[str]:
        return [each["livyExporterRunId"] for each in reversed(self.open_table().history())]
