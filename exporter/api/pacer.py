"""Finds the hidden quota and stays just under it; performs no I/O.

README.md of this folder has the theory. A refusal is a throttled answer; a wall is a run of
refusals with no grant between them.
"""

import math
from collections import deque

from exporter.api.quota_edges import (
    REGULAR_GAPS,
    QuotaEdge,
    Ticket,
    are_regular,
    learn_window,
    measure_granted_rps,
)
from exporter.api.rates import (
    CONTEST_DECREASE,
    MAX_UNCERTAINTY,
    MIN_RPS,
    Climb,
    Contest,
    build_contest,
)

FIRST_RPS = 350.0
"""The first limit of requests in flight is this rate times the latency: 21 at 60 ms. That is high
enough to lose little time where there is no quota, and costs few refusals where one of tens a
second has a short burst."""
FIRST_IN_FLIGHT = 3
"""Before the first answer. About as many requests are refused where a hidden burst ends."""
WIDEN_S = 0.25
"""In this time the limit of requests in flight doubles: 3 become 32 in a second."""

FIRST_CUT = 6.0
"""The first guess of the quota is the refused rate, at least FIRST_RPS, divided by this: to climb
costs seconds, to start too high a refusal for each halving. It is the same for all, so that of
several exporters that start together none falls far behind."""
CUTS_KEPT = 16
"""Refusals to measure the quota from; more than MAX_SAMPLE requests usually hold."""
REGULAR_UNCERTAINTY = 0.05
"""After a contest whose regular refusals show that nobody else asks: the share is known well."""

REST_REQUESTS = 1.3
"""After a refusal nothing is sent for the time of so many requests, so that the next finds a
permit."""
WALL_RESTS = 8
"""At first a wall is retried at the pace of the rate, which gives an exporter among others its
share; after the time of so many requests the rests grow."""
WALL_REST_SHARE = 0.15
MAX_WALL_REST_S = 5.0
"""A rest then takes this share of the time that the wall has lasted, up to a limit. The end of the
wall is noticed so late."""
WALL_CUT_TRIES = range(4, 8)
"""The tries at a wall, from 1, that cut a contested rate. The first may be bad luck; after the last
the rate is low enough."""
MAX_GROWING_TRIES = 2
"""After more tries at a wall the rate stops growing."""
LONG_WALL_S = 1.0
LONG_WALL_REQUESTS = 10.0
LONG_WALL_SHARE = 0.15
"""A long wall lasts so many seconds, the time of so many requests, and this share of the time since
the last wall. A rate that fits a window is refused only at its very end, by a short wall."""

MAX_HINT_S = 60.0
"""The service may ask for longer waits, which are cut to this: a request a minute harms nobody."""
TIMER_LATE_S = 0.002
"""Timers of an event loop fire up to this much late; a request so late counts as on time."""


