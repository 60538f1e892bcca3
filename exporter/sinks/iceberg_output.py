"""What a run does with an Iceberg table: rows to data files, and those to one snapshot."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pyarrow as pa
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table.locations import load_location_provider
from pyiceberg.typedef import Record
from pyiceberg.types import TimestamptzType

from exporter.sinks import ParquetCodec
from exporter.sinks.iceberg_files import (
    CODEC_PROPERTY,
    DataFiles,
    NewFile,
    TableFile,
    build_arrow_schema,
    read_rows,
    split_rows,
    target_bytes_of,
)
from exporter.sinks.iceberg_names import translated
from exporter.sinks.iceberg_tables import LakeTable, Prepared
from exporter.sinks.lake import Conflict, fit_rows
from exporter.sinks.lake_files import PREFIX


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A data file that the table consists of, with the deletes that belong to it."""

    task: FileScanTask
    created_us: tuple[int, int] | None
    """The smallest and the largest `create_time`; None where they, or that there is no null among
    them, are not known."""

    @property
    def path(self) -> str:
        return self.task.file.file_path

    @property
    def size_bytes(self) -> int:
        return self.task.file.file_size_in_bytes

    @property
    def partition(self) -> Record:
        return self.task.file.partition


class IcebergCommitter:
    """Reads a table, writes data files for it and commits them in the name of one run."""

    def __init__(
        self, table: LakeTable, *, run_id: str, exporter_version: str, codec: ParquetCodec
    ) -> None:
        self._table = table
        self._run_id = run_id
        self._exporter_version = exporter_version
        self._properties: dict[str, str] = {
            CODEC_PROPERTY: "uncompressed" if codec == "none" else codec
        }

    @property
    def output(self) -> str:
        return self._table.output

    def translated(self) -> AbstractContextManager[None]:
        return translated(self._table.output)

    def load(self) -> Prepared:
        return self._table.prepare(properties=self._properties)

    def prove_writable(self, version: Prepared) -> None:
        metadata = version.metadata
        folder = load_location_provider(metadata.location, metadata.properties).data_path
        proof = TableFile(version.table.io, f"{folder}/{PREFIX}{self._run_id}.proof")
        try:
            proof.write(b"livy-exporter\n")
            proof.sync()
        finally:
            proof.discard()

    def fits(self, version: Prepared, other: Prepared) -> bool:
        return version.fits(other.metadata)

    def list_files(self, version: Prepared) -> Sequence[ScannedFile]:
        schema = version.metadata.schema()
        return [
            ScannedFile(task, read_created_us(task.file, schema)) for task in version.plan_files()
        ]

    def target_bytes(self, version: Prepared) -> int:
        return target_bytes_of(version.metadata)

    def fit_rows(self, rows: pa.RecordBatch, version: Prepared) -> pa.RecordBatch:
        return fit_rows(rows, build_arrow_schema(version.metadata.schema()))

    def find_partitions(self, rows: pa.RecordBatch, version: Prepared) -> set[Record]:
        return {
            Record() if key is None else key.partition
            for key, _ in split_rows(rows, version.metadata)
        }

    def read_rows(
        self, file: ScannedFile, version: Prepared, names: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        schema = version.metadata.schema()
        if names is not None:
            schema = schema.select(*names)
        return read_rows(file.task, version.metadata, version.table.io, schema)

    def begin_files(self, version: Prepared, series: int) -> DataFiles:
        with self.translated():
            return DataFiles(
                version.metadata,
                version.table.io,
                output=self._table.output,
                run_id=self._run_id,
                series=series,
            )

    def commit(
        self, version: Prepared, *, added: Sequence[NewFile], removed: Sequence[ScannedFile]
    ) -> None:
        with self.translated():
            try:
                self._table.commit(
                    version,
                    added=[new.data_file for new in added],
                    removed=[file.task.file for file in removed],
                    run_id=self._run_id,
                    exporter_version=self._exporter_version,
                )
            except Conflict:
                raise
            except Exception:
                # The answer may be lost and the commit done.
                if not self._table.has_committed(self._run_id):
                    raise


def read_created_us(file: DataFile, schema: Schema) -> tuple[int, int] | None:
    """What a data file's statistics say of its `create_time`, as in `ScannedFile`."""
    column = schema.find_field("create_time").field_id
    lower = (file.lower_bounds or {}).get(column)
    upper = (file.upper_bounds or {}).get(column)
    null_count = (file.null_value_counts or {}).get(column)
    if null_count != 0 or lower is None or upper is None:
        return None
    return int(from_bytes(TimestamptzType(), lower)), int(from_bytes(TimestamptzType(), upper))
