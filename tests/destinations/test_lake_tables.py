"""Tables through the whole program, on every store; their own libraries and DuckDB read."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import ClassVar

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError
from pypaimon_rust.datafusion import PaimonCatalog, SQLContext

from exporter.records.schema import SCHEMA
from tests.support.lake import Row, odd_sessions, read_table
from tests.support.lake_contract import AddingContract
from tests.support.paimon_catalog import serve

pytestmark = pytest.mark.campaign


class TableContract(AddingContract):
    seen_when_shown = "new"
    folder: ClassVar[str]
    partition_by: ClassVar[str] = "dt"
    min_folders: ClassVar[int] = 6

    def assert_only_data(self) -> None:
        assert all(name.startswith(f"{self.folder}/") for name in self.data_names())

    def count_rows(self, begun: int, changed: int) -> int:
        return len(self.truth())

    @pytest.mark.parametrize("place", ["local", "s3"], indirect=True)
    def test_table_in_partitions_takes_an_increment(self) -> None:
        self.account.put([], odd_sessions())
        self.export("--partition-by", self.partition_by)
        self.begin()

        self.change()
        self.export("--incremental", "--partition-by", self.partition_by)

        seen, truth = self.see(), self.truth()
        assert {key: seen.newest[key] for key in truth} == truth
        folders = {name.rpartition("/")[0] for name in self.data_names()}
        assert len(folders) >= self.min_folders
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


class TestPaimon(TableContract):
    """On a disk without a server; in a store through a server, which commits."""

    name = "ops.sessions"
    folder = "ops.db/sessions"
    manifest = "ops.db/sessions.manifest.json"
    state = "ops.db/sessions.state.json"
    lock = "ops.db/.sessions.lock"
    partition_by = "workspace_id"
    min_folders = 2

    @pytest.fixture(autouse=True)
    def serving(self) -> Iterator[None]:
        self.stack = ExitStack()
        with self.stack:
            yield

    @property
    def output(self) -> str:
        return "paimon://lake/ops.sessions"

    def more_environ(self) -> Mapping[str, str]:
        self.options = {"warehouse": self.place.url}
        own = {}
        server = self.place.paimon
        if server is not None:
            self.options = {
                "metastore": "rest",
                "uri": self.stack.enter_context(serve(server)),
                "warehouse": "lake",
                "token.provider": "bear",
                "token": server.token,
                **self.place.paimon_storage,
            }
            own = {"sidecars": self.place.url}
        return {
            "PAIMON_CATALOG__LAKE__" + name.upper().replace(".", "__").replace("-", "_"): value
            for name, value in {**self.options, **own}.items()
        }

    def read(self) -> list[Row]:
        try:
            table = PaimonCatalog(self.options).get_table("ops.sessions")
        except ValueError:
            return []
        builder = table.new_read_builder()
        batches = builder.new_read().read(builder.new_scan().plan().splits())
        return read_table(pa.Table.from_batches(batches, SCHEMA)) if batches else []

    def runs(self) -> list[str]:
        context = SQLContext()
        context.register_catalog("lake", self.options, "")
        found = context.sql("SELECT commit_user FROM lake.ops.`sessions$snapshots`")
        return [user for rows in found for user in rows["commit_user"].to_pylist()]
