"""An Iceberg table as a run sees it: found or to be made, fitted to our columns, committed to."""

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.fs
from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
    ValidationException,
)
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.manifest import DataFile, ManifestContent, ManifestFile
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask, Table, TableProperties, Transaction
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update.snapshot import _ManifestMergeManager, _OverwriteFiles
from pyiceberg.transforms import DayTransform, IdentityTransform
from pyiceberg.types import (
    DoubleType,
    IcebergType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)
from pyiceberg.utils.config import Config

from exporter.errors import DestinationError, UsageError
from exporter.records.schema import INSTANT, SCHEMA
from exporter.sinks.iceberg_files import TARGET_PROPERTY
from exporter.sinks.iceberg_names import TableName, describe
from exporter.sinks.lake import KEY_COLUMNS, Conflict
from exporter.sinks.lake_files import PREFIX, TARGET_BYTES

logger = logging.getLogger(__name__)

# Who has no logging of their own would else read on the terminal what is answered here, such as a
# conflict.
logging.getLogger("pyiceberg").addHandler(logging.NullHandler())

RUN_ID: Final = "livy_exporter.run_id"
VERSION: Final = "livy_exporter.version"
"""Properties of the snapshot that a run commits."""

DAY: Final = "dt"
"""The one partition column that is no column: the UTC date of `create_time`."""

_TYPES: Final[dict[str, IcebergType]] = {
    "string": StringType(),
    "int64": LongType(),
    "double": DoubleType(),
    str(INSTANT): TimestamptzType(),
}

_MANIFEST_BYTES: Final = 8 << 20
_MOST_MANIFESTS: Final = 16
"""Manifests of that size, and so many before they are merged: an hourly run adds one or two."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A transaction that has fitted the table to our columns, and nothing else yet."""

    transaction: Transaction
    metadata: TableMetadata
    """With what the transaction changes."""
    table: Table

    def plan_files(self) -> list[FileScanTask]:
        """The data files of the table's present snapshot, in no order."""
        if self.metadata.current_snapshot() is None:
            return []
        return list(self.table.scan().plan_files())

    def fits(self, other: TableMetadata) -> bool:
        """Whether files that were written for `other` can be committed here."""
        mine = self.metadata
        return (
            mine.schema().as_struct() == other.schema().as_struct()
            and mine.spec().fields == other.spec().fields
            and mine.default_spec_id == other.default_spec_id
        )


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
            min_count_to_merge=_MOST_MANIFESTS,
            merge_enabled=True,
            snapshot_producer=self,
        )
        deletes = [each for each in manifests if each.content == ManifestContent.DELETES]
        return merging.merge_manifests(data) + deletes

    def _refresh_for_retry(self) -> None:
        raise CommitFailedException("the table has another snapshot than the one that was read")


