"""Settings of a scenario: how a gateway's list moves and how its answers mislead.

All classes raise UsageError for a number that is out of its range.
"""

from dataclasses import dataclass
from enum import Enum

from exporter.emulator.ranges import require_min
from exporter.errors import UsageError


class Order(Enum):
    """Of the list; the service documents none."""

    NEWEST_FIRST = "newest-first"
    OLDEST_FIRST = "oldest-first"
    UNORDERED = "unordered"
    """Random but constant: a new session appears anywhere."""


class OrderBy(Enum):
    """The time of a session that orders the list."""

    CREATE = "create"
    END = "end"
    UPDATE = "update"
    """A session is updated when it is created, when it ends, and by `touches`."""


class TimeForm(Enum):
    """How an answer states a create time that is no number."""

    MISSING = "missing"
    NULL = "null"
    ZERO = "zero"
    TEXT = "text"
    """In decimal digits."""
    MIXED = "mixed"
    """Any of the others, by session."""


class Place(Enum):
    """In list order."""

    HEAD = "head"
    MIDDLE = "middle"
    END = "end"
    ANYWHERE = "anywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """When changes of one kind happen, in time since the first request."""

    per_s: float = 0.0
    """Average changes a second; 0: none at all."""
    burst: int = 1
    """Changes at one instant; `per_s` still counts single changes."""
    limit: int | None = None
    """None: no limit."""
    start_s: float = 0.0
    """Time of the first change."""
    even: bool = False
    """Equal gaps, in place of random ones (a Poisson process)."""

    def __post_init__(self) -> None:
        require_min(self, 0, "per_s", "start_s", "limit")
        require_min(self, 1, "burst")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFault:
    """Answers that silently lack their last rows.

    With `zero_total` and no `missing_count` they claim that the list is empty.
    """

    missing_count: int | None = None
    """Rows that an answer lacks; None: all."""
    rate: float = 0.0
    """Random share of answers that are hit."""
    page_nums: tuple[int, ...] = ()
    """Pages that are hit, whatever their size."""
    once: bool = True
    """Hit each of `page_nums` only the first time."""
    answers: tuple[int, ...] = ()
    """Numbers of answers that are hit, from 1, over all pages."""
    start_s: float = 0.0
    """Time of its begin, after the first request."""
    lasts_s: float | None = None
    """None: for ever."""
    spares_next: bool = False
    """Never hit a page in two successive answers about it."""
    zero_total: bool = False
    """State a total of 0 in the answers that are hit."""

    def __post_init__(self) -> None:
        require_min(self, 0, "rate", "missing_count", "start_s", "lasts_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubledRow:
    """Answers that show a row twice, the second time in place of the next row."""

    rate: float = 0.0
    """Random share of answers that are hit."""
    lasts_s: float = 0.0
    """How long the same page is answered likewise."""
    across_pages: bool = False
    """The last row of the page before replaces the first one of the page."""

    def __post_init__(self) -> None:
        require_min(self, 0, "rate", "lasts_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeless:
    """Sessions whose create time is not stated as a number."""

    share: float = 0.0
    form: TimeForm = TimeForm.MISSING

    def __post_init__(self) -> None:
        require_min(self, 0, "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdating:
    """Sessions that claim to have been created before or after their insertion."""

    share: float = 0.0
    by_s: float = 3600.0
    """At most, at random; below 0 they claim to be newer."""
    in_place: bool = True
    """Insert them where their create time belongs, far behind the head, and not at the head."""

    def __post_init__(self) -> None:
        require_min(self, 0, "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class LateShow:
    """New sessions that are shown only after a while, then behind those created since."""

    share: float = 0.0
    lag_s: float = 2.0

    def __post_init__(self) -> None:
        require_min(self, 0, "share", "lag_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """Many sessions deleted at one instant."""

    at_s: float
    """After the first request."""
    count: int
    place: Place = Place.END
    every_s: float | None = None
    """Period of repetition; None: it happens once."""

    def __post_init__(self) -> None:
        require_min(self, 0, "at_s", "count")
        require_min(self, 0.001, "every_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """The changes of a list from the first request on, and the faults of its answers."""

    order: Order = Order.NEWEST_FIRST
    order_by: OrderBy = OrderBy.CREATE
    """Any other needs `run_s`."""
    tells_order_time: bool = False
    """State the time that orders the list as the create time."""
    running_last: bool = False
    """In a list ordered by end time, place running sessions among the oldest, not the newest."""
    shards: int = 1
    """Parts of the list, one behind the other, each in order: a new session appears where its part
    begins, in the middle of the list."""
    insertions: Flow = Flow()
    """New sessions, at the head if the list is newest first."""
    expiries: Flow = Flow()
    """Retention: removals of the oldest session."""
    deletions: Flow = Flow()
    """Removals of sessions anywhere in the list."""
    keep_count: int | None = None
    """Retention by count: most sessions that are kept."""
    keep_age_s: float | None = None
    """Retention by age; takes effect with a suitable `session_spacing_s` of the scenario."""
    touches: Flow = Flow()
    """Updates of sessions anywhere, which move them in a list ordered by update time."""
    cleanups: tuple[Cleanup, ...] = ()
    late: LateShow = LateShow()
    backdating: Backdating = Backdating()
    timeless: Timeless = Timeless()
    twins: float = 0.0
    """Share of rows that repeat the session of their neighbour."""
    twins_apart: bool = False
    """Twins repeat any older session, not their neighbour's."""
    withheld: float = 0.0
    """Share of rows that no answer shows, though they take a place on their page."""
    time_step_ms: int = 1
    """Create times are rounded down to multiples of this; the list is ordered by the exact ones."""
    tie_size: int = 1
    """Sessions that share a create time; their order is drawn for each answer."""
    run_s: float | None = None
    """How long each session runs, its numbers growing; None: all have ended."""
    max_run_s: float | None = None
    """Longest run, if sessions run between `run_s` and this."""
    settle_s: float = 0.0
    """How long after its end a session's `cuHours` are too low, and for every other one `endTime`
    is missing."""
    odd_states: float = 0.0
    """Share of sessions that end in an undocumented state, `killed`."""
    replicas: tuple[float, ...] = ()
    """Lag of each copy of the list in seconds; each answer comes from a random one. Empty: there is
    one copy without lag."""
    total_of_any_replica: bool = False
    """Draw the copy that states the total separately from the one that shows the rows."""
    page_cache_s: float = 0.0
    """How long a page is answered from a cache."""
    total_cache_s: float = 0.0
    """How long each replica caches its total."""
    total_cap: int | None = None
    """Highest stated total."""
    total_step: int = 1
    """Totals are rounded down to multiples of this."""
    total_offset: int = 0
    """Added to the total."""
    total_lag_s: float = 0.0
    """Age of the total; below 0 the rows are that old instead."""
    total_lag_changes: int = 0
    """The latest changes that the total leaves out; below 0 the rows do."""
    page_cap: int | None = None
    """Largest page size; greater ones are reduced to it silently."""
    page_cap_share: float = 1.0
    """Random share of answers that `page_cap` applies to."""
    page_sizes: tuple[int, ...] = ()
    """If any, the page size is rounded up to one of these, or down to the largest."""
    last_page_again: bool = False
    """Answer a page behind the end with the last page, not with an empty one."""
    depth: int | None = None
    """Most rows that are shown, whatever the total."""
    max_page_num: int | None = None
    """Last page that shows rows, whatever the total."""
    doubled_rows: tuple[DoubledRow, ...] = ()
    page_faults: tuple[PageFault, ...] = ()
    null_when_empty: bool = False
    """State `sessions` as null, not as an array, if there is no row."""

    def __post_init__(self) -> None:
        require_min(self, 0, "keep_count", "keep_age_s", "run_s", "settle_s", "odd_states")
        require_min(self, 0, "total_cap", "total_cache_s", "page_cache_s", "page_cap_share")
        require_min(self, 0, "depth", "max_page_num", "twins", "withheld")
        require_min(self, 1, "shards", "tie_size", "page_cap", "total_step", "time_step_ms")
        for size in self.page_sizes:
            if size < 1:
                raise UsageError(f"page_sizes has {size}", hint="give 1 or more")
        for lag_s in self.replicas:
            if not lag_s >= 0:
                raise UsageError(f"replicas lag by {lag_s}", hint="give 0 or more")
        if self.max_run_s is not None and not self.max_run_s >= (self.run_s or 0):
            raise UsageError(f"max_run_s is {self.max_run_s}", hint="give run_s or more")
        if self.order_by is not OrderBy.CREATE and self.run_s is None:
            raise UsageError(
                f"order_by is {self.order_by.value} and sessions never end",
                hint="give run_s, how long they run",
            )
        if self.tells_order_time and self.order_by is not OrderBy.UPDATE:
            raise UsageError(
                "tells_order_time of what is in order", hint='give order_by = "update"'
            )
        if self.touches.per_s > 0 and self.order_by is not OrderBy.UPDATE:
            raise UsageError("touches move nothing", hint='give order_by = "update"')
