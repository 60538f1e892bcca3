"""Answers about one list, joined into runs of rows; performs no I/O.

Two answers are one *run of rows* if no session can be missing between them: by shared sessions, by
create times, or by ranks. `README.md` in this folder explains why.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

from exporter.listing.movable import MovableSessions
from exporter.listing.order import ListOrder, find_span
from exporter.listing.overlap import Overlap, find_overlap, is_one_run
from exporter.listing.row_index import RowIndex
from exporter.listing.row_runs import RowRuns
from exporter.listing.shifts import Shift, Shifts
from exporter.listing.windows import Window
from exporter.model import SessionPage

MIN_HELD = 10
"""Pairs of rows that have to be seen in one order twice, before sessions that two answers share
join them: chance holds so many with a probability of one in a thousand at most."""
MIN_ROWS_TO_SHIFT = 2
"""Shared rows that show how far rows moved."""
MAX_EXPECTED = 1 << 24
"""Most sessions that room is made for before they come: a total is only the service's word."""


@dataclass(frozen=True, slots=True)
class PageObservation:
    """One answer, without its rows."""

    start: int
    """The place of its first row in the list, from 0."""
    row_count: int
    size: int
    """Rows that were asked for."""
    total_count: int
    first_row: int
    """Number of its first row, counted through all answers from 1."""
    span: tuple[int, int] | None
    """Create times: all sessions created strictly between them, if the list is sorted by them, were
    shown. None where too few rows have one.
    """
    is_evidence: bool
    """Whether it shows all that stood between its first row and its last."""

    @property
    def stop(self) -> int:
        return self.start + self.row_count

    @property
    def ranks(self) -> tuple[int, int]:
        return self.total_count - self.stop, self.total_count - self.start

    @property
    def is_short(self) -> bool:
        return self.row_count < self.size


