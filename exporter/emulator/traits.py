"""Random properties of the sessions of a moving list; performs no I/O."""

import random

from exporter.emulator.churn import Churn
from exporter.emulator.generated_list import mix64


class Traits:
    """Each trait is a function of the seed and the session's serial."""

    def __init__(self, churn: Churn, *, seed: str) -> None:
        self._churn = churn
        self._salt = random.Random(f"{seed}/traits").getrandbits(64)  # noqa: S311  # no secret
        self.backdates = churn.backdating.share > 0

    def draw(self, serial: int, trait: int) -> float:
        """From 0 to 1, independent for each trait."""
        return mix64((serial << 4 | trait) ^ self._salt) / 2**64

    def backdated_s(self, serial: int) -> float:
        """How far its create time lies before its insertion."""
        if not self.backdates or self.draw(serial, 0) >= self._churn.backdating.share:
            return 0.0
        return self._churn.backdating.by_s * self.draw(serial, 1)

    def is_late(self, number: int) -> bool:
        """By the number of the insertion."""
        return self.draw(number, 2) < self._churn.late.share

    def run_s(self, serial: int) -> float:
        min_s = self._churn.run_s or 0.0
        if self._churn.max_run_s is None:
            return min_s
        tie = serial - serial % self._churn.tie_size
        return min_s + (self._churn.max_run_s - min_s) * self.draw(tie, 3)

    def is_timeless(self, serial: int) -> bool:
        return self.draw(serial, 4) < self._churn.timeless.share

    def ends_oddly(self, serial: int) -> bool:
        return self.draw(serial, 5) < self._churn.odd_states

    def is_withheld(self, serial: int) -> bool:
        return self.draw(serial, 6) < self._churn.withheld

    def original(self, serial: int) -> int:
        """The serial whose twin it is, or its own."""
        if self._churn.twins > 0:
            while serial > 0 and self.draw(serial, 7) < self._churn.twins:
                apart = self._churn.twins_apart
                serial = int(self.draw(serial, 9) * serial) if apart else serial - 1
        return serial

    def shard(self, serial: int) -> int:
        return int(self.draw(serial, 8) * self._churn.shards)
