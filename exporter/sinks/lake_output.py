"""A table of a lake as an output: rows to data files as they come, all of them one commit."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from exporter.errors import DestinationError
from exporter.gateway import Gateway
from exporter.held import NO_LOCK, HeldLock
from exporter.records import RawSession
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks import OutputFacts, TableMode, WrittenFile
from exporter.sinks.lake import KEY_COLUMNS, Conflict, Times, WaitingRows, read_times

logger = logging.getLogger(__name__)

MOST_COMMITS: Final = 5
FIRST_PAUSE_S: Final = 0.1

MOST_SMALL: Final = 8
"""Files below half the target size that a partition may have before they are merged."""


class HeldFile(Protocol):
    """A data file that a version of the table consists of."""

    @property
    def path(self) -> str: ...

    @property
    def size_bytes(self) -> int: ...

    @property
    def partition(self) -> Hashable: ...

    @property
    def created_us(self) -> tuple[int, int] | None:
        """The smallest and the largest `create_time`; None where they, or that there is no null
        among them, are not known.
        """


class NewFile(Protocol):
    """A data file that was written to its end and that nothing refers to yet."""

    @property
    def written(self) -> WrittenFile: ...


V = TypeVar("V")
H = TypeVar("H", bound=HeldFile)
N = TypeVar("N", bound=NewFile)


class NewFiles(Protocol[N]):
    """Data files on their way: `write`…, then `close`; or `discard`, which also removes what
    `close` ended.
    """

    def write(self, rows: pa.RecordBatch, /) -> None:
        """Append rows that have the table's columns."""

    def close(self) -> list[N]: ...

    def discard(self) -> None: ...


class Committer(Protocol[V, H, N]):
    """What one run does with a table of one kind, in terms of the versions that it reads."""

    @property
    def output(self) -> str: ...

    def translated(self) -> AbstractContextManager[None]:
        """Errors of the kind's library as ours."""

    def load(self) -> V:
        """The table as it is now, with the columns of ours that it lacks about to be added."""

    def prove_writable(self, version: V) -> None:
        """Write a file where the data files go, and remove it."""

    def fits(self, version: V, other: V) -> bool:
        """Whether files that were written for `other` can be committed on `version`."""

    def list_files(self, version: V) -> Sequence[H]:
        """The data files of the version, in no order."""

    def target_bytes(self, version: V) -> int:
        """How large data files are to be."""

    def fit_rows(self, rows: pa.RecordBatch, version: V) -> pa.RecordBatch:
        """Rows of ours with the table's columns."""

    def find_partitions(self, rows: pa.RecordBatch, version: V) -> Collection[Hashable]:
        """Where rows with the table's columns belong."""

    def read_rows(
        self, file: H, version: V, names: Sequence[str] | None = None
    ) -> Iterator[pa.RecordBatch]:
        """A data file's rows with all columns of the table or those named, a batch at a time."""

    def begin_files(self, version: V, series: int) -> NewFiles[N]:
        """Files with names that no other series of the run has."""

    def commit(self, version: V, *, added: Sequence[N], removed: Sequence[H]) -> None:
        """Raises Conflict when somebody else was faster, and then nothing changed."""


@dataclass(slots=True)
class Change(Generic[V, H, N]):
    """What a commit will do to the table, with its files written already."""

    version: V
    added: list[N]
    removed: list[H] = field(default_factory=list)

    @property
    def is_needed(self) -> bool:
        return bool(self.added or self.removed)


