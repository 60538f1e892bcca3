"""How an emulated gateway's list moves and how its answers may mislead: settings, all checked."""

from dataclasses import dataclass
from enum import Enum

from exporter.errors import UsageError


def refuse_below(settings: object, least: int, *names: str) -> None:
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

    Raises UsageError where a number is out of its range.
    """

    missing_count: int | None = None
    """Rows an answer lacks; None: all of them."""
    rate: float = 0.0
    """Share of answers that are hit, by chance."""
    page_nums: tuple[int, ...] = ()
    """Pages that are hit, whatever their size."""
    once: bool = True
    """Whether each of `page_nums` is hit only the first time it is asked for."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "rate", "missing_count")


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """What happens to a list from the first request on, and what its answers do not say.

    Raises UsageError where a number is out of its range.
    """

    order: Order = Order.NEWEST_FIRST
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
    tie_size: int = 1
    """Sessions that share a create time. More than 1: their order is drawn anew for each answer."""
    run_s: float | None = None
    """How long each session runs, its numbers growing; None: all have ended from the start."""
    total_lag_s: float = 0.0
    """Age of the total; below 0 the rows are that old instead."""
    total_lag_changes: int = 0
    """How many changes the total does not know yet; below 0 the rows do not."""
    page_cap: int | None = None
    """Pages are counted in this size when a greater one is asked for, which no answer tells."""
    page_faults: tuple[PageFault, ...] = ()
    null_when_empty: bool = False
    """Whether `sessions` is null, and not an array, where there is no row."""

    def __post_init__(self) -> None:
        refuse_below(self, 0, "keep_count", "keep_age_s", "run_s")
        refuse_below(self, 1, "tie_size", "page_cap")
