"""One list as its answers show it: its rows, its ends, and how it moves; performs no I/O.

`FullListing` feeds it; `Sweep`, `Repairs` and `ProofSearch` decide by it.
"""

from collections.abc import Sequence
from math import ceil
from typing import Literal

from exporter.listing.cutoff import Cutoff
from exporter.listing.end_look import EndLook
from exporter.listing.ends import EndSearch
from exporter.listing.head import Head
from exporter.listing.observations import MIN_HELD, Observations
from exporter.listing.order import MIN_ROWS_TO_TRIM, count_crowded, read_times
from exporter.listing.repeats import EMPTY_WAITS_S, Repeats
from exporter.listing.windows import Window
from exporter.model import SessionPage

Stage = Literal["start", "peek", "sweep", "close", "repair", "resweep"]

EMPTIED_WAITS_S = (0.0, 1.0, 5.0, 20.0)
"""Before each further look at a list that is said to be empty, where sessions were seen before."""
MIN_OVERLAP = 4
"""Rows beyond a tie that two windows share: some may shift away, and two have to stay."""
MIN_OVERLAP_AT_REST = 2
"""The same in a list that was not seen to move, or in small pages, which move by less at once."""
MAX_APART = 32
"""Most answers that count as in flight at once."""
MAX_COST = 3.8
"""Requests relative to the pages, all included."""
MAX_BESIDES = 24
"""More of them in a list of few pages, ..."""
MAX_SMALL = 40
"""... but no more than so many."""