class LakeTable:
    """One table of a catalog, there or yet to be made."""

    def __init__(self, catalog: Catalog, name: TableName, *, partition_by: Sequence[str]) -> None:
        self._catalog = catalog
        self._name = name
        self._partition_by = tuple(partition_by)
        self._location: str | None = None

    @property
    def output(self) -> str:
        return self._name.output

    @property
    def location(self) -> str:
        """Where its files are, or will be."""
        if self._location is None:
            self._location = self.prepare().metadata.location.rstrip("/")
        return self._location

    def prepare(self, *, properties: dict[str, str] | None = None) -> Prepared:
        """The table as it is now, with the columns of ours that it lacks about to be added.

        `properties` are for a table that is made. Raises DestinationError for one whose columns do
        not fit, UsageError for one that is partitioned in another way than asked for.
        """
        try:
            table = self._catalog.load_table(self._name.identifier)
        except NoSuchTableError:
            return self._prepare_new(properties or {})
        self._check_partitions(table)
        check_schema(self.output, table.schema())
        transaction = table.transaction()
        missing = [field for field in SCHEMA if field.name not in table.schema().column_names]
        if missing:
            with transaction.update_schema() as update:
                for field in missing:
                    # Never required: the rows that are there have no value for it.
                    update.add_column(field.name, _TYPES[str(field.type)])
        return Prepared(transaction, transaction.table_metadata, table)

    def has_committed(self, run_id: str) -> bool:
        try:
            table = self._catalog.load_table(self._name.identifier)
        except (NoSuchTableError, NoSuchNamespaceError):
            return False
        return any(
            each.summary is not None and each.summary.additional_properties.get(RUN_ID) == run_id
            for each in table.snapshots()
        )

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows as they are now, a batch at a time; none where the table is not there."""
        try:
            table = self._catalog.load_table(self._name.identifier)
        except (NoSuchTableError, NoSuchNamespaceError):
            return
        yield from table.scan(selected_fields=tuple(names)).to_arrow_batch_reader()

    def commit(
        self,
        prepared: Prepared,
        *,
        added: Sequence[DataFile],
        removed: Iterable[DataFile],
        run_id: str,
        exporter_version: str,
    ) -> None:
        """One snapshot. Raises Conflict when somebody else was faster, and then nothing changed."""
        transaction, removed = prepared.transaction, list(removed)
        producer = _Rewrite(
            operation=Operation.OVERWRITE if removed else Operation.APPEND,
            transaction=transaction,
            io=prepared.table.io,
            snapshot_properties={RUN_ID: run_id, VERSION: exporter_version},
        )
        for each in added:
            producer.append_data_file(each)
        for each in removed:
            producer.delete_data_file(each)
        try:
            producer.commit()
            transaction.commit_transaction()
        except (CommitFailedException, ValidationException, TableAlreadyExistsError) as exc:
            raise Conflict(describe(exc)) from exc

    def remove_leftovers(self) -> None:
        """Remove data files with our name that no snapshot refers to; never raises."""
        try:
            self._remove_leftovers(self._catalog.load_table(self._name.identifier))
        except Exception:
            # A leftover costs some space, and a failure here would cost a good run.
            logger.debug("could not look for leftovers of %s", self.output, exc_info=True)

    def close(self) -> None:
        with contextlib.suppress(Exception):
            self._catalog.close()

    def _remove_leftovers(self, table: Table) -> None:
        if not isinstance(table.io, PyArrowFileIO):
            return
        folder = load_location_provider(table.location(), table.metadata.properties).data_path
        scheme, netloc, path = PyArrowFileIO.parse_location(folder, table.io.properties)
        selector = pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True)
        ours = {
            each.base_name: each.path
            for each in table.io.fs_by_scheme(scheme, netloc).get_file_info(selector)
            if each.is_file and each.base_name.startswith(PREFIX)
        }
        seen_manifests = set()
        for snapshot in reversed(table.snapshots()):
            for manifest in snapshot.manifests(table.io):
                if not ours:
                    return
                if manifest.manifest_path not in seen_manifests:
                    seen_manifests.add(manifest.manifest_path)
                    for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True):
                        ours.pop(entry.data_file.file_path.rpartition("/")[2], None)
        for file_path in ours.values():
            table.io.fs_by_scheme(scheme, netloc).delete_file(file_path)
            logger.info("removed '%s', which a run that died left behind", file_path)

    def _prepare_new(self, properties: dict[str, str]) -> Prepared:
        with contextlib.suppress(NamespaceAlreadyExistsError):
            self._create_namespace()
        schema = build_schema()
        transaction = self._catalog.create_table_transaction(
            self._name.identifier,
            schema,
            location=self._location,
            partition_spec=build_partition_spec(self._partition_by, schema),
            properties={
                TARGET_PROPERTY: str(TARGET_BYTES),
                TableProperties.METADATA_DELETE_AFTER_COMMIT_ENABLED: "true",
                **properties,
            },
        )
        # Its location was chosen now: what is asked again gets the same.
        self._location = transaction.table_metadata.location.rstrip("/")
        return Prepared(transaction, transaction.table_metadata, transaction._table)  # noqa: SLF001 - its storage

    def _create_namespace(self) -> None:
        namespace = self._name.namespace
        if not self._catalog.namespace_exists(namespace):
            self._catalog.create_namespace(namespace)

    def _check_partitions(self, table: Table) -> None:
        if not self._partition_by:
            return
        wanted = [
            (field.name, str(field.transform))
            for field in build_partition_spec(self._partition_by, build_schema()).fields
        ]
        found = [(field.name, str(field.transform)) for field in table.spec().fields]
        if found != wanted:
            names = ", ".join(name for name, _ in found) or "nothing"
            raise UsageError(
                f"the table '{self.output}' is partitioned by {names},"
                f" not by {', '.join(self._partition_by)}",
                hint="leave --partition-by away: a table keeps the layout it was made with",
            )


def open_table(name: TableName, *, partition_by: Sequence[str]) -> LakeTable:
    """Load the catalog and see that the table can be written. Raises UsageError for a catalog that
    is not configured.
    """
    build_partition_spec(partition_by, build_schema())
    catalog = _open_catalog(name.catalog)
    opened = LakeTable(catalog, name, partition_by=partition_by)
    try:
        opened.location  # noqa: B018 - asks for the table once
    except BaseException:
        opened.close()
        raise
    return opened


def _open_catalog(catalog: str) -> Catalog:
    # Read anew: the library keeps what was configured when it was imported.
    config = Config()
    found = config.get_catalog_config(catalog)
    if found is None:
        known = ", ".join(sorted(config.get_known_catalogs()))
        variable = catalog.upper().replace("-", "_")
        raise UsageError(
            f"pyiceberg knows no catalog '{catalog}'",
            hint=f"it knows {known}"
            if known
            else f"describe it in ~/.pyiceberg.yaml, or set PYICEBERG_CATALOG__{variable}__URI",
        )
    # The AWS client inside pyarrow signs uploads in a way that OSS refuses; this variable, which it
    # reads when a file system is opened, is the only way to tell it.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    try:
        return load_catalog(catalog, **_as_texts(found))
    except ValueError as exc:
        raise UsageError(
            f"the catalog '{catalog}' cannot be used: {describe(exc)}",
            hint="look at its type and uri in pyiceberg's configuration",
        ) from exc


def _as_texts(config: Any) -> dict[str, str]:
    return {key: value for key, value in config.items() if isinstance(value, str)}


def build_schema() -> Schema:
    """Our columns as a new table has them, with the key as its identifier."""
    fields = [
        NestedField(
            field_id=number,
            name=field.name,
            field_type=_TYPES[str(field.type)],
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


def check_schema(output: str, schema: Schema) -> None:
    """Raises DestinationError where our rows do not fit the table's columns."""
    for found in schema.fields:
        wanted = SCHEMA.field(found.name) if found.name in SCHEMA.names else None
        if wanted is None:
            if found.required:
                raise _misfit(output, f"it requires '{found.name}', which no session has")
        elif found.field_type != _TYPES[str(wanted.type)]:
            raise _misfit(
                output,
                f"its '{found.name}' is {found.field_type}, not {_TYPES[str(wanted.type)]}",
            )
        elif found.required and wanted.nullable:
            raise _misfit(output, f"it requires '{found.name}', which a session may lack")


def _misfit(output: str, reason: str) -> DestinationError:
    return DestinationError(
        f"the table '{output}' does not fit: {reason}",
        hint="name another table, or change this column first",
    )
