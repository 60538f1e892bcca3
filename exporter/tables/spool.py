"""Rows of a run that wait for their commit: in memory at first, then in an unnamed file.

Nothing touches a table before its commit, and a commit after a conflict starts over with the same
rows. Only Arrow reads them: a library that drops a half-read reader, on a thread of its own, may do
so after the interpreter has ended.
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
"""More rows than this wait on disk: an hourly run stays below, a bulk run does not."""

SPILLED_SCHEMA: Final = SCHEMA.append(pa.field(DAY, pa.date32()))


class SpilledRows:
    """Rows in their order of arrival: `append`…, `finish`, any number of readers, then `close`.

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
        """Append rows of sessions, with or without `dt`."""
        rows = rows if DAY in rows.schema.names else add_day(rows)
        self._rows.append(rows)
        self._rows_bytes += rows.nbytes
        self.row_count += rows.num_rows
        if self._rows_bytes > self._memory_bytes:
            with translated():
                self._spill()

    def finish(self) -> None:
        """Call once, when all rows are there."""
        if self._writer is not None and self._written is not None:
            with translated():
                self._spill()
                self._writer.close()
                self._written.close()

    def open_reader(self, schema: pa.Schema = SPILLED_SCHEMA) -> pa.RecordBatchReader:
        """The rows with the schema's columns and types; other columns of the schema are ignored.

        Columns come in the order of `SPILLED_SCHEMA`. One reader at a time.
        """
        names = [name for name in SPILLED_SCHEMA.names if name in schema.names]
        wanted = pa.schema([schema.field(name) for name in names])
        if self._file is None:
            rows = pa.Table.from_batches(self._rows, SPILLED_SCHEMA)
            return rows.select(names).cast(wanted).to_reader()
        self._file.seek(0)
        found = [SPILLED_SCHEMA.get_field_index(name) for name in names]
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
            self._writer = pa.ipc.new_stream(self._written, SPILLED_SCHEMA, options=options)
        for rows in self._rows:
            self._writer.write_batch(rows)
        self._rows.clear()
        self._rows_bytes = 0


def open_unnamed() -> tuple[pa.NativeFile, pa.NativeFile]:
    """One file to read and to write; its name is gone, so a killed run leaves nothing."""
    handle, path = tempfile.mkstemp(prefix="livy-exporter-")
    os.close(handle)
    try:
        return pa.OSFile(path, "r"), pa.OSFile(path, "w")
    finally:
        os.unlink(path)  # noqa: PTH108 - as it was opened


@contextmanager
def translated() -> Iterator[None]:
    """Translate a full disk to DestinationError."""
    try:
        yield
    except OSError as exc:
        raise DestinationError(
            f"cannot keep rows in '{tempfile.gettempdir()}': {exc.strerror or exc}",
            hint="let TMPDIR name a folder with more room",
        ) from exc


def keep_newest(rows: SpilledRows) -> SpilledRows:
    """The last row of each key: the rows themselves if keys are distinct, else a copy."""
    is_newest = find_newest(rows)
    if is_newest is None:
        return rows
    kept = SpilledRows()
    start = 0
    for batch in rows.open_reader():
        kept.append(batch.filter(is_newest.slice(start, batch.num_rows)))
        start += batch.num_rows
    kept.finish()
    rows.close()
    return kept


def find_newest(rows: SpilledRows) -> pa.BooleanArray | None:
    """Marks the last row of each key; None where keys are distinct."""
    keys = rows.open_reader(
        pa.schema([SPILLED_SCHEMA.field(name) for name in KEY_COLUMNS])
    ).read_all()
    numbered = keys.append_column("number", pa.array(range(keys.num_rows), pa.int64()))
    newest = numbered.group_by(list(KEY_COLUMNS)).aggregate([("number", "max")])["number_max"]
    if len(newest) == keys.num_rows:
        return None
    return pc.is_in(numbered["number"].combine_chunks(), value_set=newest)
