"""The sessions of a proven export as an Arrow stream, for programs that want no file in between."""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

from anyio.from_thread import start_blocking_portal

from exporter.errors import DestinationError, UsageError
from exporter.events import Event
from exporter.runs.export import export
from exporter.runs.manifest import Manifest
from exporter.runs.prepare import build_run_id
from exporter.settings.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

SPOOL_NAME: Final = "sessions.arrow"
OUTPUT_SETTINGS: Final = ("output", "format", "incremental", "partition_by", "state", "manifest")
"""Settings of an output, which a stream does not have."""


class Sessions:
    """The sessions of one export as an Arrow stream, in the columns of the Parquet output.

    Whoever takes an object with `__arrow_c_stream__` takes it as it is: pyarrow, DuckDB, Polars,
    pandas, deltalake, ADBC. It may be read any number of times while its block lasts, and holds one
    batch of rows in memory at a time.
    """

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self._path = path
        self._is_open = True
        self.manifest = manifest

    @property
    def schema(self) -> "pa.Schema":
        from exporter.records.schema import SCHEMA

        return SCHEMA

    def __arrow_c_schema__(self) -> object:
        return self.schema.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        return self.to_reader().__arrow_c_stream__(requested_schema)

    def to_reader(self) -> "pa.RecordBatchReader":
        """A reader of all sessions, from the first. Raises ValueError once the block has ended."""
        import pyarrow as pa

        if not self._is_open:
            raise ValueError("the sessions are read after their block has ended")
        return pa.RecordBatchReader.from_batches(self.schema, self._read_batches())

    def close(self) -> None:
        self._is_open = False

    def _read_batches(self) -> "Iterator[pa.RecordBatch]":
        import pyarrow as pa

        with pa.OSFile(str(self._path)) as file:
            reader = pa.ipc.open_file(file)
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)


def prepare_settings(settings: Settings, output: Path) -> Settings:
    """The settings of the export into a spool file. Raises UsageError for those of an output."""
    default = Settings()
    for name in OUTPUT_SETTINGS:
        if getattr(settings, name) != getattr(default, name):
            raise UsageError(
                f"'{name}' has no meaning where sessions are read into the program",
                hint="leave it out, or call `export`",
            )
    # A run that is killed leaves no spool to go on from.
    return replace(settings, output=str(output), format="arrow", resume=False)


@contextmanager
def make_spool(spool: str | None) -> Iterator[Path]:
    """A folder for the spool file, which goes with the block. Raises DestinationError."""
    try:
        folder = TemporaryDirectory(prefix="livy-exporter-", dir=spool)
    except OSError as exc:
        raise DestinationError(
            f"cannot make a spool in '{spool or 'the folder for temporary files'}': {exc.strerror}",
            hint="name a folder that can be written with `spool`",
        ) from exc
    with folder as path:
        yield Path(path) / SPOOL_NAME


async def export_sessions(
    settings: Settings,
    path: Path,
    *,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> Sessions:
    """List, prove and spool the sessions; raises as `export` does."""
    manifest = await export(
        prepare_settings(settings, path),
        run_id=build_run_id(datetime.now(UTC)),
        environ=environ,
        emit=emit,
    )
    return Sessions(path, manifest)


@contextmanager
def read_sessions(
    settings: Settings,
    *,
    spool: str | None,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> Iterator[Sessions]:
    """Block until the sessions are proven. The event loop is in a thread of its own: the caller, a
    notebook for one, may have a loop that runs.
    """
    with make_spool(spool) as path:
        with start_blocking_portal() as portal:
            running = portal.start_task_soon(
                partial(export_sessions, settings, path, environ=environ, emit=emit)
            )
            try:
                sessions = running.result()
            except BaseException:  # Ctrl-C comes to this thread, not to the loop's
                running.cancel()
                raise
        try:
            yield sessions
        finally:
            sessions.close()


@asynccontextmanager
async def aread_sessions(
    settings: Settings,
    *,
    spool: str | None,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> AsyncIterator[Sessions]:
    with make_spool(spool) as path:
        sessions = await export_sessions(settings, path, environ=environ, emit=emit)
        try:
            yield sessions
        finally:
            sessions.close()
