"""The copies of a churning list that answers come from; performs no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.emulator.live_list import LiveList
from exporter.emulator.timeline import Drift


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer before anything is wrong with it."""

    state: int
    at_s: float
    """The instant that its rows are of."""
    start: int
    total_count: int
    serials: list[int]
    before: Sequence[int]
    """The row before the first one, where that may matter."""


class Replica:
    """One copy of the list, which lags."""

    def __init__(self, drift: Drift, *, lag_s: float, is_late: bool) -> None:
        self.lag_s = lag_s
        self._drift = drift
        # A copy that does not lag is the drift's own.
        self._late = drift.initial() if is_late or lag_s > 0 else None
        self._state = 0

    def rows(self, state: int) -> LiveList:
        if self._late is None:
            return self._drift.live
        self._drift.replay(self._late, self._state, state)
        self._state = max(self._state, state)
        return self._late
