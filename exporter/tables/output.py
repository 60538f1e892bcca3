"""A table as a run's output: rows wait until they are published as one commit."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Final

from exporter.errors import DestinationError, ExporterError, mask_urls
from exporter.model import Gateway, RawSession
from exporter.records.schema import build_batch
from exporter.sinks.interface import OutputFacts
from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.tables.interface import Commit, CommitConflict, Table, TableMode
from exporter.tables.spool import SpilledRows, keep_newest

logger = logging.getLogger(__name__)

MAX_COMMITS: Final = 5
FIRST_PAUSE_S: Final = 0.1


class TableOutput:
    """Replaces all rows of a table, or upserts the sessions that the run has read.

    A run that replaces always commits, one that upserts only if it has rows.
    """

    def __init__(
        self,
        table: Table,
        *,
        output: str,
        mode: TableMode,
        commit: Commit,
        exported_at: datetime,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._table = table
        self._output = output
        self._mode: TableMode = mode
        self._commit = commit
        self._exported_at = exported_at
        self._sleep = sleep
        self._coerced_value_count = 0
        table.prove_writable(commit.run_id)
        self._rows = SpilledRows()

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        batch = build_batch(gateway, sessions, self._exported_at)
        self._coerced_value_count += batch.coerced_value_count
        self._rows.append(batch.rows)

    def close(self) -> OutputFacts:
        session_count = self._rows.row_count
        self._rows.finish()
        if self._mode == "upsert":  # a full listing gives each session once
            self._rows = keep_newest(self._rows)
        return OutputFacts(session_count, self._coerced_value_count, files=())

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        """Commit, and commit again on top of what somebody else committed meanwhile.

        Raises DestinationError, with the table as others left it, when every attempt conflicts.
        """
        pause_s = FIRST_PAUSE_S
        for attempt in range(1, MAX_COMMITS + 1):
            try:
                self._try_commit(replace(self._commit, lock=lock))
            except CommitConflict as exc:
                logger.info("commit %d of '%s': %s", attempt, self._output, exc)
            else:
                return
            if attempt < MAX_COMMITS:
                self._sleep(pause_s)
                pause_s *= 2
        raise DestinationError(
            f"cannot commit to '{self._output}': others changed it {MAX_COMMITS} times meanwhile",
            hint="run again when nobody else writes to this table",
        )

    def discard(self) -> None:
        self._rows.close()

    def _try_commit(self, commit: Commit) -> None:
        if self._mode == "upsert" and self._rows.row_count == 0:
            return
        try:
            self._table.commit_rows(self._rows, commit, mode=self._mode)
        except CommitConflict:
            raise
        except DestinationError:
            # The answer may be lost, and the commit made.
            if not self._is_committed():
                raise

    def _is_committed(self) -> bool:
        with suppress(ExporterError):
            return self._table.find_commit(self._commit.run_id) is not None
        return False


def compact(table: Table, commit: Commit, *, output: str) -> None:
    """Merge a table's small files after a run; a failure is logged, and costs no run."""
    try:
        table.compact(commit)
    except Exception as exc:
        # Whatever a library raises here, the run is published.
        logger.warning("did not merge the small files of '%s': %s", output, mask_urls(str(exc)))
        logger.debug("merging small files", exc_info=True)
