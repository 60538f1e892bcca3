"""What the answers about one list prove together; performs no I/O.

Two measures of a list are covered, each by intervals, one for each answer:

- *Ranks*, counted from the end of the list: `total - 1 - place`. While sessions are only created,
  and at the head, the rank of a session never changes, and the sessions there were at first have
  the ranks below the first total. Deletions make ranks slip.
- *Times*. A list that is sorted by its rows' create times shows in each answer all sessions that
  were created strictly between the answer's first row and its last one, at that instant. Answers
  whose open intervals of time leave nothing out have shown every session that was there all along,
  whatever was created and deleted between them, and however equal times were ordered.

A list need not be sorted to the millisecond: the largest disorder that was seen is taken off every
interval. In a list that is in no order this leaves nothing of them, and proves nothing.
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import inf
from typing import Literal

from exporter.api.roa import SessionPage
from exporter.listing.intervals import Interval, find_gaps
from exporter.listing.windows import Window
from exporter.records import RawSession

Order = Literal["newest first", "oldest first", "none"]

LEAST_STEPS = 20
"""Differing rows next to each other before a list is known to be in order."""
LEAST_AGREEING = 5
"""So many different pages that end with one row show the end of a list whose total says more."""
LEAST_AGREEING_BEYOND = 3
"""The same where the total says less: no page can lack rows then."""

LOOK_BACK = 64
"""Answers before the latest one that may have shown the same rows, while a list is swept."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One answer, without its rows."""

    start: int
    """The place of its first row in the list, from 0."""
    row_count: int
    is_short: bool
    """Whether fewer rows came than were asked for."""
    total_count: int
    earliest_ms: int
    latest_ms: int
    last_id: str

    @property
    def stop(self) -> int:
        return self.start + self.row_count

    @property
    def ranks(self) -> tuple[int, int]:
        return self.total_count - self.stop, self.total_count - self.start

    def span(self, *, newest_first: bool) -> tuple[int, int]:
        """The times of its rows, mirrored if need be, so that they grow along the list."""
        if newest_first:
            return -self.latest_ms, -self.earliest_ms
        return self.earliest_ms, self.latest_ms


def read_times(sessions: Sequence[RawSession]) -> list[int] | None:
    """The create times of the rows; None if any has none."""
    times = [session.get("createTime") for session in sessions]
    if set(map(type, times)) <= {int} and 0 not in times:
        return times  # type: ignore[return-value]  # just looked
    return None


def count_crowded(times: Sequence[int], within_ms: int) -> int:
    """The most rows whose create times are within so many milliseconds of each other."""
    if within_ms == 0:
        return max(Counter(times).values())
    in_order = sorted(times)
    return max(
        bisect_right(in_order, time + within_ms) - place for place, time in enumerate(in_order)
    )


