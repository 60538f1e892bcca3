"""How far down a list, newest first, the sessions reach that are wanted; performs no I/O."""

from collections.abc import Sequence
from math import inf

from exporter.listing.evidence import Evidence


class Horizon:
    """The first row that is older than all that is wanted: seen, or guessed where it will be."""

    def __init__(self, since_ms: int | None, evidence: Evidence) -> None:
        self.since_ms = -inf if since_ms is None else since_ms
        self._evidence = evidence
        self._newest_ms = -inf
        self._oldest_ms = inf
        self._shown_to = 0

    def note(self, times: Sequence[int], *, stop: int) -> None:
        """Take in an answer's create times, and the place where it ended."""
        self._newest_ms = max(self._newest_ms, *times)
        oldest_ms = min(times)
        if oldest_ms < self._oldest_ms:
            self._oldest_ms, self._shown_to = oldest_ms, stop

    @property
    def is_ahead(self) -> bool:
        """Whether there may be one: there is where old sessions come last and are not wanted."""
        evidence = self._evidence
        return self.since_ms > -inf and evidence.timed and evidence.order == "newest first"

    @property
    def is_met(self) -> bool:
        """Whether a row was seen that none behind it is wanted, if none is more out of order."""
        oldest_ms = self._oldest_ms + self._evidence.disorder_ms
        return self.is_ahead and self._evidence.is_sorted and oldest_ms < self.since_ms

    @property
    def likely_stop(self) -> float:
        """The place where the wanted rows end, if they go on as close in time as they were."""
        if not self.is_ahead or self._newest_ms <= self._oldest_ms:
            return inf
        left_ms = max(0.0, self._oldest_ms - self.since_ms)
        return self._shown_to * (1 + left_ms / (self._newest_ms - self._oldest_ms))

    @property
    def prudent_stop(self) -> float:
        """The place up to which to ask before more is known: a guess is not trusted for more than
        twice of what it was made from.
        """
        return min(self.likely_stop, 2 * self._shown_to) if self.is_ahead else inf
