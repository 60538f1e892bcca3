"""Which partitions of a Delta table hold the sessions of a run, and how a merge is told of them.

A merge reads and holds all files that may have one of its keys. Files of a day have keys of any
kind, so statistics leave none out; a first pass over the keys alone does.
"""

from collections.abc import Iterator
from datetime import date
from typing import Final, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

MAX_NAMED: Final = 1_000
"""Partitions that a predicate may name; beyond, it would cost more than it saves."""

Partition: TypeAlias = tuple[date | str | None, ...]
"""The values of the partition columns, in their order."""


def find_partitions(table: DeltaTable, session_ids: pa.ChunkedArray) -> set[Partition]:
    """The partitions with a session of one of these names, of whichever gateway."""
    columns = table.metadata().partition_columns
    wanted = session_ids.combine_chunks()
    found: set[Partition] = set()
    for batch in scan(table, ["session_id", *columns]):
        is_wanted = pc.is_in(batch["session_id"], value_set=wanted)
        values = [batch[name].filter(is_wanted).to_pylist() for name in columns]
        found.update(zip(*values, strict=True))
    return found


def scan(table: DeltaTable, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Rows of text as plain strings: the library gives views, which nothing can filter."""
    for batch in pa.RecordBatchReader.from_stream(table.scan(columns=columns)):
        types = [pa.string() if each == pa.string_view() else each for each in batch.schema.types]
        yield batch.cast(pa.schema(zip(batch.schema.names, types, strict=True)))


def list_terms(table: DeltaTable, session_ids: pa.ChunkedArray) -> list[str]:
    """What a merge of these sessions is told beside its keys, to read no other partition: terms
    of SQL that hold together for each row `t` with one of them.
    """
    columns = table.metadata().partition_columns
    return build_terms(columns, find_partitions(table, session_ids)) if columns else []


def build_terms(columns: list[str], partitions: set[Partition]) -> list[str]:
    """A term a column; none where there are too many partitions."""
    if len(partitions) > MAX_NAMED:
        return []
    if not partitions:
        return ["false"]
    return [
        _build_term(_quote(name), {each[at] for each in partitions})
        for at, name in enumerate(columns)
    ]


def _quote(column: str) -> str:
    doubled = column.replace('"', '""')
    return f't."{doubled}"'


def _build_term(column: str, values: set[date | str | None]) -> str:
    literals = sorted(_build_literal(value) for value in values if value is not None)
    terms = [f"{column} IN ({', '.join(literals)})"] if literals else []
    if None in values:
        terms.append(f"{column} IS NULL")
    return terms[0] if len(terms) == 1 else f"({' OR '.join(terms)})"


def _build_literal(value: date | str) -> str:
    if isinstance(value, date):
        return f"DATE '{value.isoformat()}'"
    quoted = value.replace("'", "''")
    return f"'{quoted}'"
