"""Where a list ends, whatever its total says; performs no I/O.

An answer with fewer rows than it was asked for may show the end of the list. It does where its own
total claims no more rows. Where the total claims more, it may be a total of some time ago, or the
service shows no row behind some depth. A depth cuts the list at one place, always; an end that is
met at several places is therefore none.
"""

from exporter.listing.observations import PageSeen

PROBE_WAITS_S = (0.0, 0.0, 0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Before each further look at an end behind which the total claims more: totals may be cached for a
minute."""


MIN_EMPTY_TELLS = 2
"""Answers without a row, just behind the last one, that show the end."""


class EndSearch:
    """Collects the answers that may show the end."""

    def __init__(self) -> None:
        self.page: int | None = None
        """Index of the latest answer that shows the end."""
        self.shown_to = 0
        """The place behind the last row that any answer has shown."""
        self.probe_count = 0
        """Looks taken at an end behind which the total claims more."""
        self._cuts: dict[int, int] = {}
        self._stops: dict[int, int] = {}
        self._empties: dict[int, int] = {}
        self._latest_cut: tuple[int, int, int] | None = None

    def note(self, at: int, page: PageSeen) -> None:
        """Take in an answer that is evidence; `at` is its index."""
        self.shown_to = max(self.shown_to, page.stop)
        self._stops[page.stop] = at
        if not page.is_short:
            return
        if page.stop >= page.total_count:
            self.page = at
            self._latest_cut = None
            return
        self._cuts[page.stop] = self._cuts.get(page.stop, 0) + 1
        self._latest_cut = at, page.stop, page.total_count
        if self._is_stale:
            self.page = at

    def note_none(self, place: int) -> None:
        """Take in an answer without rows about a place that the total does not claim."""
        self._empties[place] = self._empties.get(place, 0) + 1
        if self._empties[place] >= MIN_EMPTY_TELLS and self._stops.get(place) is not None:
            self.page = self._stops[place]
            self._latest_cut = None

    @property
    def _is_stale(self) -> bool:
        """Whether no fixed depth explains where the rows ended."""
        return len(self._cuts) > 1 or any(self.shown_to > place for place in self._cuts)

    @property
    def is_found(self) -> bool:
        return self.page is not None

    @property
    def depth(self) -> tuple[int, int] | None:
        """How many rows the service shows, and how many it claims, where these differ for good."""
        if self._latest_cut is None or self._is_stale:
            return None
        return self._latest_cut[1:]

    def next_wait_s(self) -> float | None:
        """How long to wait before the next look; None when there is nothing more to hope for."""
        if self.probe_count >= len(PROBE_WAITS_S):
            return None
        self.probe_count += 1
        return PROBE_WAITS_S[self.probe_count - 1]
