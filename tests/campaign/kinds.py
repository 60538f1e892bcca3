"""Kinds of lists and of answers for the campaign's full listings, drawn by chance."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from exporter.emulator.churn import (
    Backdating,
    Churn,
    Cleanup,
    DoubledRow,
    Flow,
    LateShow,
    Order,
    OrderBy,
    PageFault,
    Place,
    TimeForm,
    Timeless,
)
from exporter.errors import UsageError

Settings = dict[str, Any]
"""Fields of a Churn."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of a list, and how it is read."""

    session_count: int
    page_size: int
    in_flight: int
    latency_s: float
    straggler_share: float
    """The share of answers that take ten times as long to come back."""
    spacing_ms: int

    @property
    def page_count(self) -> int:
        return max(1, -(-self.session_count // self.page_size))

    @property
    def duration_s(self) -> float:
        """About how long a listing takes."""
        return self.latency_s * (self.page_count / self.in_flight + 3)

    def flow(self, per_page: float, *, burst: int = 1) -> Flow:
        """About `per_page` changes for each page that is read; fewer where pages are tiny, or a
        list would grow faster than it can be read.
        """
        share = min(1.0, self.page_size / 20)
        return Flow(per_s=per_page * share * self.page_count / self.duration_s, burst=burst)


@dataclass(frozen=True, slots=True)
class Case:
    shape: Shape
    churn: Churn
    is_warm: bool = False
    """Whether somebody else has just read the list, so that it moves and caches are full."""
    since_share: float | None = None
    """The share of the list's time that is wanted, from its newest session on; None: all."""


Draw = Callable[[random.Random, Shape], Settings]


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    draw: Draw
    impossible: bool = False
    """Whether nothing can be proven of such a list: exit 4 is no fault."""
    beyond: bool = False
    """Whether the server is worse than the promise covers: only false proofs are faults."""
    misleads: bool = False
    """Whether no answer shows the fault, as in README's limits."""
    has_since: bool = False
    """Whether only sessions since some time are wanted."""
    max_mean: float = 2.0
    """Requests relative to the pages."""
    may_be_warm: bool = True
    """Whether somebody else may have read the list just before."""
    mixes: bool = True
    """Whether mixtures may contain it."""
    moves: bool = True
    """Whether sessions come and go besides."""


def draw_shape(chance: random.Random) -> Shape:
    page_size = chance.choices([100, 20], [85, 15])[0]
    max_count = {100: 4_000, 20: 1_200}.get(page_size, 40 * page_size)
    size = chance.choices(["tiny", "small", "middle", "large"], [4, 12, 44, 40])[0]
    low, high = {
        "tiny": (0, page_size),
        "small": (0, 10 * page_size),
        "middle": (max_count // 4, max_count // 2),
        "large": (max_count // 2, max_count),
    }[size]
    return Shape(
        session_count=chance.randint(low, high),
        page_size=page_size,
        in_flight=chance.choice([1, 4, 4, 16, 16, 32]),
        latency_s=chance.choice([0.01, 0.04, 0.1, 0.4]),
        straggler_share=chance.choice([0.0, 0.02, 0.1]),
        spacing_ms=chance.choice([100, 1_000, 10_000, 60_000]),
    )


# Changes besides those of the kind.


def rate(chance: random.Random) -> float:
    return chance.choice([0.0, 0.0, 0.02, 0.1, 0.3])


def background(chance: random.Random, shape: Shape) -> Settings:
    """Insertions, and at times expiries and deletions, or nothing at all."""
    form = chance.choice(["still", "grows", "grows", "turns over", "loses", "all"])
    insertions = shape.flow(chance.choice([0.02, 0.1, 0.3]))
    deletions = shape.flow(chance.choice([0.02, 0.1]))
    forms: dict[str, Settings] = {
        "still": {},
        "grows": {"insertions": insertions},
        "turns over": {"insertions": insertions, "expiries": insertions},
        "loses": {"insertions": insertions, "deletions": deletions},
        "all": {"insertions": insertions, "expiries": insertions, "deletions": deletions},
    }
    return forms[form]


def quiet(_chance: random.Random, _shape: Shape) -> Settings:
    return {}


def insertions(chance: random.Random, shape: Shape) -> Settings:
    return {"insertions": shape.flow(chance.choice([0.1, 0.5, 1.0]))}


def bursts(chance: random.Random, shape: Shape) -> Settings:
    burst = chance.randint(min(50, shape.page_size), 2 * shape.page_size)
    flow = shape.flow(chance.choice([1.0, 2.0]), burst=burst)
    return {"insertions": flow} | ({"expiries": flow} if chance.random() < 0.3 else {})


def retention(chance: random.Random, shape: Shape) -> Settings:
    flow = shape.flow(chance.choice([0.1, 0.5]))
    form = chance.choice(["flow", "count", "age"])
    if form == "count":
        return {"insertions": flow, "keep_count": max(1, shape.session_count)}
    if form == "age":
        age_s = shape.session_count * shape.spacing_ms / 1000
        return {"insertions": flow, "keep_age_s": age_s * chance.uniform(0.5, 1.0)}
    return {"insertions": flow, "expiries": flow}


def deletions(chance: random.Random, shape: Shape) -> Settings:
    return {
        "insertions": shape.flow(rate(chance)),
        "deletions": shape.flow(chance.choice([0.02, 0.1, 0.5])),
    }


def ties(chance: random.Random, shape: Shape) -> Settings:
    return {"tie_size": min(chance.choice([2, 9, 25]), max(2, shape.page_size // 4))}


def kept_ties(chance: random.Random, shape: Shape) -> Settings:
    """Ties over a page, in an order that stays."""
    rows = shape.page_size * chance.choice([1.0, 2.5])
    return {"time_step_ms": max(2, round(rows * shape.spacing_ms))} | retention(chance, shape)


def large_ties(chance: random.Random, shape: Shape) -> Settings:
    size = round(shape.page_size * chance.choice([1.0, 1.5, 2.5]))
    return {"tie_size": max(2, size)} | retention(chance, shape)


def coarse_times(chance: random.Random, shape: Shape) -> Settings:
    return {"time_step_ms": chance.choice([1_000, 60_000])} | background(chance, shape)


def equal_times(chance: random.Random, shape: Shape) -> Settings:
    """Many sessions of one create time, in an order that stays."""
    span_ms = max(1, shape.session_count * shape.spacing_ms)
    return {"time_step_ms": round(span_ms * chance.choice([0.1, 0.5])) or 1}


def noisy_times(chance: random.Random, shape: Shape) -> Settings:
    """By clocks that are some rows apart."""
    by_s = shape.spacing_ms / 1000 * chance.choice([2, 10, 50]) * chance.choice([1, -1])
    return {"backdating": Backdating(share=chance.choice([0.3, 1.0]), by_s=by_s, in_place=False)}


def future_times(chance: random.Random, shape: Shape) -> Settings:
    share = chance.choice([0.01, 0.1])
    return {"backdating": Backdating(share=share, by_s=-8 * 3600, in_place=False)}


def history_import(chance: random.Random, shape: Shape) -> Settings:
    """Old sessions come in, most of them at the list's end or behind it."""
    span_s = shape.session_count * shape.spacing_ms / 1000
    return {
        "backdating": Backdating(share=chance.choice([0.5, 1.0]), by_s=3 * span_s),
        "insertions": shape.flow(chance.choice([0.2, 1.0]), burst=chance.choice([1, 20])),
    }


def middle_swaps(chance: random.Random, shape: Shape) -> Settings:
    """As many sessions go as come, both anywhere: the total stays what it is."""
    flow = shape.flow(chance.choice([0.03, 0.2]))
    span_s = shape.session_count * shape.spacing_ms / 1000
    return {
        "insertions": flow,
        "deletions": flow,
        "backdating": Backdating(share=1.0, by_s=span_s),
    }


def twins(chance: random.Random, shape: Shape) -> Settings:
    return {"twins": chance.choice([2 / max(2, shape.session_count), 0.01, 0.05])}


def shards(chance: random.Random, shape: Shape) -> Settings:
    return {"shards": chance.choice([2, 3])} | background(chance, shape)


def twins_apart(chance: random.Random, shape: Shape) -> Settings:
    share = chance.choice([2 / max(2, shape.session_count), 0.01])
    return {"twins": share, "twins_apart": True}


def times_follow(chance: random.Random, shape: Shape) -> Settings:
    return update_order(chance, shape) | {"tells_order_time": True}


def oldest_first(chance: random.Random, shape: Shape) -> Settings:
    return {"order": Order.OLDEST_FIRST} | (bursts(chance, shape) if chance.random() < 0.3 else {})


def unordered(chance: random.Random, shape: Shape) -> Settings:
    return {"order": Order.UNORDERED}


def unordered_growing(chance: random.Random, shape: Shape) -> Settings:
    return {"order": Order.UNORDERED} | insertions(chance, shape)


def redrawn(chance: random.Random, shape: Shape) -> Settings:
    return {"tie_size": 10**6}


def end_order(chance: random.Random, shape: Shape) -> Settings:
    return running(chance, shape) | {
        "order_by": OrderBy.END,
        "order": chance.choice([Order.NEWEST_FIRST, Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
        "running_last": chance.random() < 0.5,
    }


def update_order(chance: random.Random, shape: Shape) -> Settings:
    return running(chance, shape) | {
        "order_by": OrderBy.UPDATE,
        "order": chance.choice([Order.NEWEST_FIRST, Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
        "touches": shape.flow(rate(chance), burst=chance.choice([1, 1, 50, 200])),
    }


def running(chance: random.Random, shape: Shape) -> Settings:
    """Sessions that run so long that some of them end meanwhile."""
    share = chance.choice([0.01, 0.1, 0.5])
    run_s = share * shape.session_count * shape.spacing_ms / 1000
    return {"run_s": run_s * chance.uniform(0.0, 0.5), "max_run_s": run_s}


def total_cap(chance: random.Random, shape: Shape) -> Settings:
    cap = round(max(1, shape.session_count) * chance.uniform(0.2, 1.0))
    if chance.random() < 0.7:
        cap = max(shape.page_size, cap - cap % shape.page_size)
    if chance.random() < 0.1:
        cap = chance.choice([0, 1, shape.page_size])
    return {"total_cap": cap}


def total_lag(chance: random.Random, shape: Shape) -> Settings:
    form = chance.choice(["seconds", "changes", "pages", "rows"])
    duration_s = shape.duration_s
    lags: dict[str, Settings] = {
        "seconds": {"total_lag_s": duration_s * chance.choice([0.1, 1.0, 5.0])},
        "changes": {"total_lag_changes": chance.choice([1, 5, 40])},
        "pages": {"total_lag_changes": shape.page_size * chance.choice([1, 2])},
        "rows": {"total_lag_s": -duration_s * chance.choice([0.1, 1.0])},
    }
    flow = shape.flow(chance.choice([0.1, 1.0]), burst=chance.choice([1, shape.page_size]))
    return lags[form] | {"insertions": flow}


def total_cache(chance: random.Random, shape: Shape) -> Settings:
    return {"total_cache_s": chance.choice([1.0, 60.0])}


def total_step(chance: random.Random, shape: Shape) -> Settings:
    return {"total_step": chance.choice([10, shape.page_size, 10 * shape.page_size])}


def total_below(chance: random.Random, shape: Shape) -> Settings:
    return {"total_offset": -chance.choice([1, 7, shape.page_size])}


def total_above(chance: random.Random, shape: Shape) -> Settings:
    return {"total_offset": chance.choice([1, 7, shape.page_size])}


def total_absurd(chance: random.Random, shape: Shape) -> Settings:
    return {"total_offset": chance.choice([10**5, 2**31, 2**62])}


def total_elsewhere(chance: random.Random, shape: Shape) -> Settings:
    return replicas(chance, shape) | {"total_of_any_replica": True}


def depth(chance: random.Random, shape: Shape) -> Settings:
    return {"depth": round(shape.session_count * chance.uniform(0.2, 0.95))}


def page_bound(chance: random.Random, shape: Shape) -> Settings:
    return {"max_page_num": max(1, round(shape.page_count * chance.uniform(0.2, 0.9)))}


def withheld(chance: random.Random, shape: Shape) -> Settings:
    return {"withheld": chance.choice([0.01, 0.2])}


def last_page_again(chance: random.Random, shape: Shape) -> Settings:
    return {"last_page_again": True}


def rounded_sizes(chance: random.Random, shape: Shape) -> Settings:
    size = shape.page_size
    return {
        "page_sizes": chance.choice([(size,), (size // 2 or 1, size), (1, 2, 5, 10, 20, 50, 100)])
    }


def empty_answers(chance: random.Random, shape: Shape) -> Settings:
    total_is_told = chance.random() < 0.3
    form = chance.choice(["rate", "rate", "number", "first page"])
    known: dict[str, Settings] = {
        "rate": {"rate": chance.choice([0.01, 0.05, 0.1])},
        "number": {"answers": tuple(chance.sample(range(1, shape.page_count + 4), 2))},
        "first page": {"page_nums": (1,)},
    }
    return {
        "page_faults": (PageFault(zero_total=not total_is_told, spares_next=True, **known[form]),)
    }


def empty_for_a_while(chance: random.Random, shape: Shape) -> Settings:
    fault = PageFault(
        rate=1.0,
        zero_total=True,
        start_s=shape.duration_s * chance.uniform(0.3, 0.9),
        lasts_s=shape.latency_s * chance.choice([1, 3, 10]),
    )
    return {"page_faults": (fault,)}


def short_answers(chance: random.Random, shape: Shape) -> Settings:
    fault = PageFault(
        rate=chance.choice([0.01, 0.05]),
        missing_count=chance.choice([None, 1, 3, shape.page_size // 2]),
    )
    return {"page_faults": (fault,)}


def doubled_rows(chance: random.Random, shape: Shape) -> Settings:
    return {"doubled_rows": (DoubledRow(rate=chance.choice([0.01, 0.03])),)}


def doubled_across(chance: random.Random, shape: Shape) -> Settings:
    return {"doubled_rows": (DoubledRow(rate=0.03, across_pages=True),)}


def timeless(chance: random.Random, shape: Shape) -> Settings:
    share = chance.choice([0.5 / max(1, shape.session_count), 0.01, 0.1])
    form = chance.choice([TimeForm.MISSING, TimeForm.NULL, TimeForm.ZERO, TimeForm.MIXED])
    return {"timeless": Timeless(share=share, form=form)}


def times_as_text(chance: random.Random, shape: Shape) -> Settings:
    return {"timeless": Timeless(share=chance.choice([0.1, 1.0]), form=TimeForm.TEXT)}


def all_timeless(chance: random.Random, shape: Shape) -> Settings:
    return {"timeless": Timeless(share=1.0, form=TimeForm.MISSING)}


def backdated(chance: random.Random, shape: Shape) -> Settings:
    span_s = shape.session_count * shape.spacing_ms / 1000
    backdating = Backdating(
        share=chance.choice([0.01, 0.05, 0.2]),
        by_s=span_s * chance.choice([0.1, 1.0]),
        in_place=chance.random() < 0.6,
    )
    return {"backdating": backdating, "insertions": shape.flow(chance.choice([0.1, 0.5]))}


def replicas(chance: random.Random, shape: Shape) -> Settings:
    lag_s = chance.choice([3.0, shape.duration_s])
    flow = shape.flow(chance.choice([0.1, 0.5]))
    return {
        "replicas": chance.choice([(0.0, lag_s), (0.0, 0.0, lag_s), (lag_s, 0.0, lag_s / 2)]),
        "insertions": flow,
        "expiries": flow if chance.random() < 0.3 else Flow(),
    }


def page_cache(chance: random.Random, shape: Shape) -> Settings:
    flow = shape.flow(chance.choice([0.1, 0.5]))
    return {"page_cache_s": shape.duration_s * chance.choice([0.1, 0.5]), "insertions": flow}


def late_show(chance: random.Random, shape: Shape) -> Settings:
    lag_s = chance.choice([2.0, shape.duration_s / 2])
    flow = shape.flow(chance.choice([0.1, 0.5]))
    return {"late": LateShow(share=chance.choice([0.1, 0.5]), lag_s=lag_s), "insertions": flow}


def cleanups(chance: random.Random, shape: Shape) -> Settings:
    found = tuple(
        Cleanup(
            at_s=shape.duration_s * chance.uniform(0.0, 0.9),
            count=max(1, round(shape.session_count * chance.choice([0.02, 0.1, 0.3]))),
            place=chance.choice(list(Place)),
        )
        for _ in range(chance.choice([1, 1, 2]))
    )
    return {"cleanups": found}


def begun_anew(chance: random.Random, shape: Shape) -> Settings:
    at_s = shape.duration_s * chance.uniform(0.1, 0.8)
    flow = replace(shape.flow(1.0, burst=shape.page_size), start_s=at_s)
    return {"cleanups": (Cleanup(at_s=at_s, count=10**6),), "insertions": flow}


def page_caps(chance: random.Random, shape: Shape) -> Settings:
    return {"page_cap": max(20, shape.page_size // chance.choice([2, 3, 5]))}


def some_page_caps(chance: random.Random, shape: Shape) -> Settings:
    return page_caps(chance, shape) | {"page_cap_share": chance.choice([0.1, 0.5])}


def null_when_empty(chance: random.Random, shape: Shape) -> Settings:
    return {"null_when_empty": True}


KINDS = (
    Kind("quiet", quiet, mixes=False, moves=False),
    Kind("insertions", insertions, mixes=False, moves=False),
    Kind("bursts", bursts, moves=False),
    Kind("retention", retention, moves=False),
    Kind("deletions", deletions, moves=False),
    Kind("shuffled ties", ties, max_mean=2.5),
    Kind("ties over a page", kept_ties, moves=False),
    Kind(
        "shuffled ties over a page",
        large_ties,
        max_mean=4.0,
        moves=False,
        mixes=False,
        impossible=True,
    ),
    Kind("coarse times", coarse_times, moves=False),
    Kind("oldest first", oldest_first),
    Kind("equal times", equal_times),
    Kind("noisy times", noisy_times),
    Kind("times ahead", future_times),
    Kind("no order, still", unordered, mixes=False, moves=False, max_mean=2.5),
    Kind("no order", unordered_growing, mixes=False, moves=False, impossible=True, max_mean=4.0),
    Kind("order redrawn", redrawn, mixes=False, impossible=True, max_mean=4.0),
    Kind("parts in order", shards, moves=False, mixes=False, beyond=True),
    Kind("by end time", end_order),
    Kind("by update time", update_order),
    Kind("create times follow", times_follow, mixes=False, beyond=True, misleads=True),
    Kind("total capped", total_cap),
    Kind("total lags", total_lag, moves=False),
    Kind("total cached", total_cache),
    Kind("total in steps", total_step),
    Kind("total too low", total_below),
    Kind("total too high", total_above, impossible=True, mixes=False),
    Kind("total absurd", total_absurd, impossible=True, mixes=False, max_mean=2.5),
    Kind("total of another copy", total_elsewhere, moves=False),
    Kind("depth", depth, impossible=True, mixes=False, max_mean=1.5),
    Kind("pages bounded", page_bound, impossible=True, mixes=False, max_mean=1.5),
    Kind("rows withheld", withheld, impossible=True, mixes=False, max_mean=3.5),
    Kind("last page again", last_page_again),
    Kind("page sizes rounded", rounded_sizes, mixes=False, beyond=True),
    Kind("empty answers", empty_answers),
    Kind("empty for a while", empty_for_a_while, mixes=False, beyond=True, may_be_warm=False),
    Kind("short answers", short_answers),
    Kind("doubled rows", doubled_rows),
    Kind("doubled across pages", doubled_across, mixes=False, beyond=True),
    Kind("rows twice for good", twins, max_mean=2.5),
    Kind("rows twice, far apart", twins_apart, mixes=False, beyond=True),
    Kind("some timeless", timeless),
    Kind("times as text", times_as_text),
    Kind("all timeless", all_timeless, mixes=False),
    Kind("back-dated", backdated, moves=False),
    Kind("history import", history_import, moves=False),
    Kind("swaps in the middle", middle_swaps, moves=False),
    Kind("replicas", replicas, moves=False),
    Kind("pages cached", page_cache, moves=False),
    Kind("shown late", late_show, moves=False),
    Kind("cleanup", cleanups),
    Kind("begun anew", begun_anew, mixes=False, moves=False, max_mean=4.0, impossible=True),
    Kind("pages capped", page_caps),
    Kind("some pages capped", some_page_caps, mixes=False, beyond=True, misleads=True),
    Kind("null when empty", null_when_empty),
)

MIXED = "mixture"
MIXABLE = tuple(kind for kind in KINDS if kind.mixes)


def mixture(chance: random.Random, shape: Shape) -> Settings:
    """Two or three kinds at once."""
    found: Settings = {}
    for kind in chance.sample(MIXABLE, chance.choice([2, 2, 3])):
        found = merge(found, kind.draw(chance, shape))
    return found


SINCE = "since: "
WITHOUT_SINCE = {
    "no order",
    "order redrawn",
    "begun anew",
    "total absurd",
    "null when empty",
    # Where one part ends, no answer shows that newer sessions come behind it.
    "parts in order",
}
UNSEEN_WITH_SINCE = {
    # Behind the part that is wanted, a session may bear any time.
    "times ahead",
}

ALL_KINDS = (*KINDS, Kind(MIXED, mixture, mixes=False, beyond=True))
KINDS_BY_NAME: Mapping[str, Kind] = {kind.name: kind for kind in ALL_KINDS} | {
    SINCE + kind.name: replace(
        kind,
        name=SINCE + kind.name,
        has_since=True,
        misleads=kind.misleads or kind.name in UNSEEN_WITH_SINCE,
    )
    for kind in ALL_KINDS
    if kind.name not in WITHOUT_SINCE
}


def merge(first: Settings, second: Settings) -> Settings:
    """The settings of both: tuples are joined, and else the first one wins."""
    both = {
        name: first[name] + second[name]
        for name in first.keys() & second.keys()
        if isinstance(first[name], tuple) and name != "replicas"
    }
    return second | first | both


def build_churn(settings: Settings) -> Churn:
    try:
        return Churn(**settings)
    except UsageError:
        # A mixture took the order from another kind.
        left = {"touches", "tells_order_time"}
        return Churn(**{name: value for name, value in settings.items() if name not in left})


def describe_case(case: Case) -> str:
    """One line, without the fields that have their defaults."""
    unusual = {
        field.name: getattr(case.churn, field.name)
        for field in fields(Churn)
        if getattr(case.churn, field.name) != getattr(USUAL, field.name)
    }
    warm = ", just read by somebody else" if case.is_warm else ""
    since = "" if case.since_share is None else f", the newest {case.since_share:.0%} of its time"
    return f"{case.shape}{warm}{since}, {unusual}"


USUAL = Churn()


def draw_case(kind: Kind, seed: int) -> Case:
    chance = random.Random(f"{kind.name}/{seed}")  # noqa: S311 - no secret
    shape = draw_shape(chance)
    settings = kind.draw(chance, shape)
    if kind.moves:
        settings = merge(settings, background(chance, shape))
    return Case(
        shape,
        build_churn(settings),
        is_warm=chance.random() < 0.3 and kind.may_be_warm,
        since_share=chance.choice([0.02, 0.1, 0.3, 0.8]) if kind.has_since else None,
    )
