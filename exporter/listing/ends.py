"""Finds where a list ends, whatever its total says; performs no I/O.

A short answer may show the end. Where its total claims more rows, it may be outdated, or the
service shows no row behind some *depth*: always one place, where an end moves.
"""

from collections import Counter

from exporter.listing.observations import PageObservation

PROBE_WAITS_S = (0.0, 0.5, 4.0, 20.0, 36.0)
"""Before each further look at an end behind which the total claims more rows: totals may be cached
for a minute.
"""
MIN_WITNESSES = 2
"""Windows that have to agree about an end that their totals contradict."""
MIN_EMPTY_ANSWERS = 2
"""Answers without rows, just behind the last one, that show the end."""


class EndSearch:
    """Collects the answers that may show the end."""

    def __init__(self) -> None:
        self.page: int | None = None
        """Index of the latest answer that shows the end, ..."""
        self._claimed = 0, 0
        """... where its rows ended, and its total."""
        self.shown_to = 0
        """The place behind the last row that any answer has shown."""
        self.probe_count = 0
        """Looks at an end behind which the total claims more rows."""
        self._witnesses: set[tuple[int, int]] = set()
        """Windows whose answers are short, although their totals contradict that."""
        self._cuts: dict[int, int] = {}
        """Places where rows ended although the total claimed more, and by how many."""
        self._is_stale = False
        """Whether no fixed depth explains where rows ended."""
        self._latest_cut: tuple[int, int] | None = None
        self._stops: dict[int, tuple[int, PageObservation]] = {}
        """Answers whose totals claim nothing behind their last row, by the place behind it."""
        self._empties: Counter[int] = Counter()

    def note(self, at: int, page: PageObservation) -> None:
        """Take in an answer that is evidence; `at` is its index."""
        if self.page is not None and self._goes_beyond(page):
            self.page = None
        if page.stop >= page.total_count:
            self._stops[page.stop] = at, page
        if not page.is_short:
            if self._cuts and page.stop > min(self._cuts):
                # A seeming end was none, or is none any more.
                self._witnesses.clear()
            self.shown_to = max(self.shown_to, page.stop)
            return
        if page.stop == page.total_count:
            self._accept(at, page)
        elif page.start + page.size > self.shown_to:
            # Where rows were shown behind it, an answer lacks some of its own, and shows no end.
            self._note_cut(at, page)
        self.shown_to = max(self.shown_to, page.stop)

    def _note_cut(self, at: int, page: PageObservation) -> None:
        self._witnesses.add((page.start, page.size))
        missing = page.total_count - page.stop
        if missing > 0:
            # A depth ends all answers at one place; a fixed number of hidden rows keeps its number.
            explained = all(
                page.stop == stop or missing == each for stop, each in self._cuts.items()
            )
            self._is_stale |= page.stop < self.shown_to or not explained
            self._latest_cut = page.stop, page.total_count
        self._cuts[page.stop] = missing
        if len(self._witnesses) >= MIN_WITNESSES and (
            page.stop > page.total_count or self._is_stale
        ):
            self._accept(at, page)

    def note_empty(self, place: int) -> None:
        """Take in an answer without rows about a place behind its total."""
        self._empties[place] += 1
        if self._empties[place] >= MIN_EMPTY_ANSWERS and place in self._stops:
            self._accept(*self._stops[place])

    def _accept(self, at: int, page: PageObservation) -> None:
        self.page = at
        self._claimed = page.stop, page.total_count
        self._latest_cut = None

    def _goes_beyond(self, page: PageObservation) -> bool:
        """Whether an answer shows more rows behind the end than came since by the totals."""
        stop, total_count = self._claimed
        return page.stop > stop + max(0, page.total_count - total_count)

    def is_known_end(self, place: int) -> bool:
        """Whether rows of an answer that is evidence have ended at a place before."""
        return place in self._cuts

    @property
    def is_found(self) -> bool:
        return self.page is not None

    @property
    def depth(self) -> tuple[int, int] | None:
        """Rows that the service shows, and its total, where these differ for good."""
        return None if self._is_stale else self._latest_cut

    def next_wait_s(self) -> float | None:
        """The wait before the next look; None once all were taken."""
        if self.probe_count >= len(PROBE_WAITS_S):
            return None
        self.probe_count += 1
        return PROBE_WAITS_S[self.probe_count - 1]
