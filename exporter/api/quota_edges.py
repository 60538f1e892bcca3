"""Measures a quota from the requests that met its edge; performs no I/O."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from exporter.api.rates import MIN_RPS, Climb, Contest

MIN_SAMPLE, MAX_SAMPLE = 12, 60
"""Granted requests that a rate is measured from: among fewer, one more or less matters too much;
over more, the quota may have changed."""
REGULAR_GAPS = ((6, 1.3), (8, 1.5), (14, 2.1))
"""So many gaps between refusals within such a factor of each other are regular. A bucket or window
that one exporter uses alone makes nearly all gaps alike; several at a bucket seldom do."""

MIN_WINDOW_COUNT = 5
"""A window of fewer requests is treated like a bucket."""
MIN_WINDOW_SHARE = 0.7
"""Walls that are less than this share of a window apart do not end two of the known windows."""
WINDOW_UNCERTAINTY = 0.05
"""Of a window that was met from end to end; more where it holds few requests."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request in flight."""

    number: int
    """In the order of sending, from 1."""
    sent_s: float


@dataclass(frozen=True, slots=True)
class QuotaEdge:
    """A request at the edge of the quota: refused, or the first one granted again."""

    ticket: Ticket
    refused_count: int
    """Refusals received until then, this one included."""

    def count_granted(self, later: "QuotaEdge") -> int:
        refused_count = later.refused_count - self.refused_count
        return later.ticket.number - self.ticket.number - refused_count

    def measure_s(self, later: "QuotaEdge") -> float:
        return later.ticket.sent_s - self.ticket.sent_s


def measure_granted_rps(cuts: Iterable[QuotaEdge], now: QuotaEdge, *, margin: int) -> float:
    """The highest rate granted from one of the earlier refusals until now; 0 if unknown.

    The count between two refusals may be off by a fraction of a permit at each end; `margin` is
    subtracted from it.
    """
    highest_rps = 0.0
    for cut in cuts:
        granted_count = cut.count_granted(now)
        if granted_count >= MIN_SAMPLE:
            highest_rps = max(highest_rps, (granted_count - margin) / cut.measure_s(now))
        if granted_count > MAX_SAMPLE:
            break
    return highest_rps


def are_regular(cuts: Iterable[QuotaEdge]) -> bool:
    """Whether refusals came at nearly equal intervals."""
    gaps_s = [sooner.measure_s(later) for sooner, later in pairwise(cuts)]
    return any(
        len(gaps_s) >= count and max(gaps_s[-count:]) < ratio * min(gaps_s[-count:])
        for count, ratio in REGULAR_GAPS
    )


def learn_window(
    law: Climb | Contest, *, before: QuotaEdge, now: QuotaEdge, wall_s: float, is_second: bool
) -> Climb | Contest:
    """The law after a wall of `wall_s` that ended now; the previous wall ended at `before`.

    `is_second` is True if both walls were long.
    """
    count, span_s = before.count_granted(now), before.measure_s(now)
    if span_s < MIN_WINDOW_SHARE * law.window_s or law.window_s == 0:
        if not is_second or count < MIN_WINDOW_COUNT:
            return law
        return Climb(max(MIN_RPS, count / span_s), max(WINDOW_UNCERTAINTY, 1 / count), span_s)
    if isinstance(law, Contest):
        return law
    # From end to end is a whole number of windows; the first may have gone partly unused.
    low_rps = count / span_s
    high_rps = count / max(MIN_WINDOW_SHARE * law.window_s, span_s - wall_s)
    return replace(law, quota_rps=max(MIN_RPS, min(high_rps, max(low_rps, law.quota_rps))))
