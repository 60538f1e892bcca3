"""Paimon tables with a primary key, by pypaimon-rust: its writers, its commits, its reader."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Final

import pyarrow as pa
from pypaimon_rust.datafusion import (
    BatchTableCommit,
    BatchTableWrite,
    BatchWriteBuilder,
    CommitMessage,
    PaimonCatalog,
    SQLContext,
    StreamTableCommit,
    StreamTableWrite,
    StreamWriteBuilder,
)
from pypaimon_rust.datafusion import Table as LoadedTable

from exporter.tables.interface import Commit, CommitConflict, TableRequest
from exporter.tables.paimon_names import TableName, resolve_name, translated
from exporter.tables.paimon_schema import (
    FIXED,
    Column,
    Shape,
    build_arrow_schema,
    build_create,
    build_proof,
    build_schema_json,
    check_partitions,
    check_shape,
    fit_rows,
    has_fixed_buckets,
    list_missing,
)
from exporter.tables.spool import SpilledRows

_CATALOG: Final = "paimon"
"""What the catalog is called in the library's SQL."""

_IDENTIFIER: Final = 1
"""Of a run's only commit: what tells it from another run's is its user, which is the run."""


MAX_FILES: Final = 200
"""Of a bucket, before they are written anew: what an hourly run adds in eight days. The files of
old snapshots stay on the disk, so to write them anew more often would fill it.
"""


MAX_BYTES: Final = 64 << 20
"""Of the rows that one file is made of: the library keeps them, and sorts a copy."""


class PendingCommit:
    """Rows on their way into one commit of one run: `write`…, `prepare`, `commit`; or `abort`.

    Either they are put in place of all others, or each in place of the one with its key. A commit
    of the latter kind that is repeated does nothing more.
    """

    def __init__(self, loaded: LoadedTable, *, run_id: str, replaces: bool) -> None:
        self.run_id = run_id
        self._builder: BatchWriteBuilder | StreamWriteBuilder
        self._committer: BatchTableCommit | StreamTableCommit
        if replaces:
            builder = loaded.new_batch_write_builder()
            # The one way to name the run of an overwrite; the extra holds the library to its minor.
            self._builder = builder._with_commit_user(run_id).with_overwrite({})  # noqa: SLF001
        else:
            self._builder = loaded.new_stream_write_builder().with_commit_user(run_id)
        self._committer = self._builder.new_commit()
        # Where keys choose their bucket, a second writer would not know what the first has chosen.
        self._max_bytes = MAX_BYTES if has_fixed_buckets(read_shape(loaded)) else None
        self._writer: BatchTableWrite | StreamTableWrite | None = None
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
        """End the files of what was written."""
        writer, self._writer, self._written_bytes = self._writer, None, 0
        if isinstance(writer, StreamTableWrite):
            # There is nothing to wait for: the library compacts nothing.
            self._messages += writer.prepare_commit(False, _IDENTIFIER)
        elif writer is not None:
            self._messages += writer.prepare_commit()
        if writer is not None:
            writer.close()

    def commit(self) -> None:
        if isinstance(self._committer, StreamTableCommit):
            self._committer.filter_and_commit({_IDENTIFIER: self._messages})
        else:
            self._committer.commit(self._messages)

    def abort(self) -> None:
        """Remove the files; never for a commit that may have been made, and never raises."""
        with suppress(Exception):
            self.prepare()
        with suppress(Exception):
            self._committer.abort(self._messages)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._committer.close()


