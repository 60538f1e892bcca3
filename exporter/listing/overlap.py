"""What the sessions that two answers share tell of the two; performs no I/O.

An answer shows rows that stood next to each other at one instant. While sessions that stay keep
their order, two answers that share a session are one run of rows: a session that was there all
along and stands between the two ends of such a run was in one of the answers. That holds only for
a real overlap: what the answers share reaches an end of one of them on either side. A session that
has moved to the head of the list is in two answers as well, and joins nothing.
"""

from bisect import bisect_left
from collections.abc import Collection, Sequence
from typing import Literal

Overlap = Literal["joined", "apart", "reordered"]

MIN_SHARED = 2
"""Sessions that two answers have to share: one alone may have moved."""
MIN_ROWS_TO_SHARE_TWO = 4
"""Of answers with fewer rows, one has to do."""


def judge_overlap(
    first: Sequence[int],
    second: Sequence[int],
    *,
    row_counts: tuple[int, int],
    movable: Collection[int] = (),
    both_at_head: bool = False,
    both_at_end: bool = False,
) -> Overlap:
    """Whether two answers are one run of rows, by the positions of the sessions that they share.

    `second` ascends, and `first` has the positions of the same sessions in the other answer.
    `movable` are positions in the second answer of sessions that may move by nature. "reordered":
    two sessions were seen in both orders, and no move to an end of the list explains it.
    """
    kept = find_longest_rise(first)
    if len(kept) < len(first):
        moved = [at for at in range(len(first)) if at not in set(kept)]
        at_front, at_back = moved[-1] < kept[0], moved[0] > kept[-1]
        if not at_front and not at_back and not all(second[at] in movable for at in moved):
            return "reordered"
    tops = first[kept[0]], second[kept[0]]
    left = (
        row_counts[0] - 1 - first[kept[-1]],
        row_counts[1] - 1 - second[kept[-1]],
    )
    needed = MIN_SHARED if min(row_counts) >= MIN_ROWS_TO_SHARE_TWO else 1
    touches_top = both_at_head or min(tops) == 0
    touches_bottom = both_at_end or min(left) == 0
    return "joined" if len(kept) >= needed and touches_top and touches_bottom else "apart"


def find_longest_rise(values: Sequence[int]) -> list[int]:
    """The positions of a longest subsequence that ascends."""
    if all(values[at] < values[at + 1] for at in range(len(values) - 1)):
        return list(range(len(values)))
    tails: list[int] = []
    ends: list[int] = []
    former: list[int | None] = []
    for at, value in enumerate(values):
        place = bisect_left(tails, value)
        former.append(ends[place - 1] if place > 0 else None)
        tails[place : place + 1] = [value]
        ends[place : place + 1] = [at]
    kept: list[int] = []
    at_or_none: int | None = ends[-1]
    while at_or_none is not None:
        kept.append(at_or_none)
        at_or_none = former[at_or_none]
    return kept[::-1]
