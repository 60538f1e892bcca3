"""On which page a session is by now that has to be found again; performs no I/O.

Its serial tells about where it is. What is not there is looked for by its create time: pages of a
list that is newest first tell which way to go, and a page that shows both older and newer sessions
shows that it has gone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from exporter.listing.known import TOLERANCE_MS

MAX_TRIES = 12
"""Pages a session is looked for on, at most."""


@dataclass(frozen=True, slots=True)
class PageTimes:
    """The create times that one page showed; None where no row has one."""

    newest_ms: int | None
    oldest_ms: int | None
    is_sorted: bool
    """Whether no row was newer than the one before it."""
    is_last: bool = False
    """Whether the list ends in the middle of it."""


class Lookup:
    """One session that has to be found again, and what was done about it."""

    __slots__ = (
        "_again",
        "_between",
        "_high",
        "_low",
        "_next",
        "_stride",
        "_tries",
        "create_time_ms",
        "digest",
        "is_gone",
        "is_lost",
        "place",
        "serial",
        "session_id",
        "since_ms",
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
        self._stride = 1
        self._tries = 0
        self._again: set[int] = set()
        self._between: tuple[int, int] | None = None
        """The two pages it seemed to be between when both were asked for again."""

    @property
    def is_open(self) -> bool:
        return self.place is None and not self.is_gone and not self.is_lost

    def choose_page(self, expected: int, shown: Mapping[int, PageTimes]) -> int | None:
        """The page to look on next; None when it need not, or cannot, be looked for any more.

        `expected` is the page it should be on, by its serial; `shown` is what the pages showed that
        were asked for, none of which shows it.
        """
        if self._next is None:
            self._next = max(1, expected)
        while self.is_open and self._next is not None:
            if self._next not in shown or self._next in self._again:
                self._again.discard(self._next)
                self._tries += 1
                self.is_lost = self._tries > MAX_TRIES
                return None if self.is_lost else self._next
            self._step(self._next, shown[self._next])
        return None

    def _step(self, page_num: int, times: PageTimes) -> None:
        """Go on from a page that does not show it."""
        way = self._tell_way(times)
        self.is_gone = way == "gone"
        self.is_lost = way == "here"
        if way == "front":
            self._turn_to_front(page_num)
        elif way == "back":
            self._turn_to_back(page_num)
        self._stride *= 2
        if self._high is not None and self._low > self._high:
            self._end_between(max(1, self._high), self._low)

    def _turn_to_front(self, page_num: int) -> None:
        if self._between is not None and 1 < page_num <= self._between[0]:
            # It has moved to the front of both.
            self._between, self._low, self._stride = None, 1, 1
        self._high = page_num - 1
        self._next = (
            (self._low + self._high) // 2 if self._low > 1 else max(1, page_num - self._stride)
        )

    def _turn_to_back(self, page_num: int) -> None:
        if self._between is not None and page_num >= self._between[1]:
            self._between, self._high, self._stride = None, None, 1
        self._low = page_num + 1
        self._next = (
            page_num + self._stride if self._high is None else (self._low + self._high) // 2
        )

    def _end_between(self, front: int, back: int) -> None:
        """It stands between two pages that do not show it.

        It has gone, unless the list has moved since one of the two was asked for.
        """
        if self._between is not None:
            self.is_gone = True
            return
        self._between = front, back
        self._again = {front, back}
        self._low, self._high, self._next, self._stride = front, back, front, 1

    def _tell_way(self, times: PageTimes) -> Literal["front", "back", "here", "gone"]:
        if times.newest_ms is None or times.oldest_ms is None:
            # No row with a time: behind the end, or nothing to go by.
            return "front"
        if self.create_time_ms is None:
            return "here"
        if self.create_time_ms >= times.newest_ms:
            return "front"
        if self.create_time_ms <= times.oldest_ms:
            is_behind_end = times.is_last and self.create_time_ms < times.oldest_ms - TOLERANCE_MS
            return "gone" if is_behind_end else "back"
        return "gone" if times.is_sorted else "here"
