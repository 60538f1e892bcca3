"""Delta tables in a folder of any store; loads deltalake late.

What needs the library stands in `delta_tables` and `delta_output`, which are imported when a table
is opened and nowhere else.
"""

import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from exporter.errors import MissingExtraError
from exporter.sinks import Output, ParquetCodec, TableMode
from exporter.sinks.delta_errors import translated
from exporter.stores import Store

if TYPE_CHECKING:
    from exporter.sinks.delta_tables import LakeTable, StorageOptions


def no_options() -> Mapping[str, str]:
    """A local folder needs none."""
    return {}


class DeltaTable:
    """One table in a folder of a store, there or yet to be made. Methods block.

    Raises UsageError for a partition column that does not exist or is not the table's,
    CredentialsError where the store refuses, DestinationError for everything else.
    """

    def __init__(
        self,
        store: Store,
        *,
        output: str,
        uri: str,
        storage_options: "StorageOptions" = no_options,
        partition_by: Sequence[str] = (),
    ) -> None:
        """Read the table. One that is missing is not made: its first commit does that.

        `output` is what the user named it; `uri` and `storage_options` are how deltalake reads the
        store's folder: an absolute path, or a URL of S3 or Google Cloud Storage.
        """
        with translated(output):
            self._table = _open(
                store,
                output=output,
                uri=uri,
                storage_options=storage_options,
                partition_by=partition_by,
            )

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
            from exporter.sinks.delta_output import DeltaOutput

            return DeltaOutput(
                self._table,
                mode=mode,
                run_id=run_id,
                exporter_version=exporter_version,
                exported_at=exported_at,
                codec=codec,
            )

    def remove_leftovers(self) -> None:
        """Remove files of runs that died before their commit; never raises.

        Only for who holds the output's lock, and while it writes nothing.
        """
        self._table.remove_leftovers()


def _open(
    store: Store,
    *,
    output: str,
    uri: str,
    storage_options: "StorageOptions",
    partition_by: Sequence[str],
) -> "LakeTable":
    try:
        from exporter.sinks.delta_tables import open_table
    except ModuleNotFoundError as exc:
        raise MissingExtraError("a Delta table", extra="delta") from exc
    return open_table(
        store,
        output=output,
        uri=uri,
        storage_options=storage_options,
        partition_by=partition_by,
        new_id=lambda: str(uuid.uuid4()),
    )
