"""Data files of a table: rows to Parquet files of a target size, a partition's rows to its own."""

from collections.abc import Callable, Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.sinks import BorrowedStream, WrittenFile
from exporter.sinks.parquet import DICTIONARY_COLUMNS, ROW_GROUP_BYTES, ROW_GROUP_ROWS
from exporter.stores import FileFacts, StagedFile
from exporter.stores.metered import MeteredFile

TARGET_BYTES: Final = 128 << 20

PREFIX: Final = "livy-exporter-"
"""How the names of our data files begin; the run's id follows."""

PENDING_BYTES: Final = 64 << 20
MOST_OPEN: Final = 16
"""Bounds of what is held however many partitions there are: rows that wait for their row group, and
files that wait for more."""

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class EndedFile(Generic[K]):
    """A data file that was written to its end and that nothing refers to yet."""

    partition: K
    facts: FileFacts
    """By its name in the table's storage."""
    row_count: int
    metadata: pq.FileMetaData

    @property
    def written(self) -> WrittenFile:
        return WrittenFile(self.facts, self.row_count)


class _OpenFile(Generic[K]):
    """One data file, and the rows that wait for its next row group."""

    def __init__(
        self, partition: K, staged: StagedFile, *, schema: pa.Schema, codec: str, name: str
    ) -> None:
        self.pending_bytes = 0
        self.last_used = 0
        self._partition = partition
        self._schema = schema
        self._name = name
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._row_count = 0
        self._file = MeteredFile(staged)
        self._stream = BorrowedStream(self._file)
        names = set(schema.names)
        self._parquet = pq.ParquetWriter(
            self._stream,
            schema,
            compression=codec,
            use_dictionary=[name for name in DICTIONARY_COLUMNS if name in names],
        )

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes

    @property
    def is_due(self) -> bool:
        return self._pending_rows >= ROW_GROUP_ROWS or self.pending_bytes >= ROW_GROUP_BYTES

    def append(self, rows: pa.RecordBatch) -> None:
        self._pending.append(rows)
        self._pending_rows += rows.num_rows
        self.pending_bytes += rows.nbytes

    def write_row_group(self) -> None:
        if not self._pending_rows:
            return
        rows = pa.Table.from_batches(self._pending, schema=self._schema)
        self._pending.clear()
        self._parquet.write_table(rows, row_group_size=self._pending_rows)
        self._row_count += self._pending_rows
        self._pending_rows = 0
        self.pending_bytes = 0

    def close(self) -> EndedFile[K]:
        self.write_row_group()
        self._parquet.close()
        facts = self._file.finish(self._name)
        # Under its name and still unseen: readers go by what the table's metadata refer to.
        self._file.publish()
        return EndedFile(self._partition, facts, self._row_count, self._parquet.writer.metadata)

    def discard(self) -> None:
        self._pending.clear()
        self._stream.cut_off()
        # After a failed write it may fail again to end its file, which nobody will read.
        with suppress(Exception):
            self._parquet.close()
        self._file.discard()


class PartitionedFiles(Generic[K]):
    """Writes each partition's rows to files of about `target_bytes`, few of them open at once.

    `write`…, then `close`; or `discard`, which also removes what `close` ended.
    """

    def __init__(
        self,
        schema: pa.Schema,
        *,
        codec: str,
        target_bytes: int,
        split: Callable[[pa.RecordBatch], Iterable[tuple[K, pa.RecordBatch]]],
        stage: Callable[[K, int], tuple[str, StagedFile]],
        remove: Callable[[list[str]], None],
    ) -> None:
        """`split` parts rows by partition, with this schema; `stage` begins the file of a partition
        and a number, and names it; `remove` removes files by their names.
        """
        self.schema = schema
        self._codec = codec
        self._target_bytes = target_bytes
        self._split = split
        self._stage = stage
        self._remove = remove
        self._begun_count = 0
        self._write_count = 0
        # By partition, in the order they were begun.
        self._open: dict[K, _OpenFile[K]] = {}
        self._closed: list[EndedFile[K]] = []

    def write(self, rows: pa.RecordBatch) -> None:
        """Append rows to the files of their partitions."""
        self._write_count += 1
        for partition, part in self._split(rows):
            file = self._open.get(partition) or self._begin(partition)
            file.append(part)
            file.last_used = self._write_count
            if file.is_due:
                file.write_row_group()
            if file.size_bytes >= self._target_bytes:
                self._end(partition)
        while sum(each.pending_bytes for each in self._open.values()) > PENDING_BYTES:
            max(self._open.values(), key=lambda each: each.pending_bytes).write_row_group()

    def close(self) -> list[EndedFile[K]]:
        for partition in list(self._open):
            self._end(partition)
        return self._closed

    def discard(self) -> None:
        for file in self._open.values():
            file.discard()
        self._open.clear()
        names = [file.facts.path for file in self._closed]
        self._closed.clear()
        if names:
            with suppress(Exception):
                self._remove(names)

    def _begin(self, partition: K) -> _OpenFile[K]:
        if len(self._open) >= MOST_OPEN:
            self._end(min(self._open, key=lambda each: self._open[each].last_used))
        name, staged = self._stage(partition, self._begun_count)
        self._begun_count += 1
        file = _OpenFile(partition, staged, schema=self.schema, codec=self._codec, name=name)
        self._open[partition] = file
        return file

    def _end(self, partition: K) -> None:
        self._closed.append(self._open[partition].close())
        del self._open[partition]
