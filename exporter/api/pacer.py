"""Finds a quota that nobody tells, and stays just under it; performs no I/O.

A refusal says one thing only: the quota was used up when that request was sent. Two of them say
more. What was granted between them, by the time between them, is no more than the quota gave, for
some of it may have gone by unused; the rate that led to the second is more than it gives. The
quota is in this bracket, and each refusal makes it narrower.

- Until the first refusal there is no rate. The requests in flight start few, by the latency of
  the first answer, and double while nothing else holds the run back.
- From then on there is a rate, and a law by which it grows until it is refused: a Climb for who is
  alone, a Contest for who is not. A refusal long before it is due says that others ask, too: the
  quota is contested. Refusals that come as regularly as a clock say that nobody else does: chance
  decides who of several is refused, and chance is not regular.
- Refusals with nothing granted between them are a wall. It is tried by one request at a time, ever
  more seldom. A short one teaches nothing more. A long one is the rest of a window of many seconds,
  or somebody's doing: after the first the rate is what it was before, so that a quota that was
  taken away for a while is used again at once. Where a second one follows, what was granted from
  the end of the first to the end of the second, by the time between them, is the quota, and that
  time is the window's length.

Requests sent before the last refusal was heard of are of its burst and teach nothing more. A rate
grows only by time in which it held requests back, not while the run had none to send.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import pairwise

from exporter.api.rates import GIVE_WAY, MAX_DOUBT, MIN_RPS, Climb, Contest, build_contest

FIRST_RPS = 350.0
"""Requests in flight over latency, at first: 21 in flight at 60 ms. Quotas of such services are
tens a second, so that a run without one loses nothing and a short burst costs few refusals."""
FIRST_IN_FLIGHT = 3
"""Before any answer. About as many are refused as are in flight where a hidden burst ends."""
WIDEN_S = 0.25
"""In this time requests in flight double: 3 become 32 in a second."""

FIRST_CUT = 6.0
"""The quota is first looked for this much below the rate that met it, or below FIRST_RPS: to climb
costs seconds, to start too high costs a refusal for each halving. All start alike, so that none of
several that start together is far behind."""

MIN_SAMPLE, MAX_SAMPLE = 12, 60
"""Granted requests from which a rate is measured: with fewer, one more or less is too much; with
more, the quota may have changed since."""
CUTS_KEPT = 16
REGULAR = ((6, 1.3), (8, 1.5), (14, 2.1))
"""So many intervals between refusals that differ by no more than such a factor are nobody else's
doing. Alone nearly all are alike, by a bucket or a window; of several exporters at a bucket few."""
REGULAR_DOUBT = 0.05
"""A share that was alone for so long is known well."""

REST_REQUESTS = 1.3
"""For so many requests nothing is sent after a refusal, so that the next finds a permit."""
WALL_RESTS = 8
"""So many times a wall is tried at the pace of the rate, as one among several exporters must to get
its share, before it is waited out."""
WALL_GROWTH = 0.15
MAX_WALL_REST_S = 5.0
"""A wall is then tried again after this share of the time that it has lasted, which is how late its
end is seen."""
WALL_CUTS = range(4, 8)
"""Which of these tries, from 1, say that a rate was too high. The first may be bad luck; after the
last it does not matter any more how high it was."""
GROWING_TRIES = 2
"""A rate does not grow any more by a wall that was tried more often."""
LONG_WALL_S = 1.0
LONG_WALL_REQUESTS = 10.0
LONG_WALL_SHARE = 0.15
"""A wall is long when it lasts so many seconds, as many requests and such a share of the time since
the last wall. A rate that is right for a window is refused at its very end, by a short wall."""
MIN_WINDOW_COUNT = 5
"""With fewer requests in a window it is treated like a bucket."""
MIN_PERIOD_SHARE = 0.7
"""Two walls that are nearer to each other than this are no two ends of windows as known."""
WINDOW_DOUBT = 0.05
"""So well a window is known that was met from end to end; less well where it holds few requests."""

MAX_HINT_S = 60.0
"""Longer waits that a service asks for are cut: a question a minute harms nobody."""
TIMER_LATE_S = 0.002
"""An event loop's timers fire this late; a request so late is on time."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request in flight."""

    number: int
    """In the order of sending, from 1."""
    sent_s: float


