"""Finds a quota that nobody tells, and stays just under it; performs no I/O.

A refusal says one thing only: the quota was used up when that request was sent. Two of them say
more. What was granted between them, by the time between them, is no more than the quota gave, for
some of it may have gone by unused; the rate that led to the second is more than it gives. The
quota is in this bracket, and each refusal makes it narrower:

- Until the first refusal there is no rate. The requests in flight start few, by the latency of
  the first answer, and double while nothing else holds the run back.
- From then on the rate climbs until it is refused, from a doubt below the quota as it is known:
  `quota * (1 + doubt * (turns ** STEEPNESS - 1))`. It stays flat, crosses the quota after one
  turn and then runs away, so that a quota that was raised is found. A turn is so long that what
  the dip leaves unused is always the same few requests: a doubtful quota is tried at once, a
  proven one seldom.
- Each refusal teaches the quota anew: some way up the bracket, near to its lower end where there
  is little doubt. A refusal in due time divides the doubt, one in the first turn says that the
  quota is less than thought and one after many turns that it is more: both multiply the doubt.

Requests sent before the last refusal was heard of are of its burst and teach nothing more.
Refusals with nothing granted between them are a wall: nothing is learnt from it, and each lets
the run wait twice as long. A rate climbs only by time in which it held requests back, not while
the run had none to send.

Exporters that share a quota move towards equal shares while their doubt is large, as it is once
one of them joins or leaves: all climb by the clock, and who asks more is refused more often. When
it is small again the shares stay as they are, mostly between a third and two thirds.
"""

import math
from collections import deque
from dataclasses import dataclass

FIRST_RPS = 350.0
"""Requests in flight over latency, at first: 21 in flight at 60 ms. Quotas of such services are
tens a second, so that a run without one loses nothing and a short burst costs few refusals."""
FIRST_IN_FLIGHT = 3
"""Before any answer. About as many are refused as are in flight where a hidden burst ends."""
WIDEN_S = 0.25
"""In this time requests in flight double: 3 become 32 in a second."""

FIRST_CUT = 8.0
"""The quota is first looked for this much below the rate that met it: to climb costs seconds, to
start too high costs a refusal for each halving."""
DOUBT_MOST = 0.5
DOUBT_LEAST = 0.025
"""The dip of the rate below the quota; a window, which saves up nothing, loses less than this."""
TURN_REQUESTS = 1.75
"""Doubt times quota times turn: with the least doubt a turn is 70 requests, and a refusal comes
every 100 to 150, which is what being refused 1 % at most allows."""
TURN_LEAST_S = 1.0
"""A quota counted by the second answers by the second; a faster climb runs past it unheard."""
TURN_MOST_S = 12.0
STEEPNESS = 2.25
"""Double the quota is reached after five turns of the least doubt."""
LATE_TURNS = 3.0
"""A refusal comes in its second turn, by a window sometimes in its third."""
SURER, EARLIER, LATER = 1 / 3, 1.5, 4.0
"""What a refusal in due time, one before, and one after does to the doubt. The quicker it falls,
the sooner the rate is steady; the slower it grows, the less a single early refusal costs."""
UP = 0.3
"""Way up the bracket: its upper end is overshot, its lower end is exact if nothing was unused."""
CUT_MOST = 4.0
"""One refusal divides the rate by no more than this."""
LEAST_RPS = 0.5

SAMPLE_LEAST, SAMPLE_MOST = 12, 60
"""Granted requests from which a rate is measured: with fewer, one more or less is too much; with
more, the quota may have changed since."""
CUTS_KEPT = 16
REST_REQUESTS = 1.3
"""For so many requests nothing is sent after a refusal, so that the next finds a permit."""
WALL_MOST_S = 1.0
HINT_MOST_S = 60.0
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
class Cut:
    """A refusal that taught something."""

    ticket: Ticket
    refused_count: int
    """Refusals that were heard of until then, with this one."""


