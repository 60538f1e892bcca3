"""Iceberg tables by their name in a catalog of pyiceberg's own configuration; loads pyiceberg late.

What needs the library or Arrow stands in `iceberg_tables`, `iceberg_files`, `iceberg_output` and
`lake_output`, which are imported when a table is opened and nowhere else.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from exporter.errors import MissingExtraError
from exporter.sinks import Output, ParquetCodec, TableMode
from exporter.sinks.iceberg_names import TableName, parse_table_name, quiet, translated

if TYPE_CHECKING:
    import pyarrow as pa

    from exporter.sinks.iceberg_tables import LakeTable


class IcebergTable:
    """One table of a catalog, there or yet to be made. Methods block.

    Raises UsageError for a catalog that is not configured and a column that does not exist,
    CredentialsError where the catalog refuses, DestinationError for everything else.
    """

    def __init__(self, output: str, *, partition_by: Sequence[str] = ()) -> None:
        """Load the catalog and the table. A namespace that is missing is created, a table is not:
        its first commit does that.
        """
        self.name = parse_table_name(output)
        with translated(output):
            self._table = _open(self.name, partition_by)

    @property
    def location(self) -> str:
        """Where its files are, or will be, without a slash at the end."""
        return self._table.location

    def has_committed(self, run_id: str) -> bool:
        """Whether a run's commit is in the table's history."""
        with translated(self.name.output):
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
        """The table as an output, which proves that it can be written.

        The codec is for a table that the run makes; one that is there has its own.
        """
        with translated(self.name.output):
            from exporter.sinks.iceberg_output import IcebergCommitter
            from exporter.sinks.lake_output import TableOutput

            committer = IcebergCommitter(
                self._table, run_id=run_id, exporter_version=exporter_version, codec=codec
            )
            return TableOutput(committer, mode=mode, exported_at=exported_at)

    def read_columns(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        """All rows as they are now, a batch at a time; none where the table is not there."""
        with translated(self.name.output):
            yield from self._table.read_columns(names)

    def remove_leftovers(self, *, keep_s: float) -> None:
        """See `Table`. Nothing here tells a file's age: where that counts, all of them stay."""
        if keep_s > 0:
            return
        with quiet():
            self._table.remove_leftovers()

    def close(self) -> None:
        """Free what is held; may be repeated."""
        with quiet():
            self._table.close()


def _open(name: TableName, partition_by: Sequence[str]) -> "LakeTable":
    try:
        from exporter.sinks.iceberg_tables import open_table
    except ModuleNotFoundError as exc:
        raise MissingExtraError("an Iceberg table", extra="iceberg") from exc
    return open_table(name, partition_by=partition_by)


def table_location(output: str) -> str:
    """Where a table's files are, or will be, without a slash at the end."""
    table = IcebergTable(output)
    try:
        return table.location
    finally:
        table.close()
