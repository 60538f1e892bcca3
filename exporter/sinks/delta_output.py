"""A Delta table as an output: rows to data files as they come, all of them one commit."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Final
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

from exporter.errors import DestinationError, UsageError
from exporter.gateway import Gateway
from exporter.records import RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks import OutputFacts, ParquetCodec, TableMode, WrittenFile
from exporter.sinks.delta_errors import translated
from exporter.sinks.delta_log import DAY, DataFile, Partition
from exporter.sinks.delta_tables import Conflict, LakeTable, Snapshot
from exporter.sinks.lake import KEY_COLUMNS, Times, WaitingRows, fit_rows, read_times
from exporter.sinks.lake_files import PREFIX, TARGET_BYTES, EndedFile, PartitionedFiles
from exporter.stores import StagedFile, Store

logger = logging.getLogger(__name__)

MOST_COMMITS: Final = 5
FIRST_PAUSE_S: Final = 0.1

MOST_SMALL: Final = 8
"""Files below half the target size that a partition may have before they are merged."""

NULL_FOLDER: Final = "__HIVE_DEFAULT_PARTITION__"
_LONGEST_FOLDER: Final = 100


@dataclass(slots=True)
class Change:
    """What a commit will do to the table, with its files written already."""

    snapshot: Snapshot
    added: list[EndedFile[Partition]]
    removed: list[DataFile] = field(default_factory=list)

    @property
    def is_needed(self) -> bool:
        return bool(self.added or self.removed)


class DeltaOutput:
    """Replaces a table's rows by the run's, or those of the sessions that the run has read.

    One commit in both cases, whose entry names the run. A run that replaces always commits, one
    that adds only if it has rows. A session keeps its `create_time`, or gets it later: files whose
    times are others than those of the run are not looked into for its sessions.
    """

    def __init__(
        self,
        table: LakeTable,
        *,
        mode: TableMode,
        run_id: str,
        exporter_version: str,
        exported_at: datetime,
        codec: ParquetCodec,
        target_bytes: int = TARGET_BYTES,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if codec != "none" and not pa.Codec.is_available(codec):
            raise UsageError(
                f"the installed pyarrow cannot compress with {codec}",
                hint="take --compression zstd, or install pyarrow from PyPI",
            )
        self._table = table
        self._mode: TableMode = mode
        self._run_id = run_id
        self._exporter_version = exporter_version
        self._exported_at = exported_at
        self._codec: ParquetCodec = codec
        self._target_bytes = target_bytes
        self._sleep = sleep
        self._series_count = 0
        self._session_count = 0
        self._coerced_value_count = 0
        self._snapshot = table.load()
        prove_writable(table.store, run_id)
        # Written and not committed: what `discard` removes.
        self._files: list[PartitionedFiles[Partition]] = []
        self._waiting = WaitingRows(SCHEMA)
        self._change: Change | None = None

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        batch = build_batch(gateway, sessions, self._exported_at)
        self._session_count += batch.rows.num_rows
        self._coerced_value_count += batch.coerced_value_count
        if self._mode == "upsert":
            self._waiting.append(batch.rows)
            return
        files = self._files[0] if self._files else self._begin_files(self._snapshot)
        files.write(split_rows(add_day(batch.rows), self._snapshot))

    def close(self) -> OutputFacts:
        if self._mode == "upsert":
            self._waiting.finish()
            with translated(self._table.output):
                # Read anew: the listing may have taken an hour.
                self._change = self._plan_upsert(self._table.load())
        else:
            added = self._files[0].close() if self._files else []
            self._change = Change(self._snapshot, added, list(self._snapshot.files))
        return OutputFacts(
            session_count=self._session_count,
            coerced_value_count=self._coerced_value_count,
            files=tuple(WrittenFile(file.facts, file.row_count) for file in self._change.added),
        )

    def publish(self) -> None:
        """Commit, again on what somebody else committed meanwhile; a table that others change all
        the time is a DestinationError, and is as they left it.
        """
        change = self._change
        if change is None:
            raise RuntimeError("close comes first")
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, MOST_COMMITS + 1):
            try:
                self._commit(change)
            except Conflict as exc:
                logger.info("commit %d of '%s': %s", attempt, self._table.output, exc)
            else:
                self._waiting.close()
                return
            if attempt < MOST_COMMITS:
                self._sleep(pause_s)
                pause_s *= 2
                change = self._plan_again(change)
        raise DestinationError(
            f"cannot commit to '{self._table.output}': others changed it {MOST_COMMITS} times"
            " meanwhile",
            hint="run again when nobody else writes to this table",
        )

    def discard(self) -> None:
        for files in self._files:
            files.discard()
        self._files.clear()
        self._waiting.close()

    def _commit(self, change: Change) -> None:
        # A commit whose answer is lost may be done, and files of a commit are never removed: where
        # that cannot be told they stay, and a later run removes them if need be.
        files, self._files = self._files, []
        try:
            if change.is_needed or self._mode == "replace":
                self._table.commit(
                    change.snapshot,
                    mode=self._mode,
                    added=change.added,
                    removed=change.removed,
                    run_id=self._run_id,
                    exporter_version=self._exporter_version,
                )
        except Conflict:
            self._files = files
            raise

    def _plan_again(self, change: Change) -> Change:
        with translated(self._table.output):
            snapshot = self._table.load()
        if self._mode == "replace":
            if not snapshot.fits(change.snapshot):
                raise DestinationError(
                    f"the columns or partitions of '{self._table.output}' were changed meanwhile",
                    hint="run again",
                )
            return Change(snapshot, change.added, list(snapshot.files))
        for files in self._files:
            files.discard()
        self._files.clear()
        with translated(self._table.output):
            return self._plan_upsert(snapshot)

    def _plan_upsert(self, snapshot: Snapshot) -> Change:
        """Write the run's rows, and anew the files that hold older versions of them.

        Older rows come first: the run's own, which the next run is most likely to change again,
        come to stand together in the smallest file.
        """
        if self._session_count == 0:
            return Change(snapshot, [])
        times = read_times(self._waiting)
        touched = [
            file
            for file in snapshot.files
            if may_hold(file, times) and self._holds_any(file, snapshot)
        ]
        touched_paths = {file.path for file in touched}
        merged = find_small(
            [file for file in snapshot.files if file.path not in touched_paths],
            {file.partition for file in touched} | self._find_partitions(snapshot),
            small_bytes=self._target_bytes // 2,
        )
        files = self._begin_files(snapshot)
        # Largest first, so that what does not fill a file any more is the small ones.
        for file in sorted(touched + merged, key=lambda each: -each.size_bytes):
            for rows in self._table.read_rows(file, snapshot, snapshot.schema):
                kept = rows.filter(pc.invert(self._waiting.keys.hits(rows)))
                files.write(split_rows(kept, snapshot))
        for rows in self._waiting.read():
            files.write(split_rows(add_day(rows), snapshot))
        return Change(snapshot, files.close(), touched + merged)

    def _holds_any(self, file: DataFile, snapshot: Snapshot) -> bool:
        keys = self._waiting.keys
        schema = pa.schema([snapshot.schema.field(name) for name in KEY_COLUMNS])
        read = self._table.read_rows(file, snapshot, schema)
        return any(pc.any(keys.hits(rows)).as_py() for rows in read)

    def _find_partitions(self, snapshot: Snapshot) -> set[Partition]:
        return {
            partition
            for rows in self._waiting.read()
            for partition, _ in split_rows(add_day(rows), snapshot)
        }

    def _begin_files(self, snapshot: Snapshot) -> PartitionedFiles[Partition]:
        store, columns = self._table.store, snapshot.metadata.partition_columns
        series = f"{PREFIX}{self._run_id}-{self._series_count}"

        def stage(partition: Partition, number: int) -> tuple[str, StagedFile]:
            name = f"{name_folder(columns, partition)}{series}-{number:05}.parquet"
            return name, store.stage(name, run_id=self._run_id)

        files = PartitionedFiles(
            snapshot.file_schema,
            codec=self._codec,
            target_bytes=self._target_bytes,
            stage=stage,
            remove=store.remove,
        )
        self._series_count += 1
        self._files.append(files)
        return files


def prove_writable(store: Store, run_id: str) -> None:
    """Write a file where the data files go, and remove it."""
    name = f"{PREFIX}{run_id}.proof"
    try:
        store.replace(name, b"livy-exporter\n")
    finally:
        store.remove([name])


def add_day(rows: pa.RecordBatch) -> pa.RecordBatch:
    """The rows with the column that tables are partitioned by."""
    return rows.append_column(DAY, rows["create_time"].cast(pa.date32()))


def split_rows(
    rows: pa.RecordBatch, snapshot: Snapshot
) -> Iterator[tuple[Partition, pa.RecordBatch]]:
    """The rows of each partition in their order, with the columns that data files have.

    An empty text is null: the protocol knows no difference there.
    """
    columns = snapshot.metadata.partition_columns
    whole = fit_rows(rows, snapshot.file_schema)
    if not columns:
        yield (), whole
        return
    if rows.num_rows == 0:
        return
    values = [_partition_values(rows, name, snapshot.schema.field(name).type) for name in columns]
    # One number a combination: positions in the lists of values, counted up as digits are.
    numbers = reduce(
        lambda total, column: pc.add(pc.multiply(total, len(column[1])), column[0]),
        values,
        pa.repeat(pa.scalar(0, pa.int64()), rows.num_rows),
    )
    for number in numbers.unique().to_pylist():
        at, texts = number, list[str | None]()
        for _, known in reversed(values):
            at, digit = divmod(at, len(known))
            texts.insert(0, known[digit])
        yield tuple(texts), whole.filter(pc.equal(numbers, number))


def _partition_values(
    rows: pa.RecordBatch, name: str, wanted: pa.DataType
) -> tuple[pa.Array, list[str | None]]:
    """The position of each row's value in the list that comes second."""
    if name not in rows.schema.names:
        return pa.repeat(pa.scalar(0, pa.int64()), rows.num_rows), [None]
    texts = rows[name].cast(wanted).cast(pa.string())
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    distinct = texts.unique()
    positions = pc.index_in(texts, value_set=distinct).cast(pa.int64())
    known: list[str | None] = distinct.to_pylist()
    return positions, known


def name_folder(columns: Sequence[str], partition: Partition) -> str:
    """Where a partition's files are; only the log says what their values are."""
    return "".join(
        f"{quote(column)}={_name_value(value)}/"
        for column, value in zip(columns, partition, strict=True)
    )


def _name_value(value: str | None) -> str:
    # Cut short, two values may share a folder: files have names of their own.
    return NULL_FOLDER if value is None else quote(value, safe="-_ ")[:_LONGEST_FOLDER]


def may_hold(file: DataFile, times: Times) -> bool:
    """Whether a data file may have a row of a session that was created at one of the times.

    A row whose session has no time, here or there, may be in any file.
    """
    if times.has_null or file.created_us is None:
        return True
    return times.any_within(*file.created_us)


def find_small(
    files: Sequence[DataFile], partitions: set[Partition], *, small_bytes: int
) -> list[DataFile]:
    """The small files of those partitions that have too many of them."""
    small = [
        file for file in files if file.partition in partitions and file.size_bytes < small_bytes
    ]
    counts = Counter(file.partition for file in small)
    return [file for file in small if counts[file.partition] >= MOST_SMALL]
