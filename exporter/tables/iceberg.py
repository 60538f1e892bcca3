"""Iceberg tables by their name in a catalog of pyiceberg's own configuration.

A commit requires that the table's snapshot is still the one that was read. The library does not
retry it, and the lease is checked between reading and committing. Anything another run commits
after that check makes this commit a conflict.
"""

import contextlib
import logging
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg import exceptions
from pyiceberg.catalog import Catalog
from pyiceberg.expressions import (
    And,
    BooleanExpression,
    GreaterThanOrEqual,
    LessThanOrEqual,
    Reference,
)
from pyiceberg.expressions.literals import literal
from pyiceberg.io import FileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.table import ALWAYS_TRUE, FileScanTask, Table, TableProperties, Transaction
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles
from pyiceberg.typedef import Record

from exporter.records.schema import SCHEMA
from exporter.stores.interface import HeldLock
from exporter.tables.iceberg_catalog import (
    describe,
    open_catalog,
    parse_table_name,
    silenced,
    translated,
)
from exporter.tables.iceberg_compat import (
    build_partition_spec,
    build_row_schema,
    build_schema,
    check_table,
    type_of,
)
from exporter.tables.iceberg_orphans import build_write_id, remove_orphans
from exporter.tables.iceberg_rows import (
    TARGET_BYTES,
    TARGET_PROPERTY,
    DataFileWriter,
    RowReader,
    find_touched,
)
from exporter.tables.interface import Commit, CommitConflict, TableMode, TableRequest
from exporter.tables.spool import SpilledRows

logger = logging.getLogger(__name__)

# Without a handler Python would print the library's warnings, such as a conflict that we answer.
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
"""Manifests of that size before they are merged: an hourly run adds one or two."""