class PaimonTable:
    """One table of a catalog, there or yet to be made."""

    def __init__(self, name: TableName, *, partition_by: tuple[str, ...]) -> None:
        self._name = name
        self._partition_by = partition_by
        check_partitions(name.output, partition_by, None)
        with translated(name):
            self._catalog = PaimonCatalog(dict(name.options))
            self._context = SQLContext()
            self._context.register_catalog(_CATALOG, dict(name.options), "")
            self._load()

    @property
    def location(self) -> str:
        """The table's folder in a local warehouse; for a table of a server, which gives a run no
        place for its own files, one of the catalog's `sidecars`.
        """
        return self._name.location

    def find_commit(self, run_id: str) -> str | None:
        """The number of the run's snapshot; None where it has none, or it has expired."""
        with translated(self._name):
            if self._load() is None:
                return None
            user = run_id.replace("'", "''")
            found = self._context.sql(
                f"SELECT snapshot_id FROM {self._quote('$snapshots')}"  # noqa: S608 - quoted
                f" WHERE commit_user = '{user}'"
            )
            numbers = [number for rows in found for number in rows["snapshot_id"].to_pylist()]
            return str(numbers[0]) if numbers else None

    def prove_writable(self, run_id: str) -> None:
        """Write a row where rows go, and remove it; of a table that is not there, make sure of the
        database.
        """
        with translated(self._name):
            self._context.sql(f"CREATE SCHEMA IF NOT EXISTS {_CATALOG}.`{self._name.database}`")
            loaded = self._load()
            shape = None if loaded is None else read_shape(loaded)
            # On a disk, the row's partition would stay as an empty folder.
            if loaded is None or shape is None or (shape.partition_by and self._name.is_local):
                return
            proof = PendingCommit(loaded, run_id=run_id, replaces=False)
            try:
                proof.write(build_proof(shape))
                proof.prepare()
            finally:
                proof.abort()
                proof.close()

    def replace(self, rows: SpilledRows, commit: Commit) -> None:
        """Overwrite all rows by those of the run, as one commit."""
        if self.find_commit(commit.run_id) is not None:
            return
        with translated(self._name):
            loaded = self._prepare(commit)
            pending = PendingCommit(loaded, run_id=commit.run_id, replaces=True)
            self._commit(loaded, pending, fit_all(rows, loaded), commit)

    def upsert(self, rows: SpilledRows, commit: Commit) -> None:
        """Add the rows as one commit: each takes the place of the one with its key."""
        with translated(self._name):
            loaded = self._prepare(commit)
            pending = PendingCommit(loaded, run_id=commit.run_id, replaces=False)
            self._commit(loaded, pending, fit_all(rows, loaded), commit)

    def compact(self, commit: Commit) -> None:
        """Write a table of a local warehouse anew where readers of a bucket have too many files to
        merge. The library has no compaction; a server's tables are the server's to compact.
        """
        if not self._name.is_local:
            return
        with translated(self._name):
            loaded = self._load()
            if loaded is None or self._count_files() < MAX_FILES:
                return
            loaded = self._fix_options(loaded)
            run_id = f"{commit.run_id}-compaction"
            pending = PendingCommit(loaded, run_id=run_id, replaces=True)
            # As it is read, a batch has more to say of its columns than a writer takes.
            schema = build_arrow_schema(read_shape(loaded))
            rows = (
                pa.RecordBatch.from_arrays(each.columns, schema=schema)
                for each in read_rows(loaded)
            )
            self._commit(loaded, pending, rows, commit)

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """All rows as they are now, a batch at a time; none where the table is not there."""
        with translated(self._name):
            loaded = self._load()
            if loaded is not None:
                yield from read_rows(loaded, names)

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        """Nothing: the library names data files as it likes, so nobody can tell whose they are. The
        format's own procedure, `remove_orphan_files`, takes them.
        """

    def _quote(self, suffix: str = "") -> str:
        return f"{_CATALOG}.`{self._name.database}`.`{self._name.table}{suffix}`"

    def _load(self) -> LoadedTable | None:
        """The table as it is now; None where it is not there. Raises for one that does not fit."""
        name = self._name
        try:
            loaded = self._catalog.get_table((name.database, name.table))
        except ValueError as exc:
            if str(exc) == f"Table {name.database}.{name.table} does not exist.":
                return None
            raise
        shape = read_shape(loaded)
        check_partitions(name.output, self._partition_by, shape.partition_by)
        check_shape(name.output, shape)
        return loaded

    def _prepare(self, commit: Commit) -> LoadedTable:
        """The table with all columns of ours; made, where it is not there."""
        loaded = self._load()
        if loaded is None:
            self._context.sql(
                build_create(self._quote(), partition_by=self._partition_by, codec=commit.codec)
            )
        else:
            missing = list_missing(read_shape(loaded))
            if not missing:
                return self._fix_options(loaded)
            for column, type_text in missing:
                self._context.sql(f"ALTER TABLE {self._quote()} ADD COLUMN {column} {type_text}")
        loaded = self._load()
        if loaded is None:
            raise CommitConflict(f"somebody has removed '{self._name.output}'", hint="run again")
        return self._fix_options(loaded)

    def _fix_options(self, loaded: LoadedTable) -> LoadedTable:
        """The table with options of this run alone."""
        found = self._context.sql(
            f"SELECT * FROM {self._quote('$schemas')} ORDER BY schema_id DESC LIMIT 1"  # noqa: S608 - quoted
        )
        return loaded.copy_with_resolved_schema(build_schema_json(found[0].to_pylist()[0], FIXED))

    def _commit(
        self,
        loaded: LoadedTable,
        pending: PendingCommit,
        rows: Iterator[pa.RecordBatch],
        commit: Commit,
    ) -> None:
        """Write the rows and commit them. Raises Conflict where somebody else was faster: rows have
        numbers from when they are written, of one key's rows the highest is seen, and the library
        would number none anew.
        """
        before = find_newest(loaded)
        try:
            for batch in rows:
                pending.write(batch)
            pending.prepare()
            commit.lock.ensure_held()
            # Last of all: the library would commit on top of whatever there is.
            self._require_newest(loaded, before)
        except BaseException:
            pending.abort()
            pending.close()
            raise
        try:
            pending.commit()
        except Exception:
            # Its answer may be lost and the commit done; its files stay in any case.
            if self.find_commit(pending.run_id) is None:
                raise
        finally:
            pending.close()

    def _count_files(self) -> int:
        """Data files of the bucket that has the most of them."""
        counted = self._context.sql(
            f"SELECT count(*) AS files FROM {self._quote('$files')}"  # noqa: S608 - quoted
            " GROUP BY partition, bucket"
        )
        return max((count for rows in counted for count in rows["files"].to_pylist()), default=0)

    def _require_newest(self, loaded: LoadedTable, number: int) -> None:
        """Raises Conflict where rows were committed after this snapshot; a compaction has none."""
        if find_newest(loaded) == number:
            return
        later = [each for each in loaded.list_snapshots() if each.id() > number]
        if not later or any(each.commit_kind() != "COMPACT" for each in later):
            raise CommitConflict(f"'{self._name.output}' has other rows than snapshot {number}")


