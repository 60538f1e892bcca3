"""What tables of a lake share: the key of a session, and a run's rows while they wait to be merged.

A table has one row a session. A run that adds to it replaces the rows of the sessions it has read,
so it must know all its keys before it can write a row of the table anew.
"""

import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from exporter.errors import DestinationError

SCOPE_COLUMNS: Final = ("region_id", "workspace_id", "compute_id")
KEY_COLUMNS: Final = (*SCOPE_COLUMNS, "session_id")
"""What tells two sessions apart."""

MEMORY_BYTES: Final = 64 << 20
"""Rows beyond this wait on disk: an hourly run stays far below, a bulk run does not."""

READ_ROWS: Final = 1 << 13
"""How many rows of a data file are looked at together."""

T = TypeVar("T")


class Conflict(DestinationError):  # noqa: N818 - it is answered, not reported
    """Raised when somebody else has committed since the table was read."""


class Keys:
    """A set of sessions' keys, built once and then asked about many rows.

    The key is four texts long and the first three of them are few: each triple gets a number, and a
    key is that number and the session's id.
    """

    def __init__(self) -> None:
        self._scope_numbers: dict[str, int] = {}
        self._scopes = pa.array([], pa.string())
        self._chunks: list[pa.Array] = []
        self._all: pa.Array | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        scopes = _scopes_of(rows)
        for scope in scopes.unique().to_pylist():
            self._scope_numbers.setdefault(scope, len(self._scope_numbers))
        self._scopes = pa.array(list(self._scope_numbers), pa.string())
        self._chunks.append(self._texts_of(rows))
        self._all = None

    def find_newest(self) -> pa.Array | None:
        """The numbers of the rows, from 0 as they were added, that no later row of the same key
        replaces; None when these are all rows.
        """
        texts = self._combined()
        table = pa.table({"text": texts, "number": pa.array(range(len(texts)), pa.int64())})
        newest = table.group_by("text").aggregate([("number", "max")])["number_max"]
        return None if len(newest) == len(texts) else newest.combine_chunks()

    def hits(self, rows: pa.RecordBatch | pa.Table) -> Any:
        """Whether each row's key is among these; a row with a null in its key is not."""
        return pc.is_in(self._texts_of(rows), value_set=self._combined())

    def _texts_of(self, rows: pa.RecordBatch | pa.Table) -> Any:
        numbers = pc.index_in(_scopes_of(rows), value_set=self._scopes).cast(pa.string())
        return pc.binary_join_element_wise(numbers, rows["session_id"].cast(pa.string()), ":")

    def _combined(self) -> pa.Array:
        if self._all is None:
            self._all = pa.concat_arrays(self._chunks or [pa.array([], pa.string())])
            self._chunks = [self._all]
        return self._all


def _scopes_of(rows: pa.RecordBatch | pa.Table) -> Any:
    """The triple as one text; its lengths stand first, so that different triples differ."""
    columns = [rows[name].cast(pa.string()) for name in SCOPE_COLUMNS]
    lengths = [pc.binary_length(column).cast(pa.string()) for column in columns]
    return pc.binary_join_element_wise(*lengths, *columns, ":")


class WaitingRows:
    """A run's rows in the order they came; on disk, unnamed, beyond what fits into memory."""

    def __init__(self, schema: pa.Schema, *, memory_bytes: int = MEMORY_BYTES) -> None:
        self.keys = Keys()
        self._schema = schema
        self._memory_bytes = memory_bytes
        self._rows: list[pa.RecordBatch] = []
        self._rows_bytes = 0
        # The folder's entry is gone at once: a killed run leaves nothing.
        self._file: Any = None
        self._writer: pa.ipc.RecordBatchStreamWriter | None = None
        self._newest: pa.Array | None = None

    def append(self, rows: pa.RecordBatch) -> None:
        self.keys.add(rows)
        self._rows.append(rows)
        self._rows_bytes += rows.nbytes
        if self._rows_bytes > self._memory_bytes:
            self._spill()

    def finish(self) -> None:
        """To be called once, when all rows are there."""
        if self._writer is not None:
            self._spill()
            self._writer.close()
        self._newest = self.keys.find_newest()

    def read(self) -> Iterator[pa.RecordBatch]:
        """The rows in their order, without those whose session comes again later; repeatable."""
        start = 0
        for rows in self._read_all():
            end = start + rows.num_rows
            if self._newest is None:
                yield rows
            else:
                numbers = pa.array(range(start, end), pa.int64())
                yield rows.filter(pc.is_in(numbers, value_set=self._newest))
            start = end

    def close(self) -> None:
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
            self._file = tempfile.TemporaryFile(prefix="livy-exporter-")  # noqa: SIM115 - see close
            self._writer = pa.ipc.new_stream(pa.PythonFile(self._file, mode="w"), self._schema)
        for rows in self._rows:
            self._writer.write_batch(rows)
        self._rows.clear()
        self._rows_bytes = 0


def fit_rows(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The rows with the columns of `schema`, by name; null where they have none."""
    names = set(rows.schema.names)
    columns = [
        _fit_column(rows[field.name], field.type)
        if field.name in names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _fit_column(column: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column if column.type == wanted else column.cast(wanted)


def split_by(
    rows: pa.RecordBatch, columns: Sequence[tuple[pa.Array, Sequence[T]]]
) -> Iterator[tuple[tuple[T, ...], pa.RecordBatch]]:
    """The rows of each combination of values in their order; all of them where there is no column.

    A column is the position of each row's value in the list that comes second.
    """
    if not columns:
        yield (), rows
        return
    if rows.num_rows == 0:
        return
    # One number a combination: positions in the lists of values, counted up as digits are.
    numbers = reduce(
        lambda total, column: pc.add(pc.multiply(total, len(column[1])), column[0]),
        columns,
        pa.repeat(pa.scalar(0, pa.int64()), rows.num_rows),
    )
    for number in numbers.unique().to_pylist():
        at, values = number, list[T]()
        for _, known in reversed(columns):
            at, digit = divmod(at, len(known))
            values.insert(0, known[digit])
        yield tuple(values), rows.filter(pc.equal(numbers, number))


@dataclass(frozen=True, slots=True)
class Times:
    """When the sessions of a run were created, to the second."""

    sorted_us: list[int]
    has_null: bool

    def any_within(self, lower_us: int, upper_us: int) -> bool:
        """Whether a session may have been created between two instants."""
        first = lower_us // SECOND_US * SECOND_US
        at = bisect_left(self.sorted_us, first)
        return at < len(self.sorted_us) and self.sorted_us[at] <= upper_us


SECOND_US: Final = 1_000_000


def read_times(waiting: WaitingRows) -> Times:
    distinct: set[int | None] = set()
    for rows in waiting.read():
        seconds = pc.floor_temporal(rows["create_time"], unit="second")
        distinct.update(seconds.cast(pa.int64()).unique().to_pylist())
    return Times(sorted(ms * 1000 for ms in distinct if ms is not None), None in distinct)
