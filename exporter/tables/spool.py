"""A run's rows while they wait for their commit: in memory at first, then in a file without a name.

Nothing touches a table before its commit, and a commit that is refused begins again with the same
rows.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import pyarrow as pa

from exporter.errors import DestinationError
from exporter.tables.columns import KEY_COLUMNS

MEMORY_BYTES: Final = 16 << 20
"""Rows beyond this wait on disk: an hourly run stays below, a bulk run does not."""

CODEC: Final = "zstd"

Change = Callable[[pa.RecordBatch], pa.RecordBatch]


class Spool:
    """Rows in the order they came: `append`…, `finish`, then any number of readers, then `close`.

    Methods block; they raise DestinationError when the disk is full.
    """

    def __init__(self, schema: pa.Schema, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.schema = schema
        self._memory_bytes = memory_bytes
        self._rows: list[pa.RecordBatch] = []
        self._rows_bytes = 0
        self._row_count = 0
        self._file: Any = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._newest: pa.BooleanArray | None = None

    @property
    def row_count(self) -> int:
        """Rows that `read` gives."""
        return self._row_count if self._newest is None else self._newest.true_count

    def append(self, rows: pa.RecordBatch) -> None:
        self._rows.append(rows)
        self._rows_bytes += rows.nbytes
        self._row_count += rows.num_rows
        if self._rows_bytes > self._memory_bytes:
            with told():
                self._spill()

    def finish(self, *, is_distinct: bool) -> None:
        """To be called once, when all rows are there. Unless they are said to be distinct, only
        the last row of each key stays.
        """
        with told():
            if self._writer is not None:
                self._spill()
                self._writer.close()
                self._writer = None
            if not is_distinct:
                self._newest = find_newest(self._read_all())

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows in their order; repeatable, one reader at a time."""
        start = 0
        for rows in self._read_all():
            end = start + rows.num_rows
            if self._newest is None:
                yield rows
            else:
                yield rows.filter(self._newest.slice(start, rows.num_rows))
            start = end

    def open_reader(self, schema: pa.Schema, change: Change) -> pa.RecordBatchReader:
        """The rows as a stream of another schema, each batch by way of `change`."""
        return pa.RecordBatchReader.from_batches(schema, map(change, self.read()))

    def close(self) -> None:
        """Drop the rows and the file; may be repeated."""
        self._rows.clear()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()

    def _read_all(self) -> Iterator[pa.RecordBatch]:
        if self._file is None:
            yield from self._rows
            return
        self._file.seek(0)
        yield from pa.ipc.open_stream(pa.PythonFile(self._file, mode="r"))

    def _spill(self) -> None:
        if self._writer is None:
            # The folder's entry is gone at once: a killed run leaves nothing.
            self._file = tempfile.TemporaryFile(prefix="livy-exporter-")  # noqa: SIM115 - see close
            options = pa.ipc.IpcWriteOptions(compression=CODEC)
            sink = pa.PythonFile(self._file, mode="w")
            self._writer = pa.ipc.new_stream(sink, self.schema, options=options)
        for rows in self._rows:
            self._writer.write_batch(rows)
        self._rows.clear()
        self._rows_bytes = 0


@contextmanager
def told() -> Iterator[None]:
    """A full disk as an error of ours."""
    try:
        yield
    except OSError as exc:
        raise DestinationError(
            f"cannot keep rows in '{tempfile.gettempdir()}': {exc.strerror or exc}",
            hint="let TMPDIR name a folder with more room",
        ) from exc


def find_newest(batches: Iterator[pa.RecordBatch]) -> pa.BooleanArray | None:
    """Which rows no later row of the same key replaces; None when these are all rows."""
    chunks = [rows.select(KEY_COLUMNS) for rows in batches]
    if not chunks:
        return None
    keys = pa.Table.from_batches(chunks)
    numbered = keys.append_column("number", pa.array(range(keys.num_rows), pa.int64()))
    newest = numbered.group_by(list(KEY_COLUMNS)).aggregate([("number", "max")])["number_max"]
    if len(newest) == keys.num_rows:
        return None
    return pa.compute.is_in(numbered["number"], value_set=newest).combine_chunks()
