"""Meets the sessions of the bookmark's head again behind the new ones; performs no I/O.

The place of one of them shows which serial stands at place 0, and so about where any session of an
earlier run is by now.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.listing.bookmark import Bookmark

MIN_MET_ROWS = 10
"""So many have to be met: a session that is shown late may stand behind some of them."""
LATE_MS = 20_000
"""How long after it was created a session may be shown first."""

Met = Sequence[tuple[int, int]]
"""Positions in an answer of sessions of the bookmark's head, each with its place there."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """An answer that shows sessions of the bookmark's head."""

    page: int
    """Its index among the answers."""
    base: int
    """The serial of the row at place 0, by the deepest of these sessions."""
    place: int
    """Where the deepest of them stands by now, ..."""
    head_place: int
    """... and where it stood in the bookmark's head."""
    total_count: int
    oldest_ms: int | None
    """Create time of the deepest of them."""
    is_last: bool
    """Whether the list ends with this answer."""

    @property
    def came_count(self) -> int:
        """Sessions in front of the deepest that were not there before, less those that went."""
        return self.place - self.head_place


class BookmarkHead:
    """The first rows of the list as it was, and where they were met by now."""

    def __init__(self, bookmark: Bookmark) -> None:
        self._bookmark = bookmark
        self._places = {session_id: place for place, session_id in enumerate(bookmark.head)}
        self.meetings: list[Meeting] = []

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._places

    @property
    def deepest(self) -> Meeting:
        """The latest that shows the deepest of them; there must be one."""
        return max(self.meetings, key=lambda each: (each.head_place, each.page))

    def find_end(self) -> int:
        """The place where the last of them is by now, as the deepest one met shows."""
        return self.deepest.place + len(self._places) - 1 - self.deepest.head_place

    def find_met(self, session_ids: Sequence[str]) -> Met:
        places = self._places
        return [(at, places[each]) for at, each in enumerate(session_ids) if each in places]

    def find_front(self, start: int, times: Sequence[int | None], met: Met) -> int | None:
        """How many rows of an answer stand in front of the end of the bookmark's head: sessions
        that no earlier run has seen are among them. None where none of them does, and the head was
        not met at all.
        """
        row_count = len(times)
        if met and met[-1][1] == len(self._places) - 1:
            return met[-1][0]
        oldest_ms = self._bookmark.head_oldest_ms
        newer = [at for at, each in enumerate(times) if each is not None and each >= oldest_ms]
        last = max(newer[-1] if newer else -1, met[-1][0] if met else -1)
        if not met and not self.meetings:
            # Sessions may bear old times, even all of a page but one.
            return None if not newer and any(times) else row_count
        if any(each.place >= start + row_count for each in self.meetings):
            return row_count
        # A session without a time is taken to be as new as the one before it.
        while last + 1 < row_count and times[last + 1] is None and (newer or met):
            last += 1
        return last + 1

    def note(
        self,
        page: int,
        start: int,
        times: Sequence[int | None],
        met: Met,
        *,
        total_count: int,
        is_last: bool,
    ) -> None:
        """Take in an answer that is evidence and shows sessions of the bookmark's head."""
        at, head_place = find_deepest(times, met, is_last=is_last)
        place = start + at
        base = self._bookmark.serial_at(head_place) + place
        self.meetings.append(
            Meeting(page, base, place, head_place, total_count, times[at], is_last)
        )

    def estimate_base(self, total_count: int) -> int:
        """The serial of the row at place 0, in an answer with a total."""
        if not self.meetings:
            return total_count - 1 + self._bookmark.expired_count
        deepest = self.deepest
        return deepest.base + total_count - deepest.total_count

    def forget(self, *, before: int) -> None:
        """Drop the meetings in answers before one, by its index."""
        self.meetings = [each for each in self.meetings if each.page >= before]

    @property
    def is_met(self) -> bool:
        """Whether so many were met that no session shown late can stand behind them."""
        if not self.meetings:
            return False
        deepest, bookmark = self.deepest, self._bookmark
        if deepest.is_last or deepest.head_place == len(bookmark.head) - 1:
            return True
        if deepest.head_place + 1 < MIN_MET_ROWS:
            return False
        newest_ms = bookmark.head_newest_ms
        if newest_ms is None or deepest.oldest_ms is None:
            return True
        return deepest.oldest_ms < newest_ms - LATE_MS


def find_deepest(times: Sequence[int | None], met: Met, *, is_last: bool) -> tuple[int, int]:
    """The position of the deepest session met, and its place in the bookmark's head.

    Sessions of one create time may have changed places: only the last of all of them counts.
    """
    places = dict(met)
    for at, _ in reversed(met):
        tied = {each for each, time in enumerate(times) if time == times[at]}
        is_whole = is_last or max(tied) < len(times) - 1
        if is_whole and tied <= places.keys() and at == max(tied):
            return at, max(places[each] for each in tied)
    return met[-1]


def find_behind_head(bookmark: Bookmark) -> frozenset[str]:
    """Ids of the sessions that may have changed and stood behind the bookmark's head; those that
    came in front of it, while the list was read, are not among them.
    """
    last_serial = bookmark.serial_at(len(bookmark.head) - 1)
    return frozenset(
        each.session_id
        for each in bookmark.unfinished
        if each.serial < last_serial and each.session_id not in bookmark.head
    )
