"""Delta tables through deltalake: what is in one, whether it fits, and commits to it.

deltalake reads the log and writes its checkpoints. Entries are written here, by the store's own
`create`: that refuses a second entry of one version on OSS, too, which does not know the condition
that deltalake asks for; and one entry holds files, removals and new columns.
"""

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable as LoadedTable
from deltalake.exceptions import TableNotFoundError

from exporter.errors import DestinationError
from exporter.records.schema import SCHEMA
from exporter.sinks import TableMode
from exporter.sinks.delta_fit import (
    check_features,
    check_fields,
    check_partition_columns,
    check_partitions,
)
from exporter.sinks.delta_log import (
    APP_ID,
    DAY,
    LOG,
    TYPES,
    DataFile,
    Metadata,
    Partition,
    build_entry,
    build_field,
    build_fields,
    name_entry,
    number_of,
)
from exporter.sinks.delta_storage import DeltaStorage
from exporter.sinks.lake import READ_ROWS, Conflict, fit_rows
from exporter.sinks.lake_files import PREFIX, EndedFile

logger = logging.getLogger(__name__)

CHECKPOINT_INTERVAL: Final = 10
"""Versions between two checkpoints where the table does not say: as Spark writes them."""

LEFTOVER_AGE: Final = timedelta(days=6)
"""A removed file is named by the log for a week, so that until then it is told from one that was
never committed. What is older is left to the table's own vacuum.
"""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a table, and the metadata that our next commit gives it."""

    version: int
    """-1 for a table that is yet to be made."""
    metadata: Metadata
    is_changed: bool
    """Whether these metadata are other than the version's: columns were added."""
    schema: pa.Schema
    """All columns, those it is partitioned by too."""
    files: tuple[DataFile, ...]

    @property
    def file_schema(self) -> pa.Schema:
        """The columns as data files have them."""
        columns = self.metadata.partition_columns
        return pa.schema([field for field in self.schema if field.name not in columns])

    def fits(self, other: "Snapshot") -> bool:
        """Whether files that were written for `other` can be committed here."""
        return (
            self.schema == other.schema
            and self.metadata.partition_columns == other.metadata.partition_columns
        )


