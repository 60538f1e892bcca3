"""Measures whether create times order a list, and which way; performs no I/O."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Literal

from exporter.model import RawSession
from exporter.times import read_create_time

Direction = Literal["newest first", "oldest first", "none"]

MIN_STEPS = 20
"""Neighbours with different times before a list is known to be in order."""
MAX_RISES = 50
"""One row in so many may be newer than the one before it in a list that is nearly newest first."""
MIN_ROWS_TO_TRIM = 20
"""Of an answer with so many times, the first and the last do not count: one may be out of place."""


def read_times(sessions: Sequence[RawSession]) -> list[int | None]:
    """The create time of each row."""
    times = [session.get("createTime") for session in sessions]
    if set(map(type, times)) <= {int} and 0 not in times:
        return times
    return list(map(read_create_time, times))


def count_crowded(times: Sequence[int], within_ms: int) -> int:
    """The most rows whose create times are within `within_ms` of each other."""
    if not times:
        return 1
    if within_ms == 0:
        return max(Counter(times).values())
    in_order = sorted(times)
    return max(
        bisect_right(in_order, time + within_ms) - place for place, time in enumerate(in_order)
    )


def find_span(times: Sequence[int]) -> tuple[int, int] | None:
    """The create times between which an answer shows every session, leaving out one row at each end
    that may be out of place.
    """
    if len(times) < 2:
        return None
    in_order = sorted(times)
    trim = 1 if len(times) >= MIN_ROWS_TO_TRIM else 0
    return in_order[trim], in_order[-1 - trim]


class ListOrder:
    """How far the rows of the answers were in order."""

    def __init__(self) -> None:
        self._disorder_ms: dict[Direction, int] = {"newest first": 0, "oldest first": 0}
        self._step_count = 0
        """Rows whose time differs from the one before; counted only up to `MIN_STEPS`."""
        self._rise_count = 0
        """Rows newer than the one before them, ..."""
        self._drop_count = 0
        """... or older, ..."""
        self._pair_count = 0
        """... of so many."""

    def add(self, times: Sequence[int]) -> None:
        """Take in the create times of an answer, in its order."""
        if not times:
            return
        disorder_ms = self._disorder_ms
        if not self.is_measured:
            self._step_count += len(set(times)) - 1
        self._pair_count += len(times) - 1
        if times == sorted(times, reverse=True):
            fall_ms, rise_ms = times[0] - times[-1], 0
            self._drop_count += len(times) - 1
        else:
            self._rise_count += sum(later > former for former, later in pairwise(times))
            self._drop_count += sum(later < former for former, later in pairwise(times))
            highest, lowest = accumulate(times, max), accumulate(times, min)
            fall_ms = max(top - time for top, time in zip(highest, times, strict=True))
            rise_ms = max(time - low for low, time in zip(lowest, times, strict=True))
        disorder_ms["newest first"] = max(disorder_ms["newest first"], rise_ms)
        disorder_ms["oldest first"] = max(disorder_ms["oldest first"], fall_ms)

    @property
    def is_measured(self) -> bool:
        """Whether enough rows differ to know the order."""
        return self._step_count >= MIN_STEPS

    @property
    def direction(self) -> Direction:
        """Newest first while nothing contradicts it."""
        newest_ms, oldest_ms = self._disorder_ms.values()
        if 4 * newest_ms <= oldest_ms or newest_ms == 0:
            return "newest first"
        return "oldest first" if 4 * oldest_ms <= newest_ms else "none"

    @property
    def disorder_ms(self) -> int:
        """The most by which a row was seen out of order."""
        return self._disorder_ms[
            "newest first" if self.direction == "newest first" else "oldest first"
        ]

    @property
    def is_sorted(self) -> bool:
        """Whether times can prove anything.

        A few rows may be in order by chance, and a list that is sorted by another time nearly so.
        """
        if self.direction == "none" or not self.is_measured:
            return False
        wrong_count = self._rise_count if self.direction == "newest first" else self._drop_count
        return wrong_count * MAX_RISES <= self._pair_count

    @property
    def is_nearly_newest_first(self) -> bool:
        """Whether hardly any row is newer than the one before it."""
        return self._rise_count * MAX_RISES <= self._pair_count
