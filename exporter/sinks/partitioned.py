"""A dataset whose parts are in folders by the values of columns, however many folders that makes.

The order of a list is not that of its partitions, so a row of any partition may come at any time.
Two things are bounded. Rows waiting in memory: the largest partitions are written first, which
makes the fewest small row groups. Open parts: the least recently written one is ended, and its
partition gets another part if more rows of it come.
"""

from collections.abc import Sequence
from typing import Final

from exporter.model import Gateway, RawSession
from exporter.sinks.dataset import Parts
from exporter.sinks.file import FileOutput
from exporter.sinks.interface import OutputFacts, PartitionBuffer, Rows
from exporter.sinks.row_groups import RowGroup
from exporter.stores.interface import NO_LOCK, HeldLock, StagedFile

MAX_OPEN: Final = 32
"""Parts that are open at a time, each with its file."""
HELD_BYTES: Final = 64 << 20
"""Memory of all open parts together; one large part being uploaded takes 32 MiB."""
WAITING_BYTES: Final = 32 << 20
"""Rows that wait for their part; twice as many were measured at a third fewer small parts."""


class PartitionedOutput:
    """Writes rows to parts of about `target_bytes` each, in the folders that `buffer` names.

    An output without rows has one empty part in `empty_folder`, where readers find the columns and
    the layout of folders; none if `empty_folder` is None.
    """

    def __init__(
        self,
        parts: Parts,
        buffer: PartitionBuffer,
        *,
        target_bytes: int,
        empty_folder: str | None,
    ) -> None:
        self._parts = parts
        self._buffer = buffer
        self._target_bytes = target_bytes
        self._empty_folder = empty_folder
        self._waiting: dict[str, RowGroup[Rows]] = {}
        self._waiting_bytes = 0
        # By folder, the least recently written first.
        self._open: dict[str, FileOutput] = {}

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        self._buffer.add(gateway, sessions)
        if self._buffer.is_full:
            self._split()

    def close(self) -> OutputFacts:
        self._split()
        # First the open parts: opening another one could end them while their rows wait.
        for folder in [*self._open, *self._waiting]:
            if folder in self._waiting:
                self._write_out(folder)
        for folder in list(self._open):
            self._end(folder)
        if len(self._parts) == 0 and self._empty_folder is not None:
            self._parts.end(self._parts.begin(self._empty_folder))
        return self._parts.build_facts(coerced_value_count=self._buffer.coerced_value_count)

    @property
    def staged(self) -> list[StagedFile]:
        """The parts that are not published."""
        return self._parts.staged

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._parts.publish(lock)

    def discard(self) -> None:
        self._waiting.clear()
        self._open.clear()
        self._parts.discard()

    def _split(self) -> None:
        for folder, rows in self._buffer.split():
            waiting = self._waiting.setdefault(folder, RowGroup())
            waiting.add(rows, row_count=rows.row_count, size_bytes=rows.size_bytes)
            self._waiting_bytes += rows.size_bytes
            if waiting.is_full:
                self._write_out(folder)
        if self._waiting_bytes > WAITING_BYTES:
            for folder in choose_largest(self._waiting, down_to=WAITING_BYTES // 2):
                self._write_out(folder)

    def _write_out(self, folder: str) -> None:
        waiting = self._waiting.pop(folder)
        self._waiting_bytes -= waiting.size_bytes
        part = self._open.pop(folder, None)
        if part is None:
            self._make_room()
            part = self._parts.begin(folder)
        self._open[folder] = part
        part.write_rows(waiting.take())
        if part.size_bytes >= self._target_bytes:
            self._end(folder)
        while sum(each.held_bytes for each in self._open.values()) > HELD_BYTES:
            self._end(next(iter(self._open)))

    def _make_room(self) -> None:
        while len(self._open) >= MAX_OPEN:
            self._end(next(iter(self._open)))

    def _end(self, folder: str) -> None:
        self._parts.end(self._open.pop(folder))


def choose_largest(waiting: dict[str, RowGroup[Rows]], *, down_to: int) -> list[str]:
    """The fewest partitions whose removal leaves at most `down_to` bytes waiting."""
    chosen: list[str] = []
    left = sum(each.size_bytes for each in waiting.values())
    for folder in sorted(waiting, key=lambda each: waiting[each].size_bytes, reverse=True):
        if left <= down_to:
            break
        chosen.append(folder)
        left -= waiting[folder].size_bytes
    return chosen
