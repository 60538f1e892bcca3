"""Data files of an Iceberg table, read and written by pyiceberg's own readers and writers."""

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.io import FileIO
from pyiceberg.io.pyarrow import ArrowScan, bin_pack_arrow_table, pyarrow_to_schema, write_file
from pyiceberg.manifest import DataFile
from pyiceberg.partitioning import (
    PartitionField,
    PartitionFieldValue,
    PartitionKey,
    partition_record_value,
)
from pyiceberg.schema import Schema
from pyiceberg.table import ALWAYS_TRUE, FileScanTask, WriteTask
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import TimeTransform, VoidTransform
from pyiceberg.typedef import Record

from exporter.model import KEY_COLUMNS
from exporter.tables.spool import SpilledRows

TARGET_PROPERTY: Final = "write.target-file-size-bytes"
TARGET_BYTES: Final = 24 << 20
"""For a new table, as the library counts: rows in memory, ten times their size on disk.

A file that an upsert touches is read whole, and is in memory three times while it is rewritten.
"""

MIN_BLOCK_ROWS: Final = 1 << 17
"""Rows whose keys are looked up together, at least."""

MAX_WRITTEN_AT_ONCE: Final = 16
"""Files that are handed to the library's threads together."""


@dataclass(frozen=True, slots=True)
class TouchedFile:
    """A data file with rows that an upsert replaces."""

    task: FileScanTask
    replaced: pa.BooleanArray
    """One value a row of the file."""


