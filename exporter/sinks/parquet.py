"""Parquet: sessions as rows in row groups, with the statistics that let readers prune."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import UsageError
from exporter.model import KEY_COLUMNS, FileCodec, Gateway, RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks.hive import SPLIT_BYTES, SPLIT_ROWS, group_rows
from exporter.sinks.interface import ByteStream, Rows, SinkFacts, SinkOptions
from exporter.sinks.keys import KEY_BATCH_ROWS, VERSION_COLUMN, UnreadableFileError, join_keys
from exporter.sinks.row_groups import RowGroup
from exporter.sinks.streams import NonClosingStream

_DICTIONARY_COLUMNS: Final = [
    "region_id",
    "workspace_id",
    "compute_id",
    "state",
    "queue",
    "info",
    "exported_at",
]
"""Columns of few distinct values, which readers group and filter by dictionary index.

Dictionaries for all columns, the library's default, were measured at 1.5 times the CPU seconds and
1.2 times the size: a nearly unique column fills its dictionary and is then written plain anyway.
"""
_STATISTICS_COLUMNS: Final = [
    name for name in SCHEMA.names if name not in {"info", "web_ui", "spark_conf", "extra"}
]
"""Columns that readers filter by; minimum and maximum of long texts would only fill the footer."""
_BATCH_BYTES: Final = 6 << 10
"""Memory of a batch besides its rows; measured at 5.6 KiB."""


class ParquetSink:
    """Writes rows of `SCHEMA`; without sessions, a file with the schema and no rows.

    The file's metadata name its run and exporter: `livy_exporter.run_id`, `livy_exporter.version`.
    """

    def __init__(self, stream: ByteStream, options: SinkOptions) -> None:
        codec = options.parquet_codec
        if codec != "none" and not pa.Codec.is_available(codec):
            raise UsageError(
                f"the installed pyarrow cannot compress with {codec}",
                hint="take --compression zstd, or install pyarrow from PyPI",
            )
        self._exported_at = options.exported_at
        self._stream = NonClosingStream(stream)
        self._writer = pq.ParquetWriter(
            self._stream,
            SCHEMA.with_metadata(
                {
                    "livy_exporter.run_id": options.run_id,
                    "livy_exporter.version": options.exporter_version,
                }
            ),
            compression=codec,
            use_dictionary=_DICTIONARY_COLUMNS,
            write_statistics=_STATISTICS_COLUMNS,
        )
        # Never full between two calls.
        self._pending = RowGroup[pa.RecordBatch]()
        self._session_count = 0
        self._coerced_value_count = 0

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        batch = build_batch(gateway, sessions, self._exported_at)
        rows = batch.rows
        self._pending.add(rows, row_count=rows.num_rows, size_bytes=rows.nbytes)
        self._session_count += rows.num_rows
        self._coerced_value_count += batch.coerced_value_count
        if self._pending.is_full:
            self._write_row_group(self._pending.take())

    def write_rows(self, rows: Sequence[Rows]) -> None:
        """As one row group of any size; the buffer has counted the coerced values."""
        self._session_count += sum(each.row_count for each in rows)
        self._write_row_group([each.content for each in rows])

    def close(self) -> SinkFacts:
        if self._pending.pieces:
            self._write_row_group(self._pending.take())
        self._writer.close()
        return SinkFacts(
            session_count=self._session_count, coerced_value_count=self._coerced_value_count
        )

    def abort(self) -> None:
        self._pending.take()
        self._stream.cut_off()
        # After a failed write, ending the file may fail too; nobody will read that file.
        with suppress(Exception):
            self._writer.close()

    def _write_row_group(self, batches: list[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(batches, schema=SCHEMA)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))


class ParquetPartitionBuffer:
    """Gathers rows of `SCHEMA`; they keep the columns that they are split by."""

    def __init__(self, partition_by: Sequence[str], *, exported_at: datetime) -> None:
        self._partition_by = partition_by
        self._exported_at = exported_at
        self._pending = RowGroup[pa.RecordBatch](max_rows=SPLIT_ROWS, max_bytes=SPLIT_BYTES)
        self.coerced_value_count = 0

    @property
    def is_full(self) -> bool:
        return self._pending.is_full

    def add(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        batch = build_batch(gateway, sessions, self._exported_at)
        rows = batch.rows
        self._pending.add(rows, row_count=rows.num_rows, size_bytes=rows.nbytes)
        self.coerced_value_count += batch.coerced_value_count

    def split(self) -> list[tuple[str, Rows]]:
        table = pa.Table.from_batches(self._pending.take(), schema=SCHEMA).combine_chunks()
        partitions: list[tuple[str, Rows]] = []
        for batch in table.to_batches():  # one, unless texts exceed 2 GiB
            keys = [
                batch.column("create_time" if name == "dt" else name) for name in self._partition_by
            ]
            for folder, numbers in group_rows(self._partition_by, keys):
                # Not sliced: a slice keeps the rows of all other partitions in memory.
                rows = batch if len(numbers) == batch.num_rows else batch.take(numbers)
                size_bytes = rows.nbytes + _BATCH_BYTES
                partitions.append((folder, Rows(rows, rows.num_rows, size_bytes)))
        return partitions


def open_sink(stream: ByteStream, options: SinkOptions) -> ParquetSink:
    return ParquetSink(stream, options)


def open_partition_buffer(
    partition_by: Sequence[str], exported_at: datetime
) -> ParquetPartitionBuffer:
    return ParquetPartitionBuffer(partition_by, exported_at=exported_at)


def read_keys(stream: BinaryIO, _: FileCodec, *, with_version: bool) -> Iterator[list[str]]:
    columns = [*KEY_COLUMNS, VERSION_COLUMN] if with_version else list(KEY_COLUMNS)
    try:
        file = pq.ParquetFile(stream)
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise UnreadableFileError(f"it has no column {missing[0]}")
        row_count = 0
        for batch in file.iter_batches(batch_size=KEY_BATCH_ROWS, columns=columns):
            row_count += batch.num_rows
            yield join_keys(batch, with_version=with_version)
    except pa.ArrowException as exc:
        raise UnreadableFileError(f"{exc}") from exc
    if row_count != file.metadata.num_rows:
        raise UnreadableFileError(
            f"it has {row_count:,} rows, its footer says {file.metadata.num_rows:,}"
        )
