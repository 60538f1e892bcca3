"""Tables in which another engine has deleted rows by their position, as Spark does."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestFile,
    ManifestWriterV2,
)
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record

from exporter.model import Gateway
from exporter.tables import iceberg
from exporter.tables.iceberg import IcebergTable
from exporter.tables.interface import TableMode, TableRequest
from tests.support.tables import open_table_output

pytestmark = pytest.mark.campaign

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")


class DeleteManifestWriter(ManifestWriterV2):
    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class RowDelete(_FastAppendFiles):
    """A commit of one position-delete file, which the library itself cannot make."""

    delete_file: DataFile

    def _manifests(self) -> list[ManifestFile]:
        metadata = self._transaction.table_metadata
        with DeleteManifestWriter(
            metadata.spec(),
            metadata.schema(),
            self.new_manifest_output(),
            self._snapshot_id,
            "null",
        ) as writer:
            writer.add(
                ManifestEntry.from_args(
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=self._snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=self.delete_file,
                )
            )
        return [writer.to_manifest_file(), *self._existing_manifests()]


def delete_rows(table: Table, positions: list[int], folder: Path) -> None:
    """Delete rows of the table's only file."""
    [task] = table.scan().plan_files()
    schema = pa.schema(
        [
            pa.field("file_path", pa.string(), metadata={"PARQUET:field_id": "2147483546"}),
            pa.field("pos", pa.int64(), metadata={"PARQUET:field_id": "2147483545"}),
        ]
    )
    path = folder / "deletes.parquet"
    rows = pa.table([[task.file.file_path] * len(positions), positions], schema=schema)
    pq.write_table(rows, path)
    transaction = table.transaction()
    producer = RowDelete(operation=Operation.DELETE, transaction=transaction, io=table.io)
    producer.delete_file = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=f"file://{path}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=len(positions),
        file_size_in_bytes=path.stat().st_size,
        column_sizes={},
        value_counts={},
        null_value_counts={},
        nan_value_counts={},
        lower_bounds={},
        upper_bounds={},
        spec_id=0,
    )
    producer.commit()
    transaction.commit_transaction()


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[IcebergTable]:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__URI", f"sqlite:///{tmp_path}/catalog.db")
    monkeypatch.setenv("PYICEBERG_CATALOG__LAKE__WAREHOUSE", f"file://{tmp_path}/warehouse")
    table = iceberg.open_table(TableRequest(output="iceberg://lake/ops.sessions"))
    yield table
    table.close()


def export(table: IcebergTable, numbers: list[int], *, mode: TableMode, run_id: str) -> None:
    output = open_table_output(table, mode=mode, run_id=run_id)
    output.write(GATEWAY, [{"sessionId": f"livy-{n}", "state": run_id} for n in numbers])
    output.close()
    output.publish()


def read(table: IcebergTable) -> list[tuple[str, str]]:
    rows = table._prepare()._table.scan().to_arrow().to_pylist()
    return sorted((row["session_id"], row["state"]) for row in rows)


def test_rows_that_were_deleted_stay_deleted(table: IcebergTable, tmp_path: Path) -> None:
    export(table, [1, 2, 3, 4], mode="replace", run_id="run-1")
    delete_rows(table._prepare()._table, [0, 2], tmp_path)
    assert read(table) == [("livy-2", "run-1"), ("livy-4", "run-1")]

    export(table, [4, 5], mode="upsert", run_id="run-2")

    assert read(table) == [("livy-2", "run-1"), ("livy-4", "run-2"), ("livy-5", "run-2")]


def test_session_that_was_deleted_comes_back_when_a_run_reads_it(
    table: IcebergTable, tmp_path: Path
) -> None:
    export(table, [1, 2], mode="replace", run_id="run-1")
    delete_rows(table._prepare()._table, [0], tmp_path)

    export(table, [1], mode="upsert", run_id="run-2")
    assert read(table) == [("livy-1", "run-2"), ("livy-2", "run-1")]

    export(table, [3], mode="replace", run_id="run-3")
    assert read(table) == [("livy-3", "run-3")]
