"""The two laws by which a rate grows until it is refused, and the cut after that; performs no I/O.

README.md of this folder explains both: Climb for an exporter alone, Contest for one among others.
"""

import math
from dataclasses import dataclass

MIN_RPS = 0.01
"""One request in 100 s is always allowed, so that a run never stops asking."""

MAX_UNCERTAINTY = 0.5
"""Of a first guess, as a share of the quota: the climb starts at half of it."""
MIN_UNCERTAINTY = 0.025
"""Of a proven quota. A window saves no permits, so it loses what the rate stays below the quota."""
FOUND_UNCERTAINTY = 0.2
"""After a first guess that was refused in its first epoch, and so was too high."""
OVERDUE_UNCERTAINTY = 0.15
"""After a refusal that was overdue: the quota is somewhere below the rate that ran away."""
UNCERTAINTY_DECAY = 1 / 3
"""A refusal in due time leaves this factor of the uncertainty."""

EPOCH_REQUESTS = 1.75
"""Uncertainty times quota times epoch. At the least uncertainty an epoch is 70 requests and a
refusal comes every 100 to 150, which keeps below 1 % refused."""
MIN_EPOCH_REQUESTS = 6.0
"""Fewer requests say nothing about a rate. Epochs are longer for it below one request a second."""
MIN_EPOCH_S = 1.0
"""A quota counted by the second answers by the second; a faster climb would be past it by then."""
MAX_EPOCH_S = 7.0
"""Four of these epochs pass at most until a quota that others left is found again."""
GROWTH_EXPONENT = 2.25
"""Of the climb, by epochs. At the least uncertainty it alone doubles the rate in five."""

EARLY_EPOCHS = 0.75
GRANTED_MARGIN = 1.02
"""Alone, a rate of up to this factor of one granted before is not refused in so few epochs."""
MIN_PROVABLE_RPS = 1.0
"""Below this it takes too long to prove a rate: any early refusal means a contest."""

OVERDUE_EPOCHS = 2.25
"""A refusal comes in the second epoch, by a window a little later. Without one the quota is far
higher than known, and the rate begins to double."""
MIN_OVERDUE_S = 3.0
"""A window of a second may be two windows late."""
OVERDUE_DOUBLINGS = 2.0
"""Per epoch, from then on."""
OVERDUE_MARGIN_EPOCHS = 0.5
"""Doubling counts only after so many epochs: before, it has hardly changed the rate."""
OVERDUE_RESTART = 0.75
"""The climb after an overdue refusal starts from this share of the refused rate."""

BRACKET_SHARE = 0.3
"""Next quota, as a share of the way from the low to the high end of the bracket: the high end
overshoots, the low end is exact if no permit went unused."""
MAX_CUT = 4.0
"""One refusal divides the rate by this at most, as the granted rate may be measured too low."""

CONTEST_DECREASE = 0.13
"""Share of its rate that an exporter gives up at a refusal. A smaller one makes steadier shares, a
larger one makes them equal sooner."""
CONTEST_EPOCH_S = 1.5
"""In this time a rate regains what it gave up, the same for all exporters: so their shares become
equal. The difference of two rates halves in about eight seconds."""
CONTEST_EPOCHS_PER_WINDOW = 5.5
"""A window refuses one exporter after the other at its end, as often as their rates grew in it."""
CONTEST_LATE_EPOCHS = 6.0
"""So long without a refusal is no chance: the others left, and the rate grows twice as fast."""
MIN_CONTEST_RPS = 0.5
"""Below this all exporters ask equally often, and chance makes their shares equal."""
MAX_DOUBLINGS = 20.0
"""Exponents end here, so that a long time without requests overflows no float."""


