"""Checks that tables of every format share: whether their columns and partitions take our rows."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from exporter.errors import DestinationError, UsageError
from exporter.records.schema import INSTANT, SCHEMA

DAY: Final = "dt"
"""A column that no session has, to partition by: the UTC date of `create_time`."""

STORED_INSTANT: Final = pa.timestamp("us", tz="UTC")
"""The type in which Delta and Iceberg tables keep instants."""


@dataclass(frozen=True, slots=True)
class TableColumn:
    """A column of an existing table."""

    name: str
    type_text: str
    """As the format writes it."""
    is_required: bool


def add_day(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with the column `dt`."""
    return rows.append_column(DAY, rows["create_time"].cast(pa.date32()))


def build_stored_field(field: pa.Field, *, nullable: bool) -> pa.Field:
    stored_type = STORED_INSTANT if field.type == INSTANT else field.type
    return pa.field(field.name, stored_type, nullable=nullable)


def require_fit(output: str, columns: Sequence[TableColumn], types: Mapping[str, str]) -> None:
    """Raises DestinationError for a table whose columns cannot take our rows.

    `types` has the format's type of each column of a session.
    """
    require_distinct_names(output, [column.name for column in columns])
    for column in columns:
        name, expected = column.name, types.get(column.name)
        if expected is None:
            if column.is_required:
                raise build_misfit(output, f"it requires '{name}', which no session has")
        elif column.type_text != expected:
            raise build_misfit(output, f"its '{name}' is {column.type_text}, not {expected}")
        elif column.is_required and SCHEMA.field(name).nullable:
            raise build_misfit(output, f"it requires '{name}', which a session may lack")


def require_distinct_names(output: str, names: Iterable[str]) -> None:
    """Raises DestinationError for a column that differs from one of ours only in case.

    Engines that ignore case would find two columns of that name.
    """
    ours = {name.lower(): name for name in SCHEMA.names}
    for name in names:
        wanted = ours.get(name.lower(), name)
        if wanted != name:
            raise DestinationError(
                f"the table '{output}' has a column '{name}', and a session has '{wanted}'",
                hint=f"rename that column to '{wanted}', or name another table",
            )


def build_misfit(output: str, reason: str) -> DestinationError:
    return DestinationError(
        f"the table '{output}' does not fit: {reason}",
        hint="name another table, or change this column first",
    )


def require_partition_columns(partition_by: Sequence[str], allowed: Sequence[str]) -> None:
    """Raises UsageError for a column that a new table cannot be partitioned by."""
    for name in partition_by:
        if name != DAY and name not in allowed:
            raise UsageError(
                f"a table cannot be partitioned by '{name}'"
                if name in SCHEMA.names
                else f"there is no column '{name}' to partition by",
                hint=f"take {DAY} for the day of create_time, or one of {', '.join(allowed)}",
            )


def require_same_partitions(output: str, found: Sequence[str], partition_by: Sequence[str]) -> None:
    """Raises UsageError for a table with other partitions than asked for, if any are."""
    if partition_by and list(found) != list(partition_by):
        raise UsageError(
            f"the table '{output}' is partitioned by {', '.join(found) or 'nothing'},"
            f" not by {', '.join(partition_by)}",
            hint="leave --partition-by away: a table keeps the layout it was made with",
        )
