"""Iceberg tables by their name in a catalog of pyiceberg's own configuration.

A commit asks the catalog that the table's snapshot is still the one that was read, without the
library's retries, and the lease is made sure of between the two. What another run commits after
that makes this commit a conflict.
"""

import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.catalog import Catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.expressions import (
    And,
    BooleanExpression,
    GreaterThanOrEqual,
    LessThanOrEqual,
    Reference,
)
from pyiceberg.expressions.literals import literal
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import FileScanTask, Table, TableProperties, Transaction
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles
from pyiceberg.typedef import Record

from exporter.records.schema import SCHEMA
from exporter.stores.interface import HeldLock
from exporter.tables.iceberg_catalog import (
    TableName,
    describe,
    open_catalog,
    parse_table_name,
    quiet,
    translated,
)
from exporter.tables.iceberg_compat import (
    build_partition_spec,
    build_row_schema,
    build_schema,
    check_table,
    type_of,
)
from exporter.tables.iceberg_orphans import name_attempt, remove_files_of
from exporter.tables.iceberg_rows import (
    TARGET_BYTES,
    TARGET_PROPERTY,
    DataFileWriter,
    RowReader,
    find_touched,
)
from exporter.tables.interface import Commit, CommitConflict, TableRequest
from exporter.tables.spool import SpilledRows

logger = logging.getLogger(__name__)

# Who has no logging of their own would else read on the terminal what is answered here, such as a
# conflict.
logging.getLogger("pyiceberg").addHandler(logging.NullHandler())

RUN_ID: Final = "livy_exporter.run_id"
VERSION: Final = "livy_exporter.version"
"""Properties of the snapshot that a run commits."""

CODEC_PROPERTY: Final = "write.parquet.compression-codec"

MAX_SMALL: Final = 8
SMALL_ROWS: Final = 100_000
"""Data files of fewer rows that a partition may have before they are merged."""

_MANIFEST_BYTES: Final = 8 << 20
_MAX_MANIFESTS: Final = 16
"""Manifests of that size, and so many before they are merged: an hourly run adds one or two."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction that has fitted the table to our columns, and nothing else yet."""

    transaction: Transaction
    metadata: TableMetadata
    """With what the transaction changes."""
    table: Table

    def plan_files(self, row_filter: BooleanExpression | None = None) -> list[FileScanTask]:
        """The data files of the table's present snapshot that may have such rows, in no order."""
        if self.metadata.current_snapshot() is None:
            return []
        scan = self.table.scan() if row_filter is None else self.table.scan(row_filter)
        return list(scan.plan_files())


class _Rewrite(_OverwriteFiles):
    """The library's overwrite, without its retry and without manifests that nobody needs.

    A retry inside the library would commit files that were made from rows of another snapshot. Its
    overwrite keeps every manifest forever, also those that only name files long gone: after a year
    of hourly runs that is all a reader would read.
    """

    def _existing_manifests(self) -> list[ManifestFile]:
        return [
            each
            for each in super()._existing_manifests()
            if each.has_added_files() or each.has_existing_files()
        ]

    def _process_manifests(self, manifests: list[ManifestFile]) -> list[ManifestFile]:
        data = [each for each in manifests if each.content == ManifestContent.DATA]
        merging = _ManifestMergeManager(
            target_size_bytes=_MANIFEST_BYTES,
            min_count_to_merge=_MAX_MANIFESTS,
            merge_enabled=True,
            snapshot_producer=self,
        )
        deletes = [each for each in manifests if each.content == ManifestContent.DELETES]
        return merging.merge_manifests(data) + deletes

    def _refresh_for_retry(self) -> None:
        raise CommitFailedException("the table has another snapshot than the one that was read")


