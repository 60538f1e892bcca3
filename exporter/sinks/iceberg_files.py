"""Data files of an Iceberg table: rows to Parquet with field ids and statistics, and back."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import (
    ArrowScan,
    compute_statistics_plan,
    data_file_statistics_from_parquet_metadata,
    parquet_path_to_id_mapping,
    schema_to_pyarrow,
)
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.partitioning import (
    PartitionField,
    PartitionFieldValue,
    PartitionKey,
    partition_record_value,
)
from pyiceberg.schema import Schema
from pyiceberg.table import ALWAYS_TRUE, FileScanTask
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import TimeTransform, VoidTransform
from pyiceberg.typedef import Record
from pyiceberg.types import NestedField

from exporter.held import NO_LOCK, HeldLock
from exporter.sinks import WrittenFile
from exporter.sinks.iceberg_names import translated
from exporter.sinks.lake import READ_ROWS, fit_rows, split_by
from exporter.sinks.lake_files import PREFIX, TARGET_BYTES, EndedFile, PartitionedFiles
from exporter.stores import StagedFile

TARGET_PROPERTY: Final = "write.target-file-size-bytes"
CODEC_PROPERTY: Final = "write.parquet.compression-codec"

FIELD_ID: Final = b"PARQUET:field_id"


def target_bytes_of(metadata: TableMetadata) -> int:
    return int(metadata.properties.get(TARGET_PROPERTY, TARGET_BYTES))


def build_arrow_schema(schema: Schema) -> pa.Schema:
    """The table's columns as its files have them, with their field ids."""
    fields = [
        field.with_type(pa.string()) if field.type == pa.large_string() else field
        for field in schema_to_pyarrow(schema)
    ]
    return pa.schema(fields)


class TableFile:
    """A file of a table's storage on its way; nobody sees it before a commit names it."""

    def __init__(self, io: FileIO, path: str) -> None:
        self.name = path
        self._io = io
        self._stream: Any = io.new_output(path).create(overwrite=False)

    def write(self, chunk: bytes, /) -> None:
        self._stream.write(chunk)

    def sync(self) -> None:
        self._stream.close()

    @property
    def held_bytes(self) -> int:
        return 0

    def release(self) -> None:
        """`sync` closed it."""

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        pass

    def discard(self) -> None:
        with suppress(Exception):
            self._stream.close()
        with suppress(Exception):
            self._io.delete(self.name)


@dataclass(frozen=True, slots=True)
class NewFile:
    """A data file that was written to its end, as a commit and as the manifest want it."""

    data_file: DataFile
    written: WrittenFile


class DataFiles:
    """Writes rows to data files of the table's target size, a partition's rows to its own.

    `write`…, then `close`; or `discard`, which also removes what `close` ended.
    """

    def __init__(
        self, metadata: TableMetadata, io: FileIO, *, output: str, run_id: str, series: int
    ) -> None:
        self._output = output
        self._metadata = metadata
        self._keys: dict[Record, PartitionKey | None] = {}
        codec = metadata.properties.get(CODEC_PROPERTY, "zstd")
        locations = load_location_provider(metadata.location, metadata.properties)

        def stage(partition: Record, number: int) -> tuple[str, StagedFile]:
            name = f"{PREFIX}{run_id}-{series}-{number:05}.parquet"
            path = locations.new_data_location(name, self._keys[partition])
            return path, TableFile(io, path)

        def remove(paths: list[str]) -> None:
            for path in paths:
                with suppress(Exception):
                    io.delete(path)

        self._files = PartitionedFiles(
            build_arrow_schema(metadata.schema()),
            codec="none" if codec == "uncompressed" else codec,
            target_bytes=target_bytes_of(metadata),
            split=self._split,
            stage=stage,
            remove=remove,
        )

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows that have this table's schema."""
        with translated(self._output):
            self._files.write(rows)

    def close(self) -> list[NewFile]:
        with translated(self._output):
            return [NewFile(self._describe(file), file.written) for file in self._files.close()]

    def discard(self) -> None:
        self._files.discard()

    def _split(self, rows: pa.RecordBatch) -> Iterator[tuple[Record, pa.RecordBatch]]:
        for key, part in split_rows(rows, self._metadata):
            partition = Record() if key is None else key.partition
            self._keys[partition] = key
            yield partition, part

    def _describe(self, file: EndedFile[Record]) -> DataFile:
        metadata = self._metadata
        statistics = data_file_statistics_from_parquet_metadata(
            parquet_metadata=file.metadata,
            stats_columns=compute_statistics_plan(metadata.schema(), metadata.properties),
            parquet_column_mapping=parquet_path_to_id_mapping(metadata.schema()),
        )
        return DataFile.from_args(
            content=DataFileContent.DATA,
            file_path=file.facts.path,
            file_format=FileFormat.PARQUET,
            partition=file.partition,
            file_size_in_bytes=file.facts.size_bytes,
            sort_order_id=None,
            spec_id=metadata.default_spec_id,
            equality_ids=None,
            key_metadata=None,
            **statistics.to_serialized_dict(),
        )


