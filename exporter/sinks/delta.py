"""Delta tables in a folder of any store; loads deltalake late.

What needs the library or Arrow stands in `delta_tables`, `delta_output` and `lake_output`, which
are imported when a table is opened and nowhere else.
"""

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from exporter.errors import MissingExtraError
from exporter.sinks import Output, ParquetCodec, TableMode
from exporter.sinks.delta_errors import translated
from exporter.sinks.delta_storage import DeltaStorage

if TYPE_CHECKING:
    import pyarrow as pa

    from exporter.sinks.delta_tables import LakeTable


class DeltaTable:
    """One table in a folder, there or yet to be made. Methods block.

    Raises UsageError for a partition column that does not exist or is not the table's,
    CredentialsError where the store refuses, DestinationError for everything else.
    """

    def __init__(
        self, output: str, *, storage: DeltaStorage, partition_by: Sequence[str] = ()
    ) -> None:
        """Read the table. One that is missing is not made: its first commit does that."""
        with translated(output):
            self._table = _open(output, storage=storage, partition_by=partition_by)

    def has_committed(self, run_id: str) -> bool:
        """Whether the last of our commits in the table is this run's."""
        with translated(self._table.output):
            return self._table.has_committed(run_id)

    def open_output(
        self,
        *,
        mode: TableMode,
        run_id: str,
        exporter_version: str,
        exported_at: datetime,
        codec: ParquetCodec = "zstd",
    ) -> Output:
        """The table as an output, which proves that it can be written."""
        with translated(self._table.output):
            from exporter.sinks.delta_output import DeltaCommitter
            from exporter.sinks.lake_output import TableOutput

            committer = DeltaCommitter(
                self._table,
                mode=mode,
                run_id=run_id,
                exporter_version=exporter_version,
                codec=codec,
            )
            return TableOutput(committer, mode=mode, exported_at=exported_at)

    def read_columns(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        """All rows as they are now, a batch at a time; none where the table is not there."""
        with translated(self._table.output):
            yield from self._table.read_columns(names)

    def remove_leftovers(self, *, keep_s: float) -> None:
        """See `Table`. Nothing here tells a file's age: where that counts, all of them stay."""
        if keep_s > 0:
            return
        self._table.remove_leftovers()


def _open(output: str, *, storage: DeltaStorage, partition_by: Sequence[str]) -> "LakeTable":
    try:
        from exporter.sinks.delta_tables import open_table
    except ModuleNotFoundError as exc:
        raise MissingExtraError("a Delta table", extra="delta") from exc
    return open_table(
        output, storage=storage, partition_by=partition_by, new_id=lambda: str(uuid.uuid4())
    )