def open_table(request: TableRequest) -> PaimonTable:
    """Load the catalog, and see that a table which is there can take our rows."""
    name = resolve_name(request.output, request.catalogs, request.access.environ)
    return PaimonTable(name, partition_by=request.partition_by)


def fit_all(rows: SpilledRows, loaded: LoadedTable) -> Iterator[pa.RecordBatch]:
    """A run's rows with the table's columns."""
    schema = build_arrow_schema(read_shape(loaded))
    return (fit_rows(each, schema) for each in rows.open_reader())


def read_rows(loaded: LoadedTable, names: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """All rows as they are now, with all columns or those named."""
    builder = loaded.new_read_builder()
    if names is not None:
        builder = builder.with_projection(list(names))
    yield from builder.new_read().read_arrow(builder.new_scan().plan().splits())


def find_newest(loaded: LoadedTable) -> int:
    """The number of the newest snapshot; 0 where there is none."""
    snapshot = loaded.latest_snapshot()
    return 0 if snapshot is None else snapshot.id()


def read_shape(loaded: LoadedTable) -> Shape:
    schema = loaded.schema()
    return Shape(
        columns=tuple(
            Column(each.name(), each.field_type().removesuffix(" NOT NULL"), each.is_nullable())
            for each in schema.fields()
        ),
        primary_key=tuple(schema.primary_keys()),
        partition_by=tuple(schema.partition_keys()),
        options=schema.options(),
    )