@dataclass(frozen=True, slots=True)
class Climb:
    """What is known of a quota, and the rates at which to try it."""

    quota_rps: float
    doubt: float
    """How far the rate starts below the quota, as a share of it."""

    @property
    def turn_s(self) -> float:
        wanted_s = TURN_REQUESTS / (self.doubt * self.quota_rps)
        return min(TURN_MOST_S, max(TURN_LEAST_S, wanted_s))

    def compute_rps(self, turns: float) -> float:
        return self.quota_rps * (1 + self.doubt * (math.pow(turns, STEEPNESS) - 1))


def build_climb(climb: Climb, *, turns: float, low_rps: float, high_rps: float) -> Climb:
    """The next climb, after one was refused.

    `low_rps` was granted since earlier refusals, `high_rps` was refused after so many turns.
    """
    if turns < 1.0:
        doubt = min(DOUBT_MOST, climb.doubt * EARLIER)
        return Climb(max(LEAST_RPS, high_rps / (1 + doubt)), doubt)
    factor = SURER if turns < LATE_TURNS else LATER
    doubt = min(DOUBT_MOST, max(DOUBT_LEAST, climb.doubt * factor))
    low_rps = min(high_rps, max(high_rps / CUT_MOST, low_rps))
    up_rps = min(UP * (high_rps - low_rps), 2 * doubt * low_rps)
    return Climb(max(LEAST_RPS, low_rps + up_rps), doubt)


