"""CSV, added as a newcomer would add a file format."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import BinaryIO

import pyarrow as pa
from pyarrow import csv

from exporter.model import KEY_COLUMNS, FileCodec, Gateway, RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks.interface import ByteStream, PartitionBuffer, Rows, SinkFacts, SinkOptions
from exporter.sinks.keys import VERSION_COLUMN, join_keys
from exporter.sinks.parquet import ParquetPartitionBuffer
from exporter.sinks.streams import NonClosingStream


class CsvSink:
    def __init__(self, stream: ByteStream, options: SinkOptions) -> None:
        self._exported_at = options.exported_at
        self._stream = NonClosingStream(stream)
        self._writer = csv.CSVWriter(self._stream, SCHEMA)
        self._session_count = self._coerced_value_count = 0

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        batch = build_batch(gateway, sessions, self._exported_at)
        self._write(batch.rows)
        self._coerced_value_count += batch.coerced_value_count

    def write_rows(self, rows: Sequence[Rows]) -> None:
        for each in rows:
            self._write(each.content)

    def close(self) -> SinkFacts:
        self._writer.close()
        return SinkFacts(self._session_count, self._coerced_value_count)

    def abort(self) -> None:
        self._stream.cut_off()

    def _write(self, rows: pa.RecordBatch) -> None:
        self._writer.write_batch(rows)
        self._session_count += rows.num_rows


def open_sink(stream: ByteStream, options: SinkOptions) -> CsvSink:
    return CsvSink(stream, options)


def open_partition_buffer(partition_by: Sequence[str], exported_at: datetime) -> PartitionBuffer:
    return ParquetPartitionBuffer(partition_by, exported_at=exported_at)


def read_keys(stream: BinaryIO, _: FileCodec, *, with_version: bool) -> Iterator[list[str]]:
    columns = [*KEY_COLUMNS, VERSION_COLUMN] if with_version else list(KEY_COLUMNS)
    types = {name: SCHEMA.field(name).type for name in columns}
    options = csv.ConvertOptions(include_columns=columns, column_types=types)
    for batch in csv.open_csv(stream, convert_options=options):
        yield join_keys(batch, with_version=with_version)
