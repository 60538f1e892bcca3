"""Finds gaps between runs of rows, and the windows that may close them; performs no I/O."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from operator import itemgetter

from exporter.listing.observations import Observations, PageObservation
from exporter.listing.order import MIN_ROWS_TO_TRIM
from exporter.listing.windows import Window, read_on, surround

MAX_GAP_WINDOWS = 64
"""Windows for one gap in one round."""
MIN_RECENT = 4
"""Latest answers whose create times show where to look after a window has missed: those of the
latest round, but at least so many.
"""


@dataclass(frozen=True, slots=True)
class GapRange:
    """Two runs of rows, one behind the other, that nothing joins yet."""

    upper: int
    """Index of the answer that shows the last rows of the one in front."""
    lower: int
    """Index of the answer that shows the first rows of the one behind."""


class GapFinder:
    """Finds the gaps between the first answer and the end, and counts the misses at each."""

    def __init__(self, observations: Observations) -> None:
        self._observations = observations
        self._runs: list[int] = []
        self.trusted_heads: set[int] = set()
        """Indices of answers about page 1 that show the head as well as the first answer did."""
        self._first = 0
        """Index of the answer that the others were to be joined to, when gaps were last found."""
        self._answered = self._recent = 0
        """Answers when windows were planned last, and how many came since the time before that."""
        self._misses: Counter[int] = Counter()
        """How often a gap was read again, by the first row of the answers on its sides."""

    def find(
        self, *, end: int | None, by_ranks: bool, list_end: int | None = None
    ) -> list[GapRange]:
        """Gaps in list order; none when the answer `end` and one about the head are in one run.

        Nothing stands behind the answer `list_end`.
        """
        observations = self._observations
        pages = observations.pages
        runs = observations.find_runs(by_ranks=by_ranks, list_end=list_end)
        self._runs = runs
        heads = self._find_heads()
        if not heads:
            return []
        last = None if end is None else runs[end]
        self._first = next((at for at in heads if runs[at] == last), heads[-1])
        if runs[self._first] == last:
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
        current = runs[self._first]
        gaps: list[GapRange] = []
        for run in sorted(tops, key=lambda each: (extents[tops[each]][0], each)):
            reached = extents[bottoms[run]][1] > extents[bottoms[current]][1]
            if run == current or (run != last and not reached):
                continue
            gaps.append(GapRange(bottoms[current], tops[run]))
            current = run
            if run == last:
                break
        return gaps

    def _find_heads(self) -> list[int]:
        """Indices of answers in front of which no session stands that was there all along."""
        observations = self._observations
        evidence = [at for at, page in enumerate(observations.pages) if page.is_evidence]
        if observations.order.direction == "oldest first" and observations.order.is_sorted:
            # Only the oldest stand there, and may have gone since the first answer.
            return [at for at in evidence if observations.pages[at].start == 0]
        # From a replica that lags, a later page 1 may lack sessions that the first one has.
        return sorted({*evidence[:1], *self.trusted_heads})

    def is_joined(self, page: int) -> bool:
        """Whether an answer was in one run with the list's head, when gaps were last found."""
        return bool(self._runs) and self._runs[page] == self._runs[self._first]

    def find_bottom(self, page: int) -> int:
        """The place behind the run of rows that an answer is in."""
        pages = self._observations.pages
        return max(each.stop for at, each in enumerate(pages) if self._runs[at] == self._runs[page])

    def _find_extents(self, *, by_ranks: bool) -> list[tuple[int, int]]:
        """The start and stop of each answer, on a scale on which sessions do not move."""
        observations = self._observations
        pages = observations.pages
        if by_ranks:
            return [(-page.ranks[1], -page.ranks[0]) for page in pages]
        spans = [page.span for page in pages if page.span is not None]
        is_exact = observations.order.is_sorted and observations.order.disorder_ms == 0
        if is_exact and len(spans) == len(pages):
            if observations.order.direction == "newest first":
                return [(-high, -low) for low, high in spans]
            return spans
        # A row at the head that was seen again shows how many came in front of it, or went.
        moved = [0] * len(pages)
        for shift in observations.shifts:
            if pages[shift.page].start == pages[shift.former].start == 0:
                moved[shift.page] = shift.now - shift.then
        return [
            (page.start - gone, page.stop - gone)
            for page, gone in zip(pages, accumulate(moved), strict=True)
        ]

    def plan(
        self, gaps: Sequence[GapRange], *, page_size: int, overlap: int, by_ranks: bool
    ) -> list[Window]:
        """Windows that show the rows between the runs, and some of both."""
        windows: list[Window] = []
        page_count = len(self._observations.pages)
        self._recent = max(MIN_RECENT, page_count - self._answered)
        self._answered = page_count
        for gap in gaps:
            upper, lower = (self._observations.pages[at] for at in (gap.upper, gap.lower))
            # Some rows may have been joined to one of the two since.
            edges = (upper.first_row, lower.first_row)
            misses = max(self._misses[edge] for edge in edges)
            self._misses.update(edges)
            start = stop = None
            if misses > 0 and not by_ranks:
                start, stop = self._find_place(upper, -1), self._find_place(lower, 1)
            if start is None or stop is None:
                start = self._locate(gap.upper, upper.stop, by_ranks=by_ranks, page=upper)
                stop = self._locate(gap.lower, lower.start, by_ranks=by_ranks, page=lower)
            # Where pages are small, all rows between are read again: what moved is hard to aim at.
            margin = overlap if page_size >= MIN_ROWS_TO_TRIM else page_size // 2
            margin += misses * page_size // 4
            around = surround(
                min(start, stop), max(start, stop), margin=margin, most=page_size, overlap=overlap
            )[:MAX_GAP_WINDOWS]
            # Where gaps are close to each other, it is cheaper to read on from the last one.
            shown = windows[-1].stop if windows else 0
            beyond = max(start, stop) + margin
            if windows and shown < beyond <= shown + len(around) * page_size:
                onward = list(read_on(shown, beyond, most=page_size, overlap=overlap))
                around = onward if len(onward) < len(around) else around
            windows += around
        return list(dict.fromkeys(windows))

    def _find_place(self, page: PageObservation, side: int) -> int | None:
        """The place by now of the row at one end of an answer (-1: its last, 1: its first), by the
        create times of recent answers; None where these do not help.
        """
        observations = self._observations
        if page.span is None or not observations.order.is_sorted:
            return None
        # Along the list, times fall or rise.
        sign = -1 if observations.order.direction == "newest first" else 1
        time = sign * (max(page.span) if side == sign * -1 else min(page.span))
        points = []
        for each in observations.pages[-self._recent :]:
            if each.is_evidence and each.span is not None:
                low, high = sorted(sign * edge for edge in each.span)
                points += [(low, each.start), (high, each.stop)]
        return interpolate(points, time)

    def _locate(self, at: int, place: int, *, by_ranks: bool, page: PageObservation) -> int:
        if by_ranks:
            return max(0, place + self._observations.total_count - page.total_count)
        return self._observations.estimate_place(place, page=at)


def interpolate(points: Sequence[tuple[int, int]], time: int) -> int | None:
    """The place of a time, from points of time and place, the latest last.

    It is on a straight line through the nearest points on either side, or beyond all of them
    through the outermost two.
    """
    latest_first = points[::-1]
    before = max(
        (each for each in latest_first if each[0] <= time), default=None, key=itemgetter(0)
    )
    after = min((each for each in latest_first if each[0] > time), default=None, key=itemgetter(0))
    if before is None or after is None:
        outermost = sorted(dict(points).items())
        if len(outermost) < 2:
            return None
        before, after = outermost[:2] if before is None else outermost[-2:]
    share = (time - before[0]) / (after[0] - before[0])
    return max(0, before[1] + round(share * (after[1] - before[1])))
