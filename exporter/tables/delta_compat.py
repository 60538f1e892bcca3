"""Whether a Delta table can take our commits, by what its log says of it; performs no I/O."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from deltalake import DeltaTable

from exporter.errors import DestinationError, UsageError
from exporter.records.schema import INSTANT, SCHEMA
from exporter.tables.columns import DAY, build_misfit, require_distinct_names
from exporter.tables.spool import SPOOLED

FEATURES: Final = frozenset(
    {
        "appendOnly",
        "changeDataFeed",
        "checkConstraints",
        "columnMapping",
        "deletionVectors",
        "generatedColumns",
        "invariants",
        "timestampNtz",
        "v2Checkpoint",
        "variantType",
    }
)
"""Of a table's protocol: those that deltalake keeps to when it writes. The others it refuses, and
only when it commits.
"""

REFUSED_SETTINGS: Final = ("delta.appendOnly", "delta.columnMapping.mode")
REFUSED_MARK: Final = "delta.identity."
NEWEST_VERSIONS: Final = (3, 7)
"""Of the protocol, for readers and for writers."""

_TYPES: Final = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.date32(): "date",
    INSTANT: "timestamp",
}
TYPES: Final = {field.name: _TYPES[field.type] for field in SCHEMA}
"""The columns of a session and how the protocol calls their types."""

STORED: Final = pa.timestamp("us", tz="UTC")
"""How tables keep instants."""


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of a table before anything is written to it."""

    fields: tuple[Mapping[str, Any], ...]
    """Of the schema, as the protocol writes them."""
    partition_columns: tuple[str, ...]
    configuration: Mapping[str, str]
    versions: tuple[int, int]
    features: tuple[str, ...]
    """Of readers and writers."""

    @property
    def names(self) -> list[str]:
        return [field["name"] for field in self.fields]


def read_layout(table: DeltaTable) -> Layout:
    metadata, protocol = table.metadata(), table.protocol()
    return Layout(
        fields=tuple(json.loads(table.schema().to_json())["fields"]),
        partition_columns=tuple(metadata.partition_columns),
        configuration=metadata.configuration,
        versions=(protocol.min_reader_version, protocol.min_writer_version),
        features=(*(protocol.reader_features or ()), *(protocol.writer_features or ())),
    )


def check_layout(output: str, layout: Layout, *, partition_by: Sequence[str]) -> None:
    """Raises DestinationError for a table that our rows do not fit, or that asks more of who writes
    to it than deltalake gives; UsageError for one with another layout than asked for, if one is.
    """
    _check_features(output, layout)
    found = layout.partition_columns
    if partition_by and found != tuple(partition_by):
        raise UsageError(
            f"the table '{output}' is partitioned by {', '.join(found) or 'nothing'},"
            f" not by {', '.join(partition_by)}",
            hint="leave --partition-by away: a table keeps the layout it was made with",
        )
    require_distinct_names(output, layout.names)
    for field in layout.fields:
        _check_field(output, field, is_partition=field["name"] in found)


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


def build_new_schema(partition_by: Sequence[str]) -> pa.Schema:
    """Our rows for a table that they make."""
    names = {*SCHEMA.names, *partition_by}
    return pa.schema([_stored(field) for field in SPOOLED if field.name in names])


def build_schema(layout: Layout) -> pa.Schema:
    """Our rows for a table that is there, with the columns of ours that it lacks."""
    fields = []
    for field in map(_stored, SPOOLED):
        known = next((each for each in layout.fields if each["name"] == field.name), None)
        if known is None and field.name == DAY:
            continue
        is_text = known is not None and known["type"] == "string"
        # A new column is never required: the rows that are there have no value for it.
        is_nullable = known is None or known["nullable"]
        found_type = pa.string() if is_text else field.type
        fields.append(pa.field(field.name, found_type, nullable=is_nullable))
    return pa.schema(fields)


def _stored(field: pa.Field) -> pa.Field:
    return field.with_type(STORED) if field.type == INSTANT else field


def _check_features(output: str, layout: Layout) -> None:
    found = [each for each in layout.features if each not in FEATURES]
    if any(asked > newest for asked, newest in zip(layout.versions, NEWEST_VERSIONS, strict=True)):
        found.append(f"version {max(layout.versions)} of the protocol")
    found += [
        name
        for name in REFUSED_SETTINGS
        if layout.configuration.get(name, "false") not in ("false", "none")
    ]
    found += [
        mark
        for field in layout.fields
        for mark in field["metadata"]
        if mark.startswith(REFUSED_MARK)
    ]
    if found:
        raise DestinationError(
            f"the table '{output}' uses {found[0]}, which is not supported",
            hint="name another table, or drop this feature from it",
        )


def _check_field(output: str, field: Mapping[str, Any], *, is_partition: bool) -> None:
    name, found = field["name"], field["type"]
    if name not in TYPES:
        is_filled = "delta.generationExpression" in field["metadata"] or name == DAY
        if not field["nullable"] and not is_filled:
            raise build_misfit(output, f"it requires '{name}', which no session has")
        if name == DAY and found not in ("date", "string"):
            raise build_misfit(output, f"its '{name}' is {found}, not date")
    elif found != TYPES[name]:
        raise build_misfit(output, f"its '{name}' is {found}, not {TYPES[name]}")
    elif not field["nullable"] and SCHEMA.field(name).nullable:
        raise build_misfit(output, f"it requires '{name}', which a session may lack")
    if is_partition and found not in ("date", "string"):
        raise build_misfit(output, f"it is partitioned by '{name}', which is neither text nor date")
