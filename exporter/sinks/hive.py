"""Groups rows by partition, and names the folders of partitions; performs no I/O.

Folders are named as Hive names them: `dt=2026-11-22/queue=root_queue/`.
"""

from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from exporter.model import Gateway, RawSession
from exporter.records.schema import build_column

NO_VALUE: Final = "__HIVE_DEFAULT_PARTITION__"
"""The folder of nulls, of empty texts, and of values too long for a name."""

SPLIT_ROWS: Final = 1 << 14
SPLIT_BYTES: Final = 8 << 20
"""Rows that are split at a time, whichever comes first; a split takes their memory twice."""

VALUE_BYTES: Final = 200
"""Longest escaped value: a file name has at most 255 bytes, an object's whole key 1,023."""

_ESCAPED: Final = {code: f"%{code:02X}" for code in (*range(0x20), *b"\"#%'*/:=?\\\x7f{[]^")}
"""The characters that Hive's `FileUtils.escapePathName` escapes, and NUL, which no file name holds.
"""


def escape_value(value: str | None) -> str:
    """A value as the name of a folder has it."""
    escaped = (value or "").translate(_ESCAPED)
    return escaped if 0 < len(escaped.encode()) <= VALUE_BYTES else NO_VALUE


def empty_folder(partition_by: Sequence[str]) -> str:
    """The folder of a row without any value in the columns."""
    return "".join(f"{name}={NO_VALUE}/" for name in partition_by)


def build_key(name: str, gateway: Gateway, sessions: Sequence[RawSession]) -> pa.Array:
    """The values of a column that rows are partitioned by; the create times for `dt`."""
    return build_column("create_time" if name == "dt" else name, gateway, sessions)


def group_rows(names: Sequence[str], keys: Sequence[pa.Array]) -> list[tuple[str, pa.Array]]:
    """Folders in the order of their first row, each with the ascending numbers of its rows."""
    folders = [""]
    codes = pa.repeat(pa.scalar(0, pa.int64()), len(keys[0]))
    for name, values in zip(names, keys, strict=True):
        labels, numbers = _label(name, values)
        # There are at most as many of either as rows, so the product fits in 64 bits.
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
    """The distinct folder names of a column, and for each row the index of its name."""
    if name == "dt":
        # Rounded down to whole days: a cast to a date rounds times before 1970 up.
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
