"""Plans which pages an incremental listing reads, round by round; performs no I/O."""

from collections.abc import Iterable
from typing import Final

from exporter.listing.bookmark_head import MIN_MET_ROWS
from exporter.listing.changes import CHANGED, LOST, RESTLESS, TURNED_OVER, ChangeTracker
from exporter.listing.gaps import GapFinder
from exporter.listing.lookups import Lookup
from exporter.listing.order import MIN_ROWS_TO_TRIM
from exporter.listing.repeats import TimedWindows
from exporter.listing.windows import Window, reach_on

SHARE_AHEAD: Final = 4
"""Pages read for each one asked for ahead, where nothing shows how many sessions are new."""
OVERLAP: Final = 4
OVERLAP_OF_SMALL: Final = 2
"""Rows that two windows share, if they have fewer rows than times are trimmed of."""
LAG_WAITS_S: Final = (0.0, 0.5, 2.0)
"""Before each further look at a total that claims more sessions than were found."""
MAX_ROUNDS: Final = 48
MIN_GAP_ROUNDS: Final = 2
MAX_GAP_ROUNDS: Final = 6
"""Rounds to join two answers in: after the first few, more is asked for in each."""


class ChangeRounds:
    """Rounds of requests; each is planned once all answers to the one before it are in.

    Sets the tracker's `trouble` where only a full listing will do.
    """

    def __init__(self, tracker: ChangeTracker, *, page_size: int) -> None:
        self._tracker = tracker
        self._bookmark = tracker.bookmark
        self._head = tracker.head
        self._audit = tracker.audit
        self._observations = tracker.observations
        self._gaps = GapFinder(tracker.observations)
        self._page_size = page_size
        self._round_count = 0
        self._gap_round_count = 0
        self._lag_look_count = 0
        self._latest_look: tuple[int, int] | None = None
        """How many answers and new sessions there were when the head was looked at again."""
        self._swept_to = page_size

    def plan(self) -> TimedWindows:
        """The next round, when all answers are in; empty when all is proven, or when there is
        trouble.
        """
        if self._tracker.trouble:
            return []
        due = self._tracker.repeats.take_due()
        if due:
            return due
        self._round_count += 1
        if self._round_count > MAX_ROUNDS:
            self._tracker.trouble = RESTLESS
            return []
        self._start_over_if_moved()
        for step in (self._read_on, self._join, self._look_up, self._compare):
            plan = step()
            if plan or self._tracker.trouble:
                return [] if self._tracker.trouble else plan
        return []

    def _start_over_if_moved(self) -> None:
        """Look for the bookmark's head anew where another look at page 1 showed new sessions: the
        answers that met it before had none of these.
        """
        if self._latest_look is not None and len(self._tracker.new) > self._latest_look[1]:
            self._head.forget(before=self._latest_look[0])
            self._swept_to = self._page_size
        self._latest_look = None

    @property
    def _overlap(self) -> int:
        if self._page_size >= MIN_ROWS_TO_TRIM:
            return OVERLAP
        return min(self._page_size // 2, OVERLAP_OF_SMALL)

    def _read_on(self) -> TimedWindows:
        """Windows on which to look for the bookmark's head, until enough of it was met."""
        if self._head.is_met:
            return []
        total_count = self._tracker.total_count_last
        if self._head.meetings:
            deepest = self._observations.pages[self._head.deepest.page]
            self._swept_to = max(self._swept_to, deepest.stop)
            stop = self._swept_to + 1
        elif self._swept_to < total_count:
            stop = total_count - self._bookmark.total_count + MIN_MET_ROWS
            if stop <= self._swept_to:
                stop = self._swept_to + max(1, self._swept_to // SHARE_AHEAD)
            stop = min(stop, total_count)
        else:
            self._tracker.trouble = TURNED_OVER
            return []
        return self._sweep_to(stop)

    def _sweep_to(self, stop: int) -> TimedWindows:
        """Windows on from where the sweep ended last."""
        plan = []
        while self._swept_to < stop:
            window = reach_on(self._swept_to, most=self._page_size, overlap=self._overlap)
            self._swept_to = window.stop
            plan.append((window, 0.0))
        return plan

    def _join(self) -> TimedWindows:
        """Windows that join page 1 and the bookmark's head."""
        gaps = self._gaps.find(end=self._head.deepest.page, by_ranks=False)
        if not gaps:
            return []
        self._gap_round_count += 1
        if self._gap_round_count > MAX_GAP_ROUNDS:
            self._tracker.trouble = RESTLESS
            return []
        windows = self._gaps.plan(
            gaps, page_size=self._page_size, overlap=self._overlap, by_ranks=False
        )
        if self._gap_round_count > MIN_GAP_ROUNDS:
            # Rows are further away than they seem: whole pages on both sides.
            for gap in gaps:
                upper, lower = (self._observations.pages[at] for at in (gap.upper, gap.lower))
                windows.append(Window(max(1, -(-lower.start // self._page_size)), self._page_size))
                windows.append(Window(upper.stop // self._page_size + 1, self._page_size))
        return [(window, 0.0) for window in dict.fromkeys(windows)]

    def _look_up(self) -> TimedWindows:
        """Windows where the sessions should be that may have changed and were not found yet."""
        # Those next to what was read already take no page of their own.
        places = {self._expect(each) for each in self._tracker.lookups if each.is_open}
        stop = self._swept_to
        for place in sorted(places):
            if stop <= place < stop + self._page_size:
                stop = place + 1
        if stop > self._swept_to:
            return self._sweep_to(stop)
        plan = self._choose_windows(self._tracker.lookups)
        if any(each.is_lost for each in self._tracker.lookups):
            self._tracker.trouble = LOST
        return plan

    def _expect(self, lookup: Lookup) -> int:
        """The place of a session by its serial, but not behind the end; a session that stood behind
        a capped total still does.
        """
        total_count = self._tracker.total_count_last
        place = max(0, self._head.estimate_base(total_count) - lookup.serial)
        if lookup.serial < self._bookmark.expired_count:
            return place
        return min(place, total_count - 1)

    def _choose_windows(self, lookups: Iterable[Lookup]) -> TimedWindows:
        chosen = (
            each.choose_window(self._expect(each), self._tracker.shown)
            for each in lookups
            if each.is_open
        )
        windows = {window for window in chosen if window is not None}
        return [(window, 0.0) for window in sorted(windows, key=lambda each: each.start)]

    def _compare(self) -> TimedWindows:
        """Windows that show whether sessions came where nothing was read, while that is unknown."""
        audit = self._audit
        while (verdict := audit.compare(self._head.deepest)) == "anchor needed":
            anchor = audit.find_anchor()
            if anchor is None:
                return []
            if anchor.is_open:
                plan = self._choose_windows([anchor])
                if plan:
                    return plan
            if audit.is_exhausted:
                verdict = "changed"
                break
        if verdict == "more claimed":
            return self._ask_for_lag()
        if verdict == "changed":
            self._tracker.trouble = CHANGED
        return []

    def _ask_for_lag(self) -> TimedWindows:
        """Ask for the head once more where the total claims more sessions than were found: it may
        know of some that are not shown yet, or have been shown too late for the run before.
        """
        if self._lag_look_count >= len(LAG_WAITS_S):
            self._tracker.trouble = CHANGED
            return []
        wait_s = LAG_WAITS_S[self._lag_look_count]
        self._lag_look_count += 1
        self._latest_look = len(self._observations.pages), len(self._tracker.new)
        last = self._head.find_end() // self._page_size + 1
        return [(Window(page_num, self._page_size), wait_s) for page_num in range(1, last + 1)]