class _Rewrite(_OverwriteFiles):
    """The library's overwrite, without its retry and without obsolete manifests.

    A retry inside the library would commit files made from rows of another snapshot. Its overwrite
    keeps every manifest forever, even those that only name deleted files: after a year of hourly
    runs readers would read little else.
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
        raise exceptions.CommitFailedException(
            "the table has another snapshot than the one that was read"
        )


class IcebergTable:
    """One table of a catalog, which its first commit creates if it does not exist."""

    def __init__(
        self, catalog: Catalog, identifier: str, *, output: str, partition_by: Sequence[str]
    ) -> None:
        self._catalog = catalog
        self._identifier = identifier
        self._output = output
        self._partition_by = tuple(partition_by)
        self._location: str | None = None
        self._attempts: Counter[str] = Counter()

    @property
    def location(self) -> str:
        if self._location is None:
            self._location = self._prepare().table_metadata.location.rstrip("/")
        return self._location

    def find_commit(self, run_id: str) -> str | None:
        with translated(self._output):
            table = self._load()
            return None if table is None else find_commit(table.metadata, run_id)

    def prove_writable(self, run_id: str) -> None:
        with translated(self._output):
            transaction = self._prepare()
            metadata, io = transaction.table_metadata, io_of(transaction)
            folder = load_location_provider(metadata.location, metadata.properties).data_path
            proof = f"{folder}/livy-exporter-{run_id}.proof"
            try:
                with io.new_output(proof).create(overwrite=True) as stream:
                    stream.write(b"livy-exporter\n")
            finally:
                with contextlib.suppress(Exception):
                    io.delete(proof)

    def commit_rows(self, rows: SpilledRows, commit: Commit, *, mode: TableMode) -> None:
        with translated(self._output):
            transaction = self._prepare(commit)
            metadata = transaction.table_metadata
            if find_commit(metadata, commit.run_id) is not None:
                return
            self._attempts[commit.run_id] += 1
            if mode == "replace":
                removed = [task.file for task in plan_files(transaction)]
                kept: Iterable[pa.RecordBatch] = ()
            else:
                reader = RowReader(metadata, io_of(transaction))
                tasks = plan_files(transaction, build_range(rows))
                touched = list(find_touched(tasks, reader, rows)) if tasks else []
                removed = [each.task.file for each in touched]
                kept = chain.from_iterable(map(reader.read_rest, touched))
            commit_files(
                transaction,
                # Our rows come last: the next run is most likely to change these again, and finds
                # them together in the smallest file.
                (kept, rows.open_reader(build_row_schema(metadata.schema()))),
                removed,
                write_id=build_write_id(commit.run_id, self._attempts[commit.run_id]),
                properties={RUN_ID: commit.run_id, VERSION: commit.exporter_version},
                lock=commit.lock,
            )

    def compact(self, commit: Commit) -> None:
        with translated(self._output):
            table = self._load()
            small = [] if table is None else choose_small(list(table.scan().plan_files()))
            if table is None or not small:
                return
            reader = RowReader(table.metadata, table.io)
            commit_files(
                table.transaction(),
                map(reader.read, small),
                [task.file for task in small],
                write_id=uuid.uuid4(),
                properties={},
                lock=commit.lock,
            )

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with translated(self._output):
            table = self._load()
            if table is not None:
                yield from table.scan(selected_fields=tuple(names)).to_arrow_batch_reader()

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        try:
            with silenced():
                table = self._load()
                if table is not None and find_commit(table.metadata, run_id) is None:
                    remove_orphans(table, run_id, keep_s=keep_s)
        except Exception:
            # A leftover costs some space, and a failure here would cost a good run.
            logger.debug("could not look for leftovers of %s", run_id, exc_info=True)

    def close(self) -> None:
        """Close the catalog; may be repeated."""
        with silenced(), contextlib.suppress(Exception):
            self._catalog.close()

    def _load(self) -> Table | None:
        try:
            return self._catalog.load_table(self._identifier)
        except (exceptions.NoSuchTableError, exceptions.NoSuchNamespaceError):
            return None

    def _prepare(self, commit: Commit | None = None) -> Transaction:
        """A transaction on the table as it is now that adds the columns of ours that it lacks."""
        table = self._load()
        if table is None:
            return self._prepare_new(commit)
        check_table(self._output, table, partition_by=self._partition_by)
        transaction = table.transaction()
        missing = [field for field in SCHEMA if field.name not in table.schema().column_names]
        if missing:
            with transaction.update_schema() as update:
                for field in missing:
                    # Never required: existing rows have no value for it.
                    update.add_column(field.name, type_of(field))
        return transaction

    def _prepare_new(self, commit: Commit | None) -> Transaction:
        with contextlib.suppress(exceptions.NamespaceAlreadyExistsError):
            namespace = self._identifier.rpartition(".")[0]
            if not self._catalog.namespace_exists(namespace):
                self._catalog.create_namespace(namespace)
        codec = "zstd" if commit is None else commit.codec
        schema = build_schema()
        transaction = self._catalog.create_table_transaction(
            self._identifier,
            schema,
            location=self._location,
            partition_spec=build_partition_spec(self._partition_by, schema),
            properties={
                TARGET_PROPERTY: str(TARGET_BYTES),
                TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
                CODEC_PROPERTY: "uncompressed" if codec == "none" else codec,
            },
        )
        # The catalog has just chosen a location; later transactions keep to it.
        self._location = transaction.table_metadata.location.rstrip("/")
        return transaction


def open_table(request: TableRequest) -> IcebergTable:
    """Load the catalog and check that the table can be written; create a missing namespace.

    Raises UsageError for a catalog that is not configured.
    """
    output, partition_by = request.output, request.partition_by
    catalog, identifier = parse_table_name(output)
    with translated(output):
        build_partition_spec(partition_by, build_schema())
        table = IcebergTable(
            open_catalog(catalog), identifier, output=output, partition_by=partition_by
        )
        try:
            table.location  # noqa: B018 - loads the table once
        except BaseException:
            table.close()
            raise
    return table


def io_of(transaction: Transaction) -> FileIO:
    return transaction._table.io  # noqa: SLF001 - of a new table, only the transaction knows it


def plan_files(
    transaction: Transaction, row_filter: BooleanExpression = ALWAYS_TRUE
) -> list[FileScanTask]:
    """The data files of the current snapshot that may have such rows, in no order."""
    if transaction.table_metadata.current_snapshot() is None:
        return []
    table = transaction._table  # noqa: SLF001 - the files are read by the columns it has now
    return list(table.scan(row_filter).plan_files())


def commit_files(
    transaction: Transaction,
    sources: Iterable[Iterable[pa.RecordBatch]],
    removed: Sequence[DataFile],
    *,
    write_id: uuid.UUID,
    properties: dict[str, str],
    lock: HeldLock,
) -> None:
    """Commit rows in place of data files, as one snapshot.

    Raises CommitConflict when somebody else was faster; then nothing has changed.
    """
    io = io_of(transaction)
    writer = DataFileWriter(transaction.table_metadata, io, write_id=write_id)
    try:
        for batches in sources:
            writer.write(batches)
        producer = _Rewrite(
            operation=Operation.OVERWRITE if removed else Operation.APPEND,
            transaction=transaction,
            io=io,
            commit_uuid=write_id,
            snapshot_properties=properties,
        )
        for each in writer.close():
            producer.append_data_file(each)
        for each in removed:
            producer.delete_data_file(each)
        producer.commit()
        lock.ensure_held()
    except BaseException:
        writer.discard()
        raise
    try:
        transaction.commit_transaction()
    except (
        exceptions.CommitFailedException,
        exceptions.ValidationException,
        exceptions.TableAlreadyExistsError,
    ) as exc:
        writer.discard()
        raise CommitConflict(describe(exc)) from exc
    # After any other failure the commit may be made: files that a snapshot may name stay.


def find_commit(metadata: TableMetadata, run_id: str) -> str | None:
    """The snapshot that a run committed."""
    for each in reversed(metadata.snapshots):
        if each.summary is not None and each.summary.additional_properties.get(RUN_ID) == run_id:
            return str(each.snapshot_id)
    return None


def build_range(rows: SpilledRows) -> BooleanExpression:
    """A filter that every row of the same keys passes, and that files' statistics can answer."""
    schema = pa.schema([pa.field("session_id", pa.string())])
    bounds = pc.min_max(rows.open_reader(schema).read_all()["session_id"]).as_py()
    column = Reference("session_id")
    return And(
        GreaterThanOrEqual(term=column, value=literal(bounds["min"])),
        LessThanOrEqual(term=column, value=literal(bounds["max"])),
    )


def choose_small(tasks: Sequence[FileScanTask]) -> list[FileScanTask]:
    """The small files of the partitions that have too many of them."""

    def partition_of(task: FileScanTask) -> tuple[int, Record]:
        return task.file.spec_id, task.file.partition

    small = [task for task in tasks if task.file.record_count < SMALL_ROWS]
    counts = Counter(map(partition_of, small))
    return [task for task in small if counts[partition_of(task)] >= MAX_SMALL]
