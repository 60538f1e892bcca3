"""Paimon tables with a primary key, by pypaimon-rust: its writers, its commits, its reader."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, Final

import pyarrow as pa
from pypaimon_rust.datafusion import BatchTableWrite, CommitMessage, PaimonCatalog, SQLContext
from pypaimon_rust.datafusion import Table as LoadedTable

from exporter.stores.interface import HeldLock
from exporter.tables.interface import Commit, CommitConflict, TableMode, TableRequest
from exporter.tables.paimon_names import TableName, resolve_name, translated
from exporter.tables.paimon_schema import (
    RUN_OPTIONS,
    TYPES,
    build_arrow_schema,
    build_create,
    build_proof,
    build_schema_json,
    check_partitions,
    check_table,
    fit_rows,
    has_fixed_buckets,
)
from exporter.tables.spool import SpilledRows

_CATALOG: Final = "paimon"
"""The catalog's name in the library's SQL."""

MAX_FILES: Final = 200
"""Files of a bucket before they are rewritten: an hourly run adds as many in eight days. The files
of old snapshots stay on the disk, so rewriting more often would fill it.
"""

MAX_BYTES: Final = 64 << 20
"""Rows in one file, as the library holds them in memory, along with a sorted copy."""


class PendingCommit:
    """Rows on their way into the one commit of a run: `write`…, `prepare`, `commit`; or `abort`.

    They replace all others, or each the row with its key.
    """

    def __init__(self, loaded: LoadedTable, *, run_id: str, mode: TableMode) -> None:
        # The one way to name the run of an overwrite; the extra holds the library to its minor.
        builder = loaded.new_batch_write_builder()._with_commit_user(run_id)  # noqa: SLF001
        self._builder = builder.with_overwrite({}) if mode == "replace" else builder
        self._committer = self._builder.new_commit()
        # Of dynamic buckets, a second writer would not know the choices of the first.
        self._max_bytes = MAX_BYTES if has_fixed_buckets(loaded.schema()) else None
        self._writer: BatchTableWrite | None = None
        self._written_bytes = 0
        self._messages: list[CommitMessage] = []

    def write(self, rows: pa.RecordBatch) -> None:
        if self._writer is None:
            self._writer = self._builder.new_write()
        self._writer.write_arrow(rows)
        self._written_bytes += rows.nbytes
        if self._max_bytes is not None and self._written_bytes >= self._max_bytes:
            self.prepare()

    def prepare(self) -> None:
        """Finish the files of the rows written so far."""
        writer, self._writer, self._written_bytes = self._writer, None, 0
        if writer is not None:
            with closing(writer):
                self._messages += writer.prepare_commit()

    def commit(self) -> None:
        """Commit once. After a failure the commit may be made, so the files stay."""
        with closing(self._committer):
            self._committer.commit(self._messages)

    def abort(self) -> None:
        """Remove the files; never for a commit that may be made, and never raises."""
        with suppress(Exception):
            self.prepare()
        with suppress(Exception), closing(self._committer):
            self._committer.abort(self._messages)


class PaimonTable:
    """One table of a catalog, which its first commit creates if it does not exist."""

    def __init__(self, name: TableName, *, partition_by: tuple[str, ...]) -> None:
        self._name = name
        self._partition_by = partition_by
        self._sql_name = f"{_CATALOG}.`{name.database}`.`{name.table}`"
        check_partitions(name.output, partition_by, None)
        with translated(name):
            self._catalog = PaimonCatalog(dict(name.options))
            self._context = SQLContext()
            self._context.register_catalog(_CATALOG, dict(name.options), "")
            self._load()

    @property
    def location(self) -> str:
        """The table's folder, or one below `sidecars`: a server has no place for a run's files."""
        return self._name.location

    def find_commit(self, run_id: str) -> str | None:
        """The number of the run's snapshot; None where it has none, or it has expired."""
        with translated(self._name):
            if self._load() is None:
                return None
            user = run_id.replace("'", "''")
            found = self._read_system_table(
                "snapshots", columns="snapshot_id", rest=f"WHERE commit_user = '{user}'"
            )
            return str(found[0]["snapshot_id"]) if found else None

    def prove_writable(self, run_id: str) -> None:
        """Write a row where rows go, and remove it; for a new table only create its database."""
        with translated(self._name):
            self._context.sql(f"CREATE SCHEMA IF NOT EXISTS {_CATALOG}.`{self._name.database}`")
            loaded = self._load()
            # On a disk, the row's partition would stay as an empty folder.
            if loaded is None or (loaded.schema().partition_keys() and self._name.is_local):
                return
            proof = PendingCommit(loaded, run_id=run_id, mode="upsert")
            try:
                proof.write(build_proof(build_arrow_schema(loaded.schema())))
                proof.prepare()
            finally:
                proof.abort()

    def commit_rows(self, rows: SpilledRows, commit: Commit, *, mode: TableMode) -> None:
        if self.find_commit(commit.run_id) is not None:
            return
        with translated(self._name):
            loaded = self._prepare(commit)
            schema = build_arrow_schema(loaded.schema())
            fitting = (fit_rows(each, schema) for each in rows.open_reader())
            self._commit(loaded, fitting, run_id=commit.run_id, mode=mode, lock=commit.lock)

    def compact(self, commit: Commit) -> None:
        """Rewrite a table of a local warehouse in which a bucket has too many files.

        The library has no compaction; a server compacts its own tables.
        """
        if not self._name.is_local:
            return
        with translated(self._name):
            loaded = self._load()
            if loaded is None or self._count_files() < MAX_FILES:
                return
            loaded = self._set_options(loaded)
            run_id = f"{commit.run_id}-compaction"
            # Columns that were read have metadata that the writer does not take.
            schema = build_arrow_schema(loaded.schema())
            rows = (
                pa.RecordBatch.from_arrays(each.columns, schema=schema)
                for each in read_rows(loaded)
            )
            self._commit(loaded, rows, run_id=run_id, mode="replace", lock=commit.lock)

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with translated(self._name):
            loaded = self._load()
            if loaded is not None:
                yield from read_rows(loaded, names)

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        """Remove nothing: the library's files name no run. The format's own procedure,
        `remove_orphan_files`, removes them.
        """

    def _load(self) -> LoadedTable | None:
        """The table as it is now, if it fits; None where it does not exist."""
        name = self._name
        try:
            loaded = self._catalog.get_table((name.database, name.table))
        except ValueError as exc:
            if str(exc) == f"Table {name.database}.{name.table} does not exist.":
                return None
            raise
        check_partitions(name.output, self._partition_by, loaded.schema().partition_keys())
        check_table(name.output, loaded.schema())
        return loaded

    def _prepare(self, commit: Commit) -> LoadedTable:
        """The table with all columns of ours; created, where it does not exist."""
        loaded = self._load()
        if loaded is None:
            partition_by = self._partition_by
            statements = [
                build_create(self._sql_name, partition_by=partition_by, codec=commit.codec)
            ]
        else:
            names = {each.name() for each in loaded.schema().fields()}
            # Never required: existing rows have no value for them.
            statements = [
                f"ALTER TABLE {self._sql_name} ADD COLUMN {name} {type_text}"
                for name, type_text in TYPES.items()
                if name not in names
            ]
        for statement in statements:
            self._context.sql(statement)
        loaded = self._load() if statements else loaded
        if loaded is None:
            raise CommitConflict(f"somebody has removed '{self._name.output}'", hint="run again")
        return self._set_options(loaded)

    def _set_options(self, loaded: LoadedTable) -> LoadedTable:
        """The table with a run's own options."""
        [newest] = self._read_system_table("schemas", rest="ORDER BY schema_id DESC LIMIT 1")
        return loaded.copy_with_resolved_schema(build_schema_json(newest, RUN_OPTIONS))

    def _commit(
        self,
        loaded: LoadedTable,
        rows: Iterable[pa.RecordBatch],
        *,
        run_id: str,
        mode: TableMode,
        lock: HeldLock,
    ) -> None:
        """Write the rows and commit them. Raises CommitConflict where somebody else was faster.

        Rows get their sequence numbers when they are written, and readers see the highest of a key:
        the library would commit on top of newer rows without numbering ours again.
        """
        before = read_snapshot_id(loaded)
        pending = PendingCommit(loaded, run_id=run_id, mode=mode)
        try:
            for batch in rows:
                pending.write(batch)
            pending.prepare()
            lock.ensure_held()
            # Last of all: the library would commit on top of whatever there is.
            self._require_newest(loaded, before)
        except BaseException:
            pending.abort()
            raise
        pending.commit()

    def _count_files(self) -> int:
        """Data files of the bucket that has the most of them."""
        counted = self._read_system_table(
            "files", columns="count(*) AS files", rest="GROUP BY partition, bucket"
        )
        return max((each["files"] for each in counted), default=0)

    def _require_newest(self, loaded: LoadedTable, snapshot_id: int) -> None:
        """Raises CommitConflict if rows were committed later; compaction commits none."""
        if read_snapshot_id(loaded) == snapshot_id:
            return
        later = [each for each in loaded.list_snapshots() if each.id() > snapshot_id]
        if not later or any(each.commit_kind() != "COMPACT" for each in later):
            raise CommitConflict(
                f"'{self._name.output}' has other rows than snapshot {snapshot_id}"
            )

    def _read_system_table(
        self, name: str, *, columns: str = "*", rest: str = ""
    ) -> list[dict[str, Any]]:
        """Rows that the library has about the table."""
        table = f"{_CATALOG}.`{self._name.database}`.`{self._name.table}${name}`"
        found = self._context.sql(f"SELECT {columns} FROM {table} {rest}")  # noqa: S608 - quoted
        return [row for batch in found for row in batch.to_pylist()]


def open_table(request: TableRequest) -> PaimonTable:
    """Load the catalog, and check that the table can take our rows, if it exists."""
    name = resolve_name(request.output, request.catalogs, request.access.environ)
    return PaimonTable(name, partition_by=request.partition_by)


def read_rows(loaded: LoadedTable, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """All current rows, with all columns or those named."""
    builder = loaded.new_read_builder()
    if names is not None:
        builder = builder.with_projection(list(names))
    yield from builder.new_read().read_arrow(builder.new_scan().plan().splits())


def read_snapshot_id(loaded: LoadedTable) -> int:
    """The number of the newest snapshot; 0 where there is none."""
    snapshot = loaded.latest_snapshot()
    return 0 if snapshot is None else snapshot.id()