class RowReader:
    """Reads a table's data files: with its deletes, by field ids or its name mapping."""

    def __init__(self, metadata: TableMetadata, io: FileIO) -> None:
        self._metadata = metadata
        self._io = io

    def read(
        self, task: FileScanTask, names: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows in their order, with all columns or those named."""
        # The memory of the last file is free, but not given back by itself.
        pa.default_memory_pool().release_unused()
        schema = self._metadata.schema()
        if names is not None:
            schema = schema.select(*names)
        return ArrowScan(self._metadata, self._io, schema, ALWAYS_TRUE).to_record_batches([task])

    def read_rest(self, touched: TouchedFile) -> Iterator[pa.RecordBatch]:
        """The rows that are not replaced."""
        kept = pc.invert(touched.replaced)
        start = 0
        for rows in self.read(touched.task):
            yield rows.filter(kept.slice(start, rows.num_rows))
            start += rows.num_rows


def find_touched(
    tasks: Iterable[FileScanTask], reader: RowReader, rows: SpilledRows
) -> Iterator[TouchedFile]:
    """The data files that have rows of the same keys."""
    wanted = read_keys(rows.open_reader(_KEYS)).combine_chunks()
    block: list[tuple[FileScanTask, pa.ChunkedArray]] = []
    row_count = 0
    for task in tasks:
        found = read_keys(reader.read(task, KEY_COLUMNS))
        block.append((task, found))
        row_count += len(found)
        # Each lookup costs as much as there are keys to find.
        if row_count >= max(MIN_BLOCK_ROWS, len(wanted)):
            yield from _find_hits(block, wanted)
            block, row_count = [], 0
    yield from _find_hits(block, wanted)


_KEYS: Final = pa.schema([pa.field(name, pa.string()) for name in KEY_COLUMNS])
_SEPARATOR: Final = pa.scalar(":", pa.large_string())


def read_keys(batches: Iterable[pa.RecordBatch]) -> pa.ChunkedArray:
    return pa.chunked_array(map(join_keys, batches), pa.large_string())


def join_keys(rows: pa.RecordBatch) -> Any:
    """Each row's key as one text, with the lengths of its parts first, so different keys differ."""
    columns = [rows[name].cast(pa.large_string()) for name in KEY_COLUMNS]
    lengths = [pc.binary_length(column).cast(pa.large_string()) for column in columns[:-1]]
    return pc.binary_join_element_wise(*lengths, *columns, _SEPARATOR)


def _find_hits(
    block: Sequence[tuple[FileScanTask, pa.ChunkedArray]], wanted: pa.Array
) -> Iterator[TouchedFile]:
    keys = [chunk for _, found in block for chunk in found.chunks]
    hits = pc.is_in(pa.chunked_array(keys, pa.large_string()), value_set=wanted)
    start = 0
    for task, found in block:
        replaced = hits.slice(start, len(found)).combine_chunks()
        start += len(found)
        if pc.any(replaced).as_py():
            yield TouchedFile(task, replaced)


class DataFileWriter:
    """Writes rows to data files that no snapshot names yet: `write`…, then `close` or `discard`."""

    def __init__(self, metadata: TableMetadata, io: FileIO, *, write_id: uuid.UUID) -> None:
        self._metadata = metadata
        self._io = io
        self._write_id = write_id
        self._target_bytes = int(metadata.properties.get(TARGET_PROPERTY, TARGET_BYTES))
        self._numbers = itertools.count()
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self._files: list[DataFile] = []

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        for rows in batches:
            if rows.num_rows > 0:
                self._pending.append(pa.Table.from_batches([rows]))
                self._pending_bytes += rows.nbytes
            if self._pending_bytes >= self._target_bytes:
                self._flush()

    def close(self) -> list[DataFile]:
        self._flush()
        return self._files

    def discard(self) -> None:
        """Remove the files; never for a commit that may have been made, and never raises."""
        for each in self._files:
            with suppress(Exception):
                self._io.delete(each.file_path)

    def _flush(self) -> None:
        if not self._pending:
            return
        rows = pa.concat_tables(self._pending, promote_options="permissive")
        self._pending.clear()
        self._pending_bytes = 0
        schema = pyarrow_to_schema(rows.schema, name_mapping=self._metadata.schema().name_mapping)
        tasks = [
            WriteTask(
                write_uuid=self._write_id,
                task_id=next(self._numbers),
                record_batches=batches,
                partition_key=key,
                schema=schema,
            )
            for key, part in split_rows(rows, self._metadata)
            for batches in self._pack(part)
        ]
        for start in range(0, len(tasks), MAX_WRITTEN_AT_ONCE):
            some = iter(tasks[start : start + MAX_WRITTEN_AT_ONCE])
            self._files += write_file(io=self._io, table_metadata=self._metadata, tasks=some)

    def _pack(self, rows: pa.Table) -> Iterable[list[pa.RecordBatch]]:
        """Rows a little above the target stay one file, not one and a sliver."""
        if rows.nbytes < self._target_bytes * 3 // 2:
            return [rows.to_batches()]
        return bin_pack_arrow_table(rows, self._target_bytes)


def split_rows(
    rows: pa.Table, metadata: TableMetadata
) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
    """The rows of each partition, in their order.

    The library's own function needs another library for all transforms but identity.
    """
    spec, schema = metadata.spec(), metadata.schema()
    if spec.is_unpartitioned():
        yield None, rows
        return
    columns = [transform_column(rows, field, schema) for field in spec.fields]
    names = [str(number) for number in range(len(columns))]
    keys = pa.table([indices for indices, _ in columns], names)
    keys = keys.append_column("row", pa.array(range(rows.num_rows), pa.int64()))
    groups = keys.group_by(names, use_threads=False).aggregate([("row", "list")])
    for *indices, numbers in zip(*(groups[name] for name in (*names, "row_list")), strict=True):
        values = [
            PartitionFieldValue(field=field, value=known[index.as_py()])
            for field, (_, known), index in zip(spec.fields, columns, indices, strict=True)
        ]
        yield _TransformedKey(values, spec, schema), rows.take(numbers.values)


class _TransformedKey(PartitionKey):
    """A partition whose values are already as metadata keep them."""

    @property
    def partition(self) -> Record:  # the library caches it
        return Record(*(each.value for each in self.field_values))


def transform_column(
    rows: pa.Table, field: PartitionField, schema: Schema
) -> tuple[pa.Array, list[Any]]:
    """The partition's value of each row, as an index into the list of values.

    Distinct values are few once a time is cut to the hour, the finest of the transforms.
    """
    source = schema.find_field(field.source_id)
    column = rows[source.name] if source.name in rows.column_names else pa.nulls(rows.num_rows)
    if isinstance(field.transform, TimeTransform) and pa.types.is_timestamp(column.type):
        column = pc.floor_temporal(column, unit="hour")
    distinct = pc.unique(column)
    transform = field.transform.transform(source.field_type)
    indices_by_value: dict[Any, int] = {}
    indices = []
    for value in distinct.to_pylist():
        inner = None if value is None else partition_record_value(field, value, schema)
        result = None if isinstance(field.transform, VoidTransform) else transform(inner)
        indices.append(indices_by_value.setdefault(result, len(indices_by_value)))
    found = pc.index_in(column, value_set=distinct)
    return pc.take(pa.array(indices, pa.int64()), found), list(indices_by_value)
