"""How an emulated gateway's list moves and how its answers may mislead: settings, all checked."""

from dataclasses import dataclass
from enum import Enum

from exporter.errors import UsageError


def refuse_below(settings: object, least: float, *names: str) -> None:
    """Raises UsageError for the first of these settings that is a number below the least."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value >= least:
            raise UsageError(f"{name} is {value}", hint=f"give {least} or more")


class Order(Enum):
    """Of the list; the service documents none."""

    NEWEST_FIRST = "newest-first"
    OLDEST_FIRST = "oldest-first"
    UNORDERED = "unordered"
    """By chance and always the same: a new session appears anywhere."""


class OrderBy(Enum):
    """The time of a session by which a list is in order."""

    CREATE = "create"
    END = "end"
    UPDATE = "update"
    """A session was updated when it was created, when it ended, and by each of `touches`."""


class TimeForm(Enum):
    """How an answer tells a create time that is no number."""

    MISSING = "missing"
    NULL = "null"
    ZERO = "zero"
    TEXT = "text"
    """In decimal digits."""
    MIXED = "mixed"
    """Each of the others, by session."""


class Place(Enum):
    """In the list's own order."""

    HEAD = "head"
    MIDDLE = "middle"
    END = "end"
    ANYWHERE = "anywhere"


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """When changes of one kind happen, counted from the first request.

    Raises UsageError where a number is out of its range.
    """

    per_s: float = 0.0
    """Changes a second, on average; 0 is none at all."""
    burst: int = 1
    """Changes at one instant; the rate stays, so that bursts are rarer."""
    limit: int | None = None
    """None: for ever."""
    start_s: float = 0.0
    """How long after the first request."""
    even: bool = False
    """Whether gaps are all equal, instead of by chance (a Poisson process)."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "per_s", "start_s", "limit")
        refuse_below(self, 1, "burst")


@dataclass(frozen=True, slots=True, kw_only=True)
class PageFault:
    """Answers that lack their last rows although the list has them, and say nothing about it.

    With `zero_total` and no `missing_count` they claim that the list is empty. Raises UsageError
    where a number is out of its range.
    """

    missing_count: int | None = None
    """Rows an answer lacks; None: all of them."""
    rate: float = 0.0
    """Share of answers that are hit, by chance."""
    page_nums: tuple[int, ...] = ()
    """Pages that are hit, whatever their size."""
    once: bool = True
    """Whether each of `page_nums` is hit only the first time it is asked for."""
    answers: tuple[int, ...] = ()
    """Numbers of answers that are hit, counted from 1, whatever they are about."""
    start_s: float = 0.0
    """How long after the first request it begins."""
    lasts_s: float | None = None
    """How long it goes on; None: for ever."""
    spares_next: bool = False
    """Whether no page is hit in two answers about it that follow each other."""
    zero_total: bool = False
    """Whether an answer that is hit tells 0 as the total."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "rate", "missing_count", "start_s", "lasts_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubledRow:
    """Answers in which a row stands twice, the second time in the place of the row behind it.

    Raises UsageError where a number is out of its range.
    """

    rate: float = 0.0
    """Share of answers that are hit, by chance."""
    lasts_s: float = 0.0
    """For how long the same page, asked for again, is answered likewise."""
    across_pages: bool = False
    """Whether it is the last row of the page before that hides the first one of the page."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "rate", "lasts_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeless:
    """Sessions whose create time is told in another way than as a number.

    Raises UsageError where a number is out of its range.
    """

    share: float = 0.0
    form: TimeForm = TimeForm.MISSING

    def __post_init__(self) -> None:
        refuse_below(self, 0, "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backdating:
    """Sessions that claim to have been created before they came, or after.

    Raises UsageError where a number is out of its range.
    """

    share: float = 0.0
    by_s: float = 3600.0
    """At most, by chance; below 0 they claim to be newer."""
    in_place: bool = True
    """Whether they come where their create time says, far behind the head, or at the head."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "share")


