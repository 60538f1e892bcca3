"""Whether our rows fit a Paimon table, and the SQL that makes one; performs no I/O."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pyarrow as pa

from exporter.errors import DestinationError, UsageError
from exporter.model import KEY_COLUMNS, SCOPE_COLUMNS, ParquetCodec
from exporter.records.schema import INSTANT, SCHEMA
from exporter.tables.columns import build_misfit, require_distinct_names

_TYPES: Final = {
    "string": "STRING",
    "int64": "BIGINT",
    "double": "DOUBLE",
    str(INSTANT): "TIMESTAMPTZ(3)",
}
"""By Arrow's names, as the library's SQL has them."""

_ARROW: Final[dict[str, pa.DataType]] = {
    "BOOLEAN": pa.bool_(),
    "TINYINT": pa.int8(),
    "SMALLINT": pa.int16(),
    "INT": pa.int32(),
    "BIGINT": pa.int64(),
    "FLOAT": pa.float32(),
    "DOUBLE": pa.float64(),
    "STRING": pa.string(),
    "DATE": pa.date32(),
    "BYTES": pa.binary(),
}

_ZONED: Final = re.compile(r"TIMESTAMP\((\d)\) WITH LOCAL TIME ZONE")
_NAIVE: Final = re.compile(r"TIMESTAMP\((\d)\)")

_BUCKETS: Final = "1"
"""One file a commit and partition. A bucket is good for some 200 MiB: ten million sessions."""

FIXED: Final = {
    # A full run overwrites all rows, not those of the partitions that it has rows for.
    "dynamic-partition-overwrite": "false",
    # The library would try again on top of what others have committed meanwhile.
    "commit.max-retries": "0",
}
"""Options of a run's commits, whatever those of the table."""


@dataclass(frozen=True, slots=True)
class Column:
    """One of a table."""

    name: str
    type_text: str
    """Without NOT NULL."""
    is_nullable: bool


@dataclass(frozen=True, slots=True)
class Shape:
    """What decides whether rows fit a table."""

    columns: tuple[Column, ...]
    primary_key: tuple[str, ...]
    partition_by: tuple[str, ...]
    options: dict[str, str]

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.columns]


def check_partitions(output: str, partition_by: Sequence[str], found: Sequence[str] | None) -> None:
    """Raises UsageError for partitions that a table cannot have, or has not. `found` is None for a
    table that is yet to be made.
    """
    wrong = [name for name in partition_by if name not in SCOPE_COLUMNS]
    if wrong:
        raise UsageError(
            f"a Paimon table cannot be partitioned by '{wrong[0]}': a row never leaves its"
            " partition, and a session's may change",
            hint=f"take {' or '.join(SCOPE_COLUMNS)}, or leave --partition-by away: one table holds"
            " millions of sessions well",
        )
    if partition_by and found is not None and tuple(found) != tuple(partition_by):
        raise UsageError(
            f"the table '{output}' is partitioned by {', '.join(found) or 'nothing'},"
            f" not by {', '.join(partition_by)}",
            hint="leave --partition-by away: a table keeps the layout it was made with",
        )


def check_shape(output: str, shape: Shape) -> None:
    """Raises DestinationError for a table that cannot take our rows as one row a session."""
    if set(shape.primary_key) != set(KEY_COLUMNS):
        key = ", ".join(shape.primary_key)
        raise _refuse(output, f"its primary key is ({key})" if key else "it has no primary key")
    outside = [name for name in shape.partition_by if name not in KEY_COLUMNS]
    if outside:
        raise _refuse(
            output,
            f"it is partitioned by '{outside[0]}', so that a session that changes would be twice",
        )
    _check_options(output, shape)
    require_distinct_names(output, shape.names)
    for column in shape.columns:
        _check_column(output, column)


def _refuse(output: str, reason: str) -> DestinationError:
    return DestinationError(
        f"the table '{output}' does not fit: {reason}",
        hint="name a table that is not there: the run makes it, with the primary key"
        f" ({', '.join(KEY_COLUMNS)})",
    )


