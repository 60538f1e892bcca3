"""The two laws by which a rate grows until it is refused, and what a refusal makes of it; performs
no I/O.

Alone on a quota, an exporter *climbs*: it knows the quota, starts a little below it, crosses it
after one turn and then runs away, so that a quota that was raised is found. A turn is so long that
what the dip leaves unused is always the same few requests: a doubtful quota is tried at once, a
proven one seldom.

Exporters that share a quota *contest* it: each grows by the same share of its rate in the same
time, and gives up the same share of it at each refusal. Who asks more is refused more often, so
that rates move towards each other until all are refused equally often, which is when they are
equal. That asks for many refusals, which is why nobody contests a quota for longer than needed.
"""

import math
from dataclasses import dataclass

MIN_RPS = 0.01
"""A request in so many seconds is asked for in any case."""

MAX_DOUBT = 0.5
MIN_DOUBT = 0.025
"""The dip of the rate below the quota; a window, which saves up nothing, loses less than this."""
TURN_REQUESTS = 1.75
"""Doubt times quota times turn: with the least doubt a turn is 70 requests, and a refusal comes
every 100 to 150, which is what being refused 1 % at most allows."""
MIN_TURN_S = 1.0
"""A quota counted by the second answers by the second; a faster climb runs past it unheard."""
MAX_TURN_S = 7.0
"""Four of these pass at most until a quota that others left is found again."""
STEEPNESS = 2.25
"""Double the quota is reached after five turns of the least doubt."""
MIN_TURN_REQUESTS = 6.0
"""Fewer say nothing about a rate. By a quota of less than one a second a turn is longer for it."""
EARLY_TURNS = 0.75
PROVEN = 1.02
"""A rate that was granted before, or hardly more, is not refused in so few turns unless somebody
else asks, too."""
PROVABLE_RPS = 1.0
"""With less it takes too long to prove a rate: any refusal that is early counts."""
OVERDUE_TURNS = 2.25
"""A refusal comes in its second turn, by a window sometimes a little later. One that does not come
says that there is much more than thought: from here on the rate doubles in half a turn."""
MIN_OVERDUE_S = 3.0
"""A window of a second may be two of them late."""
OVERDUE_DOUBLINGS = 2.0
OVERDUE_MARGIN = 0.5
"""Turns after which it counts: until then the doubling has not made much of a difference."""
OVERDUE_BACK = 0.75
OVERDUE_DOUBT = 0.15
"""Where the next climb begins then: a little below the rate that was too much."""
FOUND_DOUBT = 0.2
"""What is in doubt once the first guess was refused in its first turn: it was too high."""
SURER = 1 / 3
"""What a refusal in due time leaves of the doubt."""
UP = 0.3
"""Way up the bracket: its upper end is overshot, its lower end is exact if nothing was unused."""
MAX_CUT = 4.0
"""One refusal divides the rate by no more than this."""

GIVE_WAY = 0.13
"""Share of its rate that an exporter gives up at a refusal. The less, the steadier the shares are;
the more, the sooner they are equal."""
CONTEST_TURN_S = 1.5
"""In this time a rate regains what it gave up. It is the same for all that share a quota, whatever
their rates: this makes the shares equal. Rates that differ are half as far apart after eight
seconds."""
CONTEST_TURNS_OF_PERIOD = 5.5
"""By a window the rates are refused one after the other at its end: as often as they grew in it."""
CONTEST_LATE_TURNS = 6.0
"""No refusal for so long is no chance: the others have left, and the rate grows twice as fast."""
MIN_CONTEST_RPS = 0.5
"""Below this all ask equally often for what there is, and get the same by chance."""
MAX_DOUBLINGS = 20.0
"""More makes no difference, and would be too much for a number."""


