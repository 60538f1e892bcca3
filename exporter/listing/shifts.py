"""Measures how fast rows move, by those that were seen at two places; performs no I/O."""

from collections.abc import Iterator
from dataclasses import dataclass

FAST = 20
"""A row seen again this many answers later is as good a measure as one a page closer."""


@dataclass(frozen=True, slots=True)
class Shift:
    """A row that was seen at two places."""

    then: int
    now: int
    former: int
    """Index of the answer that showed it first."""
    page: int
    """Index of the later answer."""


class Shifts:
    def __init__(self) -> None:
        self._shifts: list[Shift] = []
        self._place_count = 0
        self._page_count = 0

    def __iter__(self) -> Iterator[Shift]:
        return iter(self._shifts)

    def add(self, shift: Shift) -> None:
        self._shifts.append(shift)
        self._place_count += abs(shift.now - shift.then)
        self._page_count += shift.page - shift.former

    @property
    def pace(self) -> float:
        """Places by which rows moved from one answer to the next, on average."""
        return self._place_count / max(1, self._page_count)

    def estimate_place(self, place: int, *, page: int, size: int, latest: int) -> int:
        """The place in answer `latest` of the row at `place` in answer `page`, of `size` rows.

        It is taken to move as fast as a row near it that was seen again late.
        """
        since = [each for each in self._shifts if each.page > page]
        if not since:
            return place
        near = min(
            since,
            key=lambda each: (
                abs(each.then - place) / max(1, size) + FAST / (each.page - each.former)
            ),
        )
        pace = (near.now - near.then) / (near.page - near.former)
        return max(0, place + round(pace * (latest - page)))
