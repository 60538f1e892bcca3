"""What tables of every format share: the key of a session, and rows that fit a table's columns."""

from collections.abc import Iterable
from typing import Final

import pyarrow as pa

from exporter.errors import DestinationError
from exporter.records.schema import SCHEMA

DAY: Final = "dt"
"""A column that no session has, to partition by: the UTC date of `create_time`."""


def add_day(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with the column that tables are partitioned by."""
    return rows.append_column(DAY, rows["create_time"].cast(pa.date32()))


def require_distinct_names(output: str, names: Iterable[str], *, more: Iterable[str] = ()) -> None:
    """Raises DestinationError for a table with a column that is one of ours but for its case:
    engines that read names without it would find two. `more` are columns that a run would add.
    """
    ours = {name.lower(): name for name in (*SCHEMA.names, *more)}
    for name in names:
        wanted = ours.get(name.lower(), name)
        if wanted != name:
            raise DestinationError(
                f"the table '{output}' has a column '{name}', and a session has '{wanted}'",
                hint=f"rename that column to '{wanted}', or name another table",
            )


def build_misfit(output: str, reason: str) -> DestinationError:
    """The error for a table whose columns cannot take our rows."""
    return DestinationError(
        f"the table '{output}' does not fit: {reason}",
        hint="name another table, or change this column first",
    )
