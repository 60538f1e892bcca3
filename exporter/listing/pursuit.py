"""On which pages the sessions that have to be found again are by now; performs no I/O."""

from dataclasses import dataclass
from typing import Literal

from exporter.listing.windows import Window

Lost = Literal["expired", "gone"]

MOST_TRIES = 4
"""Pages a session is looked for on, at most."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer of an incremental listing, without its rows."""

    window: Window
    round_num: int
    total_count: int
    row_count: int
    newest_ms: int
    oldest_ms: int
    reached: int = -1
    """The place in the known head of the deepest of its rows that is here; below 0 without any."""
    vanished: int = 0
    """Sessions that have gone from the end since the last run, as that row tells."""

    @property
    def is_short(self) -> bool:
        return self.row_count < min(self.window.page_size, self.total_count - self.window.start)

    def rank_at(self, position: int) -> int:
        return self.total_count - 1 - self.window.start - position


@dataclass(frozen=True, slots=True)
class Top:
    """The latest answer to page 1, without its rows."""

    answer: Answer
    session_ids: list[str]
    times: list[int] | None


@dataclass(frozen=True, slots=True)
class Came:
    """A new session that has not ended."""

    rank: int
    session_id: str
    create_time_ms: int
    digest: str


class Wanted:
    """A session that has to be found again, and what was done about it."""

    __slots__ = ("create_time_ms", "digest", "rank", "serial", "session_id", "tries")

    def __init__(
        self, serial: int, session_id: str, create_time_ms: int | None, digest: str
    ) -> None:
        self.serial = serial
        self.session_id = session_id
        self.create_time_ms = create_time_ms
        """None of an anchor: that must be where it should be."""
        self.digest: str | None = digest
        """Of the version that left last; None once that is a final one."""
        self.rank: int | None = None
        """Counted from the end of the list where it was found first; None until then."""
        self.tries = 0

    def find_page(
        self, *, place: int, total_count: int, page_size: int, answers: dict[int, Answer]
    ) -> int | Lost:
        """The page to look on next, if it should be at a place of a list with this total.

        `answers` are the latest ones by page number; it is on none of them.
        """
        page_num = max(0, min(place, total_count - 1)) // page_size + 1
        answer = answers.get(page_num)
        if self.tries >= MOST_TRIES:
            return "gone"
        if answer is None:
            return page_num
        # Where it should have been by the time of that answer.
        position = place + answer.total_count - total_count - answer.window.start
        if answer.is_short or not (0 <= position < answer.window.page_size):
            return page_num
        return self._find_neighbour(answer, is_last=place >= total_count)

    def _find_neighbour(self, answer: Answer, *, is_last: bool) -> int | Lost:
        """It is not on the page where it should be; its time tells whether it slipped off."""
        page_num = answer.window.page_num
        if self.create_time_ms is None:
            return "gone"
        if self.create_time_ms >= answer.newest_ms and page_num > 1:
            return page_num - 1
        if self.create_time_ms > answer.oldest_ms:
            return "gone"
        if answer.window.stop < answer.total_count:
            return page_num + 1
        return "expired" if is_last else "gone"