class Observations:
    """Answers about one list, in the order in which they were taken in."""

    def __init__(self) -> None:
        self.pages: list[PageObservation] = []
        self.total_count = 0
        """Of the latest answer."""
        self.ranks_hold = True
        """Whether no answer contradicts that sessions keep their rank."""
        self.is_reordered = False
        """Whether two sessions were seen in both orders, and not because one moved to an end."""
        self.order = ListOrder()
        self.shifts = Shifts()
        self._movable = MovableSessions()
        self._index: RowIndex | None = None
        self._first_rows = array("I")
        self._repeats = array("I")
        """Rows of sessions that were seen before, and for each of them ..."""
        self._repeated = array("I")
        """... the row that showed its session last."""
        self._next_row = 1
        self._has_ties = False
        """Whether any two rows have one create time, or none."""
        self._held_pairs = 0
        """Neighbours that were seen again in the same order, ..."""
        self._held_ties = 0
        """... of one create time, or of none."""
        self._joins: set[tuple[int, int]] = set()

    @property
    def session_count(self) -> int:
        """Distinct sessions that were seen."""
        return 0 if self._index is None else len(self._index)

    def add(
        self,
        window: Window,
        page: SessionPage,
        times: Sequence[int | None],
        *,
        size: int,
        is_evidence: bool,
    ) -> list[int]:
        """Take in an answer that has rows, of `size` that it could have, with their create times.

        Returns the positions of those that were seen before.
        """
        if self._index is None:
            self._index = RowIndex(min(max(page.total_count, page.row_count), MAX_EXPECTED))
        timed = [time for time in times if time is not None]
        self.order.add(timed)
        self._has_ties |= len(set(timed)) < len(times)
        ended = self._movable.add(page, len(self.pages))
        repeated = self._index.add_all(page.session_ids, self._next_row)
        seen = PageObservation(
            window.start,
            page.row_count,
            size,
            page.total_count,
            self._next_row,
            find_span(timed),
            is_evidence,
        )
        self.total_count = page.total_count
        shows_other_end = is_evidence and seen.is_short and seen.stop != page.total_count
        self.ranks_hold &= seen.stop <= page.total_count and not shows_other_end
        self._first_rows.append(self._next_row)
        self.pages.append(seen)
        self._next_row += len(page.session_ids)
        # In a list by their end, sessions that ended have moved.
        moved = frozenset() if self.order.is_sorted else ended
        self._note_repeated(repeated, page, times, moved=moved)
        return [at for at, _ in repeated]

    def _page_of(self, row: int) -> int:
        return bisect_right(self._first_rows, row) - 1

    def _note_repeated(
        self,
        repeated: list[tuple[int, int]],
        page: SessionPage,
        times: Sequence[int | None],
        *,
        moved: frozenset[int],
    ) -> None:
        """Take in the sessions of the latest answer that earlier rows have shown."""
        latest = len(self.pages) - 1
        first_row = self.pages[latest].first_row
        groups: dict[int, list[tuple[int, int]]] = {}
        for at, row in repeated:
            if row >= first_row:
                # A session twice in one answer joins it to no other.
                continue
            for each in self._find_rows(row) if at not in moved else ():
                groups.setdefault(self._page_of(each), []).append((at, each))
            self._repeats.append(first_row + at)
            self._repeated.append(row)
        self._note_held(repeated, times)
        for former, group in groups.items():
            overlap = self._note_shared(former, group, page)
            if self.pages[former].is_evidence and self.pages[latest].is_evidence:
                # Far from each other, two answers share sessions that moved since, in any order.
                self.is_reordered |= overlap.is_reordered and self._are_near(former, latest)
                row_count = min(self.pages[former].row_count, self.pages[latest].row_count)
                if is_one_run(overlap, row_count=row_count):
                    self._joins.add((former, latest))

    def _are_near(self, one: int, other: int) -> bool:
        """Whether two answers were about the same places, in part."""
        first, second = self.pages[one], self.pages[other]
        return abs(first.start - second.start) < max(first.size, second.size)

    def _find_rows(self, row: int) -> Iterator[int]:
        """A row, and the earlier ones of its session."""
        yield row
        at = bisect_left(self._repeats, row)
        while at < len(self._repeats) and self._repeats[at] == row:
            row = self._repeated[at]
            yield row
            at = bisect_left(self._repeats, row)

    def _note_held(self, repeated: list[tuple[int, int]], times: Sequence[int | None]) -> None:
        """Count neighbours that an earlier answer has shown in the same order."""
        for (early, former), (late, other) in pairwise(repeated):
            if former < other and self._page_of(former) == self._page_of(other):
                self._held_pairs += 1
                is_tie = times[early] == times[late] or None in {times[early], times[late]}
                self._held_ties += is_tie

    def _note_shared(
        self, former: int, shared: list[tuple[int, int]], page: SessionPage
    ) -> Overlap:
        """Compare the latest answer with a former one by the sessions that they share."""
        latest = len(self.pages) - 1
        one, other = self.pages[former], self.pages[latest]
        first = [row - one.first_row for _, row in shared]
        second = [at for at, _ in shared]
        for at in {0, len(shared) - 1}:
            then, now = one.start + first[at], other.start + second[at]
            self.ranks_hold &= one.total_count - then == other.total_count - now
        overlap = find_overlap(
            first,
            second,
            row_counts=(one.row_count, other.row_count),
            movable=[at for at in second if page.session_ids[at] in self._movable],
            both_at_head=one.start == other.start == 0,
        )
        if overlap.is_real and len(overlap.kept) >= MIN_ROWS_TO_SHIFT:
            middle = overlap.kept[len(overlap.kept) // 2]
            then, now = one.start + first[middle], other.start + second[middle]
            self.shifts.add(Shift(then, now, former, latest))
        return overlap

    @property
    def keeps_ties(self) -> bool:
        """Whether sessions of one create time were seen to keep their order."""
        return self._held_ties >= MIN_HELD and not self.is_reordered

    @property
    def _order_is_known(self) -> bool:
        """Whether rows that times do not order were seen to keep their order.

        While few rows were seen twice, it proves nothing that none of them changed its order.
        """
        if self.order.is_measured and not self.order.is_sorted:
            return self._held_pairs >= MIN_HELD
        return not self._has_ties or self._held_ties >= MIN_HELD

    def descends(self) -> bool:
        """Whether the answers, laid side by side as if nothing moved, are newest first."""
        if self.order.direction != "newest first":
            return False
        disorder_ms = self.order.disorder_ms
        spans = [page.span for page in sorted(self.pages, key=lambda page: page.start)]
        timed = [span for span in spans if span is not None]
        return all(
            later[1] <= former[1] + disorder_ms and later[0] <= former[0] + disorder_ms
            for former, later in pairwise(timed)
        )

    def find_runs(self, *, by_ranks: bool, list_end: int | None = None) -> list[int]:
        """For each answer, the index of one that stands for its run of rows.

        The answer with index `list_end` shows that nothing stands behind its last row.
        """
        runs = RowRuns(len(self.pages))
        if not self.is_reordered and self._order_is_known:
            for one, other in self._joins:
                runs.unite(one, other)
        evidence = [at for at, page in enumerate(self.pages) if page.is_evidence]
        if self.order.is_sorted:
            spans = [(at, self._find_interval(at, is_end=at == list_end)) for at in evidence]
            runs.unite_overlapping([(at, span) for at, span in spans if span is not None])
        if by_ranks:
            runs.unite_overlapping((at, self.pages[at].ranks) for at in evidence)
        return runs.find_all()

    def _find_interval(self, at: int, *, is_end: bool) -> tuple[float, float] | None:
        """Create times of which an answer has shown all sessions, from the first up to, but not
        including, the second.
        """
        span = self.pages[at].span
        if span is None:
            return None
        low, high = span[0] + self.order.disorder_ms + 1, span[1] - self.order.disorder_ms
        if not is_end:
            return low, high
        return (-inf, high) if self.order.direction == "newest first" else (low, inf)

    def count_ranks(self) -> int:
        """Distinct ranks that the answers have shown by their totals."""
        ranks = [page.ranks for page in self.pages if page.is_evidence]
        return count_covered(ranks, low=-inf, high=inf)

    def count_seen_ranks(self, most: int, *, also: int) -> int:
        """Rows of the latest answer that have a rank which one of the `most` answers before it has
        shown, or the one with index `also`.
        """
        low, high = self.pages[-1].ranks
        earlier = [self.pages[also], *self.pages[-1 - most : -1]]
        return count_covered([page.ranks for page in earlier], low=low, high=high)

    def estimate_place(self, place: int, *, page: int) -> int:
        """The place by now of the row that stood at `place` when answer `page` was taken in."""
        size, latest = self.pages[page].size, len(self.pages) - 1
        return self.shifts.estimate_place(place, page=page, size=size, latest=latest)

    def find_landings(self) -> tuple[int | None, int | None]:
        """Indices of the answers behind the first rows and in front of the last ones that show
        where sessions land when they end.
        """
        in_order = sorted(range(len(self.pages)), key=lambda at: self.pages[at].start)
        return self._movable.find_landings(in_order)


def count_covered(intervals: Iterable[tuple[int, int]], *, low: float, high: float) -> int:
    """Whole numbers between two bounds that are in any of the half-open intervals."""
    count, reached = 0, low
    for one_low, one_high in sorted(intervals):
        stop = min(high, one_high)
        if stop > max(one_low, reached):
            count += int(stop - max(one_low, reached))
        reached = max(reached, stop)
    return count