@dataclass(frozen=True, slots=True)
class Climb:
    """What is known of a quota, and the rates at which to try it."""

    quota_rps: float
    doubt: float
    """How far the rate starts below the quota, as a share of it."""
    period_s: float = 0.0
    """Length of the window that the quota is counted in, where it is long; 0: none was met. As no
    refusal comes before a window is used up, a turn must not be shorter."""

    @property
    def turn_s(self) -> float:
        """Seconds from the start of a climb until it crosses the quota."""
        wanted_s = TURN_REQUESTS / (self.doubt * self.quota_rps)
        # A mere guess is tried at once.
        min_s = MIN_TURN_REQUESTS * (1 - self.doubt / MAX_DOUBT) / self.quota_rps
        return max(self.period_s, min_s, min(MAX_TURN_S, max(MIN_TURN_S, wanted_s)))

    @property
    def overdue_turns(self) -> float:
        """Turns after which a refusal should have come."""
        return max(OVERDUE_TURNS, MIN_OVERDUE_S / self.turn_s)

    def compute_rps(self, held_s: float) -> float:
        """The rate after it has held requests back for so long."""
        turns = held_s / self.turn_s
        rps = self.quota_rps * (1 + self.doubt * (math.pow(turns, STEEPNESS) - 1))
        doublings = OVERDUE_DOUBLINGS * max(0.0, turns - self.overdue_turns)
        return rps * math.pow(2.0, min(MAX_DOUBLINGS, doublings))

    def is_contested(self, held_s: float, *, granted_rps: float) -> bool:
        """Whether a refusal after so long comes before it can be due, and at a rate that was
        granted before, as far as that is known; 0 if it is not.
        """
        if self.doubt == MAX_DOUBT or held_s >= EARLY_TURNS * self.turn_s:
            return False
        if granted_rps == 0 or self.quota_rps < PROVABLE_RPS or self.period_s > 0:
            return True
        return self.compute_rps(held_s) < PROVEN * granted_rps

    def cut(self, held_s: float, *, low_rps: float) -> "Climb":
        """The next climb, after this one was refused; `low_rps` was granted since earlier
        refusals, 0 if unknown.
        """
        turns = held_s / self.turn_s
        high_rps = self.compute_rps(held_s)
        if turns < 1.0:
            is_first = self.doubt == MAX_DOUBT
            doubt = FOUND_DOUBT if is_first else self.doubt
            rps = high_rps / (1 + doubt)
            if low_rps > 0:
                rps = min(rps, max(low_rps, high_rps / MAX_CUT))
            return Climb(max(MIN_RPS, rps), doubt, self.period_s)
        low_rps = min(high_rps, max(high_rps / MAX_CUT, low_rps))
        if turns > self.overdue_turns + OVERDUE_MARGIN:
            # The first climb may use up what a bucket held, which says nothing of its rate.
            rps = low_rps if self.doubt == MAX_DOUBT else max(low_rps, OVERDUE_BACK * high_rps)
            return Climb(max(MIN_RPS, rps), OVERDUE_DOUBT, self.period_s)
        doubt = max(MIN_DOUBT, self.doubt * SURER)
        up_rps = min(UP * (high_rps - low_rps), 2 * doubt * low_rps)
        return Climb(max(MIN_RPS, low_rps + up_rps), doubt, self.period_s)


@dataclass(frozen=True, slots=True)
class Contest:
    """A share of a quota that others ask for, too."""

    start_rps: float
    period_s: float = 0.0
    """As of a Climb."""

    @property
    def quota_rps(self) -> float:
        """The share as it is on average."""
        return self.start_rps / (1 - GIVE_WAY / 2)

    def compute_rps(self, held_s: float) -> float:
        """The rate after it has held requests back for so long."""
        turns = held_s / max(CONTEST_TURN_S, self.period_s / CONTEST_TURNS_OF_PERIOD)
        turns += max(0.0, turns - CONTEST_LATE_TURNS)
        return self.start_rps * math.exp(min(MAX_DOUBLINGS, GIVE_WAY * turns))

    def cut(self, held_s: float) -> "Contest":
        return build_contest(self.compute_rps(held_s), period_s=self.period_s)


def build_contest(refused_rps: float, *, period_s: float) -> Contest:
    """What is left of a rate that was refused."""
    return Contest(max(MIN_CONTEST_RPS, (1 - GIVE_WAY) * refused_rps), period_s)
