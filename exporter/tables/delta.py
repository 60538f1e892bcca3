"""Delta tables in a folder of any store, through deltalake.

A table's log is its own fence, since each version is created once. So a commit is made for the
version that was read, without the library's retries, and the lease is checked between the two.
Anything another run commits after that check makes this commit a conflict.
"""

import hashlib
import logging
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import compress
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import (
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError

from exporter.errors import DestinationError, ExporterError, UsageError, mask_urls, shorten
from exporter.model import KEY_COLUMNS, ParquetCodec
from exporter.stores.posix import mode_of
from exporter.stores.posix import translated as file_errors
from exporter.stores.url import scheme_of
from exporter.tables.columns import require_partition_columns
from exporter.tables.delta_compat import (
    PARTITION_COLUMNS,
    build_new_schema,
    build_schema,
    check_table,
)
from exporter.tables.delta_folder import DeltaFolder, open_folder
from exporter.tables.delta_partitions import build_terms
from exporter.tables.interface import (
    Commit,
    CommitConflict,
    TableMode,
    TableRequest,
    mask_reason,
)
from exporter.tables.spool import SpilledRows

logger = logging.getLogger(__name__)

LOG: Final = "_delta_log/"
ENTRY: Final = re.compile(r"_delta_log/[0-9]{20}\..*")
"""An entry of the log, or a checkpoint of it."""

APP_ID: Final = "livy-exporter"
RUN_ID: Final = "livyExporterRunId"
VERSION: Final = "livyExporterVersion"

TARGET_BYTES: Final = 128 << 20
MAX_SMALL: Final = 8
"""Files below half the target size that a partition may have before they are merged."""

ROW_GROUP_ROWS: Final = 1 << 13
"""An upsert reads whole row groups, several at a time: with a million rows in one, 2,000 into
500,000 were measured to take 100 MiB more.
"""

MAX_PRUNED_ROWS: Final = 100_000
"""An upsert of more rows is streamed. One of fewer is held in memory, and skips files that have
none of its keys, by their statistics, and partitions that have none of its sessions.
"""

OTHER_NAMES: Final = re.compile(
    r"livy-exporter-.*|part-[0-9]{5}-[0-9a-f-]{36}-c[0-9]{3}\..*parquet"
)
"""Files that a run killed in its first commit leaves in a folder that is no table yet."""


class DeltaLakeTable:
    """One table in a folder, which its first commit creates if it does not exist."""

    def __init__(self, output: str, folder: DeltaFolder, *, partition_by: Sequence[str]) -> None:
        self._output = output
        self._folder = folder
        self._partition_by = tuple(partition_by)

    @property
    def location(self) -> str:
        return self._output.rstrip("/") if scheme_of(self._output) else self._folder.uri

    def open_checked(self) -> DeltaTable | None:
        """The table as it is now; None where it does not exist.

        Raises DestinationError for one that our rows do not fit, UsageError for other partitions
        than asked for.
        """
        table = self._open()
        if table is not None:
            check_table(self._output, table, partition_by=self._partition_by)
        return table

    def find_commit(self, run_id: str) -> str | None:
        with translated(self._output):
            table = self._open()
            return None if table is None else find_commit(table, run_id)

    def prove_writable(self, run_id: str) -> None:
        self._require_room()
        name = f"livy-exporter-{run_id}.proof"
        try:
            self._folder.store.replace(name, b"livy-exporter\n")
        finally:
            self._folder.store.remove([name])

    def commit_rows(self, rows: SpilledRows, commit: Commit, *, mode: TableMode) -> None:
        with translated(self._output):
            table = self.open_checked()
            if table is not None and find_commit(table, commit.run_id) is not None:
                return
            commit.lock.ensure_held()
            if table is None:
                write_deltalake(
                    self._folder.uri,
                    rows.open_reader(build_new_schema(self._partition_by)),
                    mode="error",  # a table that somebody else has created meanwhile is a conflict
                    partition_by=list(self._partition_by) or None,
                    storage_options=self._options(),
                    **build_properties(commit),
                )
            elif mode == "replace":
                write_deltalake(
                    table,
                    rows.open_reader(build_schema(table)),
                    mode="overwrite",
                    schema_mode="merge",
                    **build_properties(commit),
                )
            else:
                merge(table, rows, commit)

    def compact(self, commit: Commit) -> None:
        with translated(self._output):
            table = self._open()
            filters = None if table is None else choose_partitions(table)
            if table is None or filters is None:
                return
            commit.lock.ensure_held()
            table.optimize.compact(
                filters or None,
                target_size=target_bytes_of(table),
                writer_properties=build_writer(commit.codec),
                commit_properties=CommitProperties(max_commit_retries=0),
            )

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        with translated(self._output):
            table = self.open_checked()
            if table is not None:
                yield from pa.RecordBatchReader.from_stream(table.scan(columns=list(names)))

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        """Remove nothing: the library's files name no run. The table's own vacuum removes them."""

    def _open(self) -> DeltaTable | None:
        # Our store is asked first: it explains a wrong bucket or key in one line, and the library
        # takes some refusals for a missing table.
        if not self._has_log():
            return None
        return DeltaTable(self._folder.uri, storage_options=self._options())

    def _has_log(self) -> bool:
        return any(ENTRY.fullmatch(each.name) for each in self._folder.store.list_files(LOG))

    def _options(self) -> dict[str, str] | None:
        return dict(self._folder.build_options()) or None

    def _require_room(self) -> None:
        """Raises DestinationError for a folder that is no table and holds something else."""
        if self._has_log():
            return
        for each in self._folder.store.list_files():
            if OTHER_NAMES.fullmatch(each.name.rpartition("/")[2]) is None:
                raise DestinationError(
                    f"'{self._output}' is no Delta table and holds '{shorten(each.name)}'",
                    hint="name a new or an empty folder, or a Delta table",
                )


def open_table(request: TableRequest) -> DeltaLakeTable:
    """Check that the table can be written, if it exists."""
    require_partition_columns(request.partition_by, PARTITION_COLUMNS)
    require_folder(request.output)
    folder = open_folder(request.output, request.access)
    table = DeltaLakeTable(request.output, folder, partition_by=request.partition_by)
    with translated(request.output):
        table.open_checked()
    return table


def require_folder(output: str) -> None:
    """Raises UsageError for an existing file, and for stdout."""
    if scheme_of(output) is None:
        path = output.rstrip("/")
        with file_errors(path):
            is_file = mode_of(path) is not None and not Path(path).is_dir()
        if output == "-" or is_file:
            raise UsageError(
                f"a Delta table needs a folder, not '{shorten(output)}'",
                hint="name a folder, such as --output sessions/",
            )


def merge(table: DeltaTable, rows: SpilledRows, commit: Commit) -> None:
    """Upsert by the key alone: a session whose `create_time` changed may be in any partition."""
    is_streamed = rows.row_count > MAX_PRUNED_ROWS
    reader = rows.open_reader(build_schema(table))
    terms = [f"t.{name} = s.{name}" for name in KEY_COLUMNS]
    source = reader
    if not is_streamed:
        source = reader.read_all()
        terms += build_terms(table, source["session_id"])
    merger = table.merge(
        source,
        " AND ".join(terms),
        source_alias="s",
        target_alias="t",
        merge_schema=True,
        streamed_exec=is_streamed,
        **build_properties(commit),
    )
    merger.when_matched_update_all().when_not_matched_insert_all().execute()


def number_of(run_id: str) -> int:
    """A number for a run: the protocol has no other name for it."""
    return int.from_bytes(hashlib.sha256(run_id.encode()).digest()[:7], "big")


def find_commit(table: DeltaTable, run_id: str) -> str | None:
    """The run's number in the log, if it is the last of our runs there."""
    number = number_of(run_id)
    return str(number) if table.transaction_version(APP_ID) == number else None


def build_properties(commit: Commit) -> dict[str, Any]:
    """How the rows are written, and what the log says of their commit."""
    transaction = Transaction(APP_ID, number_of(commit.run_id), int(time.time() * 1000))
    return {
        "writer_properties": build_writer(commit.codec),
        "commit_properties": CommitProperties(
            custom_metadata={RUN_ID: commit.run_id, VERSION: commit.exporter_version},
            max_commit_retries=0,
            app_transactions=[transaction],
        ),
    }


def build_writer(codec: ParquetCodec) -> WriterProperties:
    name: Any = "UNCOMPRESSED" if codec == "none" else codec.upper()
    return WriterProperties(compression=name, max_row_group_size=ROW_GROUP_ROWS)


def target_bytes_of(table: DeltaTable) -> int:
    found = table.metadata().configuration.get("delta.targetFileSize", "")
    return int(found) if found.isdigit() else TARGET_BYTES


def choose_partitions(table: DeltaTable) -> list[tuple[str, str, Any]] | None:
    """A filter of the partitions where small files have piled up, empty for the whole table.

    None where nothing has to be merged.
    """
    columns = table.metadata().partition_columns
    files = pa.table(table.get_add_actions(flatten=True))
    is_small = pc.less(files["size_bytes"], target_bytes_of(table) // 2).to_pylist()
    values = [files[f"partition.{name}"].cast(pa.string()).to_pylist() for name in columns]
    partitions = zip(*values, strict=True) if columns else [()] * len(is_small)
    counts = Counter(compress(partitions, is_small))
    full = [partition for partition, count in counts.items() if count >= MAX_SMALL]
    if not full:
        return None
    found = {name: {partition[at] for partition in full} for at, name in enumerate(columns)}
    return [(name, "in", sorted(each)) for name, each in found.items() if None not in each]


_ORNAMENT: Final = re.compile("\x1b\\[[0-9;]*m|\u21b3")
_MAX_REASON: Final = 200


@contextmanager
def translated(output: str) -> Iterator[None]:
    """Translate errors of deltalake to ours."""
    try:
        yield
    except ExporterError:
        raise
    except Exception as exc:
        raise translate(output, exc) from exc


def translate(output: str, exc: Exception) -> DestinationError:
    reason = describe(exc)
    # The library has one class for all refused commits.
    is_refused = isinstance(exc, CommitFailedError)
    if ("Failed to commit transaction" if is_refused else "A table already exists") in reason:
        return CommitConflict(reason)
    if "failed validation check" in reason:
        hint = "the table has a constraint that a session breaks: change it, or name another table"
    elif isinstance(exc, OSError):
        hint = "check the network and where the table is"
    else:
        hint = (
            "its log in _delta_log is damaged, or made by something newer than the installed"
            " deltalake"
        )
    return DestinationError(
        f"cannot use the table '{shorten(mask_urls(output))}': {reason}", hint=hint
    )


def describe(exc: BaseException) -> str:
    """A library's error in one line.

    Its text is a chain, one cause a line, in colour: the first line is the action, the last the
    cause. Left out are a store's answer, which may repeat signed headers, and rows.
    """
    text = str(exc).partition("Preview of invalid data")[0]
    lines = [_ORNAMENT.sub("", line).strip().rstrip(".") for line in text.splitlines()]
    lines = [line for line in lines if line and "<" not in line] or [type(exc).__name__]
    return mask_reason(": ".join(dict.fromkeys((lines[0], lines[-1]))), _MAX_REASON)
