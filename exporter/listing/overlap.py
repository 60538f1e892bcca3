"""Compares two answers by the sessions that they share; performs no I/O.

While sessions that stay keep their order, two answers that overlap are one run of rows. A session
that has moved to the head is in two answers as well, but makes no overlap: the shared sessions have
to reach an end of one of the answers on either side.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

MIN_SHARED = 2
"""Sessions that two answers have to share: one alone may have moved."""
MIN_ROWS_TO_SHARE_TWO = 4
"""In answers with fewer rows, one is enough."""
MAX_ROWS_PER_SHARED = 2
"""Of the rows from the first to the last shared one, one in so many has to be shared."""


@dataclass(frozen=True, slots=True)
class Overlap:
    """The sessions of an answer that a former answer has shown, too."""

    kept: Sequence[int]
    """Indices of those that kept their order."""
    touches_top: bool
    """Whether they reach the first row of one of the two answers, ..."""
    touches_bottom: bool
    """... and the last row."""
    is_dense: bool
    """Whether enough of the rows between are shared, in both answers."""
    is_reordered: bool
    """Whether two of them were seen in both orders, and no move to an end explains it."""

    @property
    def is_real(self) -> bool:
        """Whether the answers overlap, rather than share sessions that have moved."""
        return self.touches_top and self.touches_bottom and self.is_dense


def find_overlap(
    first: Sequence[int],
    second: Sequence[int],
    *,
    row_counts: tuple[int, int],
    movable: Collection[int],
    both_at_head: bool,
) -> Overlap:
    """Compare two answers by the positions of the sessions that they share.

    `second` ascends, and `first` has the positions of the same sessions in the former answer.
    `movable` are positions in the second answer of sessions that may move by nature.
    """
    kept = find_longest_rise(first)
    is_reordered = False
    if len(kept) < len(first):
        moved = sorted(set(range(len(first))).difference(kept))
        is_at_end = moved[-1] < kept[0] or moved[0] > kept[-1]
        is_reordered = not is_at_end and not all(second[at] in movable for at in moved)
    top, bottom = kept[0], kept[-1]
    return Overlap(
        kept,
        both_at_head or min(first[top], second[top]) == 0,
        min(row_counts[0] - first[bottom], row_counts[1] - second[bottom]) == 1,
        max(first[bottom] - first[top], second[bottom] - second[top])
        < MAX_ROWS_PER_SHARED * len(kept),
        is_reordered,
    )


def is_one_run(overlap: Overlap, *, row_count: int) -> bool:
    """Whether two answers, of so many rows at least, are one run of rows."""
    needed = MIN_SHARED if row_count >= MIN_ROWS_TO_SHARE_TWO else 1
    return len(overlap.kept) >= needed and overlap.is_real


T = TypeVar("T", int, tuple[int, int])


def find_longest_rise(values: Sequence[T]) -> list[int]:
    """The positions of a longest subsequence that ascends."""
    if all(former < later for former, later in pairwise(values)):
        return list(range(len(values)))
    tails: list[T] = []
    ends: list[int] = []
    former_of: list[int] = []
    for at, value in enumerate(values):
        place = bisect_left(tails, value)
        former_of.append(ends[place - 1] if place > 0 else -1)
        tails[place : place + 1] = [value]
        ends[place : place + 1] = [at]
    kept = []
    at = ends[-1]
    while at >= 0:
        kept.append(at)
        at = former_of[at]
    return kept[::-1]