class TableOutput(Generic[V, H, N]):
    """Replaces a table's rows by the run's, or those of the sessions that the run has read.

    One commit in both cases, which names the run. A run that replaces always commits, one that adds
    only if it has rows. A session keeps its `create_time`, or gets it later: files whose times are
    others than those of the run are not looked into for its sessions.
    """

    def __init__(
        self,
        committer: Committer[V, H, N],
        *,
        mode: TableMode,
        exported_at: datetime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._committer = committer
        self._mode: TableMode = mode
        self._exported_at = exported_at
        self._sleep = sleep
        self._series_count = 0
        self._session_count = 0
        self._coerced_value_count = 0
        self._version = committer.load()
        committer.prove_writable(self._version)
        # Written and not committed: what `discard` removes.
        self._files: list[NewFiles[N]] = []
        self._waiting = WaitingRows(SCHEMA)
        self._change: Change[V, H, N] | None = None

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        batch = build_batch(gateway, sessions, self._exported_at)
        self._session_count += batch.rows.num_rows
        self._coerced_value_count += batch.coerced_value_count
        if self._mode == "upsert":
            self._waiting.append(batch.rows)
            return
        files = self._files[0] if self._files else self._begin_files(self._version)
        files.write(self._committer.fit_rows(batch.rows, self._version))

    def close(self) -> OutputFacts:
        if self._mode == "upsert":
            self._waiting.finish()
            with self._committer.translated():
                # Read anew: the listing may have taken an hour.
                change = self._plan_upsert(self._committer.load())
        else:
            added = self._files[0].close() if self._files else []
            with self._committer.translated():
                change = self._plan_replace(self._version, added)
        self._change = change
        return OutputFacts(
            session_count=self._session_count,
            coerced_value_count=self._coerced_value_count,
            files=tuple(new.written for new in change.added),
        )

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        """Commit, again on what somebody else committed meanwhile; a table that others change all
        the time is a DestinationError, and is as they left it.
        """
        change = self._change
        if change is None:
            raise RuntimeError("close comes first")
        output = self._committer.output
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, MOST_COMMITS + 1):
            try:
                lock.ensure_held()
                self._commit(change)
            except Conflict as exc:
                logger.info("commit %d of '%s': %s", attempt, output, exc)
            else:
                self._waiting.close()
                return
            if attempt < MOST_COMMITS:
                self._sleep(pause_s)
                pause_s *= 2
                with self._committer.translated():
                    change = self._plan_again(change)
        raise DestinationError(
            f"cannot commit to '{output}': others changed it {MOST_COMMITS} times meanwhile",
            hint="run again when nobody else writes to this table",
        )

    def discard(self) -> None:
        self._discard_files()
        self._waiting.close()

    def _discard_files(self) -> None:
        for files in self._files:
            files.discard()
        self._files.clear()

    def _commit(self, change: Change[V, H, N]) -> None:
        # A commit whose answer is lost may be done, and files of a commit are never removed: where
        # that cannot be told they stay, and a later run removes them if need be.
        files, self._files = self._files, []
        try:
            if change.is_needed or self._mode == "replace":
                self._committer.commit(change.version, added=change.added, removed=change.removed)
        except Conflict:
            self._files = files
            raise

    def _plan_again(self, change: Change[V, H, N]) -> Change[V, H, N]:
        version = self._committer.load()
        if self._mode == "replace":
            if not self._committer.fits(version, change.version):
                raise DestinationError(
                    f"the columns or partitions of '{self._committer.output}' were changed"
                    " meanwhile",
                    hint="run again",
                )
            return self._plan_replace(version, change.added)
        self._discard_files()
        return self._plan_upsert(version)

    def _plan_replace(self, version: V, added: list[N]) -> Change[V, H, N]:
        return Change(version, added, list(self._committer.list_files(version)))

    def _plan_upsert(self, version: V) -> Change[V, H, N]:
        """Write the run's rows, and anew the files that hold older versions of them.

        Older rows come first: the run's own, which the next run is most likely to change again,
        come to stand together in the smallest file.
        """
        if self._session_count == 0:
            return Change(version, [])
        held = self._committer.list_files(version)
        times = read_times(self._waiting)
        touched = [
            file for file in held if may_hold(file, times) and self._holds_any(file, version)
        ]
        touched_paths = {file.path for file in touched}
        merged = find_small(
            [file for file in held if file.path not in touched_paths],
            {file.partition for file in touched} | self._find_partitions(version),
            small_bytes=self._committer.target_bytes(version) // 2,
        )
        files = self._begin_files(version)
        # Largest first, so that what does not fill a file any more is the small ones.
        for file in sorted(touched + merged, key=lambda each: -each.size_bytes):
            for rows in self._committer.read_rows(file, version):
                files.write(rows.filter(pc.invert(self._waiting.keys.hits(rows))))
        for rows in self._waiting.read():
            files.write(self._committer.fit_rows(rows, version))
        return Change(version, files.close(), touched + merged)

    def _holds_any(self, file: H, version: V) -> bool:
        keys = self._waiting.keys
        read = self._committer.read_rows(file, version, KEY_COLUMNS)
        return any(pc.any(keys.hits(rows)).as_py() for rows in read)

    def _find_partitions(self, version: V) -> set[Hashable]:
        found: set[Hashable] = set()
        for rows in self._waiting.read():
            fitted = self._committer.fit_rows(rows, version)
            found.update(self._committer.find_partitions(fitted, version))
        return found

    def _begin_files(self, version: V) -> NewFiles[N]:
        files = self._committer.begin_files(version, self._series_count)
        self._series_count += 1
        self._files.append(files)
        return files


def may_hold(file: HeldFile, times: Times) -> bool:
    """Whether a data file may have a row of a session that was created at one of the times.

    A row whose session has no time, here or there, may be in any file.
    """
    if times.has_null or file.created_us is None:
        return True
    return times.any_within(*file.created_us)


def find_small(
    files: Sequence[H], partitions: Collection[Hashable], *, small_bytes: int
) -> list[H]:
    """The small files of those partitions that have too many of them."""
    small = [
        file for file in files if file.partition in partitions and file.size_bytes < small_bytes
    ]
    counts = Counter(file.partition for file in small)
    return [file for file in small if counts[file.partition] >= MOST_SMALL]
