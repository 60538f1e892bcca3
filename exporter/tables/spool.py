"""A run's rows while they wait for their commit: in memory at first, then in a file without a name.

Nothing touches a table before its commit, and a commit that is refused begins again with the same
rows. They are read by Arrow alone: a library that drops a reader half read, on a thread of its own,
may do so after the interpreter has ended.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from exporter.errors import DestinationError
from exporter.model import KEY_COLUMNS
from exporter.records.schema import SCHEMA
from exporter.tables.columns import DAY, add_day

MEMORY_BYTES: Final = 16 << 20
"""Rows beyond this wait on disk: an hourly run stays below, a bulk run does not."""

SPOOLED: Final = SCHEMA.append(pa.field(DAY, pa.date32()))


class SpilledRows:
    """Rows in the order they came: `append`…, `finish`, then any number of readers, then `close`.

    Methods block; they raise DestinationError when the disk is full.
    """

    def __init__(self, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.row_count = 0
        self._memory_bytes = memory_bytes
        self._rows: list[pa.RecordBatch] = []
        self._rows_bytes = 0
        self._file: pa.NativeFile | None = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._written: pa.NativeFile | None = None

    def append(self, rows: pa.RecordBatch) -> None:
        """Append rows of the table of sessions."""
        self.append_spooled(add_day(rows))

    def append_spooled(self, rows: pa.RecordBatch) -> None:
        """Append rows that another spool gave."""
        self._rows.append(rows)
        self._rows_bytes += rows.nbytes
        self.row_count += rows.num_rows
        if self._rows_bytes > self._memory_bytes:
            with translated():
                self._spill()

    def finish(self) -> None:
        """To be called once, when all rows are there."""
        if self._writer is not None and self._written is not None:
            with translated():
                self._spill()
                self._writer.close()
                self._written.close()

    def open_reader(self, schema: pa.Schema = SPOOLED) -> pa.RecordBatchReader:
        """The rows in their order, with columns of a session or `dt`, as the schema types them.

        Its columns come in the order of `SPOOLED`, one reader at a time.
        """
        names = [name for name in SPOOLED.names if name in schema.names]
        wanted = pa.schema([schema.field(name) for name in names])
        if self._file is None:
            rows = pa.Table.from_batches(self._rows, SPOOLED)
            return rows.select(names).cast(wanted).to_reader()
        self._file.seek(0)
        found = [SPOOLED.get_field_index(name) for name in names]
        options = pa.ipc.IpcReadOptions(included_fields=found)
        return pa.ipc.open_stream(self._file, options=options).cast(wanted)

    def close(self) -> None:
        """Drop the rows and the file; may be repeated."""
        self._rows.clear()
        for file in (self._written, self._file):
            if file is not None:
                with suppress(OSError):
                    file.close()

    def _spill(self) -> None:
        if self._writer is None:
            self._file, self._written = open_unnamed()
            options = pa.ipc.IpcWriteOptions(compression="zstd")
            self._writer = pa.ipc.new_stream(self._written, SPOOLED, options=options)
        for rows in self._rows:
            self._writer.write_batch(rows)
        self._rows.clear()
        self._rows_bytes = 0


def open_unnamed() -> tuple[pa.NativeFile, pa.NativeFile]:
    """A file to read from and to write to, whose name is gone: a killed run leaves nothing."""
    handle, path = tempfile.mkstemp(prefix="livy-exporter-")
    os.close(handle)
    try:
        return pa.OSFile(path, "r"), pa.OSFile(path, "w")
    finally:
        os.unlink(path)  # noqa: PTH108 - as it was opened


@contextmanager
def translated() -> Iterator[None]:
    """A full disk as an error of ours."""
    try:
        yield
    except OSError as exc:
        raise DestinationError(
            f"cannot keep rows in '{tempfile.gettempdir()}': {exc.strerror or exc}",
            hint="let TMPDIR name a folder with more room",
        ) from exc


def keep_newest(spool: SpilledRows) -> SpilledRows:
    """The spool, or another one where a later row of the same key replaces a row."""
    newest = find_newest(spool)
    if newest is None:
        return spool
    kept = SpilledRows()
    start = 0
    for rows in spool.open_reader():
        kept.append_spooled(rows.filter(newest.slice(start, rows.num_rows)))
        start += rows.num_rows
    kept.finish()
    spool.close()
    return kept


def find_newest(spool: SpilledRows) -> pa.BooleanArray | None:
    """Which rows no later row of the same key replaces; None when these are all rows."""
    keys = spool.open_reader(pa.schema([SPOOLED.field(name) for name in KEY_COLUMNS])).read_all()
    numbered = keys.append_column("number", pa.array(range(keys.num_rows), pa.int64()))
    newest = numbered.group_by(list(KEY_COLUMNS)).aggregate([("number", "max")])["number_max"]
    if len(newest) == keys.num_rows:
        return None
    return pc.is_in(numbered["number"].combine_chunks(), value_set=newest)
