"""What a union of intervals leaves open; performs no I/O."""

from collections.abc import Iterable

Interval = tuple[float, float]
"""Whole numbers, or infinite, from the first up to, but not including, the second."""


def find_gaps(intervals: Iterable[Interval], start: float, stop: float) -> list[Interval]:
    """What lies between start and stop and in no interval, in order."""
    gaps: list[Interval] = []
    reached = start
    for low, high in sorted(intervals):
        if high <= low:
            continue
        if low >= stop:
            break
        if low > reached:
            gaps.append((reached, low))
        reached = max(reached, high)
    if reached < stop:
        gaps.append((reached, stop))
    return gaps
