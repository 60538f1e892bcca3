"""The partitions of a Delta table that a merge has to read.

A merge reads and holds every file that may have one of its keys. The files of a day have keys of
any kind, so statistics rule none out; a first pass over the keys alone does.
"""

from collections.abc import Iterator
from datetime import date
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

MAX_NAMED: Final = 1_000
"""Partitions that a predicate may name; more would cost more than they save."""

Value: TypeAlias = date | str | None
Partition: TypeAlias = tuple[Value, ...]
"""The values of the partition columns, in their order."""


def build_terms(table: DeltaTable, session_ids: pa.ChunkedArray) -> list[str]:
    """Terms of SQL for a merge, which hold for all rows `t` of these sessions and few others.

    One a partition column; none where there are too many partitions.
    """
    columns = table.metadata().partition_columns
    partitions = find_partitions(table, session_ids, columns) if columns else set()
    if not columns or len(partitions) > MAX_NAMED:
        return []
    if not partitions:
        return ["false"]
    return [
        build_term(name, set(values))
        for name, values in zip(columns, zip(*partitions, strict=True), strict=True)
    ]


def find_partitions(
    table: DeltaTable, session_ids: pa.ChunkedArray, columns: list[str]
) -> set[Partition]:
    """The partitions with a session of one of these names, of any gateway."""
    wanted = session_ids.combine_chunks()
    found: set[Partition] = set()
    for batch in scan(table, ["session_id", *columns]):
        is_wanted = pc.is_in(batch["session_id"], value_set=wanted)
        values = [batch[name].filter(is_wanted).to_pylist() for name in columns]
        found.update(zip(*values, strict=True))
    return found


def scan(table: DeltaTable, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows with text as plain strings: the library gives views, which Arrow cannot filter."""
    for batch in pa.RecordBatchReader.from_stream(table.scan(columns=columns)):
        types = [pa.string() if each == pa.string_view() else each for each in batch.schema.types]
        yield batch.cast(pa.schema(zip(batch.schema.names, types, strict=True)))


def build_term(column: str, values: set[Value]) -> str:
    doubled = column.replace('"', '""')
    literals = ", ".join(sorted(build_literal(value) for value in values if value is not None))
    terms = [f't."{doubled}" IN ({literals})'] if literals else []
    if None in values:
        terms.append(f't."{doubled}" IS NULL')
    return f"({' OR '.join(terms)})"


def build_literal(value: date | str) -> str:
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    quoted = value.replace("'", "''")
    return f"'{quoted}'"
