"""Columns and partitions of Iceberg tables: those of new tables, and whether existing ones fit."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform, IdentityTransform, Transform
from pyiceberg.types import (
    DoubleType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from exporter.errors import DestinationError
from exporter.model import KEY_COLUMNS
from exporter.records.schema import INSTANT, SCHEMA
from exporter.tables.columns import (
    DAY,
    TableColumn,
    build_stored_field,
    require_fit,
    require_partition_columns,
    require_same_partitions,
)

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
    """The schema of our rows in a table of these columns."""
    return pa.schema(
        [
            build_stored_field(field, nullable=not schema.find_field(field.name).required)
            for field in SCHEMA
        ]
    )


def build_schema() -> Schema:
    """The columns of a new table, with the key as its identifier."""
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
    """The partitions of a new table. Raises UsageError for a column that does not exist."""
    require_partition_columns(partition_by, SCHEMA.names)
    return PartitionSpec(
        *(
            PartitionField(
                source_id=schema.find_field("create_time" if name == DAY else name).field_id,
                field_id=number,
                transform=choose_transform(name),
                name=name,
            )
            for number, name in enumerate(partition_by, start=1000)
        )
    )


def choose_transform(name: str) -> Transform[Any, Any]:
    return DayTransform() if name == DAY else IdentityTransform()


def check_table(output: str, table: Table, *, partition_by: Sequence[str]) -> None:
    """Raises DestinationError for a table that our rows do not fit or that the library cannot
    write to; UsageError for other partitions than asked for, if any are.
    """
    version = table.format_version
    if version > MAX_FORMAT_VERSION:
        raise DestinationError(
            f"the table '{output}' is of Iceberg's format version {version}, and versions up to"
            f" {MAX_FORMAT_VERSION} can be written",
            hint="name another table",
        )
    found = [
        field.name
        if str(field.transform) == str(choose_transform(field.name))
        else f"{field.transform}({field.name})"
        for field in table.spec().fields
    ]
    require_same_partitions(output, found, partition_by)
    columns = [
        TableColumn(field.name, str(field.field_type), is_required=field.required)
        for field in table.schema().fields
    ]
    require_fit(output, columns, {field.name: str(type_of(field)) for field in SCHEMA})
