"""Which answers count only once they were told twice; performs no I/O.

An answer that is shorter than asked for may lack rows, one that shows a session twice hides another
one, and an empty one may be an accident. Each of them is asked for again.
"""

from collections import Counter
from typing import Final

from exporter.listing.windows import Window
from exporter.model import SessionPage

MAX_TELLS: Final = 4
"""A page is asked for so many times at most, while it is evidence of nothing."""
EMPTY_WAITS_S: Final = (0.0, 0.5)
"""Before each further look at a list that seems to be empty."""

Plan = list[tuple[Window, float]]
"""Windows to ask for next, each after a wait in seconds."""


class Repeats:
    """Remembers what was told, and what has to be told again."""

    def __init__(self) -> None:
        self.is_exhausted = False
        """Whether a page was told differently each time."""
        self._due: Plan = []
        self._told: dict[Window, int | tuple[str, ...]] = {}
        self._tells: Counter[Window] = Counter()
        self._empty_count = 0

    def is_evidence(self, window: Window, page: SessionPage) -> bool:
        """Whether an answer shows all that stood between its first row and its last."""
        self._empty_count = 0
        if len(set(page.session_ids)) < page.row_count:
            return self._is_repeated(window, tuple(page.session_ids))
        stop = window.start + page.row_count
        if page.row_count == window.page_size or stop == page.total_count:
            return True
        return self._is_repeated(window, page.row_count)

    def is_empty(self, window: Window) -> bool:
        """Whether no row stands where an answer has shown none."""
        if window.start > 0:
            return self._is_repeated(window, 0)
        self._empty_count += 1
        if self._empty_count > len(EMPTY_WAITS_S):
            return True
        self._due.append((window, EMPTY_WAITS_S[self._empty_count - 1]))
        return False

    def take_due(self) -> Plan:
        """What has to be asked for again."""
        due, self._due = self._due, []
        return due

    def _is_repeated(self, window: Window, told: int | tuple[str, ...]) -> bool:
        if self._told.get(window) == told:
            return True
        self._told[window] = told
        self._tells[window] += 1
        if self._tells[window] >= MAX_TELLS:
            self.is_exhausted = True
        else:
            self._due.append((window, 0.0))
        return False


def is_at_end(window: Window, page: SessionPage) -> bool:
    """Whether the total claims no more rows than were shown."""
    return window.start + page.row_count >= page.total_count


def is_cut_at_head(window: Window, page: SessionPage) -> bool:
    """Whether page 1 lacks rows that its total claims: the service may have come to show fewer on a
    page, and then no place is where it seems.
    """
    is_short = page.row_count < window.page_size
    return window.start == 0 and is_short and not is_at_end(window, page)