@dataclass(frozen=True, slots=True)
class Climb:
    """The known quota, and the rates at which an exporter alone probes it."""

    quota_rps: float
    uncertainty: float
    """How far below the quota the rate starts, as a share of the quota."""
    window_s: float = 0.0
    """Length of the window that counts the quota, if long; 0: none is known. A window refuses
    nothing before it is used up, so no epoch is shorter."""

    @property
    def epoch_s(self) -> float:
        """Seconds from the start of a climb until it crosses the quota."""
        epoch_s = EPOCH_REQUESTS / (self.uncertainty * self.quota_rps)
        # A first guess is probed at once.
        min_s = MIN_EPOCH_REQUESTS * (1 - self.uncertainty / MAX_UNCERTAINTY) / self.quota_rps
        return max(self.window_s, min_s, min(MAX_EPOCH_S, max(MIN_EPOCH_S, epoch_s)))

    @property
    def overdue_epochs(self) -> float:
        """Epochs after which a refusal is overdue."""
        return max(OVERDUE_EPOCHS, MIN_OVERDUE_S / self.epoch_s)

    def compute_rps(self, held_s: float) -> float:
        """The rate after it has held requests back for `held_s`."""
        epochs = held_s / self.epoch_s
        rps = self.quota_rps * (1 + self.uncertainty * (math.pow(epochs, GROWTH_EXPONENT) - 1))
        doublings = OVERDUE_DOUBLINGS * max(0.0, epochs - self.overdue_epochs)
        return rps * math.pow(2.0, min(MAX_DOUBLINGS, doublings))

    def is_contested(self, held_s: float, *, granted_rps: float) -> bool:
        """Whether a refusal after `held_s` shows that others use the quota, too.

        It does if it comes early, at a rate that was granted before; `granted_rps` 0 is unknown.
        """
        if self.uncertainty == MAX_UNCERTAINTY or held_s >= EARLY_EPOCHS * self.epoch_s:
            return False
        if granted_rps == 0 or self.quota_rps < MIN_PROVABLE_RPS or self.window_s > 0:
            return True
        return self.compute_rps(held_s) < GRANTED_MARGIN * granted_rps

    def cut(self, held_s: float, *, low_rps: float) -> "Climb":
        """The climb after a refusal; `low_rps` was granted since earlier ones, 0 if unknown."""
        epochs = held_s / self.epoch_s
        high_rps = self.compute_rps(held_s)
        if epochs < 1.0:
            is_first = self.uncertainty == MAX_UNCERTAINTY
            uncertainty = FOUND_UNCERTAINTY if is_first else self.uncertainty
            rps = high_rps / (1 + uncertainty)
            if low_rps > 0:
                rps = min(rps, max(low_rps, high_rps / MAX_CUT))
            return Climb(max(MIN_RPS, rps), uncertainty, self.window_s)
        low_rps = min(high_rps, max(high_rps / MAX_CUT, low_rps))
        if epochs > self.overdue_epochs + OVERDUE_MARGIN_EPOCHS:
            # The first climb may empty a full bucket, which says nothing of its rate.
            is_first = self.uncertainty == MAX_UNCERTAINTY
            rps = low_rps if is_first else max(low_rps, OVERDUE_RESTART * high_rps)
            return Climb(max(MIN_RPS, rps), OVERDUE_UNCERTAINTY, self.window_s)
        uncertainty = max(MIN_UNCERTAINTY, self.uncertainty * UNCERTAINTY_DECAY)
        step_rps = min(BRACKET_SHARE * (high_rps - low_rps), 2 * uncertainty * low_rps)
        return Climb(max(MIN_RPS, low_rps + step_rps), uncertainty, self.window_s)


@dataclass(frozen=True, slots=True)
class Contest:
    """A share of a quota that others use, too."""

    start_rps: float
    window_s: float = 0.0
    """As in Climb."""

    @property
    def quota_rps(self) -> float:
        """The average share."""
        return self.start_rps / (1 - CONTEST_DECREASE / 2)

    def compute_rps(self, held_s: float) -> float:
        """The rate after it has held requests back for `held_s`."""
        epochs = held_s / max(CONTEST_EPOCH_S, self.window_s / CONTEST_EPOCHS_PER_WINDOW)
        epochs += max(0.0, epochs - CONTEST_LATE_EPOCHS)
        return self.start_rps * math.exp(min(MAX_DOUBLINGS, CONTEST_DECREASE * epochs))

    def cut(self, held_s: float) -> "Contest":
        return build_contest(self.compute_rps(held_s), window_s=self.window_s)


def build_contest(refused_rps: float, *, window_s: float) -> Contest:
    """The share that is left of a refused rate."""
    return Contest(max(MIN_CONTEST_RPS, (1 - CONTEST_DECREASE) * refused_rps), window_s)