class ListView:
    """One list, by its answers in the order in which they were taken in."""

    def __init__(self, *, page_size: int, since_ms: int | None) -> None:
        self.page_size = page_size
        """Rows to ask for; lowered to what the service puts on a page."""
        self.observations = Observations()
        self.ends = EndSearch()
        self.end_look = EndLook()
        self.cutoff = Cutoff(since_ms, self.observations)
        self.repeats = Repeats()
        self.head_page = 0
        """Index of the latest answer about page 1."""
        self.head_is_unchanged = False
        """Whether the last look at the head showed the first answer's rows, and nothing moved."""
        self.newcomer_count = 0
        """Sessions that came at the head since the first answer."""
        self.empty_count = 0
        """Answers in a row that said the list is empty."""
        self.first_total_count: int | None = None
        """Of the first answer that had rows."""
        self.last_total_count = 0
        self.max_total_count = 0
        self.has_moved = False
        self.has_rows_behind_end = False
        """Whether rows were seen where the list seemed to end."""
        self._head = Head()
        self._max_tie = 1
        self._max_on_page = 0
        """Most rows of an answer to page 1, before the page size was settled."""

    # Take answers in

    def note_total(self, page: SessionPage) -> None:
        if self.first_total_count is None and page.row_count > 0:
            self.first_total_count = page.total_count
        self.last_total_count = page.total_count
        self.max_total_count = max(self.max_total_count, page.total_count)
        self.has_moved |= page.total_count != (self.first_total_count or page.total_count)

    def is_evidence(self, window: Window, page: SessionPage) -> bool:
        """Whether an answer shows all that stood between its first row and its last one."""
        is_known_end = self.ends.is_known_end(window.start + page.row_count)
        return self.repeats.is_evidence(window, page, is_known_end=is_known_end)

    def add(
        self, window: Window, page: SessionPage, *, stage: Stage, is_evidence: bool
    ) -> list[int]:
        """Take in an answer that has rows; the positions of those that were seen before."""
        self.empty_count = 0
        times = read_times(page.sessions)
        size = window.page_size
        if stage == "start" and page.row_count != page.total_count:
            # Until the size is known at which the service caps pages, no answer is short.
            size = page.row_count
        repeated = self.observations.add(window, page, times, size=size, is_evidence=is_evidence)
        if self.cutoff.is_ahead:
            stop = window.start + page.row_count
            self.cutoff.note(times, page.sessions, stop=stop, size=window.page_size)
        self._note_tie(times)
        if is_evidence:
            self._note_evidence(window, page, times, stage=stage)
        return repeated

    def add_empty(self, window: Window, page: SessionPage) -> None:
        """Take in an answer without rows."""
        if page.total_count == 0:
            self.empty_count += window.start == 0
        elif window.start < page.total_count:
            self.observations.total_count = page.total_count
            self.end_look.note_empty(window, shown_to=self.ends.shown_to)
        else:
            self.ends.note_empty(window.start)

    def _note_evidence(
        self, window: Window, page: SessionPage, times: Sequence[int | None], *, stage: Stage
    ) -> None:
        at = len(self.observations.pages) - 1
        seen = self.observations.pages[at]
        shown_to = self.ends.shown_to
        self.ends.note(at, seen)
        self.end_look.note_rows(seen.stop)
        if window.start == 0:
            self.head_page = at
            self._note_head(page, times, stage=stage)
        is_closing = stage in {"close", "repair"}
        self.has_rows_behind_end |= is_closing and not seen.is_short and seen.stop > shown_to

    def _note_tie(self, times: Sequence[int | None]) -> None:
        if self.has_moved or self.cutoff.is_ahead:
            timed = [time for time in times if time is not None]
            within_ms = 2 * self.observations.order.disorder_ms if self.cutoff.is_ahead else 0
            self._max_tie = max(self._max_tie, count_crowded(timed, within_ms))

    def _note_head(self, page: SessionPage, times: Sequence[int | None], *, stage: Stage) -> None:
        """Compare a page 1 with the first one."""
        self.head_is_unchanged = (
            stage == "close" and self._head.is_first(page.session_ids) and not self.has_moved
        )
        came = self._head.count_newcomers(page.session_ids, times)
        grown = self.count_grown(page.total_count)
        self.newcomer_count = max(0, grown) if came is None else came
        self.observations.ranks_hold &= came is None or came == grown

    def settle_page_size(self, page: SessionPage, *, is_last_try: bool) -> bool:
        """Lower the page size to what the service puts on page 1; False where that has to be asked
        for again.
        """
        row_count = page.row_count
        came_short = row_count < min(self.page_size, max(page.total_count, row_count + 1))
        # A total of fewer rows is a sign of a young list rather than of a service that caps.
        is_confirmed = row_count == self._max_on_page > 0 and page.total_count > row_count
        self._max_on_page = max(self._max_on_page, row_count)
        if came_short and not is_confirmed and not is_last_try:
            # A service that caps its pages does so again; a fault passes.
            return False
        self.page_size = min(self.page_size, self._max_on_page)
        return True

    # What they show

    def count_grown(self, total_count: int) -> int:
        """By how much a total is above the first one."""
        return total_count - (self.first_total_count or 0)

    @property
    def is_emptied(self) -> bool:
        """Whether enough answers in a row said that the list is empty."""
        waits = EMPTY_WAITS_S if self.first_total_count is None else EMPTIED_WAITS_S
        return self.empty_count > len(waits)

    @property
    def may_move(self) -> bool:
        """Whether sessions may change their place, since create times do not order the list."""
        return not self.observations.order.is_sorted or self.observations.order.disorder_ms > 0

    @property
    def end_page(self) -> int | None:
        """Index of the answer that shows the end of what is wanted."""
        return self.cutoff.page if self.cutoff.is_met else self.ends.page

    @property
    def depth(self) -> tuple[int, int] | None:
        """Rows that the service shows and its total, where it shows none behind these."""
        if self.end_page is not None:
            return None
        if self.end_look.empty_from is not None:
            return self.ends.shown_to, self.last_total_count
        return self.ends.depth

    @property
    def page_count(self) -> int:
        """Pages of the list by its rows or its total; at most twice those it had at first, since it
        may grow as fast as it is read.
        """
        first = self.first_total_count or 0
        grown = self.observations.total_count - first
        # Some services show their last page again behind the end.
        shown_to = min(self.ends.shown_to, max(first, self.observations.session_count))
        row_count = shown_to - max(0, grown - first)
        if not self.ends.is_found and self.ends.depth is None:
            row_count = max(first, row_count)
        return max(1, ceil(row_count / self.page_size))

    @property
    def max_request_count(self) -> int:
        """When to give up: a list may grow faster than it is read."""
        cost = ceil(MAX_COST * self.page_count)
        return max(cost, min(cost + MAX_BESIDES, MAX_SMALL))

    def choose_overlap(self, *, in_flight: int = 0) -> int:
        """Rows that neighbouring windows share: some that may shift away, and more than one tie, if
        times have to join them.
        """
        at_rest = self.cutoff.is_ahead and not self.has_moved
        is_small = self.page_size < MIN_ROWS_TO_TRIM
        least = MIN_OVERLAP_AT_REST if at_rest or is_small else MIN_OVERLAP
        # Neighbours may be answered as many answers apart as there are in flight.
        apart = self.observations.shifts.pace * min(in_flight, MAX_APART)
        tie = 0 if self.observations.keeps_ties else self._max_tie
        if tie + least > self.page_size // 2:
            # No times can join them, but enough shared rows may.
            tie = MIN_HELD
        return min(self.page_size // 2, tie + least + ceil(apart))

    def drop_cutoff(self) -> None:
        """Want the whole list from now on."""
        self.cutoff = Cutoff(None, self.observations)
