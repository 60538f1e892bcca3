"""Sessions as one Parquet file: batches gathered to row groups, with what prunes and what pays."""

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.errors import UsageError
from exporter.model import Gateway, RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks.hive import group_rows
from exporter.sinks.interface import (
    GATHERED_BYTES,
    GATHERED_ROWS,
    ByteStream,
    ParquetCodec,
    Rows,
    SinkFacts,
)
from exporter.sinks.row_groups import (
    DICTIONARY_COLUMNS,
    ROW_GROUP_BYTES,
    ROW_GROUP_ROWS,
    NonClosingStream,
)

_STATISTICS_COLUMNS: Final = [
    name for name in SCHEMA.names if name not in {"info", "web_ui", "spark_conf", "extra"}
]
"""What somebody filters by; smallest and largest of long texts would only fill the footer."""


class ParquetSink:
    """Writes rows of `SCHEMA`; the file's metadata name the run and the exporter that wrote it.

    Keys of the metadata: `livy_exporter.run_id` and `livy_exporter.version`. An export of nothing
    is a file with the schema and no rows.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        codec: ParquetCodec,
        run_id: str,
        exporter_version: str,
        exported_at: datetime,
    ) -> None:
        if codec != "none" and not pa.Codec.is_available(codec):
            raise UsageError(
                f"the installed pyarrow cannot compress with {codec}",
                hint="take --compression zstd, or install pyarrow from PyPI",
            )
        self._exported_at = exported_at
        self._stream = NonClosingStream(stream)
        self._writer = pq.ParquetWriter(
            self._stream,
            SCHEMA.with_metadata(
                {
                    "livy_exporter.run_id": run_id,
                    "livy_exporter.version": exporter_version,
                }
            ),
            compression=codec,
            use_dictionary=DICTIONARY_COLUMNS,
            write_statistics=_STATISTICS_COLUMNS,
        )
        # Rows built and not yet written; never as much as a row group between two calls.
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self._session_count = 0
        self._coerced_value_count = 0

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        batch = build_batch(gateway, sessions, self._exported_at)
        self._pending.append(batch.rows)
        self._pending_rows += batch.rows.num_rows
        self._pending_bytes += batch.rows.nbytes
        self._session_count += batch.rows.num_rows
        self._coerced_value_count += batch.coerced_value_count
        if self._pending_rows >= ROW_GROUP_ROWS or self._pending_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def write_rows(self, rows: Sequence[Rows]) -> None:
        """As one row group, whatever its size; what they coerced is counted by who built them."""
        table = pa.Table.from_batches([each.content for each in rows], schema=SCHEMA)
        self._writer.write_table(table, row_group_size=max(1, table.num_rows))
        self._session_count += table.num_rows

    def close(self) -> SinkFacts:
        if self._pending:
            self._write_row_group()
        self._writer.close()
        return SinkFacts(
            session_count=self._session_count, coerced_value_count=self._coerced_value_count
        )

    def abort(self) -> None:
        self._pending.clear()
        self._stream.cut_off()
        # After a failed write the writer may fail again to end its file, which nobody will read.
        with suppress(Exception):
            self._writer.close()

    def _write_row_group(self) -> None:
        rows = pa.Table.from_batches(self._pending, schema=SCHEMA)
        self._pending.clear()
        self._writer.write_table(rows, row_group_size=self._pending_rows)
        self._pending_rows = 0
        self._pending_bytes = 0


_OVERHEAD_BYTES: Final = 6 << 10
"""Of a batch, however few its rows are: measured at 5.6 KiB."""


class ParquetPartitionBuffer:
    """Gathers rows of `SCHEMA`, whose columns of the partition stay in them."""

    def __init__(self, partition_by: Sequence[str], *, exported_at: datetime) -> None:
        self._partition_by = partition_by
        self._exported_at = exported_at
        self._pending: list[pa.RecordBatch] = []
        self._pending_rows = 0
        self._pending_bytes = 0
        self.coerced_value_count = 0

    @property
    def is_full(self) -> bool:
        return self._pending_rows >= GATHERED_ROWS or self._pending_bytes >= GATHERED_BYTES

    def add(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        batch = build_batch(gateway, sessions, self._exported_at)
        self._pending.append(batch.rows)
        self._pending_rows += batch.rows.num_rows
        self._pending_bytes += batch.rows.nbytes
        self.coerced_value_count += batch.coerced_value_count

    def split(self) -> list[tuple[str, Rows]]:
        table = pa.Table.from_batches(self._pending, schema=SCHEMA).combine_chunks()
        self._pending.clear()
        self._pending_rows = self._pending_bytes = 0
        parted: list[tuple[str, Rows]] = []
        for batch in table.to_batches():  # one, but for texts of more than 2 GiB
            keys = [
                batch.column("create_time" if name == "dt" else name) for name in self._partition_by
            ]
            for folder, numbers in group_rows(self._partition_by, keys):
                # Taken, not sliced: a slice would hold on to the rows of all other partitions.
                rows = batch if len(numbers) == batch.num_rows else batch.take(numbers)
                size_bytes = rows.nbytes + _OVERHEAD_BYTES
                parted.append((folder, Rows(rows, rows.num_rows, size_bytes)))
        return parted
