"""Makes the answers of a moving list incomplete or wrong; performs no I/O."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from exporter.emulator.churn import Churn


@dataclass(frozen=True, slots=True)
class Question:
    number: int
    """Among all answers, from 1."""
    page_num: int
    page_size: int
    at_s: float


class Distortion:
    """The faults of a list's answers, a function of its seed and the sequence of questions."""

    def __init__(self, churn: Churn, *, seed: str) -> None:
        self._churn = churn
        self._faults = random.Random(f"{seed}/faults")  # noqa: S311  # no secret
        self._doubling = random.Random(f"{seed}/doubling")  # noqa: S311  # no secret
        self._faults_done: set[tuple[int, int]] = set()
        # Pages whose latest answer was hit.
        self._just_hit: set[tuple[int, int]] = set()
        # By rule and page: until when the page is answered so, and the place of the doubled row.
        self._doubled: dict[tuple[int, int, int], tuple[float, float]] = {}
        # By replica: the cached total, and until when it is used.
        self._totals: dict[int, tuple[float, int]] = {}

    def state_total(self, replica: int, at_s: float, count: Callable[[], int]) -> int:
        """The total that a replica states; `count` is called only if none is cached."""
        churn = self._churn
        cached = self._totals.get(replica)
        if cached is None or cached[0] <= at_s:
            cached = (at_s + churn.total_cache_s, count())
            self._totals[replica] = cached
        total = max(0, cached[1] + churn.total_offset)
        total -= total % churn.total_step
        return total if churn.total_cap is None else min(total, churn.total_cap)

    def cut(self, question: Question, start: int, serials: list[int]) -> list[int]:
        """The serials without those that no answer shows."""
        churn = self._churn
        if churn.max_page_num is not None and question.page_num > churn.max_page_num:
            return []
        return serials if churn.depth is None else serials[: max(0, churn.depth - start)]

    def double(self, question: Question, serials: list[int], before: Sequence[int]) -> list[int]:
        """The serials with some doubled; `before` is the serial in front of the page, if any."""
        for number, rule in enumerate(self._churn.doubled_rows):
            share = self._draw_double(number, rule.rate, question, lasts_s=rule.lasts_s)
            if share is None or not serials:
                continue
            if rule.across_pages:
                serials = [*before, *serials[1:]] if before else serials
            elif len(serials) > 1:
                place = 1 + int(share * (len(serials) - 1))
                serials = [*serials[:place], serials[place - 1], *serials[place + 1 :]]
        return serials

    def _draw_double(
        self, number: int, rate: float, question: Question, *, lasts_s: float
    ) -> float | None:
        # Drawn for each answer, so that rules do not change each other's chances.
        hit, share = self._doubling.random() < rate, self._doubling.random()
        key = (number, question.page_num, question.page_size)
        until_s, former = self._doubled.get(key, (0.0, 0.0))
        if question.at_s < until_s:
            return former
        if not hit:
            return None
        self._doubled[key] = (question.at_s + lasts_s, share)
        return share

    def draw_missing(self, question: Question, row_count: int) -> tuple[int, bool]:
        """The number of last rows that an answer lacks, and whether it states a total of 0."""
        missing, zero_total = 0, False
        for number, fault in enumerate(self._churn.page_faults):
            # Drawn for each answer, as above.
            hit = self._faults.random() < fault.rate or question.number in fault.answers
            page_num = question.page_num
            age_s = question.at_s - fault.start_s
            if age_s < 0 or (fault.lasts_s is not None and age_s > fault.lasts_s):
                continue
            if page_num in fault.page_nums and (number, page_num) not in self._faults_done:
                hit = True
                if fault.once:
                    self._faults_done.add((number, page_num))
            if fault.spares_next:
                hit &= (number, page_num) not in self._just_hit
                (self._just_hit.add if hit else self._just_hit.discard)((number, page_num))
            if hit:
                count = row_count if fault.missing_count is None else fault.missing_count
                missing = max(missing, min(count, row_count))
                zero_total |= fault.zero_total
        return missing, zero_total
