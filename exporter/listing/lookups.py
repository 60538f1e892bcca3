"""Finds again the page on which a session is by now; performs no I/O.

A session is first looked for at its serial, then by its create time: pages of a list that is newest
first show which way to go. It has gone where one answer shows both newer and older sessions and not
this one, or the whole rest of the list. A session without a create time is looked for on the pages
next to the one where it should be. A session that is neither found nor shown to have gone is lost,
and only a full listing will do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from exporter.listing.windows import Window, centre_on

MAX_TRIES: Final = 32
"""Pages a session is looked for on, at most: twice the bits of the number of pages."""
AWAY: Final = (0, -1, 1, -2, 2)
"""Pages to look on where times do not help, by their distance from the first one."""


@dataclass(frozen=True, slots=True)
class PageTimes:
    """The create times that one answer showed; None where no row has one."""

    newest_ms: int | None
    oldest_ms: int | None
    is_sorted: bool
    """Whether no row was newer than one before it."""
    row_count: int
    is_end: bool = False
    """Whether nothing stands behind its last row."""


def summarize_times(times: Sequence[int | None], *, is_end: bool) -> PageTimes:
    timed = [time for time in times if time is not None]
    return PageTimes(
        max(timed, default=None),
        min(timed, default=None),
        is_sorted=timed == sorted(timed, reverse=True),
        row_count=len(times),
        is_end=is_end,
    )


Way = Literal["front", "back", "beside", "gone"]


class Lookup:
    """One session that has to be found again, and where it was looked for."""

    __slots__ = (
        "_around",
        "_high",
        "_low",
        "_next",
        "_page_size",
        "_step_count",
        "_stride",
        "_tried",
        "create_time_ms",
        "digest",
        "is_gone",
        "is_lost",
        "place",
        "serial",
        "session_id",
        "since_ms",
        "total_count",
    )

    def __init__(
        self,
        serial: int,
        session_id: str,
        create_time_ms: int | None,
        *,
        page_size: int,
        digest: str | None = None,
        since_ms: int = 0,
    ) -> None:
        self.serial = serial
        """As the bookmark has it; corrected once the session is found."""
        self.session_id = session_id
        self.create_time_ms = create_time_ms or None
        self.digest = digest
        """Of the version exported last; None where it need not be looked for after this run."""
        self.since_ms = since_ms
        self.place: int | None = None
        """Where it was found, ..."""
        self.total_count = 0
        """... in an answer with this total."""
        self.is_gone = False
        """Whether it was shown not to be in the list any more."""
        self.is_lost = False
        """Whether it cannot be found by looking at single pages."""
        self._page_size = page_size
        # Pages between which it is, by what others show.
        self._low = 1
        self._high: int | None = None
        self._next: Window | None = None
        self._stride = 1
        self._around = 0
        self._step_count = 0
        self._tried: set[Window] = set()

    @property
    def is_open(self) -> bool:
        return self.place is None and not self.is_gone and not self.is_lost

    def choose_window(self, place: int, shown: Mapping[Window, PageTimes]) -> Window | None:
        """The window to ask for next; None when it need not, or cannot, be looked for any more.

        By its serial it should be at `place`; `shown` has the windows that were asked for, none of
        which shows it.
        """
        if self._next is None:
            self._next = self._page(max(0, place) // self._page_size + 1)
            self.is_gone = self._is_missing(shown)
        while self.is_open:
            times = shown.get(self._next)
            if times is None:
                return self._next
            self._tried.add(self._next)
            self._step_count += 1
            self._step(self._next, self._find_way(self._next, times))
            self.is_lost |= self._step_count > MAX_TRIES
        if self.is_lost and self._is_missing(shown):
            self.is_gone, self.is_lost = True, False
        return None

    def _is_missing(self, shown: Mapping[Window, PageTimes]) -> bool:
        """Whether an answer shows newer and older sessions, and not this one."""
        time_ms = self.create_time_ms
        return time_ms is not None and any(
            each.is_sorted
            and (window.start == 0 or is_newer(each.newest_ms, time_ms))
            and (each.is_end or is_newer(time_ms, each.oldest_ms))
            for window, each in shown.items()
        )

    def _page(self, page_num: int) -> Window:
        return Window(page_num, self._page_size)

    def _step(self, window: Window, way: Way) -> None:
        """Go on from an answer that does not show it."""
        first = window.start // self._page_size + 1
        last = -(-window.stop // self._page_size)
        if way == "gone":
            self.is_gone = True
        elif way == "beside":
            self._step_aside(first)
        elif way == "front":
            self._high = first - 1
            self._go_on(first - self._stride)
        else:
            self._low = last + 1
            self._go_on(last + self._stride)

    def _step_aside(self, page_num: int) -> None:
        """Where times do not help: the pages around the first that was looked on then."""
        self._around = self._around or page_num
        near = [
            page
            for away in AWAY
            if (page := self._page(self._around + away)).page_num > 0 and page not in self._tried
        ]
        self.is_lost = not near
        if near:
            self._next = near[0]

    def _go_on(self, page_num: int) -> None:
        """To a page, or as far in its direction as it may be."""
        self._stride *= 2
        if self._high is not None and self._low > self._high:
            self._look_between(self._high, self._low)
            return
        page_num = max(self._low, page_num)
        self._next = self._page(page_num if self._high is None else min(self._high, page_num))

    def _look_between(self, upper: int, lower: int) -> None:
        """It stands between two pages that do not show it, or the list has moved since one of the
        two was asked for: one window that shows some rows of both.
        """
        if upper < 1:
            self.is_lost = True
            return
        edge = upper * self._page_size
        self._next = centre_on(edge, edge, most=self._page_size, other_than=self._tried)
        self.is_lost = self._next in self._tried
        self._low, self._high, self._stride = min(upper, lower), max(upper, lower), 1

    def _find_way(self, window: Window, times: PageTimes) -> Way:
        time_ms = self.create_time_ms
        if self._around > 0 or time_ms is None:
            return "beside"
        if times.row_count == 0:
            return "front"
        newest_ms, oldest_ms = times.newest_ms, times.oldest_ms
        if newest_ms is None or oldest_ms is None or newest_ms == oldest_ms == time_ms:
            return "beside"
        shown: Way = "gone" if times.is_sorted else "beside"
        if time_ms >= newest_ms:
            return shown if window.start == 0 else "front"
        if time_ms > oldest_ms or times.is_end:
            return shown
        # Rows end here, though the total claims more: nothing shows that it has gone.
        is_cut = times.row_count < window.page_size and window.start % self._page_size > 0
        return "beside" if is_cut else "back"


def is_newer(one_ms: int | None, other_ms: int | None) -> bool:
    return one_ms is not None and other_ms is not None and one_ms > other_ms