def split_rows(
    rows: pa.RecordBatch, metadata: TableMetadata
) -> list[tuple[PartitionKey | None, pa.RecordBatch]]:
    """The rows of each partition of the table's present layout, in their order."""
    spec, schema = metadata.spec(), metadata.schema()
    if spec.is_unpartitioned():
        return [(None, rows)]
    if rows.num_rows == 0:
        return []
    columns = [_partition_values(rows, field, schema) for field in spec.fields]
    parts: list[tuple[PartitionKey | None, pa.RecordBatch]] = []
    for values, part in split_by(rows, columns):
        key = PartitionKey(
            field_values=[
                PartitionFieldValue(field=field, value=value)
                for field, value in zip(spec.fields, values, strict=True)
            ],
            partition_spec=spec,
            schema=schema,
        )
        parts.append((_Transformed(key), part))
    return parts


class _Transformed(PartitionKey):
    """A partition whose values are already in the form that metadata keep."""

    def __init__(self, key: PartitionKey) -> None:
        super().__init__(key.field_values, key.partition_spec, key.schema)
        self.__dict__["partition"] = Record(*(each.value for each in key.field_values))


def _partition_values(
    rows: pa.RecordBatch, field: PartitionField, schema: Schema
) -> tuple[Any, list[Any]]:
    """The transformed value of each row: its position in the list that comes second.

    The library's own way over Arrow needs another library for everything but identity. Distinct
    values are few once a time is cut to the hour, the finest of the transforms.
    """
    source = schema.find_field(field.source_id)
    column = rows[source.name]
    if isinstance(field.transform, TimeTransform) and pa.types.is_timestamp(column.type):
        column = pc.floor_temporal(column, unit="hour")
    distinct = column.unique()
    transform = field.transform.transform(source.field_type)
    places: dict[Any, int] = {}
    digits = []
    for value in distinct.to_pylist():
        inner = None if value is None else partition_record_value(field, value, schema)
        result = None if isinstance(field.transform, VoidTransform) else transform(inner)
        digits.append(places.setdefault(result, len(places)))
    positions = pc.index_in(column, value_set=distinct)
    return pc.take(pa.array(digits, pa.int64()), positions), list(places)


def read_rows(
    task: FileScanTask, metadata: TableMetadata, io: FileIO, schema: Schema
) -> Iterator[pa.RecordBatch]:
    """A data file's rows with the columns of `schema`, a row group at a time where possible.

    pyarrow's scanner, which the library goes through, reads far ahead. It is taken only for what
    needs more than columns found by their ids.
    """
    arrow_schema = build_arrow_schema(schema)
    if task.delete_files or task.file.file_format != FileFormat.PARQUET or not _is_flat(schema):
        scan = ArrowScan(metadata, io, schema, ALWAYS_TRUE)
        for rows in scan.to_record_batches([task]):
            yield fit_rows(rows, arrow_schema)
        return
    with (
        io.new_input(task.file.file_path).open() as stream,
        pq.ParquetFile(stream, pre_buffer=True) as file,
    ):
        found = _find_columns(file.schema_arrow, schema)
        # One row group is one request or two of a remote store, and all that is held; several
        # threads were measured at 60 MiB more of peak memory, and no faster.
        for number in range(file.num_row_groups):
            for rows in file.iter_batches(
                READ_ROWS, row_groups=[number], columns=list(found), use_threads=False
            ):
                names = [found[name] for name in rows.schema.names]
                yield fit_rows(rows.rename_columns(names), arrow_schema)


def _is_flat(schema: Schema) -> bool:
    return all(
        field.field_type.is_primitive and field.initial_default is None for field in schema.fields
    )


def _find_columns(arrow_schema: pa.Schema, schema: Schema) -> dict[str, str]:
    """The file's columns that the table knows, and the table's names for them.

    By field id; a file that was added as it came has none, and its columns go by their names.
    """
    wanted: dict[int, NestedField] = {field.field_id: field for field in schema.fields}
    found = {}
    has_ids = any(FIELD_ID in (field.metadata or {}) for field in arrow_schema)
    for field in arrow_schema:
        if has_ids:
            known = wanted.get(int((field.metadata or {}).get(FIELD_ID, -1)))
            if known is not None:
                found[field.name] = known.name
        elif field.name in schema.column_names:
            found[field.name] = field.name
    return found