class IcebergLakeTable:
    """One table of a catalog, there or yet to be made."""

    def __init__(self, catalog: Catalog, name: TableName, *, partition_by: Sequence[str]) -> None:
        self._catalog = catalog
        self._name = name
        self._partition_by = tuple(partition_by)
        self._location: str | None = None
        self._attempts: Counter[str] = Counter()

    @property
    def location(self) -> str:
        if self._location is None:
            self._location = self._prepare().metadata.location.rstrip("/")
        return self._location

    def find_commit(self, run_id: str) -> str | None:
        with translated(self._name.output):
            table = self._load()
            return None if table is None else find_commit(table.metadata, run_id)

    def prove_writable(self, run_id: str) -> None:
        with translated(self._name.output):
            prepared = self._prepare()
            metadata, io = prepared.metadata, prepared.table.io
            folder = load_location_provider(metadata.location, metadata.properties).data_path
            proof = f"{folder}/livy-exporter-{run_id}.proof"
            try:
                with io.new_output(proof).create(overwrite=True) as stream:
                    stream.write(b"livy-exporter\n")
            finally:
                with contextlib.suppress(Exception):
                    io.delete(proof)

    def replace(self, rows: SpilledRows, commit: Commit) -> None:
        with translated(self._name.output):
            prepared = self._prepare(commit)
            if find_commit(prepared.metadata, commit.run_id) is None:
                removed = [task.file for task in prepared.plan_files()]
                self._write(prepared, commit, rows, removed=removed)

    def upsert(self, rows: SpilledRows, commit: Commit) -> None:
        with translated(self._name.output):
            prepared = self._prepare(commit)
            if find_commit(prepared.metadata, commit.run_id) is None:
                self._write(prepared, commit, rows, tasks=prepared.plan_files(build_range(rows)))

    def compact(self, commit: Commit) -> None:
        with translated(self._name.output):
            table = self._load()
            if table is None:
                return
            prepared = Prepared(table.transaction(), table.metadata, table)
            small = choose_small(prepared.plan_files())
            if not small:
                return
            writer = DataFileWriter(table.metadata, table.io, write_id=uuid.uuid4())
            reader = RowReader(table.metadata, table.io)
            for task in small:
                writer.write(reader.read(task))
            removed = [task.file for task in small]
            self._commit(prepared, writer, removed=removed, properties={}, lock=commit.lock)

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with translated(self._name.output):
            table = self._load()
            if table is not None:
                yield from table.scan(selected_fields=tuple(names)).to_arrow_batch_reader()

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        try:
            with quiet():
                table = self._load()
                if table is not None and find_commit(table.metadata, run_id) is None:
                    remove_files_of(table, run_id, keep_s=keep_s)
        except Exception:
            # A leftover costs some space, and a failure here would cost a good run.
            logger.debug("could not look for leftovers of %s", run_id, exc_info=True)

    def close(self) -> None:
        """Free what is held; may be repeated."""
        with quiet(), contextlib.suppress(Exception):
            self._catalog.close()

    def _load(self) -> Table | None:
        try:
            return self._catalog.load_table(self._name.identifier)
        except (NoSuchTableError, NoSuchNamespaceError):
            return None

    def _prepare(self, commit: Commit | None = None) -> Prepared:
        """The table as it is now, with the columns of ours that it lacks about to be added."""
        try:
            table = self._catalog.load_table(self._name.identifier)
        except NoSuchTableError:
            return self._prepare_new(commit)
        check_table(self._name.output, table, partition_by=self._partition_by)
        transaction = table.transaction()
        missing = [field for field in SCHEMA if field.name not in table.schema().column_names]
        if missing:
            with transaction.update_schema() as update:
                for field in missing:
                    # Never required: the rows that are there have no value for it.
                    update.add_column(field.name, type_of(field))
        return Prepared(transaction, transaction.table_metadata, table)

    def _prepare_new(self, commit: Commit | None) -> Prepared:
        with contextlib.suppress(NamespaceAlreadyExistsError):
            if not self._catalog.namespace_exists(self._name.namespace):
                self._catalog.create_namespace(self._name.namespace)
        codec = "zstd" if commit is None else commit.codec
        schema = build_schema()
        transaction = self._catalog.create_table_transaction(
            self._name.identifier,
            schema,
            location=self._location,
            partition_spec=build_partition_spec(self._partition_by, schema),
            properties={
                TARGET_PROPERTY: str(TARGET_BYTES),
                TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
                CODEC_PROPERTY: "uncompressed" if codec == "none" else codec,
            },
        )
        # Its location was chosen now: what is asked again gets the same.
        self._location = transaction.table_metadata.location.rstrip("/")
        return Prepared(transaction, transaction.table_metadata, transaction._table)  # noqa: SLF001 - its storage

    def _write(
        self,
        prepared: Prepared,
        commit: Commit,
        rows: SpilledRows,
        *,
        removed: Sequence[DataFile] = (),
        tasks: Sequence[FileScanTask] = (),
    ) -> None:
        """Commit the rows in place of files, and in place of rows of the same keys in others."""
        metadata, io = prepared.metadata, prepared.table.io
        self._attempts[commit.run_id] += 1
        write_id = name_attempt(commit.run_id, self._attempts[commit.run_id])
        writer = DataFileWriter(metadata, io, write_id=write_id)
        replaced = list(removed)
        try:
            reader = RowReader(metadata, io)
            for touched in find_touched(tasks, reader, rows) if tasks else ():
                writer.write(reader.read_rest(touched))
                replaced.append(touched.task.file)
            # The run's own come last: the next run is most likely to change these again, and finds
            # them together in the smallest file.
            writer.write(rows.open_reader(build_row_schema(metadata.schema())))
            properties = {RUN_ID: commit.run_id, VERSION: commit.exporter_version}
        except BaseException:
            discard(writer, prepared)
            raise
        self._commit(prepared, writer, removed=replaced, properties=properties, lock=commit.lock)

    def _commit(
        self,
        prepared: Prepared,
        writer: DataFileWriter,
        *,
        removed: Sequence[DataFile],
        properties: dict[str, str],
        lock: HeldLock,
    ) -> None:
        """One snapshot. Raises Conflict when somebody else was faster, and then nothing changed."""
        try:
            producer = _Rewrite(
                operation=Operation.OVERWRITE if removed else Operation.APPEND,
                transaction=prepared.transaction,
                io=prepared.table.io,
                commit_uuid=writer.write_id,
                snapshot_properties=properties,
            )
            for each in writer.close():
                producer.append_data_file(each)
            for each in removed:
                producer.delete_data_file(each)
            producer.commit()
            lock.ensure_held()
        except BaseException:
            discard(writer, prepared)
            raise
        try:
            prepared.transaction.commit_transaction()
        except (CommitFailedException, ValidationException, TableAlreadyExistsError) as exc:
            discard(writer, prepared)
            raise CommitConflict(describe(exc)) from exc
        # After any other failure the commit may be done: files that a snapshot may name stay.


