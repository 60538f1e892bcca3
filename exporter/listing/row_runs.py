"""Joins answers into runs of rows; performs no I/O."""

from collections.abc import Iterable
from math import inf


class RowRuns:
    """So many answers, each in a run of its own until it is united with others."""

    def __init__(self, page_count: int) -> None:
        self._parents = list(range(page_count))

    def unite(self, one: int, other: int) -> None:
        self._parents[self._find(one)] = self._find(other)

    def unite_overlapping(self, intervals: Iterable[tuple[int, tuple[float, float]]]) -> None:
        """Unite answers whose half-open intervals of whole numbers leave nothing out between."""
        reached, last = -inf, -1
        for at, (low, high) in sorted(intervals, key=lambda each: each[1]):
            if high <= low:
                continue
            if low <= reached and last >= 0:
                self.unite(last, at)
            if high > reached:
                reached, last = high, at

    def find_all(self) -> list[int]:
        """For each answer, the index of the one that stands for its run."""
        return [self._find(at) for at in range(len(self._parents))]

    def _find(self, at: int) -> int:
        parents = self._parents
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at