class Pacer:
    """Decides when the next request may be sent, for all requests that share a quota.

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
        """How long the rate has grown: only time in which it held requests back counts."""
        self._grows_from_s = -math.inf
        self._owed = 0.0
        """Requests to catch up on, at twice the rate, after a wait that the service asked for."""

        self._sent_count = 0
        self._first_sent_s = math.inf
        self._refused_count = 0
        self._burst_until = 0
        """Tickets up to this number were sent before the last refusal arrived: if they are refused,
        too, it is the same burst and teaches nothing more."""
        self._first_cut: Ticket | None = None
        self._cuts: deque[QuotaEdge] = deque(maxlen=CUTS_KEPT)
        self._contest_cuts: deque[QuotaEdge] = deque(maxlen=1 + max(REGULAR_GAPS)[0])
        """Refusals since the quota is contested."""

        self._wall_from: Ticket | None = None
        """The first refusal of the present wall; None at no wall."""
        self._wall_tries = 0
        self._probe: Ticket | None = None
        """The one request in flight at a wall that was tried before."""
        self._wall_end: QuotaEdge | None = None
        self._was_wall_long = False

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def learnt_rps(self) -> float | None:
        """The quota as far as it is known; None before the first refusal."""
        return None if self._law is None else self._law.quota_rps

    @property
    def rate_rps(self) -> float | None:
        """Requests a second that are allowed now; None: no limit."""
        rate_rps = self._compute_rate_rps()
        return rate_rps if rate_rps < math.inf else None

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next request may be sent; 0: now, inf: when another one has ended."""
        if self._in_flight >= self._limit or self._probe is not None:
            return math.inf
        if now_s < self._next_s:
            self._is_held = True
            return self._next_s - now_s
        return 0.0

    def send(self, now_s: float) -> Ticket:
        """Count a request as sent; `wait_s` must have been 0."""
        if self._law is not None and self._is_held and self._wall_tries <= MAX_GROWING_TRIES:
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
        """Count a request as ended, whatever its outcome; a throttled one was refused by the quota.

        `retry_after_s` is the wait that its answer asks for.
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
        now = QuotaEdge(ticket, self._refused_count)
        if self._law is None or self._first_cut is None:
            self._first_cut = ticket
            sent_rps = self._sent_count / max(TIMER_LATE_S, now_s - self._first_sent_s)
            self._law = Climb(max(FIRST_RPS, sent_rps) / FIRST_CUT, MAX_UNCERTAINTY)
        else:
            self._law = self._learn(self._law, now)
        self._cuts.append(now)
        self._held_s = 0.0
        self._wall_from = ticket
        self._wall_tries = 0
        self._limit = self._max_in_flight
        rps = self._law.quota_rps
        rest_s = REST_REQUESTS / rps
        # A bucket saves no more than it granted at first.
        burst = self._first_cut.number - rps * (self._first_cut.sent_s - self._first_sent_s)
        self._owed = max(0.0, min(burst, (hint_s - rest_s) * rps))
        self._pause(now_s + rest_s)

    def _learn(self, law: Climb | Contest, now: QuotaEdge) -> Climb | Contest:
        """The law that follows a refused rate."""
        high_rps = law.compute_rps(self._held_s)
        if isinstance(law, Contest):
            self._contest_cuts.append(now)
            if not are_regular(self._contest_cuts):
                return law.cut(self._held_s)
            first = self._contest_cuts[0]
            rps = first.count_granted(now) / first.measure_s(now)
            return Climb(max(MIN_RPS, min(high_rps, rps)), REGULAR_UNCERTAINTY, law.window_s)
        granted_rps = measure_granted_rps(reversed(self._cuts), now, margin=0)
        low_rps = measure_granted_rps(reversed(self._cuts), now, margin=1)
        if not law.is_contested(self._held_s, granted_rps=granted_rps):
            return law.cut(self._held_s, low_rps=low_rps)
        self._contest_cuts.clear()
        self._contest_cuts.append(now)
        if low_rps > 0:
            high_rps = min(high_rps, low_rps / (1 - CONTEST_DECREASE / 2))
        return build_contest(high_rps, window_s=law.window_s)

    def _rest_at_wall(self, now_s: float, law: Climb | Contest, *, wall_s: float) -> None:
        """Plan the next try at a wall that has lasted for `wall_s`."""
        self._wall_tries += 1
        if isinstance(law, Contest) and self._wall_tries in WALL_CUT_TRIES:
            law = self._law = law.cut(self._held_s)
            self._held_s = 0.0
        rest_s = 1.0 / law.compute_rps(self._held_s)
        if isinstance(law, Climb) and law.window_s > 0:
            # Until the end of a known window each try is refused for certain.
            longer_s = REST_REQUESTS * rest_s * 2**self._wall_tries
        else:
            longer_s = WALL_REST_SHARE * (wall_s - WALL_RESTS * rest_s)
        self._pause(now_s + max(rest_s, min(MAX_WALL_REST_S, longer_s)))

    def _end_wall(self, now_s: float, ticket: Ticket, *, wall_from: Ticket) -> None:
        """Note a grant to a request that was sent after the last refusal arrived."""
        assert self._law is not None  # noqa: S101 - there was a refusal
        now, before = QuotaEdge(ticket, self._refused_count), self._wall_end
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