class Pacer:
    """Says when the next request may be sent; one for all requests that share a quota.

    All times are of one clock that never goes back. Whatever the quota, at most `most_in_flight`
    requests are unanswered and at most `most_rps` are sent a second.
    """

    def __init__(self, *, most_in_flight: int, most_rps: float | None) -> None:
        self._most_in_flight = most_in_flight
        self._most_rps = math.inf if most_rps is None else most_rps
        self._in_flight = 0
        self._limit = min(FIRST_IN_FLIGHT, most_in_flight)
        self._was_full = False
        self._widened_s: float | None = None

        self._next_s = -math.inf
        self._is_held = False
        """Whether the rate held the next request back."""
        self._climb: Climb | None = None
        self._turns = 0.0
        self._climbs_from_s = -math.inf
        self._owed = 0.0
        """Requests to be caught up, at twice the rate, after a pause the service asked for."""

        self._sent_count = 0
        self._first_sent_s = math.inf
        self._refused_count = 0
        self._last_refused = 0
        """The highest number of a refused ticket."""
        self._burst_until = 0
        """Tickets up to this number were sent before the last refusal was heard of."""
        self._wall_count = 0
        self._cuts: deque[Cut] = deque(maxlen=CUTS_KEPT)
        self._first_cut: Ticket | None = None

    @property
    def in_flight(self) -> int:
        return self._in_flight

    @property
    def learnt_rps(self) -> float | None:
        """The quota as far as it is known; None while none was met."""
        return None if self._climb is None else self._climb.quota_rps

    @property
    def rate_rps(self) -> float | None:
        """Requests a second that are allowed now; None: as many as are answered."""
        rate_rps = self._compute_rate_rps()
        return rate_rps if rate_rps < math.inf else None

    def wait_s(self, now_s: float) -> float:
        """Seconds until the next request may be sent; 0: now, inf: not before one has ended."""
        if self._in_flight >= self._limit:
            return math.inf
        if now_s < self._next_s:
            self._is_held = True
            return self._next_s - now_s
        return 0.0

    def send(self, now_s: float) -> Ticket:
        """Count a request as sent; `wait_s` was 0."""
        if self._climb is not None and self._is_held:
            self._turns += max(0.0, now_s - self._climbs_from_s) / self._climb.turn_s
        self._is_held = False
        self._climbs_from_s = now_s
        rate_rps = self._compute_rate_rps()
        if rate_rps < math.inf:
            if self._owed >= 1.0:
                self._owed -= 1.0
                rate_rps = min(self._most_rps, 2 * rate_rps)
            self._next_s = max(self._next_s, now_s - TIMER_LATE_S) + 1.0 / rate_rps
        if self._sent_count == 0:
            self._first_sent_s = now_s
        self._sent_count += 1
        self._in_flight += 1
        if self._in_flight == self._limit:
            self._was_full = True
        return Ticket(self._sent_count, now_s)

    def end(
        self, now_s: float, ticket: Ticket, *, throttled: bool, retry_after_s: float | None
    ) -> None:
        """Count a request as ended, however it did; only `throttled` ones met the quota, and
        `retry_after_s` is how long their answer asks to wait.
        """
        self._in_flight -= 1
        if throttled:
            self._refuse(now_s, ticket, retry_after_s=retry_after_s)
        elif self._climb is None:
            self._widen(now_s, latency_s=now_s - ticket.sent_s)

    def _compute_rate_rps(self) -> float:
        if self._climb is None:
            return self._most_rps
        return min(self._most_rps, self._climb.compute_rps(self._turns))

    def _widen(self, now_s: float, *, latency_s: float) -> None:
        if self._widened_s is None:
            limit = max(self._limit, int(FIRST_RPS * latency_s))
        elif self._was_full and now_s - self._widened_s >= WIDEN_S:
            limit = 2 * self._limit
        else:
            return
        self._limit = min(limit, self._most_in_flight)
        self._widened_s = now_s
        self._was_full = False

    def _refuse(self, now_s: float, ticket: Ticket, *, retry_after_s: float | None) -> None:
        hint_s = 0.0 if retry_after_s is None else min(HINT_MOST_S, retry_after_s)
        self._refused_count += 1
        is_next = ticket.number == self._last_refused + 1
        self._last_refused = max(self._last_refused, ticket.number)
        if ticket.number > self._burst_until:
            self._burst_until = self._sent_count
            if self._climb is not None and is_next:
                self._wall_count += 1
                wall_s = 2**self._wall_count / self._compute_rate_rps()
                self._pause(now_s + min(WALL_MOST_S, wall_s))
            else:
                self._learn(now_s, ticket, hint_s=hint_s)
        if hint_s > 0:
            self._pause(now_s + hint_s)
            self._climbs_from_s = max(self._climbs_from_s, self._next_s)

    def _learn(self, now_s: float, ticket: Ticket, *, hint_s: float) -> None:
        if self._climb is None or self._first_cut is None:
            self._first_cut = ticket
            sent_rps = self._sent_count / max(TIMER_LATE_S, now_s - self._first_sent_s)
            self._climb = Climb(max(LEAST_RPS, sent_rps / FIRST_CUT), DOUBT_MOST)
        else:
            self._climb = build_climb(
                self._climb,
                turns=self._turns,
                low_rps=self._measure_granted_rps(ticket),
                high_rps=self._compute_rate_rps(),
            )
        self._cuts.append(Cut(ticket, self._refused_count))
        self._turns = 0.0
        self._wall_count = 0
        self._limit = self._most_in_flight
        rps = self._climb.quota_rps
        rest_s = REST_REQUESTS / rps
        # A bucket holds no more than it gave at first.
        burst = self._first_cut.number - rps * (self._first_cut.sent_s - self._first_sent_s)
        self._owed = max(0.0, min(burst, (hint_s - rest_s) * rps))
        self._pause(now_s + rest_s)

    def _measure_granted_rps(self, ticket: Ticket) -> float:
        """The highest rate that was granted from an earlier refusal to this one; 0 if unknown."""
        highest_rps = 0.0
        for cut in reversed(self._cuts):
            refused_count = self._refused_count - cut.refused_count
            granted_count = ticket.number - cut.ticket.number - refused_count
            if granted_count >= SAMPLE_LEAST:
                # Each end may be off by a fraction of a permit.
                rps = (granted_count - 1) / (ticket.sent_s - cut.ticket.sent_s)
                highest_rps = max(highest_rps, rps)
            if granted_count > SAMPLE_MOST:
                break
        return highest_rps

    def _pause(self, until_s: float) -> None:
        self._next_s = max(self._next_s, until_s)
