"""Compatibility of a Paimon table with our rows, and the SQL to create one; performs no I/O."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson
import pyarrow as pa
from pypaimon_rust.datafusion import DataField, TableSchema

from exporter.errors import DestinationError, UsageError
from exporter.model import KEY_COLUMNS, SCOPE_COLUMNS, ParquetCodec
from exporter.records.schema import INSTANT, SCHEMA
from exporter.tables.columns import (
    TableColumn,
    build_misfit,
    require_fit,
    require_same_partitions,
)

_TYPES: Final = {
    "string": "STRING",
    "int64": "BIGINT",
    "double": "DOUBLE",
    str(INSTANT): "TIMESTAMPTZ(3)",
}
TYPES: Final = {field.name: _TYPES[str(field.type)] for field in SCHEMA}
"""The columns of a session, with the library's SQL names of their types."""

_ARROW: Final[dict[str, pa.DataType]] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "STRING": pa.string(),
    "VARCHAR(2147483647)": pa.string(),
    "DATE": pa.date32(),
    "BYTES": pa.binary(),
}
# Without nanoseconds, which end in the year 2262.
_TIMESTAMP: Final = re.compile(r"TIMESTAMP\(([0-6])\)( WITH LOCAL TIME ZONE)?")

_REFUSED_OPTIONS: Final = {
    ("sequence.field", None): "its sequence.field can keep an older row of a session",
    ("rowkind.field", None): "its rowkind.field takes a column for what a row does",
    ("deletion-vectors.enabled", "true"): "with deletion-vectors.enabled, rows are seen once"
    " something has compacted it",
    ("bucket", "-2"): "with bucket = -2, rows are seen once something has compacted it",
}
"""By option and value, or None for any value."""

_BUCKETS: Final = "1"
"""One file a commit and partition. A bucket is good for some 200 MiB: ten million sessions."""

RUN_OPTIONS: Final = {
    # A full run overwrites all rows, not only the partitions that it has rows for.
    "dynamic-partition-overwrite": "false",
    # The library would retry on top of what others have committed meanwhile.
    "commit.max-retries": "0",
}
"""Options of a run's commits, which override the table's."""


def check_partitions(output: str, partition_by: Sequence[str], found: Sequence[str] | None) -> None:
    """Raises UsageError for partitions that a table cannot have, or does not have.

    `found` is None for a new table.
    """
    wrong = [name for name in partition_by if name not in SCOPE_COLUMNS]
    if wrong:
        raise UsageError(
            f"a Paimon table cannot be partitioned by '{wrong[0]}': a row never leaves its"
            " partition, and a session's may change",
            hint=f"take {' or '.join(SCOPE_COLUMNS)}, or leave --partition-by away: one table holds"
            " millions of sessions well",
        )
    if found is not None:
        require_same_partitions(output, found, partition_by)


def check_table(output: str, schema: TableSchema) -> None:
    """Raises DestinationError for a table that cannot take our rows as one row a session."""
    for obstacle in list_obstacles(schema):
        raise DestinationError(
            f"the table '{output}' does not fit: {obstacle}",
            hint="name a table that is not there: the run makes it, with the primary key"
            f" ({', '.join(KEY_COLUMNS)})",
        )
    require_fit(output, [describe_column(field) for field in schema.fields()], TYPES)
    for field in schema.fields():
        if find_type(field) is None:
            reason = f"its '{field.name()}' is {type_text_of(field)}, which is not written here"
            raise build_misfit(output, reason)


def list_obstacles(schema: TableSchema) -> Iterator[str]:
    """Reasons why readers would not find one row a session, the newest one."""
    key, options = schema.primary_keys(), schema.options()
    if set(key) != set(KEY_COLUMNS):
        yield f"its primary key is ({', '.join(key)})" if key else "it has no primary key"
    for name in schema.partition_keys():
        if name not in KEY_COLUMNS:
            yield f"it is partitioned by '{name}', so that a session that changes would be twice"
    engine = options.get("merge-engine", "deduplicate")
    if engine != "deduplicate":
        yield f"its merge-engine is '{engine}', which keeps what a session was"
    for (name, value), reason in _REFUSED_OPTIONS.items():
        if name in options and value in {None, options[name]}:
            yield reason


def describe_column(field: DataField) -> TableColumn:
    """A column, with our name of its type if our values fit."""
    name, found = field.name(), find_type(field)
    wanted = SCHEMA.field(name).type if name in TYPES else None
    # Any precision of an instant will do: some engines know only one.
    is_instant = found is not None and pa.types.is_timestamp(found) and found.tz is not None
    fits = wanted is not None and (is_instant if wanted == INSTANT else found == wanted)
    return TableColumn(
        name,
        TYPES[name] if fits else type_text_of(field),
        is_required=not field.is_nullable(),
    )


def type_text_of(field: DataField) -> str:
    return field.field_type().removesuffix(" NOT NULL")


def find_type(field: DataField) -> pa.DataType | None:
    """Arrow's type of a column; None for one that is not written here."""
    type_text = type_text_of(field)
    matched = _TIMESTAMP.fullmatch(type_text)
    if matched is None:
        return _ARROW.get(type_text)
    unit = "ms" if int(matched[1]) <= 3 else "us"
    return pa.timestamp(unit, tz="UTC" if matched[2] else None)


def build_arrow_schema(schema: TableSchema) -> pa.Schema:
    """The schema that the library's writer takes: all columns of a table that fits, in order."""
    return pa.schema(
        [
            pa.field(each.name(), find_type(each), nullable=each.is_nullable())
            for each in schema.fields()
        ]
    )


def fit_rows(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Our rows with the table's columns, by name; null where a session has none."""
    columns = [
        rows[field.name].cast(field.type)
        if field.name in TYPES
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def build_proof(schema: pa.Schema) -> pa.RecordBatch:
    """A row that fits, and is never committed."""
    columns = [
        pa.nulls(1, field.type)
        if field.nullable
        else pa.array(["proof" if field.type == pa.string() else 0], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def has_fixed_buckets(schema: TableSchema) -> bool:
    """Whether a row's key alone determines its bucket."""
    return not schema.options().get("bucket", "-1").startswith("-")


def build_create(table: str, *, partition_by: Sequence[str], codec: ParquetCodec) -> str:
    """The statement that creates a table of this quoted name, unless it exists."""
    columns = [
        f"{each.name} {TYPES[each.name]}{'' if each.nullable else ' NOT NULL'}" for each in SCHEMA
    ]
    layout = f" PARTITIONED BY ({', '.join(partition_by)})" if partition_by else ""
    compression = "zstd" if codec == "brotli" else codec  # Paimon has no brotli
    return (
        f"CREATE TABLE IF NOT EXISTS {table}"
        f" ({', '.join(columns)}, PRIMARY KEY ({', '.join(KEY_COLUMNS)})){layout}"
        f" WITH ('bucket' = '{_BUCKETS}', 'file.compression' = '{compression}')"
    )


def build_schema_json(row: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """A row of the table's `$schemas` as the library reads a schema, with more options."""
    fields = orjson.loads(row["fields"])
    schema = {
        "version": 3,
        "id": row["schema_id"],
        "fields": fields,
        "highestFieldId": max(each["id"] for each in fields),
        "partitionKeys": orjson.loads(row["partition_keys"]),
        "primaryKeys": orjson.loads(row["primary_keys"]),
        "options": {**orjson.loads(row["options"]), **options},
        "comment": row["comment"],
        "timeMillis": 0,
    }
    return orjson.dumps(schema).decode()
