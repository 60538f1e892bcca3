"""Opens a destination's output, and its copy of the manifest."""

import os
from collections.abc import Sequence
from datetime import datetime
from typing import assert_never

from exporter.destinations.destination import Destination, Sidecars
from exporter.destinations.resolve import require_local
from exporter.errors import UsageError
from exporter.model import ParquetCodec
from exporter.sinks.dataset import DatasetOutput, Parts
from exporter.sinks.file import FileOutput
from exporter.sinks.formats import open_partition_buffer, open_sink
from exporter.sinks.hive import empty_folder
from exporter.sinks.interface import ByteStream, Output, Sink
from exporter.sinks.partitioned import PartitionedOutput
from exporter.stores.interface import StagedFile
from exporter.stores.local import LocalStore
from exporter.stores.pipe import PipeFile
from exporter.tables.interface import Commit


def open_output(
    destination: Destination,
    *,
    run_id: str,
    exporter_version: str,
    exported_at: datetime,
    parquet_codec: ParquetCodec,
    adds: bool,
    partition_by: Sequence[str],
    target_bytes: int,
) -> Output:
    """Open an output, which proves that it can be written. Raises UsageError and DestinationError.

    A run that `adds` keeps what is there instead of replacing it. The last two are for datasets:
    the columns of their partitions, and the size at which a part ends.
    """

    def open_file_sink(stream: ByteStream) -> Sink:
        return open_sink(
            stream,
            output_format=destination.file_format,
            file_codec=destination.file_codec,
            parquet_codec=parquet_codec,
            run_id=run_id,
            exporter_version=exporter_version,
            exported_at=exported_at,
        )

    store, name = destination.store, destination.name
    match destination.kind:
        case "file":
            staged = store.stage(name, run_id=run_id)
            try:
                prove_sidecars(destination.sidecars, run_id=run_id)
            except BaseException:
                staged.discard()
                raise
            return FileOutput(staged, store.path_of(name), open_sink=open_file_sink)
        case "stream":
            return FileOutput(PipeFile(name), name, open_sink=open_file_sink)
        case "table":
            prove_sidecars(destination.sidecars, run_id=run_id)
            if destination.table is None:
                raise RuntimeError("a table that was not opened")
            from exporter.tables.output import TableOutput

            return TableOutput(
                destination.table,
                output=destination.output,
                mode="upsert" if adds else "replace",
                commit=Commit(
                    run_id=run_id, exporter_version=exporter_version, codec=parquet_codec
                ),
                exported_at=exported_at,
            )
        case "dataset":
            prove_sidecars(destination.sidecars, run_id=run_id)
            parts = Parts(
                store,
                run_id=run_id,
                output_format=destination.file_format,
                open_sink=open_file_sink,
            )
            if not partition_by:
                return DatasetOutput(parts, target_bytes=target_bytes, stands_alone=not adds)
            return PartitionedOutput(
                parts,
                open_partition_buffer(
                    destination.file_format, partition_by, exported_at=exported_at
                ),
                target_bytes=target_bytes,
                empty_folder=None if adds else empty_folder(partition_by),
            )
        case _:
            assert_never(destination.kind)


def prove_sidecars(sidecars: Sidecars | None, *, run_id: str) -> None:
    """Raises DestinationError when the manifest cannot be written beside the output.

    A run checks this before its first request rather than after its last.
    """
    if sidecars is not None:
        sidecars.store.stage(sidecars.manifest, run_id=run_id).discard()


def stage_manifest_copy(
    path: str | None, destination: Destination, *, run_id: str
) -> StagedFile | None:
    """The file of `--manifest`; None without it, or where it names the manifest's own place.

    Raises UsageError and DestinationError.
    """
    if path is None:
        return None
    require_local(path)
    sidecars = destination.sidecars
    if path == "-" or os.path.realpath(path) == os.path.realpath(destination.output):
        raise UsageError(
            f"the manifest of '{destination.output}' cannot go to '{path}'",
            hint="give --manifest the name of another file",
        )
    if sidecars is not None:
        beside = sidecars.store.path_of(sidecars.manifest)
        if os.path.realpath(path) == os.path.realpath(beside):
            return None
    store, name = LocalStore.holding(path)
    store.remove_leftovers([name])
    return store.stage(name, run_id=run_id)
