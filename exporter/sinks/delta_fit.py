"""Whether a Delta table can be written to, by what its log says of it; performs no I/O."""

import re
from collections.abc import Collection, Sequence
from typing import Final

from exporter.errors import DestinationError, UsageError
from exporter.records.schema import SCHEMA
from exporter.sinks.delta_log import DAY, TYPES, Metadata

READER_FEATURES: Final = frozenset({"timestampNtz", "v2Checkpoint", "vacuumProtocolCheck"})
WRITER_FEATURES: Final = READER_FEATURES | {
    "appendOnly",
    "changeDataFeed",
    "checkConstraints",
    "generatedColumns",
    "identityColumns",
    "invariants",
}
"""Features of a table's protocol that ask nothing of our commits, unless its settings use them."""

REFUSED_SETTINGS: Final = re.compile(
    r"delta\.(constraints\..*|columnMapping\.mode|appendOnly"
    r"|enableInCommitTimestamps|enableRowTracking|enableDeletionVectors)"
)
REFUSED_MARKS: Final = (
    "delta.generationExpression",
    "delta.identity.",
    "delta.invariants",
    "delta.columnMapping.",
)
NEWEST_VERSIONS: Final = (3, 7)
"""Of the protocol, for readers and for writers."""


def check_features(
    output: str,
    metadata: Metadata,
    *,
    versions: tuple[int, int],
    reader_features: Collection[str],
    writer_features: Collection[str],
) -> None:
    """Raises DestinationError for a table that asks more of its writers than our commits give."""
    found = [
        *sorted(set(reader_features) - READER_FEATURES),
        *sorted(set(writer_features) - WRITER_FEATURES),
    ]
    if any(asked > newest for asked, newest in zip(versions, NEWEST_VERSIONS, strict=True)):
        found.append(f"version {max(versions)} of the protocol")
    found += [
        name
        for name, value in sorted(metadata.configuration.items())
        if REFUSED_SETTINGS.fullmatch(name) and value not in ("false", "none")
    ]
    found += [
        mark
        for field in metadata.fields
        for mark in field["metadata"]
        if mark.startswith(REFUSED_MARKS)
    ]
    if found:
        raise DestinationError(
            f"the table '{output}' uses {found[0]}, which is not supported",
            hint="name another table, or drop this feature from it",
        )


def check_partition_columns(partition_by: Sequence[str]) -> None:
    """Raises UsageError for what no new table can be partitioned by."""
    known = [DAY, *(name for name, type_name in TYPES.items() if type_name == "string")]
    for name in partition_by:
        if name not in known:
            raise UsageError(
                f"a table cannot be partitioned by '{name}'"
                if name in TYPES
                else f"there is no column '{name}' to partition by",
                hint=f"take {DAY} for the day of create_time, or one of {', '.join(known[1:])}",
            )


def check_partitions(output: str, metadata: Metadata, partition_by: Sequence[str]) -> None:
    """Raises UsageError for a table with another layout than asked for, if one is."""
    found = metadata.partition_columns
    if partition_by and found != tuple(partition_by):
        raise UsageError(
            f"the table '{output}' is partitioned by {', '.join(found) or 'nothing'},"
            f" not by {', '.join(partition_by)}",
            hint="leave --partition-by away: a table keeps the layout it was made with",
        )


def check_fields(output: str, metadata: Metadata) -> None:
    """Raises DestinationError where our rows do not fit the table's columns."""
    for field in metadata.fields:
        name, found = field["name"], field["type"]
        wanted = SCHEMA.field(name) if name in TYPES else None
        if wanted is None:
            if not field["nullable"]:
                raise misfit(output, f"it requires '{name}', which no session has")
            if name == DAY and found not in ("date", "string"):
                raise misfit(output, f"its '{name}' is {found}, not date")
        elif found != TYPES[name]:
            raise misfit(output, f"its '{name}' is {found}, not {TYPES[name]}")
        elif not field["nullable"] and wanted.nullable:
            raise misfit(output, f"it requires '{name}', which a session may lack")
        if name in metadata.partition_columns and found not in ("date", "string"):
            raise misfit(output, f"it is partitioned by '{name}', which is neither text nor date")


def misfit(output: str, reason: str) -> DestinationError:
    return DestinationError(
        f"the table '{output}' does not fit: {reason}",
        hint="name another table, or change this column first",
    )