def open_table(request: TableRequest) -> IcebergLakeTable:
    """Load the catalog and see that the table can be written. A namespace that is missing is
    created. Raises UsageError for a catalog that is not configured.
    """
    name = parse_table_name(request.output)
    with translated(request.output):
        build_partition_spec(request.partition_by, build_schema())
        opened = IcebergLakeTable(
            open_catalog(name.catalog), name, partition_by=request.partition_by
        )
        try:
            opened.location  # noqa: B018 - asks for the table once
        except BaseException:
            opened.close()
            raise
    return opened


def find_commit(metadata: TableMetadata, run_id: str) -> str | None:
    """The snapshot that a run committed."""
    for each in reversed(metadata.snapshots):
        if each.summary is not None and each.summary.additional_properties.get(RUN_ID) == run_id:
            return str(each.snapshot_id)
    return None


def build_range(rows: SpilledRows) -> BooleanExpression:
    """What holds for all rows of the same keys, as files' statistics can tell."""
    schema = pa.schema([pa.field("session_id", pa.string())])
    bounds = pc.min_max(rows.open_reader(schema).read_all()["session_id"]).as_py()
    column = Reference("session_id")
    return And(
        GreaterThanOrEqual(term=column, value=literal(bounds["min"])),
        LessThanOrEqual(term=column, value=literal(bounds["max"])),
    )


def choose_small(tasks: Sequence[FileScanTask]) -> list[FileScanTask]:
    """The small files of those partitions that have too many of them."""

    def partition_of(task: FileScanTask) -> tuple[int, Record]:
        return task.file.spec_id, task.file.partition

    small = [task for task in tasks if task.file.record_count < SMALL_ROWS]
    counts = Counter(map(partition_of, small))
    return [task for task in small if counts[partition_of(task)] >= MAX_SMALL]


def discard(writer: DataFileWriter, prepared: Prepared) -> None:
    """Remove files that no snapshot can name."""
    for each in writer.files:
        with contextlib.suppress(Exception):
            prepared.table.io.delete(each.file_path)