@dataclass(frozen=True, slots=True)
class Mark:
    """A request that met the edge of the quota: refused, or the first one granted again."""

    ticket: Ticket
    refused_count: int
    """Refusals that were heard of until then, with this one."""

    def count_granted(self, later: "Mark") -> int:
        refused_count = later.refused_count - self.refused_count
        return later.ticket.number - self.ticket.number - refused_count

    def measure_s(self, later: "Mark") -> float:
        return later.ticket.sent_s - self.ticket.sent_s


def measure_granted_rps(cuts: Iterable[Mark], now: Mark, *, margin: int) -> float:
    """The highest rate that was granted from an earlier refusal to this one; 0 if unknown.

    Each end of such a stretch may be off by a fraction of a permit: so many are left out.
    """
    highest_rps = 0.0
    for cut in cuts:
        granted_count = cut.count_granted(now)
        if granted_count >= MIN_SAMPLE:
            highest_rps = max(highest_rps, (granted_count - margin) / cut.measure_s(now))
        if granted_count > MAX_SAMPLE:
            break
    return highest_rps


def are_regular(cuts: Iterable[Mark]) -> bool:
    """Whether refusals came at intervals that are much the same."""
    gaps_s = [sooner.measure_s(later) for sooner, later in pairwise(cuts)]
    return any(
        len(gaps_s) >= count and max(gaps_s[-count:]) < ratio * min(gaps_s[-count:])
        for count, ratio in REGULAR
    )


