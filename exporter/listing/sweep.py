"""Reads every page of a list once, in windows that overlap once the list moves; performs no I/O."""

from math import ceil

from exporter.listing.interface import PageRequest
from exporter.listing.plan import PlannedRequest
from exporter.listing.view import ListView
from exporter.listing.windows import Window, reach_on

PAGES_PER_NEW_SESSION = 20
"""While fewer sessions are created than one in so many pages, gaps cost less than windows that
overlap.
"""
PAGES_BEFORE_HURRY = 60
"""Added to the pages read so far, before their number is compared with the new sessions."""
PAGES_BEYOND = 10
"""Pages read for each page that is asked for ahead, where rows go on behind the total."""
WATCH_EVERY = 25
"""Requests between two sentinels in a list that moves: deletions are noticed early."""
LOOK_BACK = 64
"""Answers before the latest one that may have shown the same rows."""


class Sweep:
    """The place up to which the list was asked for, and the next window."""

    def __init__(self, view: ListView) -> None:
        self._view = view
        self.swept_to = 0
        """The place behind the last window."""
        self.is_restless = False
        """Whether to read on in windows that overlap."""
        self._watched_at = 0
        """Number of the request after which the latest sentinel was asked for."""

    def begin(self) -> PlannedRequest | None:
        """Start behind page 1; the first look at the end, where one is needed."""
        view = self._view
        self.swept_to = view.page_size
        # Sessions that come at the end of a list leave no trace at its head: it may always move.
        self.is_restless = view.observations.order.direction != "newest first"
        if view.cutoff.is_ahead:
            # Only windows that do not overlap, read to the end, would show that ranks slip.
            self.is_restless, view.observations.ranks_hold = True, False
            return None
        total_count = view.observations.total_count
        if max(total_count, view.ends.shown_to) < view.page_size:
            return None
        # Whether the total is right, or the list goes on behind it, decides how to read it.
        return PlannedRequest(view.end_look.begin(total_count, page_size=view.page_size), "sweep")

    def go_behind_end(self) -> None:
        """Go on where the list seemed to end, because rows were seen behind that."""
        view = self._view
        view.has_rows_behind_end = False
        view.end_look.empty_from = None
        self.swept_to = view.ends.shown_to

    @property
    def has_more(self) -> bool:
        view = self._view
        return self.swept_to < self._stop and not view.cutoff.is_met and view.empty_count == 0

    @property
    def _stop(self) -> float:
        """The place up to which to sweep."""
        view = self._view
        if view.end_look.empty_from is not None:
            return view.end_look.empty_from
        ends = view.ends
        total_count = view.observations.total_count
        if not self.is_restless and view.end_look.spares_last_page(total_count):
            return total_count - total_count % view.page_size
        if ends.shown_to <= total_count or ends.is_found:
            return total_count
        # The total hides rows: on until they end.
        ahead = max(1, ceil(ends.shown_to / view.page_size) // PAGES_BEYOND)
        return ends.shown_to + (ahead - 1) * view.page_size + 1

    def must_wait(self, *, in_flight: int) -> bool:
        """Whether an answer in flight may show that the next window is not needed."""
        view = self._view
        is_unsure = view.end_look.waits or self.swept_to >= view.cutoff.prudent_stop
        return in_flight > 0 and is_unsure

    def next_request(self, *, asked_count: int, in_flight: int) -> PlannedRequest:
        view = self._view
        watches = view.has_moved and (not self.is_restless or view.may_move)
        if watches and asked_count >= self._watched_at + WATCH_EVERY:
            self._watched_at = asked_count
            return PlannedRequest(Window(1, view.page_size), "sentinel")
        if not self.is_restless:
            window = self.next_page()
            self.skip_shown()
            return PlannedRequest(window, "sweep")
        overlap = view.choose_overlap(in_flight=in_flight)
        window = reach_on(self.swept_to, most=view.page_size, overlap=overlap)
        self.swept_to = window.stop
        return PlannedRequest(window, "sweep")

    def next_page(self) -> Window:
        """The next whole page, which shares no row with the one before it."""
        window = self._find_page()
        self.swept_to = window.stop
        return window

    def _find_page(self) -> Window:
        page_size = self._view.page_size
        return Window(self.swept_to // page_size + 1, page_size)

    def skip_shown(self) -> None:
        """Leave out pages that the search for the end has shown."""
        while not self.is_restless and self._find_page() in self._view.end_look.shown:
            self.swept_to += self._view.page_size

    def note_movement(
        self, request: PageRequest, total_count: int, repeated_count: int, *, answered_count: int
    ) -> None:
        """Decide by an answer that was just added, with this total and so many rows seen before,
        whether to read on in windows that overlap.
        """
        view, observations = self._view, self._view.observations
        if not observations.ranks_hold or observations.order.direction != "newest first":
            self.is_restless = True
        if request.purpose != "sweep" or self.is_restless:
            return
        grown = view.count_grown(total_count)
        expected_count = observations.count_seen_ranks(LOOK_BACK, also=view.end_look.page)
        slipped = repeated_count != expected_count
        view.has_moved |= slipped
        hurries = grown * PAGES_PER_NEW_SESSION > answered_count + PAGES_BEFORE_HURRY
        observations.ranks_hold &= not slipped
        self.is_restless = slipped or hurries or grown < 0
