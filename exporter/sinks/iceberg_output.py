"""An Iceberg table as an output: rows to data files as they come, all of them one commit."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import pyarrow.compute as pc
from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFile
from pyiceberg.schema import Schema
from pyiceberg.table import FileScanTask
from pyiceberg.table.locations import load_location_provider
from pyiceberg.typedef import Record
from pyiceberg.types import TimestamptzType

from exporter.errors import DestinationError
from exporter.gateway import Gateway
from exporter.records import RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks import OutputFacts, ParquetCodec, TableMode
from exporter.sinks.iceberg_files import (
    CODEC_PROPERTY,
    DataFiles,
    NewFile,
    TableFile,
    build_arrow_schema,
    read_rows,
    split_rows,
    target_bytes_of,
)
from exporter.sinks.iceberg_names import translated
from exporter.sinks.iceberg_tables import Conflict, LakeTable, Prepared
from exporter.sinks.lake import KEY_COLUMNS, Keys, Times, WaitingRows, fit_rows, read_times
from exporter.sinks.lake_files import PREFIX

logger = logging.getLogger(__name__)

MOST_COMMITS: Final = 5
FIRST_PAUSE_S: Final = 0.1

MOST_SMALL: Final = 8
"""Files below half the target size that a partition may have before they are merged."""


@dataclass(slots=True)
class Change:
    """What a commit will do to the table, with its files written already."""

    prepared: Prepared
    added: list[NewFile]
    removed: list[DataFile] = field(default_factory=list)

    @property
    def is_needed(self) -> bool:
        return bool(self.added or self.removed)


class IcebergOutput:
    """Replaces a table's rows by the run's, or those of the sessions that the run has read.

    One commit in both cases, whose snapshot names the run. A run that replaces always commits, one
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
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = table
        self._mode: TableMode = mode
        self._run_id = run_id
        self._exporter_version = exporter_version
        self._exported_at = exported_at
        self._sleep = sleep
        self._properties: dict[str, str] = {
            CODEC_PROPERTY: "uncompressed" if codec == "none" else codec
        }
        self._prepared = self._prepare()
        self._series_count = 0
        self._session_count = 0
        self._coerced_value_count = 0
        prove_writable(self._prepared, run_id)
        # Written and not committed: what `discard` removes.
        self._files: list[DataFiles] = []
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
        with translated(self._table.output):
            files = self._files[0] if self._files else self._begin_files(self._prepared)
            files.write(fit_rows(batch.rows, files.schema))

    def close(self) -> OutputFacts:
        with translated(self._table.output):
            if self._mode == "upsert":
                self._waiting.finish()
                # Read anew: the listing may have taken an hour.
                self._change = self._plan_upsert(self._prepare())
            else:
                added = self._files[0].close() if self._files else []
                self._change = self._plan_replace(self._prepared, added)
        return OutputFacts(
            session_count=self._session_count,
            coerced_value_count=self._coerced_value_count,
            files=tuple(new.written for new in self._change.added),
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
                with translated(self._table.output):
                    self._commit(change)
            except Conflict as exc:
                logger.info("commit %d of '%s': %s", attempt, self._table.output, exc)
            else:
                self._waiting.close()
                return
            if attempt < MOST_COMMITS:
                self._sleep(pause_s)
                pause_s *= 2
                with translated(self._table.output):
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
        files, self._files = self._files, []
        try:
            if change.is_needed or self._mode == "replace":
                self._table.commit(
                    change.prepared,
                    added=[new.data_file for new in change.added],
                    removed=change.removed,
                    run_id=self._run_id,
                    exporter_version=self._exporter_version,
                )
        except Conflict:
            self._files = files
            raise
        except Exception:
            # The answer may be lost and the commit done. Files of a commit are never removed, so
            # where that cannot be told they stay, and a later run removes what nobody refers to.
            if not self._table.has_committed(self._run_id):
                raise

    def _prepare(self) -> Prepared:
        return self._table.prepare(properties=self._properties)

    def _plan_again(self, change: Change) -> Change:
        prepared = self._prepare()
        if self._mode == "replace":
            if not prepared.fits(change.prepared.metadata):
                raise DestinationError(
                    f"the columns or partitions of '{self._table.output}' were changed meanwhile",
                    hint="run again",
                )
            return self._plan_replace(prepared, change.added)
        for files in self._files:
            files.discard()
        self._files.clear()
        return self._plan_upsert(prepared)

    def _plan_replace(self, prepared: Prepared, added: list[NewFile]) -> Change:
        return Change(prepared, added, [task.file for task in prepared.plan_files()])

    def _plan_upsert(self, prepared: Prepared) -> Change:
        """Write the run's rows, and anew the files that hold older versions of them.

        Older rows come first: the run's own, which the next run is most likely to change again,
        come to stand together in the smallest file.
        """
        if self._session_count == 0:
            return Change(prepared, [])
        tasks = prepared.plan_files()
        keys, times = self._waiting.keys, read_times(self._waiting)
        touched = [
            task
            for task in tasks
            if may_hold(task.file, prepared.metadata.schema(), times)
            and holds_any(task, prepared, keys)
        ]
        touched_paths = {task.file.file_path for task in touched}
        written_to = {task.file.partition for task in touched} | self._find_partitions(prepared)
        merged = find_small(
            [task for task in tasks if task.file.file_path not in touched_paths],
            written_to,
            small_bytes=target_bytes_of(prepared.metadata) // 2,
        )
        files = self._begin_files(prepared)
        # Largest first, so that what does not fill a file any more is the small ones.
        for task in sorted(touched + merged, key=lambda each: -each.file.file_size_in_bytes):
            schema = prepared.metadata.schema()
            for rows in read_rows(task, prepared.metadata, prepared.table.io, schema):
                files.write(rows.filter(pc.invert(keys.hits(rows))))
        for rows in self._waiting.read():
            files.write(fit_rows(rows, files.schema))
        return Change(prepared, files.close(), [task.file for task in touched + merged])

    def _find_partitions(self, prepared: Prepared) -> set[Record]:
        schema = build_arrow_schema(prepared.metadata.schema())
        return {
            Record() if key is None else key.partition
            for rows in self._waiting.read()
            for key, _ in split_rows(fit_rows(rows, schema), prepared.metadata)
        }

    def _begin_files(self, prepared: Prepared) -> DataFiles:
        files = DataFiles(
            prepared.metadata,
            prepared.table.io,
            run_id=self._run_id,
            series=str(self._series_count),
        )
        self._series_count += 1
        self._files.append(files)
        return files


def prove_writable(prepared: Prepared, run_id: str) -> None:
    """Write a file where the data files go, and remove it."""
    metadata = prepared.metadata
    locations = load_location_provider(metadata.location, metadata.properties)
    proof = TableFile(prepared.table.io, f"{locations.data_path}/{PREFIX}{run_id}.proof")
    try:
        proof.write(b"livy-exporter\n")
        proof.sync()
    finally:
        proof.discard()


def may_hold(file: DataFile, schema: Schema, times: Times) -> bool:
    """Whether a data file may have a row of a session that was created at one of the times.

    A row whose session has no time, here or there, may be in any file.
    """
    column = schema.find_field("create_time").field_id
    lower = (file.lower_bounds or {}).get(column)
    upper = (file.upper_bounds or {}).get(column)
    null_count = (file.null_value_counts or {}).get(column)
    if times.has_null or null_count != 0 or lower is None or upper is None:
        return True
    return times.any_within(
        int(from_bytes(TimestamptzType(), lower)), int(from_bytes(TimestamptzType(), upper))
    )


def holds_any(task: FileScanTask, prepared: Prepared, keys: Keys) -> bool:
    schema = prepared.metadata.schema().select(*KEY_COLUMNS)
    read = read_rows(task, prepared.metadata, prepared.table.io, schema)
    return any(pc.any(keys.hits(rows)).as_py() for rows in read)


def find_small(
    tasks: list[FileScanTask], partitions: set[Record], *, small_bytes: int
) -> list[FileScanTask]:
    """The small files of those partitions that have too many of them."""
    small = [
        task
        for task in tasks
        if task.file.partition in partitions and task.file.file_size_in_bytes < small_bytes
    ]
    counts = Counter(task.file.partition for task in small)
    return [task for task in small if counts[task.file.partition] >= MOST_SMALL]
