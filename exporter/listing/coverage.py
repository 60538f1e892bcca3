"""Which pages of one gateway's list to ask for, and what the answers prove; performs no I/O.

Page 1 tells the total and how many rows the service really puts on a page. All further pages are
asked for with that size, so a silently capped size shifts nothing. Rows leave in list order, each
key once, as soon as every page before theirs is there. When the last page is there, page 1 is asked
for again, as a sentinel: if the head and the total stayed what they were and as many distinct keys
were seen as the total says, nothing moved meanwhile, and the listing is *quiescent*. In any other
case it is *unproven*. A list that fits on one page needs no sentinel.
"""

from collections import deque
from dataclasses import dataclass
from typing import Literal

from exporter.api.roa import SessionPage
from exporter.gateway import Gateway
from exporter.listing.keys import KeySet
from exporter.records import RawSession

Proof = Literal["quiescent", "unproven"]


MOST_EXPECTED = 1 << 24
"""Most keys that room is made for before they come: a total is only what the service says."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    gateway: Gateway
    page_num: int
    page_size: int
    sentinel: bool
    """Asked for to see whether the list moved, after all pages came."""


@dataclass(frozen=True, slots=True)
class ListingFacts:
    """What was read of one gateway, and what that proves."""

    gateway: Gateway
    session_count: int
    total_count_first: int
    total_count_last: int
    inserted_count: int
    deleted_count: int
    overlap_count: int
    """Rows that were seen again and left out."""
    page_count: int
    """Pages read in all, the sentinel and repairs included."""
    repair_page_count: int
    proof: Proof


class Coverage:
    """The state of one gateway's listing.

    Invariant: pages 1 to `_released` have left as rows, `_waiting` holds answered pages behind a
    gap, and every other page up to `_asked` is in flight.
    """

    def __init__(self, gateway: Gateway, *, page_size: int) -> None:
        self.gateway = gateway
        self._page_size = page_size
        self._page_count: int | None = None
        self._asked = 0
        self._released = 0
        self._waiting: dict[int, list[RawSession]] = {}
        self._ready: deque[list[RawSession]] = deque()
        self._keys = KeySet(0)
        self._row_count = 0
        self._answer_count = 0
        self._first: SessionPage | None = None
        self._sentinel_asked = False
        self._total_moved = False
        self._facts: ListingFacts | None = None

    @property
    def page_count(self) -> int | None:
        """Pages that the list has by the largest total seen; None before the first answer."""
        return self._page_count

    @property
    def held_count(self) -> int:
        """Pages asked for whose rows have not been taken yet: what this listing holds or will hold
        in memory.
        """
        return self._asked - self._released + len(self._ready)

    @property
    def ready_count(self) -> int:
        """Pages whose rows can be taken."""
        return len(self._ready)

    @property
    def facts(self) -> ListingFacts | None:
        """The outcome; None until the sentinel came."""
        return self._facts

    @property
    def finished(self) -> bool:
        """Everything is answered and every row was taken."""
        return self._facts is not None and not self._ready

    def next_request(self) -> PageRequest | None:
        """The next page to ask for; None while only answers can tell, and at the end."""
        if self._asked == 0:
            return self._ask_next()
        if self._page_count is None or self._facts is not None:
            return None
        if self._asked < self._page_count:
            return self._ask_next()
        if self._released == self._asked and not self._sentinel_asked:
            self._sentinel_asked = True
            return PageRequest(self.gateway, 1, self._page_size, sentinel=True)
        return None

    def _ask_next(self) -> PageRequest:
        self._asked += 1
        return PageRequest(self.gateway, self._asked, self._page_size, sentinel=False)

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        """Take in the answer to a request of `next_request`; any order of answers will do.

        The page's sessions are the listing's from then on: those seen before are taken out of it.
        """
        self._answer_count += 1
        if request.sentinel:
            self._conclude(page)
            return
        if self._first is None:
            self._first = page
            self._page_size = min(self._page_size, len(page.sessions) or self._page_size)
            self._keys = KeySet(min(page.total_count, MOST_EXPECTED))
        self._total_moved |= page.total_count != self._first.total_count
        # A total that grew means rows beyond what was the last page.
        pages = max(1, -(-page.total_count // self._page_size))
        self._page_count = max(self._page_count or 1, pages)
        self._row_count += len(page.session_ids)
        for position in reversed(self._keys.add_all(page.session_ids)):
            del page.sessions[position]
        self._waiting[request.page_num] = page.sessions
        while (rows := self._waiting.pop(self._released + 1, None)) is not None:
            self._released += 1
            if rows:
                self._ready.append(rows)
        if page is self._first and len(page.session_ids) == page.total_count:
            # The whole list in one answer is one instant: nothing can have moved.
            self._sentinel_asked = True
            self._conclude(page)

    def take_rows(self, most: int) -> list[RawSession]:
        """The next rows in list order: whole pages, until `most` rows are reached; empty when none
        is ready.
        """
        rows: list[RawSession] = []
        while self._ready and len(rows) < most:
            rows += self._ready.popleft()
        return rows

    def _conclude(self, sentinel: SessionPage) -> None:
        first = self._first
        assert first is not None  # noqa: S101 - the sentinel is asked for after page 1
        held_still = (
            not self._total_moved
            and sentinel.total_count == first.total_count == len(self._keys)
            and sentinel.session_ids[: self._page_size] == first.session_ids[: self._page_size]
        )
        new_head = set(sentinel.session_ids) - set(first.session_ids)
        inserted = 0 if held_still else len(new_head)
        self._facts = ListingFacts(
            gateway=self.gateway,
            session_count=len(self._keys),
            total_count_first=first.total_count,
            total_count_last=sentinel.total_count,
            inserted_count=inserted,
            deleted_count=max(0, inserted - (sentinel.total_count - first.total_count)),
            overlap_count=self._row_count - len(self._keys),
            page_count=self._answer_count,
            repair_page_count=0,
            proof="quiescent" if held_still else "unproven",
        )
