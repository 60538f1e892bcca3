"""Columns and partitions of Iceberg tables: those that we make, and whether ours fit those that are
there; performs no I/O.
"""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    DoubleType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from exporter.errors import DestinationError, UsageError
from exporter.model import KEY_COLUMNS
from exporter.records.schema import INSTANT, SCHEMA
from exporter.tables.columns import DAY, build_misfit, require_distinct_names

STORED: Final = pa.timestamp("us", tz="UTC")
"""How tables keep instants."""

MAX_FORMAT_VERSION: Final = 2

_TYPES: Final[dict[str, IcebergType]] = {
    "string": StringType(),
    "int64": LongType(),
    "double": DoubleType(),
    str(INSTANT): TimestamptzType(),
}


def type_of(field: pa.Field) -> IcebergType:
    """The type of one of our columns."""
    return _TYPES[str(field.type)]


def build_row_schema(schema: Schema) -> pa.Schema:
    """Our rows for a table of these columns."""
    return pa.schema(
        [
            pa.field(
                field.name,
                STORED if field.type == INSTANT else field.type,
                nullable=not schema.find_field(field.name).required,
            )
            for field in SCHEMA
        ]
    )


def build_schema() -> Schema:
    """Our columns as a new table has them, with the key as its identifier."""
    fields = [
        NestedField(
            field_id=number,
            name=field.name,
            field_type=type_of(field),
            required=not field.nullable,
        )
        for number, field in enumerate(SCHEMA, start=1)
    ]
    keys = [field.field_id for field in fields if field.name in KEY_COLUMNS]
    return Schema(*fields, identifier_field_ids=keys)


def build_partition_spec(partition_by: Sequence[str], schema: Schema) -> PartitionSpec:
    """Raises UsageError for a column that does not exist."""
    fields = []
    for number, name in enumerate(partition_by, start=1000):
        if name != DAY and name not in schema.column_names:
            raise UsageError(
                f"there is no column '{name}' to partition by",
                hint=f"take {DAY} for the day of create_time, or one of"
                f" {', '.join(schema.column_names)}",
            )
        source = schema.find_field("create_time" if name == DAY else name)
        transform: DayTransform[Any] | IdentityTransform[Any]
        transform = DayTransform() if name == DAY else IdentityTransform()
        fields.append(
            PartitionField(
                source_id=source.field_id, field_id=number, transform=transform, name=name
            )
        )
    return PartitionSpec(*fields)


def check_table(output: str, table: Table, *, partition_by: Sequence[str]) -> None:
    """Raises DestinationError for a table that our rows do not fit or that the library cannot write
    to, UsageError for one with another layout than asked for, if one is.
    """
    version = table.format_version
    if version > MAX_FORMAT_VERSION:
        raise DestinationError(
            f"the table '{output}' is of Iceberg's format version {version}, and versions up to"
            f" {MAX_FORMAT_VERSION} can be written",
            hint="name another table",
        )
    _check_partitions(output, table.spec(), partition_by)
    require_distinct_names(output, table.schema().column_names)
    for field in table.schema().fields:
        _check_field(output, field)


def _check_partitions(output: str, spec: PartitionSpec, partition_by: Sequence[str]) -> None:
    if not partition_by:
        return
    wanted = [
        (field.name, str(field.transform))
        for field in build_partition_spec(partition_by, build_schema()).fields
    ]
    found = [(field.name, str(field.transform)) for field in spec.fields]
    if found != wanted:
        names = ", ".join(name for name, _ in found) or "nothing"
        raise UsageError(
            f"the table '{output}' is partitioned by {names}, not by {', '.join(partition_by)}",
            hint="leave --partition-by away: a table keeps the layout it was made with",
        )


def _check_field(output: str, found: NestedField) -> None:
    wanted = SCHEMA.field(found.name) if found.name in SCHEMA.names else None
    if wanted is None:
        if found.required:
            raise build_misfit(output, f"it requires '{found.name}', which no session has")
    elif found.field_type != type_of(wanted):
        raise build_misfit(
            output, f"its '{found.name}' is {found.field_type}, not {type_of(wanted)}"
        )
    elif found.required and wanted.nullable:
        raise build_misfit(output, f"it requires '{found.name}', which a session may lack")
