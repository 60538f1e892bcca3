"""Compatibility of an existing Delta table with our commits, and the schemas of our rows."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from deltalake import DeltaTable

from exporter.errors import DestinationError
from exporter.records.schema import INSTANT, SCHEMA
from exporter.tables.columns import (
    DAY,
    TableColumn,
    build_misfit,
    build_stored_field,
    require_fit,
    require_same_partitions,
)
from exporter.tables.spool import SPILLED_SCHEMA

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
"""Features of a table's protocol that deltalake writes. It refuses others only at the commit."""

REFUSED_SETTINGS: Final = ("delta.appendOnly", "delta.columnMapping.mode")
REFUSED_MARK: Final = "delta.identity."
NEWEST_VERSIONS: Final = (3, 7)
"""Of the protocol, for readers and for writers."""

_TYPES: Final = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float64(): "double",
    INSTANT: "timestamp",
}
TYPES: Final = {field.name: _TYPES[field.type] for field in SCHEMA}
"""The columns of a session, with the protocol's names of their types."""

PARTITION_COLUMNS: Final = [name for name, type_text in TYPES.items() if type_text == "string"]
"""Columns of a session that a new table can be partitioned by."""

Field = Mapping[str, Any]
"""A column as the protocol writes it."""


def read_fields(table: DeltaTable) -> list[Field]:
    fields: list[Field] = json.loads(table.schema().to_json())["fields"]
    return fields


def check_table(output: str, table: DeltaTable, *, partition_by: Sequence[str]) -> None:
    """Raises DestinationError for a table that our rows do not fit, or that asks more of writers
    than deltalake gives; UsageError for other partitions than asked for, if any are.
    """
    fields = read_fields(table)
    check_features(output, table, fields)
    partition_columns = table.metadata().partition_columns
    require_same_partitions(output, partition_columns, partition_by)
    require_fit(output, [describe_column(field) for field in fields], TYPES)
    for field in fields:
        name = field["name"]
        if field["type"] in ("date", "string"):
            continue
        if name == DAY:
            raise build_misfit(output, f"its '{name}' is {field['type']}, not date")
        if name in partition_columns:
            reason = f"it is partitioned by '{name}', which is neither text nor date"
            raise build_misfit(output, reason)


def describe_column(field: Field) -> TableColumn:
    name = field["name"]
    is_filled = name == DAY or (
        name not in TYPES and "delta.generationExpression" in field["metadata"]
    )
    return TableColumn(name, str(field["type"]), is_required=not (field["nullable"] or is_filled))


def check_features(output: str, table: DeltaTable, fields: Sequence[Field]) -> None:
    protocol, configuration = table.protocol(), table.metadata().configuration
    features = (*(protocol.reader_features or ()), *(protocol.writer_features or ()))
    found = [each for each in features if each not in FEATURES]
    versions = (protocol.min_reader_version, protocol.min_writer_version)
    if any(asked > newest for asked, newest in zip(versions, NEWEST_VERSIONS, strict=True)):
        found.append(f"version {max(versions)} of the protocol")
    found += [
        name
        for name in REFUSED_SETTINGS
        if configuration.get(name, "false") not in ("false", "none")
    ]
    found += [
        mark for field in fields for mark in field["metadata"] if mark.startswith(REFUSED_MARK)
    ]
    if found:
        raise DestinationError(
            f"the table '{output}' uses {found[0]}, which is not supported",
            hint="name another table, or drop this feature from it",
        )


def build_new_schema(partition_by: Sequence[str]) -> pa.Schema:
    """The schema of our rows in a new table."""
    names = {*SCHEMA.names, *partition_by}
    fields = [field for field in SPILLED_SCHEMA if field.name in names]
    return pa.schema([build_stored_field(field, nullable=field.nullable) for field in fields])


def build_schema(table: DeltaTable) -> pa.Schema:
    """The schema of our rows in an existing table, with the columns of ours that it lacks."""
    found = {field["name"]: field for field in read_fields(table)}
    fields = []
    for field in SPILLED_SCHEMA:
        known = found.get(field.name)
        if known is not None:
            stored = build_stored_field(field, nullable=known["nullable"])
            fields.append(stored.with_type(pa.string()) if known["type"] == "string" else stored)
        elif field.name != DAY:
            # A new column is never required: existing rows have no value for it.
            fields.append(build_stored_field(field, nullable=True))
    return pa.schema(fields)
