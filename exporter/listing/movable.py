"""Sessions that have not ended and may move when they do, as in a list by end time; no I/O."""

from collections.abc import Sequence
from itertools import takewhile

from exporter.listing.bookmark import find_unfinished
from exporter.model import SessionPage


class MovableSessions:
    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._pages: set[int] = set()
        """Indices of the answers that show some of them."""

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._ids

    def add(self, page: SessionPage, at: int) -> frozenset[int]:
        """Take in answer number `at`; the positions of its sessions that have ended since they were
        seen.
        """
        unfinished = {
            position
            for position in find_unfinished(page.sessions)
            if page.sessions[position].get("state") is not None
        }
        ended: frozenset[int] = frozenset()
        if self._ids:
            ended = frozenset(
                position
                for position, session_id in enumerate(page.session_ids)
                if session_id in self._ids and position not in unfinished
            )
        if unfinished:
            self._ids.update(page.session_ids[position] for position in unfinished)
            self._pages.add(at)
        return ended

    def find_landings(self, pages: Sequence[int]) -> tuple[int | None, int | None]:
        """The answers that show where sessions may land when they end: behind those that still run
        at the head, and in front of those at the end.

        Of answers in list order, the last one up to which all show movable sessions, and the first
        one from which on all do; None where there is none.
        """
        front = list(takewhile(self._pages.__contains__, pages))
        tail = list(takewhile(self._pages.__contains__, reversed(pages)))
        is_bordered = len(front) < len(pages)
        return front[-1] if front and is_bordered else None, tail[-1] if tail else None
