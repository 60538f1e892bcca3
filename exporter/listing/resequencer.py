"""The rows of one listing on their way out, in the order of its requests; performs no I/O."""

from collections import deque

from exporter.model import RawSession, TimeRange


class Resequencer:
    """Holds an answer's rows until those of all earlier requests are there.

    Invariant: the rows of requests 1 to `released_count` are ready or have left, and `_waiting`
    holds those behind a gap.
    """

    def __init__(self, time_range: TimeRange) -> None:
        self._time_range = time_range
        self._waiting: dict[int, list[RawSession]] = {}
        self._ready: deque[list[RawSession]] = deque()
        self.released_count = 0
        self._late: list[RawSession] = []
        self.session_count = 0
        """Wanted rows that were put in."""

    @property
    def ready_count(self) -> int:
        """Answers with rows that can be taken."""
        return len(self._ready)

    def put(self, number: int, sessions: list[RawSession], *, is_last: bool = False) -> None:
        """Add the new rows of the answer to request `number`; drop those outside the time range.

        Rows with `is_last` stand at the list's end and were asked for early: they wait for
        `finish`.
        """
        if self._time_range.has_bounds:
            sessions = [
                each for each in sessions if self._time_range.includes(each.get("createTime"))
            ]
        self.session_count += len(sessions)
        if is_last:
            self._late += sessions
            sessions = []
        self._waiting[number] = sessions
        while (rows := self._waiting.pop(self.released_count + 1, None)) is not None:
            self.released_count += 1
            if rows:
                self._ready.append(rows)

    def finish(self) -> None:
        """Release the rows of the list's end: no more come."""
        if self._late:
            self._ready.append(self._late)
            self._late = []

    def take(self, most: int) -> list[RawSession]:
        rows: list[RawSession] = []
        while self._ready and len(rows) < most:
            rows += self._ready.popleft()
        return rows