class Pacer:
    """Says when the next request may be sent; one for all requests that share a quota.

    All times are of one clock that never goes back. Whatever the quota, at most `max_in_flight`
    requests are unanswered and at most `max_rps` are sent a second.
    """

    def __init__(self, *, max_in_flight: int, max_rps: float | None) -> None:
        self._max_in_flight = max_in_flight
        self._max_rps = math.inf if max_rps is None else max_rps
        self._in_flight = 0
        self._limit = min(FIRST_IN_FLIGHT, max_in_flight)
        self._was_full = False
        self._widened_s: float | None = None

        self._next_s = -math.inf
        self._is_held = False
        """Whether the rate held the next request back."""
        self._law: Climb | Contest | None = None
        self._held_s = 0.0
        """For how long the rate has grown."""
        self._grows_from_s = -math.inf
        self._owed = 0.0
        """Requests to be caught up, at twice the rate, after a pause the service asked for."""

        self._sent_count = 0
        self._first_sent_s = math.inf
        self._refused_count = 0
        self._burst_until = 0
        """Tickets up to this number were sent before the last refusal was heard of."""
        self._first_cut: Ticket | None = None
        self._cuts: deque[Mark] = deque(maxlen=CUTS_KEPT)
        self._contest_cuts: deque[Mark] = deque(maxlen=1 + max(REGULAR)[0])
        """Since the quota is contested."""

        self._wall_from: Ticket | None = None
        """The first refusal of the wall that the run stands at; None where it stands at none."""
        self._wall_tries = 0
        self._probe: Ticket | None = None
        """The one request that is in flight at a wall that was tried before."""
        self._wall_end: Mark | None = None
        self._was_wall_long = False

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def learnt_rps(self) -> float | None:
        """The quota as far as it is known; None while none was met."""
        return None if self._law is None else self._law.quota_rps

    @property
    def rate_rps(self) -> float | None:
        """Requests a second that are allowed now; None: as many as are answered."""
        rate_rps = self._compute_rate_rps()
        return rate_rps if rate_rps < math.inf else None

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next request may be sent; 0: now, inf: not before one has ended."""
        if self._in_flight >= self._limit or self._probe is not None:
            return math.inf
        if now_s < self._next_s:
            self._is_held = True
            return self._next_s - now_s
        return 0.0

    def send(self, now_s: float) -> Ticket:
        """Count a request as sent; `wait_s` was 0."""
        if self._law is not None and self._is_held and self._wall_tries <= GROWING_TRIES:
            self._held_s += max(0.0, now_s - self._grows_from_s)
        self._is_held = False
        self._grows_from_s = now_s
        rate_rps = self._compute_rate_rps()
        if rate_rps < math.inf:
            if self._owed >= 1.0:
                self._owed -= 1.0
                rate_rps = min(self._max_rps, 2 * rate_rps)
            self._next_s = max(self._next_s, now_s - TIMER_LATE_S) + 1.0 / rate_rps
        if self._sent_count == 0:
            self._first_sent_s = now_s
        self._sent_count += 1
        self._in_flight += 1
        if self._in_flight == self._limit:
            self._was_full = True
        ticket = Ticket(self._sent_count, now_s)
        if self._wall_tries > 0:
            self._probe = ticket
        return ticket

    def end(
        self, now_s: float, ticket: Ticket, *, throttled: bool, retry_after_s: float | None
    ) -> None:
        """Count a request as ended, however it did; only `throttled` ones met the quota, and
        `retry_after_s` is how long their answer asks to wait.
        """
        self._in_flight -= 1
        if ticket is self._probe:
            self._probe = None
        if throttled:
            self._refuse(now_s, ticket, retry_after_s=retry_after_s)
        elif self._wall_from is not None and ticket.number > self._burst_until:
            self._end_wall(now_s, ticket, wall_from=self._wall_from)
        elif self._law is None:
            self._widen(now_s, latency_s=now_s - ticket.sent_s)

    def _compute_rate_rps(self) -> float:
        if self._law is None:
            return self._max_rps
        return min(self._max_rps, self._law.compute_rps(self._held_s))

    def _widen(self, now_s: float, *, latency_s: float) -> None:
        if self._widened_s is None:
            limit = max(self._limit, int(FIRST_RPS * latency_s))
        elif self._was_full and now_s - self._widened_s >= WIDEN_S:
            limit = 2 * self._limit
        else:
            return
        self._limit = min(limit, self._max_in_flight)
        self._widened_s = now_s
        self._was_full = False

    def _refuse(self, now_s: float, ticket: Ticket, *, retry_after_s: float | None) -> None:
        hint_s = 0.0 if retry_after_s is None else min(MAX_HINT_S, max(0.0, retry_after_s))
        self._refused_count += 1
        if ticket.number > self._burst_until:
            self._burst_until = self._sent_count
            if self._law is None or self._wall_from is None:
                self._meet_wall(now_s, ticket, hint_s=hint_s)
            else:
                self._rest_at_wall(now_s, self._law, wall_s=now_s - self._wall_from.sent_s)
        if hint_s > 0:
            self._pause(now_s + hint_s)
            self._grows_from_s = max(self._grows_from_s, self._next_s)

    def _meet_wall(self, now_s: float, ticket: Ticket, *, hint_s: float) -> None:
        now = Mark(ticket, self._refused_count)
        if self._law is None or self._first_cut is None:
            self._first_cut = ticket
            sent_rps = self._sent_count / max(TIMER_LATE_S, now_s - self._first_sent_s)
            self._law = Climb(max(FIRST_RPS, sent_rps) / FIRST_CUT, MAX_DOUBT)
        else:
            self._law = self._learn(self._law, now)
        self._cuts.append(now)
        self._held_s = 0.0
        self._wall_from = ticket
        self._wall_tries = 0
        self._limit = self._max_in_flight
        rps = self._law.quota_rps
        rest_s = REST_REQUESTS / rps
        # A bucket holds no more than it gave at first.
        burst = self._first_cut.number - rps * (self._first_cut.sent_s - self._first_sent_s)
        self._owed = max(0.0, min(burst, (hint_s - rest_s) * rps))
        self._pause(now_s + rest_s)

    def _learn(self, law: Climb | Contest, now: Mark) -> Climb | Contest:
        """The law to go on by, after a rate was refused."""
        high_rps = law.compute_rps(self._held_s)
        if isinstance(law, Contest):
            self._contest_cuts.append(now)
            if not are_regular(self._contest_cuts):
                return law.cut(self._held_s)
            first = self._contest_cuts[0]
            rps = first.count_granted(now) / first.measure_s(now)
            return Climb(max(MIN_RPS, min(high_rps, rps)), REGULAR_DOUBT, law.period_s)
        granted_rps = measure_granted_rps(reversed(self._cuts), now, margin=0)
        low_rps = measure_granted_rps(reversed(self._cuts), now, margin=1)
        if not law.is_contested(self._held_s, granted_rps=granted_rps):
            return law.cut(self._held_s, low_rps=low_rps)
        self._contest_cuts.clear()
        self._contest_cuts.append(now)
        if low_rps > 0:
            high_rps = min(high_rps, low_rps / (1 - GIVE_WAY / 2))
        return build_contest(high_rps, period_s=law.period_s)

    def _rest_at_wall(self, now_s: float, law: Climb | Contest, *, wall_s: float) -> None:
        """Wait before a wall is tried again, which has lasted so long."""
        self._wall_tries += 1
        if isinstance(law, Contest) and self._wall_tries in WALL_CUTS:
            law = self._law = law.cut(self._held_s)
            self._held_s = 0.0
        rest_s = 1.0 / law.compute_rps(self._held_s)
        if isinstance(law, Climb) and law.period_s > 0:
            # At the end of a window that is known, each try is one in vain for certain.
            longer_s = REST_REQUESTS * rest_s * 2**self._wall_tries
        else:
            longer_s = WALL_GROWTH * (wall_s - WALL_RESTS * rest_s)
        self._pause(now_s + max(rest_s, min(MAX_WALL_REST_S, longer_s)))

    def _end_wall(self, now_s: float, ticket: Ticket, *, wall_from: Ticket) -> None:
        """A request was granted that was sent after the last refusal was heard of."""
        assert self._law is not None  # noqa: S101 - there was a refusal
        now, before = Mark(ticket, self._refused_count), self._wall_end
        wall_s = ticket.sent_s - wall_from.sent_s
        is_long = wall_s >= max(LONG_WALL_S, LONG_WALL_REQUESTS / self._law.quota_rps)
        if before is not None:
            is_long = is_long and wall_s >= LONG_WALL_SHARE * before.measure_s(now)
            is_second = is_long and self._was_wall_long
            self._law = learn_window(
                self._law, before=before, now=now, wall_s=wall_s, is_second=is_second
            )
        self._wall_end, self._was_wall_long = now, is_long
        self._wall_from = None
        self._wall_tries = 0
        if is_long:
            self._held_s = 0.0
            self._grows_from_s = max(self._grows_from_s, now_s)

    def _pause(self, until_s: float) -> None:
        self._next_s = max(self._next_s, until_s)


def learn_window(
    law: Climb | Contest, *, before: Mark, now: Mark, wall_s: float, is_second: bool
) -> Climb | Contest:
    """The law after a wall that ended now and lasted so long, where the one before had ended
    `before`; `is_second` when both were long.
    """
    count, span_s = before.count_granted(now), before.measure_s(now)
    if span_s < MIN_PERIOD_SHARE * law.period_s or law.period_s == 0:
        if not is_second or count < MIN_WINDOW_COUNT:
            return law
        return Climb(max(MIN_RPS, count / span_s), max(WINDOW_DOUBT, 1 / count), span_s)
    if isinstance(law, Contest):
        return law
    # From end to end is whole windows; some of the first ones may have gone by unused.
    low_rps = count / span_s
    high_rps = count / max(MIN_PERIOD_SHARE * law.period_s, span_s - wall_s)
    return replace(law, quota_rps=max(MIN_RPS, min(high_rps, max(low_rps, law.quota_rps))))
