"""Where to read again so that the runs of rows become one; performs no I/O."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate

from exporter.listing.observations import Observations, PageSeen
from exporter.listing.windows import Window, surround

MAX_GAP_WINDOWS = 64
"""Windows for one gap in one round."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Two runs of rows, one behind the other, that nothing joins yet."""

    upper: int
    """Index of the answer that shows the last rows of the one in front."""
    lower: int
    """Index of the answer that shows the first rows of the one behind."""


class GapFinder:
    """Finds what is open between the first answer and the end, and remembers what did not help."""

    def __init__(self, observations: Observations) -> None:
        self._observations = observations
        self._runs: list[int] = []
        self._misses: Counter[tuple[int, int]] = Counter()

    def find(self, *, end: int | None, ends: Collection[int], by_ranks: bool) -> list[Gap]:
        """Gaps in list order; none when the first answer and the `end` are in one run of rows."""
        observations = self._observations
        pages = observations.pages
        runs = observations.find_runs(by_ranks=by_ranks, ends=ends)
        self._runs = runs
        first = next((at for at, page in enumerate(pages) if page.is_evidence), None)
        if first is None or (end is not None and runs[first] == runs[end]):
            return []
        extents = self._find_extents(by_ranks=by_ranks)
        tops: dict[int, int] = {}
        bottoms: dict[int, int] = {}
        for at, page in enumerate(pages):
            if page.is_evidence:
                run = runs[at]
                tops[run] = min(tops.get(run, at), at, key=lambda each: (extents[each][0], -each))
                bottoms[run] = max(
                    bottoms.get(run, at), at, key=lambda each: (extents[each][1], each)
                )
        last = None if end is None else runs[end]
        current = runs[first]
        gaps: list[Gap] = []
        for run in sorted(tops, key=lambda each: (extents[tops[each]][0], each)):
            reached = extents[bottoms[run]][1] > extents[bottoms[current]][1]
            if run == current or (run != last and not reached):
                continue
            gaps.append(Gap(bottoms[current], tops[run]))
            current = run
            if run == last:
                break
        return gaps

    def is_joined(self, page: int) -> bool:
        """Whether an answer was in one run with the first one, when gaps were last found."""
        return bool(self._runs) and self._runs[page] == self._runs[0]

    def find_bottom(self, page: int) -> int:
        """The place behind the run of rows that an answer is in."""
        pages = self._observations.pages
        return max(each.stop for at, each in enumerate(pages) if self._runs[at] == self._runs[page])

    def _find_extents(self, *, by_ranks: bool) -> list[tuple[int, int]]:
        """Where each answer begins and ends, on a scale on which sessions do not move."""
        observations = self._observations
        pages = observations.pages
        if by_ranks:
            return [(-page.ranks[1], -page.ranks[0]) for page in pages]
        spans = [page.span for page in pages if page.span is not None]
        is_exact = observations.is_sorted and observations.disorder_ms == 0
        if is_exact and len(spans) == len(pages):
            if observations.order == "newest first":
                return [(-high, -low) for low, high in spans]
            return spans
        # A row at the head that was seen again tells how many came in front of it, or went.
        moved = [0] * len(pages)
        for shift in observations.shifts:
            if pages[shift.page].start == pages[shift.former].start == 0:
                moved[shift.page] = shift.now - shift.then
        return [
            (page.start - gone, page.stop - gone)
            for page, gone in zip(pages, accumulate(moved), strict=True)
        ]

    def plan(
        self, gaps: Sequence[Gap], *, page_size: int, overlap: int, by_ranks: bool
    ) -> list[Window]:
        """Windows that show what is between the runs, and some rows of both."""
        windows: list[Window] = []
        for gap in gaps:
            upper, lower = (self._observations.pages[at] for at in (gap.upper, gap.lower))
            key = upper.first_row, lower.first_row
            start = self._locate(gap.upper, upper.stop, by_ranks=by_ranks, page=upper)
            stop = self._locate(gap.lower, lower.start, by_ranks=by_ranks, page=lower)
            start, stop = min(start, stop), max(start, stop)
            margin = overlap + self._misses[key] * page_size // 4
            self._misses[key] += 1
            windows += surround(start, stop, margin=margin, most=page_size, overlap=overlap)[
                :MAX_GAP_WINDOWS
            ]
        return list(dict.fromkeys(windows))

    def _locate(self, at: int, place: int, *, by_ranks: bool, page: PageSeen) -> int:
        if by_ranks:
            return max(0, place + self._observations.total_count - page.total_count)
        return self._observations.estimate_place(place, page=at)
