"""Rows of an Iceberg table through pyiceberg's own readers and writers: which are replaced, and
data files of the others and of new ones.
"""

import itertools
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.expressions import AlwaysTrue
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
from pyiceberg.table import FileScanTask, WriteTask
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.transforms import TimeTransform, VoidTransform
from pyiceberg.typedef import Record

from exporter.model import KEY_COLUMNS
from exporter.tables.spool import SpilledRows

TARGET_PROPERTY: Final = "write.target-file-size-bytes"
TARGET_BYTES: Final = 24 << 20
"""Of a table that we make, as the library counts: rows in memory. On disk it is a tenth of that.

A file that an upsert touches is read whole, and is in memory three times while it is written anew.
"""

MIN_BLOCK_ROWS: Final = 1 << 17
"""How many rows' keys are looked up together, at least."""


@dataclass(frozen=True, slots=True)
class TouchedFile:
    """A data file, and which of its rows are replaced."""

    task: FileScanTask
    replaced: pa.BooleanArray


class RowReader:
    """Reads data files of a table as it is: with its deletes, by field ids or its name mapping."""

    def __init__(self, metadata: TableMetadata, io: FileIO) -> None:
        self._metadata = metadata
        self._io = io

    def read(
        self, task: FileScanTask, names: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Rows in their order, with all columns or those named."""
        # What the file before has taken is free, and not given back by itself.
        pa.default_memory_pool().release_unused()
        schema = self._metadata.schema()
        if names is not None:
            schema = schema.select(*names)
        return ArrowScan(self._metadata, self._io, schema, AlwaysTrue()).to_record_batches([task])

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
    wanted = pa.chunked_array(map(join_keys, rows.open_reader(_KEYS)), pa.large_string())
    wanted = wanted.combine_chunks()
    block: list[tuple[FileScanTask, pa.ChunkedArray]] = []
    row_count = 0
    for task in tasks:
        found = pa.chunked_array(map(join_keys, reader.read(task, KEY_COLUMNS)), pa.large_string())
        block.append((task, found))
        row_count += len(found)
        # Looking up costs as much as there are keys to find, each time.
        if row_count >= max(MIN_BLOCK_ROWS, len(wanted)):
            yield from _find_hits(block, wanted)
            block, row_count = [], 0
    yield from _find_hits(block, wanted)


_KEYS: Final = pa.schema([pa.field(name, pa.string()) for name in KEY_COLUMNS])
_SEPARATOR: Final = pa.scalar(":", pa.large_string())


def join_keys(rows: pa.RecordBatch) -> Any:
    """The key as one text. Its lengths stand first, so that different keys differ."""
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
    """Writes rows to data files that no snapshot names yet: `write`…, then `close`."""

    def __init__(self, metadata: TableMetadata, io: FileIO, *, write_id: uuid.UUID) -> None:
        self._metadata = metadata
        self._io = io
        self.write_id = write_id
        self._target_bytes = int(metadata.properties.get(TARGET_PROPERTY, TARGET_BYTES))
        self._numbers = itertools.count()
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0
        self.files: list[DataFile] = []
        """Of the rows so far, but for those that wait for more."""

    def write(self, batches: Iterable[pa.RecordBatch]) -> None:
        for rows in batches:
            if rows.num_rows > 0:
                self._pending.append(pa.Table.from_batches([rows]))
                self._pending_bytes += rows.nbytes
            if self._pending_bytes >= self._target_bytes:
                self._flush()

    def close(self) -> list[DataFile]:
        self._flush()
        return self.files

    def _flush(self) -> None:
        if not self._pending:
            return
        rows = pa.concat_tables(self._pending, promote_options="permissive")
        self._pending.clear()
        self._pending_bytes = 0
        schema = pyarrow_to_schema(rows.schema, name_mapping=self._metadata.schema().name_mapping)
        tasks = [
            WriteTask(
                write_uuid=self.write_id,
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
            self.files += write_file(io=self._io, table_metadata=self._metadata, tasks=some)

    def _pack(self, rows: pa.Table) -> Iterable[list[pa.RecordBatch]]:
        """What is a little above the target stays one file, not one and a sliver."""
        if rows.nbytes < self._target_bytes * 3 // 2:
            return [rows.to_batches()]
        return bin_pack_arrow_table(rows, self._target_bytes)


MAX_WRITTEN_AT_ONCE: Final = 16
"""Partitions' files that are handed to the library's threads together."""


def split_rows(
    rows: pa.Table, metadata: TableMetadata
) -> Iterator[tuple[PartitionKey | None, pa.Table]]:
    """The rows of each partition of the table's present layout, in their order.

    The library's own way needs another library for all but identity.
    """
    spec, schema = metadata.spec(), metadata.schema()
    if spec.is_unpartitioned():
        yield None, rows
        return
    columns = [_partition_values(rows, field, schema) for field in spec.fields]
    # One number a combination: places in the lists of values, counted up as digits are.
    numbers = reduce(
        lambda total, column: pc.add(pc.multiply(total, len(column[1])), column[0]),
        columns,
        pa.repeat(pa.scalar(0, pa.int64()), rows.num_rows),
    )
    for number in pc.unique(numbers).to_pylist():
        at, values = number, list[Any]()
        for _, known in reversed(columns):
            at, digit = divmod(at, len(known))
            values.insert(0, known[digit])
        key = PartitionKey(
            field_values=[
                PartitionFieldValue(field=field, value=value)
                for field, value in zip(spec.fields, values, strict=True)
            ],
            partition_spec=spec,
            schema=schema,
        )
        yield _Transformed(key), rows.filter(pc.equal(numbers, number))


class _Transformed(PartitionKey):
    """A partition whose values are already in the form that metadata keep."""

    def __init__(self, key: PartitionKey) -> None:
        super().__init__(key.field_values, key.partition_spec, key.schema)
        self.__dict__["partition"] = Record(*(each.value for each in key.field_values))


def _partition_values(
    rows: pa.Table, field: PartitionField, schema: Schema
) -> tuple[Any, list[Any]]:
    """The transformed value of each row: its place in the list that comes second.

    Distinct values are few once a time is cut to the hour, the finest of the transforms.
    """
    source = schema.find_field(field.source_id)
    column = rows[source.name] if source.name in rows.column_names else pa.nulls(rows.num_rows)
    if isinstance(field.transform, TimeTransform) and pa.types.is_timestamp(column.type):
        column = pc.floor_temporal(column, unit="hour")
    distinct = pc.unique(column)
    transform = field.transform.transform(source.field_type)
    places: dict[Any, int] = {}
    digits = []
    for value in distinct.to_pylist():
        inner = None if value is None else partition_record_value(field, value, schema)
        result = None if isinstance(field.transform, VoidTransform) else transform(inner)
        digits.append(places.setdefault(result, len(places)))
    found = pc.index_in(column, value_set=distinct)
    return pc.take(pa.array(digits, pa.int64()), found), list(places)
