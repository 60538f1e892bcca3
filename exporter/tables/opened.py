"""A table of the registry as runs and `verify` ask for one."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from exporter.held import NO_LOCK, HeldLock
from exporter.sinks import Output, ParquetCodec, TableMode
from exporter.tables.interface import Commit, Table, TableRequest
from exporter.tables.registry import open_table

if TYPE_CHECKING:
    import pyarrow as pa


class OpenedTable:
    """One table, and the output that it is."""

    def __init__(self, table: Table, *, output: str) -> None:
        self._table = table
        self._output = output

    @property
    def location(self) -> str:
        return self._table.location

    def has_committed(self, run_id: str) -> bool:
        return self._table.find_commit(run_id) is not None

    def open_output(
        self,
        *,
        mode: TableMode,
        run_id: str,
        exporter_version: str,
        exported_at: datetime,
        codec: ParquetCodec,
    ) -> Output:
        from exporter.tables.output import TableOutput, compact

        class CompactedOutput(TableOutput):
            def publish(self, lock: HeldLock = NO_LOCK) -> None:
                super().publish(lock)
                compact(self._table, self._commit, output=self._output)

        commit = Commit(run_id=run_id, exporter_version=exporter_version, codec=codec)
        return CompactedOutput(
            self._table, output=self._output, mode=mode, commit=commit, exported_at=exported_at
        )

    def read_columns(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        return self._table.read_columns(names)

    def remove_leftovers(self, *, keep_s: float) -> None:
        """Nothing: what a run left is not known to be its own."""


def open_paimon(request: TableRequest) -> OpenedTable:
    """Raises UsageError, CredentialsError and DestinationError."""
    return OpenedTable(open_table("paimon", request), output=request.output)
