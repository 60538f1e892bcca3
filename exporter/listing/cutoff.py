"""Finds the place behind which a list, newest first, has no wanted session; performs no I/O."""

from collections.abc import Sequence
from math import inf

from exporter.listing.bookmark import is_final
from exporter.listing.observations import Observations
from exporter.model import RawSession
from exporter.times import read_create_time

MIN_OLD_ROWS = 50
"""Rows next to each other that have to be too old: one alone may be out of its place."""


class Cutoff:
    """The place behind which no session is wanted, as seen or as estimated."""

    def __init__(self, since_ms: int | None, observations: Observations) -> None:
        self.since_ms = -inf if since_ms is None else since_ms
        self._observations = observations
        self._newest_ms = -inf
        self._oldest_ms = inf
        self._shown_to = 0
        self.page: int | None = None
        """Index of the answer that ends in enough old rows."""

    def note(
        self,
        times: Sequence[int | None],
        sessions: Sequence[RawSession],
        *,
        stop: int,
        size: int,
    ) -> None:
        """Take in the latest answer, which ended at place `stop`: its create times and rows."""
        timed = [time for time in times if time is not None]
        if not timed:
            return
        self._newest_ms = max(self._newest_ms, *timed)
        oldest_ms = min(timed)
        if oldest_ms < self._oldest_ms:
            self._oldest_ms, self._shown_to = oldest_ms, stop
        bound_ms = self.since_ms - self._observations.order.disorder_ms
        run = 0
        for time, session in zip(reversed(times), reversed(sessions), strict=True):
            if time is None or time >= bound_ms or not self._has_ended(session):
                break
            run += 1
        if run >= min(MIN_OLD_ROWS, size):
            self.page = len(self._observations.pages) - 1

    def _has_ended(self, session: RawSession) -> bool:
        """Whether a session ended before the cutoff: a list may be in that order, with the sessions
        that still run in front. Where create times order the list, its end time does not matter.
        """
        order = self._observations.order
        end_ms = read_create_time(session.get("endTime"))
        if end_ms is None:
            return "state" not in session or is_final(session)
        return end_ms < self.since_ms or (order.is_sorted and order.disorder_ms == 0)

    @property
    def is_ahead(self) -> bool:
        """Whether old sessions come last and are not wanted."""
        return self.since_ms > -inf and self._observations.order.is_nearly_newest_first

    @property
    def is_met(self) -> bool:
        """Whether the list was read down to the cutoff."""
        return self.is_ahead and self._observations.order.is_sorted and self.page is not None

    @property
    def likely_stop(self) -> float:
        """The place where the wanted rows end, if they stay as close in time as they were."""
        if not self.is_ahead or self._newest_ms <= self._oldest_ms:
            return inf
        left_ms = max(0.0, self._oldest_ms - self.since_ms)
        return self._shown_to * (1 + left_ms / (self._newest_ms - self._oldest_ms))

    @property
    def prudent_stop(self) -> float:
        """The place up to which to ask before more is known: an estimate is trusted for twice the
        rows that it was made from.
        """
        return min(self.likely_stop, 2 * self._shown_to) if self.is_ahead else inf
