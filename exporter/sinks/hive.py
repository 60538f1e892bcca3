"""Partitions of rows, and the folders that are named after them; performs no I/O.

Folders are named as Hive names them: `dt=2026-11-22/queue=root_queue/`.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from exporter.model import Gateway, RawSession
from exporter.records.schema import build_column

NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
"""Names the folder of null, of the empty text, and of what is too long for a name."""

SPLIT_ROWS: Final = 1 << 14
SPLIT_BYTES: Final = 8 << 20
"""Rows that are split at a time, whichever comes first; they are there twice meanwhile."""

VALUE_BYTES: Final = 200
"""A name has 255 bytes at most on a disk, a whole key 1,023 in a store."""

_ESCAPED: Final = {code: f"%{code:02X}" for code in (*range(0x20), *b"\"#%'*/:=?\\\x7f{[]^")}
"""What Hive's `FileUtils.escapePathName` escapes, and NUL, which no file name can hold."""


def escape_value(value: str | None) -> str:
    """A value as it stands in the name of a folder."""
    escaped = (value or "").translate(_ESCAPED)
    return escaped if 0 < len(escaped.encode()) <= VALUE_BYTES else NO_VALUE


def empty_folder(partition_by: Sequence[str]) -> str:
    """The folder of a row without any value."""
    return "".join(f"{name}={NO_VALUE}/" for name in partition_by)


def build_key(name: str, gateway: Gateway, sessions: Sequence[RawSession]) -> pa.Array:
    """The values of a column that rows can be parted by; of `dt` the create times."""
    return build_column("create_time" if name == "dt" else name, gateway, sessions)


def group_rows(names: Sequence[str], keys: Sequence[pa.Array]) -> list[tuple[str, pa.Array]]:
    """The folders of the rows in the order of their first row, each with its rows' numbers, which
    ascend.
    """
    folders = [""]
    codes = pa.repeat(pa.scalar(0, pa.int64()), len(keys[0]))
    for name, values in zip(names, keys, strict=True):
        labels, numbers = _label(name, values)
        # At most as many of either as there are rows: their product fits.
        pairs = pc.add(pc.multiply(codes, len(labels)), numbers).dictionary_encode()
        folders = [
            f"{folders[pair // len(labels)]}{labels[pair % len(labels)]}/"
            for pair in pairs.dictionary.to_pylist()
        ]
        codes = pairs.indices.cast(pa.int64())
    order = pc.sort_indices(codes)  # a stable sort
    runs = pc.run_end_encode(codes.take(order))
    ends = runs.run_ends.to_pylist()
    return [
        (folders[code], order.slice(start, end - start))
        for code, start, end in zip(runs.values.to_pylist(), [0, *ends], ends, strict=False)
    ]


def _label(name: str, values: pa.Array) -> tuple[list[str], pa.Array]:
    """The distinct names of a column's folders, and by row which of them it is."""
    if name == "dt":
        # Whole days since 1970, counted downwards: a cast to a date would round times before it up.
        values = pc.floor_temporal(values, unit="day").cast(pa.date32())
    encoded = values.dictionary_encode(null_encoding="encode")
    number_of: dict[str, int] = {}
    numbers = [
        number_of.setdefault(
            f"{name}={escape_value(None if each is None else str(each))}", len(number_of)
        )
        for each in encoded.dictionary.to_pylist()
    ]
    return list(number_of), pa.array(numbers, pa.int64()).take(encoded.indices)