class LakeTable:
    """One table of a store, there or yet to be made."""

    def __init__(
        self,
        output: str,
        *,
        storage: DeltaStorage,
        partition_by: Sequence[str],
        new_id: Callable[[], str],
        now: Callable[[], datetime],
    ) -> None:
        self.output = output
        self.store = storage.store
        self._storage = storage
        self._partition_by = tuple(partition_by)
        self._new_id = new_id
        self._now = now

    def load(self) -> Snapshot:
        """The table as it is now, with the columns of ours that it lacks about to be added.

        Raises DestinationError for one that is none, or whose columns do not fit, UsageError for
        one that is partitioned in another way than asked for.
        """
        table = self._open()
        if table is None:
            self._require_empty()
            return self._build_new()
        metadata = read_metadata(table)
        protocol = table.protocol()
        check_features(
            self.output,
            metadata,
            versions=(protocol.min_reader_version, protocol.min_writer_version),
            reader_features=protocol.reader_features or (),
            writer_features=protocol.writer_features or (),
        )
        check_partitions(self.output, metadata, self._partition_by)
        check_fields(self.output, metadata)
        known = {field["name"] for field in metadata.fields}
        missing = [
            # Never required: the rows that are there have no value for it.
            build_field(field.name, TYPES[field.name], nullable=True)
            for field in SCHEMA
            if field.name not in known
        ]
        schema = pa.schema(pa.schema(table.schema().to_arrow()))
        for field in missing:
            schema = schema.append(pa.field(field["name"], arrow_type(field["name"])))
        return Snapshot(
            version=table.version(),
            metadata=replace(metadata, fields=(*metadata.fields, *missing)),
            is_changed=bool(missing),
            schema=schema,
            files=read_files(table, metadata.partition_columns, output=self.output),
        )

    def has_committed(self, run_id: str) -> bool:
        table = self._open()
        return table is not None and table.transaction_version(APP_ID) == number_of(run_id)

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows as they are now, a batch at a time; none where the table is not there."""
        snapshot = self.load()
        schema = pa.schema([snapshot.schema.field(name) for name in names])
        for file in snapshot.files:
            yield from self.read_rows(file, snapshot, schema)

    def read_rows(
        self, file: DataFile, snapshot: Snapshot, schema: pa.Schema
    ) -> Iterator[pa.RecordBatch]:
        """A data file's rows with the columns of `schema`, a batch at a time."""
        constants: dict[str, Any] = {
            name: pa.scalar(text, pa.string()).cast(snapshot.schema.field(name).type)
            for name, text in zip(snapshot.metadata.partition_columns, file.partition, strict=True)
        }
        stored = [name for name in schema.names if name not in constants]
        with self.store.open_input(unquote(file.path)) as stream, pq.ParquetFile(stream) as found:
            names = [name for name in stored if name in found.schema_arrow.names]
            for group in range(found.num_row_groups):
                # In one thread and a group at a time: otherwise the library reads far ahead.
                for rows in found.iter_batches(
                    READ_ROWS, row_groups=[group], columns=names, use_threads=False
                ):
                    whole = rows
                    for name in constants.keys() & schema.names:
                        whole = whole.append_column(name, pa.repeat(constants[name], len(rows)))
                    yield fit_rows(whole, schema)

    def commit(
        self,
        snapshot: Snapshot,
        *,
        mode: TableMode,
        added: Iterable[EndedFile[Partition]],
        removed: Iterable[DataFile],
        run_id: str,
        exporter_version: str,
    ) -> None:
        """One version. Raises Conflict when somebody else was faster, and then nothing changed."""
        version = snapshot.version + 1
        name = name_entry(version)
        entry = build_entry(
            mode=mode,
            version=version,
            metadata=snapshot.metadata,
            is_changed=snapshot.is_changed,
            added=added,
            removed=removed,
            run_id=run_id,
            exporter_version=exporter_version,
            now=self._now(),
        )
        try:
            is_created = self.store.create(name, entry)
        except DestinationError:
            # The answer may be lost and the entry written.
            if self.store.read(name) != entry:
                raise
            is_created = True
        if not is_created and self.store.read(name) != entry:
            raise Conflict(f"version {version} is there already")
        self._write_checkpoint(version, snapshot.metadata)

    def remove_leftovers(self) -> None:
        """Remove data files with our name that no version refers to; never raises."""
        self.store.remove_leftovers()
        try:
            names = self._find_leftovers()
            self.store.remove(names)
        except Exception:
            # A leftover costs some space, and a failure here would cost a good run.
            logger.debug("could not look for leftovers of %s", self.output, exc_info=True)
        else:
            for name in names:
                logger.info("removed '%s', which a run that died left behind", name)

    def _open(self) -> LoadedTable | None:
        # The store is asked first: it tells in one line what is wrong with a bucket or a key.
        if next(iter(self.store.list_files(LOG)), None) is None:
            return None
        options = dict(self._storage.read_options())
        try:
            return LoadedTable(self._storage.uri, storage_options=options or None)
        except TableNotFoundError:
            return None

    def _require_empty(self) -> None:
        for each in self.store.list_files():
            if not each.name.rpartition("/")[2].startswith(PREFIX):
                raise DestinationError(
                    f"'{self.output}' is no Delta table and holds '{each.name}'",
                    hint="name a new or an empty folder, or a Delta table",
                )

    def _build_new(self) -> Snapshot:
        fields = build_fields(self._partition_by)
        return Snapshot(
            version=-1,
            metadata=Metadata(
                table_id=self._new_id(),
                name=None,
                description=None,
                fields=fields,
                partition_columns=self._partition_by,
                configuration={},
                created_ms=int(self._now().timestamp() * 1000),
            ),
            is_changed=True,
            schema=pa.schema(
                [
                    pa.field(field["name"], arrow_type(field["name"]), nullable=field["nullable"])
                    for field in fields
                ]
            ),
            files=(),
        )

    def _write_checkpoint(self, version: int, metadata: Metadata) -> None:
        settings = metadata.configuration
        with suppress(ValueError):
            interval = int(settings.get("delta.checkpointInterval", CHECKPOINT_INTERVAL))
            if version == 0 or interval < 1 or version % interval:
                return
        try:
            table = self._open()
            if table is not None:
                table.create_checkpoint()
                if settings.get("delta.enableExpiredLogCleanup") != "false":
                    table.cleanup_metadata()
        except Exception:
            # The commit is done: readers read more entries until somebody writes the next one.
            logger.debug("no checkpoint of '%s'", self.output, exc_info=True)

    def _find_leftovers(self) -> list[str]:
        since = (self._now() - LEFTOVER_AGE).strftime("%Y%m%dT%H%M%SZ")
        ours = {
            each.name
            for each in self.store.list_files()
            if is_recent(each.name.rpartition("/")[2], since)
        }
        table = self._open() if ours else None
        if table is None:
            return sorted(ours)
        # What was removed stays: older versions consist of it.
        removed = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=True)
        active = pa.table(table.get_add_actions())["path"].to_pylist()
        return sorted(ours - {unquote(path) for path in (*active, *removed)} - {*removed})