@dataclass(frozen=True, slots=True, kw_only=True)
class LateShow:
    """New sessions that are shown only after a while, then behind those created since.

    Raises UsageError where a number is out of its range.
    """

    share: float = 0.0
    lag_s: float = 2.0

    def __post_init__(self) -> None:
        refuse_below(self, 0, "share", "lag_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleanup:
    """Many sessions deleted at one instant.

    Raises UsageError where a number is out of its range.
    """

    at_s: float
    """How long after the first request."""
    count: int
    place: Place = Place.END
    every_s: float | None = None
    """How long after it the next one is; None: it is the only one."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "at_s", "count")
        refuse_below(self, 0.001, "every_s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """What happens to a list from the first request on, and what its answers do not say.

    Raises UsageError where a number is out of its range.
    """

    order: Order = Order.NEWEST_FIRST
    order_by: OrderBy = OrderBy.CREATE
    """Any other needs `run_s`."""
    tells_order_time: bool = False
    """Whether the time that the list is ordered by is told as the create time."""
    running_last: bool = False
    """Whether a list ordered by end time has the sessions that still run where its oldest ones are,
    and not where its newest ones are.
    """
    shards: int = 1
    """Parts of the list, one behind the other, each of them in order: a new session comes in the
    middle, where its own part begins.
    """
    insertions: Flow = Flow()
    """New sessions: at the head of a list that is newest first."""
    expiries: Flow = Flow()
    """Retention that takes the oldest session, one after the other."""
    deletions: Flow = Flow()
    """Of sessions anywhere in the list."""
    keep_count: int | None = None
    """Retention by count: the oldest goes when there are more."""
    keep_age_s: float | None = None
    """Retention by age; choose the scenario's `session_spacing_s` to see it at work."""
    touches: Flow = Flow()
    """Updates of sessions anywhere; they move in a list ordered by update time."""
    cleanups: tuple[Cleanup, ...] = ()
    late: LateShow = LateShow()
    backdating: Backdating = Backdating()
    timeless: Timeless = Timeless()
    twins: float = 0.0
    """Share of rows that are the same session as their neighbour: the list has it twice."""
    twins_apart: bool = False
    """Whether they are the same session as any older row, and not as their neighbour."""
    withheld: float = 0.0
    """Share of rows that no answer shows, though each counts as a row of its page."""
    time_step_ms: int = 1
    """Create times are told as multiples of this, rounded down; the order is the exact one's."""
    tie_size: int = 1
    """Sessions that share a create time. More than 1: their order is drawn anew for each answer."""
    run_s: float | None = None
    """How long each session runs, its numbers growing; None: all have ended from the start."""
    max_run_s: float | None = None
    """Makes sessions run for different times, between `run_s` and this."""
    settle_s: float = 0.0
    """How long after its end a session's `cuHours`, and of every other one `endTime`, are not yet
    the last ones.
    """
    odd_states: float = 0.0
    """Share of sessions that end in a state which is not documented: `killed`."""
    replicas: tuple[float, ...] = ()
    """By how many seconds each copy of the list lags; each answer comes from one of them, by
    chance. None: there is one, and it does not lag.
    """
    total_of_any_replica: bool = False
    """Whether the total is told by a copy drawn anew, and not by the one that shows the rows."""
    page_cache_s: float = 0.0
    """How long the same page, asked for again, is answered as it was."""
    total_cache_s: float = 0.0
    """How long a total is told once it was counted; each replica counts for itself."""
    total_cap: int | None = None
    """The most that is told as a total."""
    total_step: int = 1
    """Totals are told as multiples of this, rounded down."""
    total_offset: int = 0
    """Rows that a total counts besides those that are shown; below 0, rows it leaves out."""
    total_lag_s: float = 0.0
    """Age of the total; below 0 the rows are that old instead."""
    total_lag_changes: int = 0
    """How many changes the total does not know yet; below 0 the rows do not."""
    page_cap: int | None = None
    """Pages are counted in this size when a greater one is asked for, which no answer tells."""
    page_cap_share: float = 1.0
    """Share of answers to which `page_cap` applies, by chance."""
    page_sizes: tuple[int, ...] = ()
    """If any, pages are counted in the least of these that is not below the one asked for, or in
    the greatest.
    """
    last_page_again: bool = False
    """Whether a page behind the end is answered with the last one, and not with an empty one."""
    depth: int | None = None
    """No row behind so many places is shown, whatever the total says."""
    max_page_num: int | None = None
    """No row of a page behind this one is shown, whatever the total says."""
    doubled_rows: tuple[DoubledRow, ...] = ()
    page_faults: tuple[PageFault, ...] = ()
    null_when_empty: bool = False
    """Whether `sessions` is null, and not an array, where there is no row."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "keep_count", "keep_age_s", "run_s", "settle_s", "odd_states")
        refuse_below(self, 0, "total_cap", "total_cache_s", "page_cache_s", "page_cap_share")
        refuse_below(self, 0, "depth", "max_page_num", "twins", "withheld")
        refuse_below(self, 1, "shards", "tie_size", "page_cap", "total_step", "time_step_ms")
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
