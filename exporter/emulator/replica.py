"""The replicas of a moving list; performs no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.emulator.live_list import LiveList
from exporter.emulator.timeline import Timeline


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer before it is distorted."""

    state: int
    at_s: float
    """The time whose rows it shows."""
    start: int
    total_count: int
    serials: list[int]
    before: Sequence[int]
    """The serial in front of the first one, where doubled rows need it."""


class Replica:
    """One copy of the list, which may lag."""

    def __init__(self, timeline: Timeline, *, lag_s: float, is_late: bool) -> None:
        self.lag_s = lag_s
        self._timeline = timeline
        # Without a lag the timeline's own list serves.
        self._late = timeline.initial() if is_late or lag_s > 0 else None
        self._state = 0

    def rows(self, state: int) -> LiveList:
        if self._late is None:
            return self._timeline.live
        self._timeline.replay(self._late, self._state, state)
        self._state = max(self._state, state)
        return self._late
