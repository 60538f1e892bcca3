"""Gathers rows and splits them by partition, for the formats that write Arrow batches."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import pyarrow as pa

from exporter.model import Gateway, RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks.hive import SPLIT_BYTES, SPLIT_ROWS, group_rows
from exporter.sinks.interface import Rows
from exporter.sinks.row_groups import RowGroup

_BATCH_BYTES: Final = 6 << 10
"""Memory of a batch beside its rows, however few they are: measured at 5.6 KiB."""


class RowPartitionBuffer:
    """Gathers rows of `SCHEMA`, which keep the columns that they are split by."""

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
        for batch in table.to_batches():  # one, but for texts of more than 2 GiB
            keys = [
                batch.column("create_time" if name == "dt" else name) for name in self._partition_by
            ]
            for folder, numbers in group_rows(self._partition_by, keys):
                # Taken, not sliced: a slice would hold on to the rows of all other partitions.
                rows = batch if len(numbers) == batch.num_rows else batch.take(numbers)
                size_bytes = rows.nbytes + _BATCH_BYTES
                partitions.append((folder, Rows(rows, rows.num_rows, size_bytes)))
        return partitions
