"""The order in which the listings of a run get their requests; performs no I/O."""

from collections import deque
from collections.abc import Sequence

from exporter.listing.interface import Listing, PageRequest
from exporter.model import Gateway, ListingFacts, RawSession

MIN_WINDOW = 64
"""Smallest window, in pages, however few workers there are."""
MAX_ROWS_AT_ONCE = 2000
"""Rows written in one step if there are as many: larger steps would save little."""


class Schedule:
    """Chooses the next request over all gateways, and the next rows to write.

    Gateways are listed in the order given: a later one gets a request only while no earlier one has
    any, and its rows wait until the earlier ones are concluded. At most `window` pages are held for
    the first gateway that is not concluded, and as many for all others together, whatever the
    number of gateways and sessions.
    """

    def __init__(self, listings: Sequence[Listing], *, page_size: int, window: int) -> None:
        self._listings = listings
        self._head = 0
        self._started = 0
        self._window = window
        # A step never waits for more than half of the window, so that requests always have room.
        self._pages_at_once = max(1, min(window // 2, MAX_ROWS_AT_ONCE // page_size))
        self._unanswered: deque[tuple[Listing, PageRequest]] = deque()
        self.facts: list[ListingFacts] = []

    @property
    def finished(self) -> bool:
        return self._head == len(self._listings)

    def send_first(self, unanswered: Sequence[tuple[Listing, PageRequest]]) -> None:
        """Make these the next requests: an earlier run sent them and recorded no answer."""
        self._unanswered.extend(unanswered)

    def next_request(self) -> tuple[Listing, PageRequest] | None:
        """The next request; None until an answer arrives or rows are taken."""
        if self._unanswered:
            return self._unanswered.popleft()
        while self._started < len(self._listings) and self._listings[self._started].asked_count > 0:
            self._started += 1
        later = self._listings[self._head + 1 : self._started]
        held_later = sum(listing.held_count for listing in later)
        for place in range(self._head, min(self._started + 1, len(self._listings))):
            listing = self._listings[place]
            held = listing.held_count if place == self._head else held_later
            request = listing.next_request() if held < self._window else None
            if request is not None:
                return listing, request
        return None

    def take_rows(self) -> tuple[Gateway, list[RawSession]] | None:
        """The next rows of the output; None until enough of them are ready."""
        while self._head < len(self._listings):
            listing = self._listings[self._head]
            if listing.facts is not None or listing.ready_count >= self._pages_at_once:
                rows = listing.take_rows(MAX_ROWS_AT_ONCE)
                if rows:
                    return listing.gateway, rows
            if listing.facts is None:
                return None
            self.facts.append(listing.facts)
            self._head += 1
        return None
