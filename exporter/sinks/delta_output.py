"""What a run does with a Delta table: rows to data files, and those to one entry of the log."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from exporter.errors import UsageError
from exporter.sinks import ParquetCodec, TableMode
from exporter.sinks.delta_errors import translated
from exporter.sinks.delta_log import DAY, DataFile, Partition
from exporter.sinks.delta_tables import LakeTable, Snapshot
from exporter.sinks.lake import fit_rows, split_by
from exporter.sinks.lake_files import PREFIX, TARGET_BYTES, EndedFile, PartitionedFiles
from exporter.stores import StagedFile

NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
_LONGEST_FOLDER: Final = 100


class DeltaCommitter:
    """Reads a table, writes data files for it and commits them in the name of one run."""

    def __init__(
        self,
        table: LakeTable,
        *,
        mode: TableMode,
        run_id: str,
        exporter_version: str,
        codec: ParquetCodec,
        target_bytes: int = TARGET_BYTES,
    ) -> None:
        if codec != "none" and not pa.Codec.is_available(codec):
            raise UsageError(
                f"the installed pyarrow cannot compress with {codec}",
                hint="take --compression zstd, or install pyarrow from PyPI",
            )
        self._table = table
        self._mode: TableMode = mode
        self._run_id = run_id
        self._exporter_version = exporter_version
        self._codec: ParquetCodec = codec
        self._target_bytes = target_bytes

    @property
    def output(self) -> str:
        return self._table.output

    def translated(self) -> AbstractContextManager[None]:
        return translated(self._table.output)

    def load(self) -> Snapshot:
        return self._table.load()

    def prove_writable(self, version: Snapshot) -> None:  # noqa: ARG002 - one store for all versions
        store, name = self._table.store, f"{PREFIX}{self._run_id}.proof"
        try:
            store.replace(name, b"livy-exporter\n")
        finally:
            store.remove([name])

    def fits(self, version: Snapshot, other: Snapshot) -> bool:
        return version.fits(other)

    def list_files(self, version: Snapshot) -> Sequence[DataFile]:
        return version.files

    def target_bytes(self, version: Snapshot) -> int:  # noqa: ARG002 - no property of the table
        return self._target_bytes

    def fit_rows(self, rows: pa.RecordBatch, version: Snapshot) -> pa.RecordBatch:
        return fit_rows(add_day(rows), version.schema)

    def find_partitions(self, rows: pa.RecordBatch, version: Snapshot) -> set[Partition]:
        return {partition for partition, _ in split_rows(rows, version)}

    def read_rows(
        self, file: DataFile, version: Snapshot, names: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        schema = version.schema
        if names is not None:
            schema = pa.schema([schema.field(name) for name in names])
        return self._table.read_rows(file, version, schema)

    def begin_files(self, version: Snapshot, series: int) -> PartitionedFiles[Partition]:
        store, columns = self._table.store, version.metadata.partition_columns

        def stage(partition: Partition, number: int) -> tuple[str, StagedFile]:
            file_name = f"{PREFIX}{self._run_id}-{series}-{number:05}.parquet"
            name = f"{name_folder(columns, partition)}{file_name}"
            return name, store.stage(name, run_id=self._run_id)

        return PartitionedFiles(
            version.file_schema,
            codec=self._codec,
            target_bytes=self._target_bytes,
            split=lambda rows: split_rows(rows, version),
            stage=stage,
            remove=store.remove,
        )

    def commit(
        self,
        version: Snapshot,
        *,
        added: Sequence[EndedFile[Partition]],
        removed: Sequence[DataFile],
    ) -> None:
        self._table.commit(
            version,
            mode=self._mode,
            added=added,
            removed=removed,
            run_id=self._run_id,
            exporter_version=self._exporter_version,
        )


def add_day(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with the column that tables are partitioned by."""
    return rows.append_column(DAY, rows["create_time"].cast(pa.date32()))


def split_rows(
    rows: pa.RecordBatch, snapshot: Snapshot
) -> Iterator[tuple[Partition, pa.RecordBatch]]:
    """The rows of each partition in their order, with the columns that data files have.

    An empty text is null: the protocol knows no difference there.
    """
    whole = fit_rows(rows, snapshot.file_schema)
    columns = snapshot.metadata.partition_columns
    return split_by(whole, [_partition_values(rows[name]) for name in columns])


def _partition_values(column: pa.Array) -> tuple[pa.Array, list[str | None]]:
    """The position of each row's value in the list that comes second."""
    texts = column.cast(pa.string())
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    distinct = texts.unique()
    positions = pc.index_in(texts, value_set=distinct).cast(pa.int64())
    known: list[str | None] = distinct.to_pylist()
    return positions, known


def name_folder(columns: Sequence[str], partition: Partition) -> str:
    """Where a partition's files are; only the log says what their values are."""
    return "".join(
        f"{quote(column)}={_name_value(value)}/"
        for column, value in zip(columns, partition, strict=True)
    )


def _name_value(value: str | None) -> str:
    # Cut short, two values may share a folder: files have names of their own.
    return NULL_FOLDER if value is None else quote(value, safe="-_ ")[:_LONGEST_FOLDER]