def _check_options(output: str, shape: Shape) -> None:
    options = shape.options
    engine = options.get("merge-engine", "deduplicate")
    reasons = {
        f"its merge-engine is '{engine}', which keeps what a session was": engine != "deduplicate",
        "its sequence.field can keep an older row of a session": "sequence.field" in options,
        "its rowkind.field takes a column for what a row does": "rowkind.field" in options,
        "with deletion-vectors.enabled, rows are seen once something has compacted it": options.get(
            "deletion-vectors.enabled"
        )
        == "true",
        "with bucket = -2, rows are seen once something has compacted it": options.get("bucket")
        == "-2",
    }
    for reason, is_so in reasons.items():
        if is_so:
            raise _refuse(output, reason)


def _check_column(output: str, column: Column) -> None:
    if column.name not in SCHEMA.names:
        if not column.is_nullable:
            raise build_misfit(output, f"it requires '{column.name}', which no session has")
        if find_type(column.type_text) is None:
            raise build_misfit(
                output, f"its '{column.name}' is {column.type_text}, which is not written here"
            )
        return
    wanted = SCHEMA.field(column.name)
    found = find_type(column.type_text)
    fits = found == wanted.type
    if wanted.type == INSTANT and found is not None and pa.types.is_timestamp(found):
        # Engines that know one precision only make tables of it.
        fits = found.tz is not None
    if not fits:
        text = _TYPES[str(wanted.type)]
        raise build_misfit(output, f"its '{column.name}' is {column.type_text}, not {text}")
    if not column.is_nullable and wanted.nullable:
        raise build_misfit(output, f"it requires '{column.name}', which a session may lack")


def find_type(type_text: str) -> pa.DataType | None:
    """Arrow's type of a column; None for one that is not written here."""
    if type_text in _ARROW:
        return _ARROW[type_text]
    if re.fullmatch(r"VARCHAR\(2147483647\)", type_text):
        return pa.string()
    for pattern, zone in ((_ZONED, "UTC"), (_NAIVE, None)):
        matched = pattern.fullmatch(type_text)
        # Nanoseconds end in the year 2262.
        if matched is not None and int(matched[1]) <= 6:
            return pa.timestamp("ms" if int(matched[1]) <= 3 else "us", tz=zone)
    return None


def build_arrow_schema(shape: Shape) -> pa.Schema:
    """What the library's writer wants: all columns in their order. For a shape that fits."""
    return pa.schema(
        [
            pa.field(each.name, find_type(each.type_text), nullable=each.is_nullable)
            for each in shape.columns
        ]
    )


def fit_rows(rows: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Our rows with the table's columns, by name; null where a session has none."""
    columns = [
        rows[field.name].cast(field.type)
        if field.name in SCHEMA.names
        else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def has_fixed_buckets(shape: Shape) -> bool:
    """Whether a row's key alone tells its bucket."""
    return not shape.options.get("bucket", "-1").startswith("-")


def list_missing(shape: Shape) -> list[tuple[str, str]]:
    """Columns of ours that the table lacks, with their types; never required, since the rows that
    are there have no value for them.
    """
    names = set(shape.names)
    return [(each.name, _TYPES[str(each.type)]) for each in SCHEMA if each.name not in names]


def build_create(table: str, *, partition_by: Sequence[str], codec: ParquetCodec) -> str:
    """The statement that makes a table of this quoted name, unless it is there."""
    columns = [
        f"{each.name} {_TYPES[str(each.type)]}{'' if each.nullable else ' NOT NULL'}"
        for each in SCHEMA
    ]
    options = {
        "bucket": _BUCKETS,
        # Paimon has no brotli.
        "file.compression": "zstd" if codec == "brotli" else codec,
    }
    layout = f" PARTITIONED BY ({', '.join(partition_by)})" if partition_by else ""
    settings = ", ".join(f"'{name}' = '{value}'" for name, value in options.items())
    key = ", ".join(KEY_COLUMNS)
    return (
        f"CREATE TABLE IF NOT EXISTS {table} ({', '.join(columns)}, PRIMARY KEY ({key}))"
        f"{layout} WITH ({settings})"
    )


def build_schema_json(row: Mapping[str, Any], options: Mapping[str, str]) -> str:
    """A schema as the library reads it, of a row of the table's `$schemas`, with more options."""
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


def build_proof(shape: Shape) -> pa.RecordBatch:
    """A row that fits, and is never committed."""
    schema = build_arrow_schema(shape)
    columns = [
        pa.nulls(1, field.type)
        if field.nullable
        else pa.array(["proof" if field.type == pa.string() else 0], field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)
