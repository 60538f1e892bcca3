"""Chooses pages that show a wanted range of a list; performs no I/O.

The service counts pages in the size that is asked for, so a request shows the rows from
`(page_num - 1) * page_size` on: a window that starts at a multiple of its size. The size is free
for each request, and that is enough to lay a window almost anywhere.
"""

from collections.abc import Container, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    page_num: int
    page_size: int

    @property
    def start(self) -> int:
        """Places are counted from 0."""
        return (self.page_num - 1) * self.page_size

    @property
    def stop(self) -> int:
        return self.page_num * self.page_size


def reach_from(start: int, *, most: int) -> Window:
    """The window of at most `most` rows that shows the row at `start` and reaches furthest."""
    size = max(range(1, most + 1), key=lambda size: (start // size + 1) * size)
    return Window(start // size + 1, size)


def centre_on(start: int, stop: int, *, most: int, other_than: Container[Window] = ()) -> Window:
    """The window of at most `most` rows that shows as much as possible on both sides of the range
    between two places; one of `other_than` only where there is no other.
    """

    def margin(window: Window) -> tuple[bool, int]:
        # In front of the first row there is nothing to show.
        shown = min(start - window.start if window.start > 0 else most, window.stop - stop)
        return shown > 0 and window not in other_than, shown

    return max(
        (
            Window(page_num, size)
            for size in range(1, most + 1)
            for page_num in (start // size, start // size + 1)
            if page_num > 0
        ),
        key=margin,
    )


def reach_on(shown: int, *, most: int, overlap: int) -> Window:
    """The next window where all rows up to place `shown` are shown, sharing `overlap` of them."""
    window = reach_from(max(0, shown - overlap), most=most)
    # Small windows may not get on in spite of the overlap.
    return window if window.stop > shown else reach_from(shown, most=most)


def surround(start: int, stop: int, *, margin: int, most: int, overlap: int) -> list[Window]:
    """Windows that show a range and a margin on both sides of it: one if possible."""
    if stop - start + 2 * margin <= most:
        window = centre_on(start, stop, most=most)
        if window.start <= start and stop <= window.stop:
            return [window]
    return list(read_on(max(0, start - margin), stop + margin, most=most, overlap=overlap))


def read_on(shown: int, stop: int, *, most: int, overlap: int) -> Iterator[Window]:
    """Windows from place `shown` to another, sharing rows with each other and with those in front
    of the first.
    """
    while shown < stop:
        window = reach_on(shown, most=most, overlap=overlap)
        yield window
        shown = window.stop