def is_recent(file_name: str, since: str) -> bool:
    """Whether a file is of a run of ours that began after `since`, both as run ids tell it."""
    match = re.match(rf"{PREFIX}([0-9]{{8}}T[0-9]{{6}}Z)-", file_name)
    return match is not None and match[1] >= since


def arrow_type(name: str) -> pa.DataType:
    """A new column of ours as Arrow has it: the protocol's instants are microseconds."""
    if name == DAY:
        return pa.date32()
    found = SCHEMA.field(name).type
    return pa.timestamp("us", tz="UTC") if pa.types.is_timestamp(found) else found


def read_metadata(table: LoadedTable) -> Metadata:
    found = table.metadata()
    return Metadata(
        table_id=str(found.id),
        name=found.name,
        description=found.description,
        fields=tuple(json.loads(table.schema().to_json())["fields"]),
        partition_columns=tuple(found.partition_columns),
        configuration=found.configuration,
        created_ms=found.created_time,
    )


def read_files(
    table: LoadedTable, partition_columns: Sequence[str], *, output: str
) -> tuple[DataFile, ...]:
    actions = pa.table(table.get_add_actions(flatten=True))
    names = set(actions.column_names)

    def column(name: str) -> list[Any]:
        return actions[name].to_pylist() if name in names else [None] * actions.num_rows

    def instants(name: str) -> list[int | None]:
        if name not in names:
            return [None] * actions.num_rows
        values = actions[name].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        found: list[int | None] = values.to_pylist()
        return found

    partitions = zip(*(column(f"partition.{name}") for name in partition_columns), strict=True)
    files = []
    for path, size_bytes, partition, lower, upper, null_count in zip(
        column("path"),
        column("size_bytes"),
        partitions if partition_columns else [()] * actions.num_rows,
        instants("min.create_time"),
        instants("max.create_time"),
        column("null_count.create_time"),
        strict=True,
    ):
        if "://" in path:
            raise DestinationError(
                f"the table '{output}' has files elsewhere, such as '{path}'",
                hint="name another table: a shallow clone cannot be written to",
            )
        is_known = null_count == 0 and lower is not None and upper is not None
        files.append(
            DataFile(
                path=path,
                size_bytes=size_bytes,
                partition=tuple(map(partition_text, partition)),
                created_us=(lower, upper) if is_known else None,
            )
        )
    return tuple(files)


def partition_text(value: Any) -> str | None:
    return value.isoformat() if isinstance(value, date) else value or None


def open_table(
    output: str,
    *,
    storage: DeltaStorage,
    partition_by: Sequence[str],
    new_id: Callable[[], str],
) -> LakeTable:
    """See that the table can be written. Raises UsageError, DestinationError, CredentialsError."""
    check_partition_columns(partition_by)
    table = LakeTable(
        output,
        storage=storage,
        partition_by=partition_by,
        new_id=new_id,
        now=lambda: datetime.now(UTC),
    )
    table.load()
    return table
