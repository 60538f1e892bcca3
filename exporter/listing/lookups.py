"""On which page a session is by now that has to be found again; performs no I/O.

Its serial tells about where it is. What is not there is looked for by its create time: pages of a
list that is newest first tell which way to go, and a page that shows both older and newer sessions
shows that it has gone.
"""

from dataclasses import dataclass
from typing import Literal

MAX_TRIES = 12
"""Pages a session is looked for on, at most."""


@dataclass(frozen=True, slots=True)
class PageTimes:
    """The create times that one page showed; None where no row has one."""

    newest_ms: int | None
    oldest_ms: int | None
    is_sorted: bool
    """Whether no row was newer than the one before it."""


class Lookup:
    """One session that has to be found again, and what was done about it."""

    __slots__ = (
        "create_time_ms",
        "digest",
        "is_gone",
        "is_lost",
        "place",
        "serial",
        "session_id",
        "since_ms",
        "_high",
        "_low",
        "_next",
        "_tries",
    )

    def __init__(
        self,
        serial: int,
        session_id: str,
        create_time_ms: int | None,
        *,
        digest: str = "",
        since_ms: int = 0,
    ) -> None:
        self.serial = serial
        """As it was known; where it is found, as it is."""
        self.session_id = session_id
        self.create_time_ms = create_time_ms or None
        self.digest: str | None = digest
        """Of the version that left last; None once it need not be looked for any more."""
        self.since_ms = since_ms
        self.place: int | None = None
        """Where it was found."""
        self.is_gone = False
        """Whether it is known not to be in the list any more."""
        self.is_lost = False
        """Whether it cannot be found by looking at single pages."""
        self._low = 1
        self._high: int | None = None
        self._next: int | None = None
        self._tries = 0

    @property
    def is_open(self) -> bool:
        return self.place is None and not self.is_gone and not self.is_lost

    def choose_page(self, expected: int) -> int:
        """The page to look on next; `expected` is the one it should be on, by its serial."""
        self._tries += 1
        if self._next is None:
            self._next = max(1, expected)
        return self._next

    def note_miss(self, page_num: int, times: PageTimes) -> None:
        """Take in that the page it was looked for on does not show it."""
        if page_num != self._next:
            return
        way = self._tell_way(times)
        if way == "gone":
            self.is_gone = True
            return
        if way == "here" or self._tries >= MAX_TRIES:
            self.is_lost = True
            return
        if way == "front":
            self._high = page_num - 1
        else:
            self._low = page_num + 1
        self._choose_next(page_num, way)

    def _tell_way(self, times: PageTimes) -> Literal["front", "back", "here", "gone"]:
        if times.newest_ms is None or times.oldest_ms is None:
            # No row with a time: behind the end, or nothing to go by.
            return "front"
        if self.create_time_ms is None:
            return "here"
        if self.create_time_ms >= times.newest_ms:
            return "front"
        if self.create_time_ms <= times.oldest_ms:
            return "back"
        return "gone" if times.is_sorted else "here"

    def _choose_next(self, page_num: int, way: str) -> None:
        if self._high is not None and self._low > self._high:
            # It stands between two pages that do not show it: gone, unless the list just moved.
            self.is_gone = True
        elif way == "front":
            self._next = max(self._low, page_num - self._tries)
        elif self._high is None:
            self._next = page_num + self._tries
        else:
            self._next = min(self._high, page_num + self._tries)
