"""Chooses windows that look for the end of a list; performs no I/O.

1. Before the sweep: a window over the place where the list ends by its total.
2. If that shows no row: two places in front of it, then the geometric mean of the last place with
   rows and the first one without.
3. After the sweep, where no answer has shown the end: a window over the last row seen, and another
   one each time, since a fault that cuts one of them short need not cut the next.
"""

from math import isqrt
from typing import Final

from exporter.listing.ends import MIN_EMPTY_ANSWERS
from exporter.listing.windows import Window, centre_on

PAGES_NOT_TO_WAIT = range(51, 1_000)
"""A list of so many pages is swept while the first look is in flight: of a shorter one, pages might
be asked for that do not exist, and a longer one takes long anyway.
"""
LOOKS_NEAR_TOTAL: Final = 2
"""An outdated total is wrong by little."""


class EndLook:
    """The windows that were asked for, and what their answers mean for the sweep."""

    def __init__(self) -> None:
        self.window: Window | None = None
        """Of the first look; ..."""
        self.number = 0
        """... its request, ..."""
        self.page = 0
        """... the index of its answer, ..."""
        self.total_count = -1
        """... and its total; below 0 until then."""
        self.waits = False
        """Whether the sweep waits for it."""
        self.empty_from: int | None = None
        """The place from which on answers were empty, although their totals claim more rows."""
        self._look_count = 0
        self._searched: Window | None = None
        self._is_over = False
        self._probed: set[Window] = set()
        self.shown: set[Window] = set()
        """Whole pages that the search has shown."""

    def begin(self, total_count: int, *, page_size: int) -> Window:
        """The window of the first look."""
        page_num = total_count // page_size + 1
        is_cut = total_count % page_size > 0
        self.window = (
            Window(page_num, page_size)
            if is_cut
            else centre_on(total_count, total_count, most=page_size)
        )
        self.waits = page_num not in PAGES_NOT_TO_WAIT
        return self.window

    def note_asked(self, window: Window, number: int) -> None:
        if window == self.window and self.number == 0:
            self.number = number

    def note_first(self, total_count: int, *, page: int) -> None:
        """Take in the answer of the first look, if it has rows."""
        self.waits = False
        self.total_count = total_count
        self.page = page

    def spares_last_page(self, total_count: int) -> bool:
        """Whether the first look has shown the last page of a list with this total."""
        window = self.window
        return (
            total_count == self.total_count and window is not None and (window.stop >= total_count)
        )

    def note_empty(self, window: Window, *, shown_to: int) -> None:
        """Take in an answer without rows about a place in front of its total."""
        if window.start >= shown_to:
            self.empty_from = min(window.start, self.empty_from or window.start)

    def note_rows(self, stop: int) -> None:
        if self.empty_from is not None and stop > self.empty_from:
            self.empty_from = None

    def search(
        self, window: Window, row_count: int, *, shown_to: int, page_size: int
    ) -> Window | None:
        """The next window on which to look for the end, after an answer about `window`; None while
        one is in flight, and when the end is near enough.
        """
        if window == self._searched:
            self._searched = None
            if row_count == window.page_size:
                self.shown.add(window)
            self._is_over |= 0 < row_count < window.page_size
        high = self.empty_from
        if self._searched is not None or self._is_over or high is None:
            return None
        if high - shown_to <= page_size:
            return None
        self._look_count += 1
        if self._look_count <= LOOKS_NEAR_TOTAL:
            place = max(shown_to, high - self._look_count * page_size)
        else:
            # A total may be of any size.
            place = max(shown_to, isqrt(max(shown_to, page_size) * high))
        found = Window(place // page_size + 1, page_size)
        if found in self._probed:
            # It shows no more than before: the list moves, or has gone.
            return None
        self._probed.add(found)
        self._searched = found
        return found

    def probe(self, place: int, *, page_size: int) -> list[Window]:
        """Windows that show whether rows end at a place."""
        window = centre_on(place, place, most=page_size, other_than=self._probed)
        self._probed.add(window)
        if window.start < place < window.stop:
            return [window]
        # Pages of so few rows cannot show both sides of every place.
        size = max(size for size in range(1, page_size + 1) if place % size == 0)
        return [Window(place // size + 1, size)] * MIN_EMPTY_ANSWERS