class Evidence:
    """Sightings of one list, in the order of their answers: about three bytes a row."""

    def __init__(self) -> None:
        self.sightings: list[Sighting] = []
        self.timed = True
        """Whether every row had a create time."""
        self.emptied = False
        """Whether the list was empty at some instant, so that nothing was there all along."""
        self.total_count = 0
        """As the latest answer told it."""
        self._beyond: set[str] = set()
        self._disorder_ms = {"newest first": 0, "oldest first": 0}
        self._step_count = 0
        """Rows seen to differ from the one before them; not counted on beyond what is needed."""
        self._endings: defaultdict[str, set[Window]] = defaultdict(set)

    def add(
        self,
        window: Window,
        page: SessionPage,
        times: Sequence[int] | None,
        *,
        size_is_known: bool,
    ) -> None:
        """Take in an answer; `times` as `read_times` found them.

        While it is not known what size the service caps pages at, no answer is short.
        """
        start, row_count = window.start, len(page.session_ids)
        self.total_count = page.total_count
        if row_count == 0:
            self.emptied |= start == 0 and page.total_count == 0
            return
        if times is None:
            self.timed = False
            times = [0] * row_count
        self._measure_disorder(times)
        sighting = Sighting(
            start,
            row_count,
            size_is_known and row_count < window.page_size,
            page.total_count,
            min(times),
            max(times),
            page.session_ids[-1],
        )
        if sighting.is_short and sighting.stop != page.total_count:
            self._endings[sighting.last_id].add(window)
            if sighting.stop > page.total_count:
                self._beyond.add(sighting.last_id)
        self.sightings.append(sighting)

    @property
    def order(self) -> Order:
        """Newest first is taken for granted while nothing speaks against it."""
        newest_ms, oldest_ms = self._disorder_ms.values()
        if 4 * newest_ms <= oldest_ms or newest_ms == 0:
            return "newest first"
        return "oldest first" if 4 * oldest_ms <= newest_ms else "none"

    @property
    def disorder_ms(self) -> int:
        """By how much rows were seen out of order, at most."""
        return self._disorder_ms["newest first" if self.order == "newest first" else "oldest first"]

    @property
    def is_sorted(self) -> bool:
        """Whether times can prove anything: a few rows may be in order by chance."""
        return self.timed and self.order != "none" and self._step_count >= LEAST_STEPS

    def descends(self) -> bool:
        """Whether the answers, laid side by side as if nothing moved, are newest first."""
        by_start = {each.start: each for each in self.sightings}
        spans = [each for _, each in sorted(by_start.items(), key=lambda found: found[0])]
        slack_ms = self._disorder_ms["newest first"]
        return not self.timed or all(
            former.earliest_ms + slack_ms >= later.latest_ms
            # Of the rows that two windows share, only the two ends are known.
            or (
                later.start < former.stop
                and former.earliest_ms + slack_ms >= later.earliest_ms
                and former.latest_ms + slack_ms >= later.latest_ms
            )
            for former, later in pairwise(spans)
        )

    @property
    def is_exact(self) -> bool:
        """Whether no row was seen that is newer than one before it."""
        return self.timed and self._disorder_ms["newest first"] == 0

    def count_known_ranks(self) -> int:
        """Rows of the latest answer that have a rank which an answer not long before has shown."""
        *earlier, latest = self.sightings[-1 - LOOK_BACK :]
        gaps = find_gaps([each.ranks for each in earlier], *latest.ranks)
        return latest.row_count - sum(int(stop - start) for start, stop in gaps)

    def find_rank_gaps(self, total_count: int) -> list[Interval]:
        """Ranks below a total that no answer has shown."""
        return find_gaps([each.ranks for each in self.sightings], 0, total_count)

    def find_time_gaps(self, *, since_ms: float = -inf) -> list[Interval]:
        """Times, mirrored where the list is newest first, that no answer has shown in full.

        Of such a list, those before `since_ms` do not count.
        """
        if self.emptied:
            return []
        return find_gaps(self._time_intervals(), -inf, self._mirror(since_ms))

    def locate_time_gaps(self, *, since_ms: float = -inf) -> list[tuple[Interval, int, int]]:
        """The same, each with the places, by the latest total, that it lies between by now."""
        # Without deletions, rows keep their distance from the end where new ones appear.
        moves = self.order == "newest first"
        intervals = self._time_intervals()
        starts, stops = {-inf: 0}, {inf: self.total_count}
        for sighting, (low, high) in zip(self.sightings, intervals, strict=True):
            moved = self.total_count - sighting.total_count if moves else 0
            starts[high] = max(0, sighting.stop + moved)
            stops[low] = max(0, sighting.start + moved)
        stops[inf] = self.total_count
        gaps = find_gaps(intervals, -inf, self._mirror(since_ms))
        return [
            # Where a gap is cut off, its other end is not known: it is looked for at its start.
            (gap, *sorted((starts[gap[0]], stops.get(gap[1], starts[gap[0]]))))  # type: ignore[misc]  # two of them
            for gap in gaps
        ]

    def say_missing(self) -> str:
        """Why the list is not proven, for a reader."""
        if not self.timed:
            return "sessions without a create time, and two sweeps that differ"
        if self.order == "none":
            return "the list is in no order, and two sweeps differ"
        count = len(self.find_time_gaps())
        return f"{count:,} place{'' if count == 1 else 's'} in the list could not be joined"

    def _mirror(self, since_ms: float) -> float:
        """The first mirrored time that is before `since_ms`."""
        return 1 - since_ms if self.order == "newest first" else inf

    def _time_intervals(self) -> list[Interval]:
        newest_first = self.order == "newest first"
        disorder_ms = self.disorder_ms
        ends = self._find_ends(newest_first=newest_first)
        intervals: list[Interval] = []
        for each, is_end in zip(self.sightings, ends, strict=True):
            low, high = each.span(newest_first=newest_first)
            intervals.append(
                (
                    -inf if each.start == 0 else low + disorder_ms + 1,
                    inf if is_end else high - disorder_ms,
                )
            )
        return intervals

    def _find_ends(self, *, newest_first: bool) -> list[bool]:
        """Which answers showed the end of the list: they came short, and nothing was missing.

        A total that moves may lag, and claim more rows than there are, or fewer. Then several short
        answers have to agree where the list ends, and none may have been cut before rows that came
        later.
        """
        lags = len({each.total_count for each in self.sightings}) > 1
        agreed = {
            last_id
            for last_id, at in self._endings.items()
            if lags
            and len(at) >= (LEAST_AGREEING_BEYOND if last_id in self._beyond else LEAST_AGREEING)
        }
        furthest = -inf
        ends: list[bool] = []
        for each in reversed(self.sightings):
            _, high = each.span(newest_first=newest_first)
            if each.is_short and each.stop != each.total_count and high < furthest:
                agreed.clear()
            furthest = max(furthest, high)
        for each in self.sightings:
            reached = each.stop == each.total_count or each.last_id in agreed
            ends.append(each.is_short and reached)
        return ends

    def _measure_disorder(self, times: Sequence[int]) -> None:
        """How much newer than a row before it a row is, at most, and how much older."""
        disorder_ms = self._disorder_ms
        if self._step_count < LEAST_STEPS:
            self._step_count += len(set(times)) - 1
        if times == sorted(times, reverse=True):
            fall_ms, rise_ms = times[0] - times[-1], 0
        else:
            highest, lowest = accumulate(times, max), accumulate(times, min)
            fall_ms = max(top - time for top, time in zip(highest, times, strict=True))
            rise_ms = max(time - low for low, time in zip(lowest, times, strict=True))
        disorder_ms["newest first"] = max(disorder_ms["newest first"], rise_ms)
        disorder_ms["oldest first"] = max(disorder_ms["oldest first"], fall_ms)
