"""Answers that count only once they were repeated; performs no I/O.

An answer with fewer rows than asked for may lack some, one that shows a session twice hides another
one, and an empty one may be a fault. Each of them is asked for again.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from exporter.listing.windows import Window
from exporter.model import SessionPage

MAX_READS: Final = 4
"""A page is asked for so many times at most, while its answers are evidence of nothing."""
EMPTY_WAITS_S: Final = (0.0, 0.5)
"""Before each further look at a list whose first answers say that it is empty."""

TimedWindows = list[tuple[Window, float]]
"""Windows to ask for next, each after a wait in seconds."""


class Repeats:
    """The uncertain answers of a full listing, which reads pages of a list that may move.

    Rows come and go meanwhile: an end is the same at the same place, or behind the same row.
    """

    def __init__(self) -> None:
        self._read_counts: Counter[Window] = Counter()
        self._former: dict[Window, tuple[frozenset[str], int, str]] = {}

    def is_evidence(self, window: Window, page: SessionPage, *, is_known_end: bool) -> bool:
        """Whether an answer with rows shows all that stood between the first and the last.

        `is_known_end` says that rows have ended there before.
        """
        doubled = find_doubled(page.session_ids)
        stop = window.start + page.row_count
        is_cut = page.row_count < window.page_size and stop != page.total_count
        if not doubled and (is_known_end or not is_cut):
            return True
        last_id = page.session_ids[-1] if page.session_ids else ""
        former = self._former.get(window)
        self._former[window] = doubled, page.row_count, last_id
        self._read_counts[window] += 1
        return (
            former is not None
            and former[0] == doubled
            and (former[1] == page.row_count or former[2] == last_id)
        )

    def may_ask_again(self, window: Window) -> bool:
        return self._read_counts[window] < MAX_READS


class StrictRepeats:
    """The uncertain answers of an incremental listing, which have to be repeated as they were.

    It plans the repetitions, and gives up on a page that is answered differently each time: a full
    listing then finds out why.
    """

    def __init__(self) -> None:
        self.is_exhausted = False
        """Whether a page was answered differently each time."""
        self._due: TimedWindows = []
        self._former: dict[Window, int | tuple[str, ...]] = {}
        self._read_counts: Counter[Window] = Counter()
        self._empty_count = 0

    def is_evidence(self, window: Window, page: SessionPage) -> bool:
        """Whether an answer shows all that stood between its first row and its last."""
        self._empty_count = 0
        if find_doubled(page.session_ids):
            return self._is_repeated(window, tuple(page.session_ids))
        stop = window.start + page.row_count
        if page.row_count == window.page_size or stop == page.total_count:
            return True
        # It has fewer rows than asked for; or more, and then no place is where it seems.
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

    def take_due(self) -> TimedWindows:
        """Windows that have to be asked for again."""
        due, self._due = self._due, []
        return due

    def _is_repeated(self, window: Window, answer: int | tuple[str, ...]) -> bool:
        if self._former.get(window) == answer:
            return True
        self._former[window] = answer
        self._read_counts[window] += 1
        if self._read_counts[window] >= MAX_READS:
            self.is_exhausted = True
        else:
            self._due.append((window, 0.0))
        return False


def find_doubled(session_ids: Sequence[str]) -> frozenset[str]:
    """The sessions that stand in an answer twice."""
    if len(set(session_ids)) == len(session_ids):
        return frozenset()
    return frozenset(each for each, count in Counter(session_ids).items() if count > 1)


def is_at_end(window: Window, page: SessionPage) -> bool:
    """Whether the total claims no row behind the last one shown."""
    return window.start + page.row_count >= page.total_count


def is_cut_at_head(window: Window, page: SessionPage) -> bool:
    """Whether page 1 lacks rows that its total claims: the service may show fewer on a page than it
    did, and then no place is where it seems.
    """
    is_short = page.row_count < window.page_size
    return window.start == 0 and is_short and not is_at_end(window, page)
