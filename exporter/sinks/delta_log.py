"""Entries of a Delta table's log: what a commit writes, as the protocol has it; performs no I/O.

https://github.com/delta-io/delta/blob/master/PROTOCOL.md
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

from exporter.records.schema import INSTANT, SCHEMA
from exporter.sinks.lake_files import EndedFile

LOG: Final = "_delta_log/"

APP_ID: Final = "livy-exporter"
RUN_ID: Final = "livyExporterRunId"

DAY: Final = "dt"
"""The one column that no session has: the UTC date of `create_time`."""

Partition = tuple[str | None, ...]
"""The texts of a partition's values, in the order of the table's partition columns."""

Json = dict[str, Any]

_TYPES: Final = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.float64(): "double",
    pa.date32(): "date",
    INSTANT: "timestamp",
}

TYPES: Final = {field.name: _TYPES[field.type] for field in SCHEMA}
"""The columns of a session and how the protocol calls their types."""

_LONGEST_BOUND: Final = 64
"""Texts beyond it, in characters, are no bounds: they would only fill the log."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a table's log says about the table as a whole."""

    table_id: str
    name: str | None
    description: str | None
    fields: tuple[Json, ...]
    """Of the schema, as the protocol writes them."""
    partition_columns: tuple[str, ...]
    configuration: Mapping[str, str]
    created_ms: int | None


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that the table consists of."""

    path: str
    """As the log has it: relative to the table, escaped as in a URL."""
    size_bytes: int
    partition: Partition
    created_us: tuple[int, int] | None
    """The smallest and the largest `create_time`; None where they, or that there is no null among
    them, are not known."""


def name_entry(version: int) -> str:
    return f"{LOG}{version:020}.json"


def number_of(run_id: str) -> int:
    """A run as the protocol can name it, by a number."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7], "big")


def build_field(name: str, type_name: str, *, nullable: bool) -> Json:
    return {"name": name, "type": type_name, "nullable": nullable, "metadata": {}}


def build_fields(partition_by: Sequence[str]) -> tuple[Json, ...]:
    """The columns of a new table."""
    fields = [
        build_field(field.name, TYPES[field.name], nullable=field.nullable) for field in SCHEMA
    ]
    if DAY in partition_by:
        fields.append(build_field(DAY, "date", nullable=True))
    return tuple(fields)


def build_entry(
    *,
    mode: Literal["replace", "upsert"],
    version: int,
    metadata: Metadata,
    is_changed: bool,
    added: Iterable[EndedFile[Partition]],
    removed: Iterable[DataFile],
    run_id: str,
    exporter_version: str,
    now: datetime,
) -> bytes:
    """One commit. `is_changed` says that the metadata are not those of the version before."""
    now_ms = int(now.timestamp() * 1000)
    added, removed = list(added), list(removed)
    actions: list[Json] = [
        {
            "commitInfo": {
                "timestamp": now_ms,
                "operation": "WRITE" if mode == "replace" else "MERGE",
                "operationParameters": {
                    "mode": "Overwrite" if mode == "replace" else "Append",
                    "partitionBy": json.dumps(metadata.partition_columns),
                },
                **({"readVersion": version - 1} if version > 0 else {}),
                "isolationLevel": "Serializable",
                "isBlindAppend": False,
                "operationMetrics": {
                    "numFiles": str(len(added)),
                    "numRemovedFiles": str(len(removed)),
                    "numOutputRows": str(sum(file.row_count for file in added)),
                    "numOutputBytes": str(sum(file.facts.size_bytes for file in added)),
                },
                "engineInfo": f"livy-exporter/{exporter_version}",
                RUN_ID: run_id,
            }
        }
    ]
    if version == 0:
        actions.append({"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}})
    if is_changed:
        actions.append({"metaData": _build_metadata(metadata)})
    actions.append({"txn": {"appId": APP_ID, "version": number_of(run_id), "lastUpdated": now_ms}})
    columns = metadata.partition_columns
    actions += [{"remove": _build_remove(file, columns, now_ms)} for file in removed]
    actions += [{"add": _build_add(file, columns, now_ms)} for file in added]
    return b"".join(json.dumps(action, allow_nan=False).encode() + b"\n" for action in actions)


def _build_metadata(metadata: Metadata) -> Json:
    return {
        "id": metadata.table_id,
        "name": metadata.name,
        "description": metadata.description,
        "format": {"provider": "parquet", "options": {}},
        "schemaString": json.dumps({"type": "struct", "fields": list(metadata.fields)}),
        "partitionColumns": list(metadata.partition_columns),
        "createdTime": metadata.created_ms,
        "configuration": dict(metadata.configuration),
    }


def _build_add(file: EndedFile[Partition], columns: Sequence[str], now_ms: int) -> Json:
    return {
        "path": quote(file.facts.path, safe="/=-_.~"),
        "partitionValues": dict(zip(columns, file.partition, strict=True)),
        "size": file.facts.size_bytes,
        "modificationTime": now_ms,
        "dataChange": True,
        "stats": json.dumps(build_stats(file.metadata), allow_nan=False),
    }


def _build_remove(file: DataFile, columns: Sequence[str], now_ms: int) -> Json:
    return {
        "path": file.path,
        "deletionTimestamp": now_ms,
        "dataChange": True,
        "extendedFileMetadata": True,
        "partitionValues": dict(zip(columns, file.partition, strict=True)),
        "size": file.size_bytes,
    }


def build_stats(metadata: pq.FileMetaData) -> Json:
    """What readers skip files by: bounds and nulls of our columns."""
    smallest: Json = {}
    largest: Json = {}
    null_counts: dict[str, int] = {}
    for column in range(metadata.num_columns):
        name = metadata.schema.column(column).path
        if name not in TYPES:
            continue
        groups = [
            metadata.row_group(group).column(column).statistics
            for group in range(metadata.num_row_groups)
        ]
        if not all(group is not None and group.has_null_count for group in groups):
            continue
        null_counts[name] = sum(group.null_count for group in groups)
        # A group of nulls alone has no bounds, and needs none.
        filled = [group for group in groups if group.num_values > 0]
        if filled and all(group.has_min_max for group in filled):
            bounds = min(group.min for group in filled), max(group.max for group in filled)
            if all(map(_is_bound, bounds)):
                smallest[name], largest[name] = map(_build_bound, bounds)
    return {
        "numRecords": metadata.num_rows,
        "minValues": smallest,
        "maxValues": largest,
        "nullCount": null_counts,
    }


def _is_bound(value: Any) -> bool:
    """Whether the log can have a value as it is."""
    match value:
        case str():
            return len(value) <= _LONGEST_BOUND
        case float():
            return math.isfinite(value)
        case datetime():
            return value.microsecond % 1000 == 0
        case _:
            return True


def _build_bound(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value
