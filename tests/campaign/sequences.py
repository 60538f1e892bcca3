"""Kinds of changes between the campaign's incremental runs, drawn by chance."""

import random
from collections.abc import Mapping
from dataclasses import dataclass

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
from tests.campaign.kinds import Case, Draw, Settings, Shape, build_churn, merge

HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class SequenceKind:
    name: str
    draw: Draw
    impossible: bool = False
    """Whether exit 4 is no fault."""
    max_full: float | None = None
    """Share of runs that may fall back to a full listing; None: any."""
    mixes: bool = True
    beyond: bool = False
    """Whether the server is worse than the promise covers: only false proofs are faults."""
    resizes: bool = False
    """Whether runs ask for pages of different sizes."""


@dataclass(frozen=True, slots=True)
class Sequence:
    case: Case
    pauses_s: tuple[float, ...]
    """Before each run but the first."""
    page_sizes: tuple[int, ...]
    """Asked for by each run."""

    @property
    def masks(self) -> bool:
        """Whether a session may come far behind the head while another one goes: where nothing is
        read, and no count differs, only a full run can notice it.
        """
        churn = self.case.churn
        goes = churn.expiries.per_s + churn.deletions.per_s > 0 or bool(churn.cleanups)
        goes |= churn.keep_count is not None or churn.keep_age_s is not None
        return goes and churn.backdating.share > 0 and churn.backdating.in_place


def draw_shape(chance: random.Random) -> Shape:
    page_size = chance.choices([100, 20], [80, 20])[0]
    pages = chance.choices([chance.randint(1, 5), chance.randint(5, 30)], [20, 80])[0]
    return Shape(
        session_count=max(1, pages * page_size - chance.randint(0, page_size - 1)),
        page_size=page_size,
        in_flight=chance.choice([1, 4, 4, 16, 16, 32]),
        latency_s=chance.choice([0.01, 0.04, 0.1, 0.4]),
        straggler_share=chance.choice([0.0, 0.05]),
        spacing_ms=chance.choice([10_000, 60_000]),
    )


def hourly(per_hour: float, *, burst: int = 1) -> Flow:
    return Flow(per_s=per_hour / HOUR_S, burst=burst)


def growth(chance: random.Random, shape: Shape) -> Settings:
    """New sessions between two runs, at times as many expire."""
    flow = hourly(chance.choice([0, 5, 30, 150]), burst=chance.choice([1, 1, 5]))
    form = chance.choice(["grows", "grows", "turns over", "count"])
    if form == "turns over":
        return {"insertions": flow, "expiries": flow}
    return {"insertions": flow} | ({"keep_count": shape.session_count} if form == "count" else {})


def nothing(_chance: random.Random, _shape: Shape) -> Settings:
    return {}


def ends(chance: random.Random, shape: Shape) -> Settings:
    run_s = chance.choice([60.0, 600.0, HOUR_S])
    return {"run_s": run_s, "max_run_s": run_s * chance.choice([1, 3, 10])}


def settles(chance: random.Random, shape: Shape) -> Settings:
    return ends(chance, shape) | {"settle_s": chance.choice([120.0, 1_200.0])}


def odd_states(chance: random.Random, shape: Shape) -> Settings:
    return ends(chance, shape) | {"odd_states": chance.choice([0.02, 0.2])}


def deletion_an_hour(chance: random.Random, shape: Shape) -> Settings:
    return {"deletions": hourly(1)}


def deletions(chance: random.Random, shape: Shape) -> Settings:
    return {"deletions": hourly(chance.choice([5, 50]))}


def late_show(chance: random.Random, shape: Shape) -> Settings:
    flow = hourly(chance.choice([60, 600, 3_600]))
    return {"late": LateShow(share=chance.choice([0.2, 0.5]), lag_s=2.0), "insertions": flow}


def replicas(chance: random.Random, shape: Shape) -> Settings:
    flow = Flow(per_s=chance.choice([0.05, 0.5, 3.0]), burst=chance.choice([1, shape.page_size]))
    return {"replicas": chance.choice([(0.0, 3.0), (3.0, 0.0), (0.0, 1.0, 3.0)])} | {
        "insertions": flow,
        "keep_count": shape.session_count,
    }


def total_elsewhere(chance: random.Random, shape: Shape) -> Settings:
    return replicas(chance, shape) | {"total_of_any_replica": True}


def backdated(chance: random.Random, shape: Shape) -> Settings:
    backdating = Backdating(
        share=chance.choice([0.02, 0.1]),
        by_s=chance.choice([60.0, HOUR_S, 24 * HOUR_S]),
        in_place=chance.random() < 0.7,
    )
    return {"backdating": backdating, "insertions": hourly(chance.choice([20, 100]))}


def backdated_while_expiring(chance: random.Random, shape: Shape) -> Settings:
    return backdated(chance, shape) | {"keep_count": shape.session_count}


def cleanups(chance: random.Random, shape: Shape) -> Settings:
    cleanup = Cleanup(
        at_s=HOUR_S * chance.uniform(0.0, 3.0),
        count=max(1, round(shape.session_count * chance.uniform(0.02, 0.3))),
        place=chance.choice(list(Place)),
        every_s=chance.choice([None, 2 * HOUR_S]),
    )
    return {"cleanups": (cleanup,)}


def expiry_at_once(chance: random.Random, shape: Shape) -> Settings:
    return {
        "cleanups": (
            Cleanup(at_s=60.0, count=shape.page_size, place=Place.END, every_s=2 * HOUR_S),
        )
    }


def total_cap(chance: random.Random, shape: Shape) -> Settings:
    cap = round(shape.session_count * chance.uniform(0.3, 1.0))
    return {"total_cap": max(shape.page_size, cap - cap % shape.page_size)}


def total_lag(chance: random.Random, shape: Shape) -> Settings:
    return chance.choice(
        [{"total_lag_s": 600.0}, {"total_lag_changes": 5}, {"total_lag_changes": shape.page_size}]
    )


def total_cache(chance: random.Random, shape: Shape) -> Settings:
    return {"total_cache_s": chance.choice([60.0, HOUR_S])}


def bursts(chance: random.Random, shape: Shape) -> Settings:
    return {"insertions": hourly(400, burst=chance.choice([50, 200]))}


def busy(chance: random.Random, shape: Shape) -> Settings:
    """It moves while it is read, too."""
    flow = Flow(per_s=chance.choice([0.5, 5.0]))
    return {"insertions": flow, "keep_count": shape.session_count, "deletions": hourly(10)}


def ties(chance: random.Random, shape: Shape) -> Settings:
    return {"tie_size": chance.choice([3, 9])}


def coarse_times(chance: random.Random, shape: Shape) -> Settings:
    return {"time_step_ms": chance.choice([1_000, 60_000])}


def timeless(chance: random.Random, shape: Shape) -> Settings:
    form = chance.choice([TimeForm.MISSING, TimeForm.NULL, TimeForm.TEXT])
    return {"timeless": Timeless(share=0.02, form=form)}


def empty_answers(chance: random.Random, shape: Shape) -> Settings:
    fault = PageFault(
        rate=chance.choice([0.02, 0.1]), zero_total=chance.random() < 0.7, spares_next=True
    )
    return {"page_faults": (fault,)}


def short_answers(chance: random.Random, shape: Shape) -> Settings:
    return {"page_faults": (PageFault(rate=0.05, missing_count=chance.choice([1, 3, 30])),)}


def doubled_rows(chance: random.Random, shape: Shape) -> Settings:
    return {"doubled_rows": (DoubledRow(rate=0.05),)}


def page_caps(chance: random.Random, shape: Shape) -> Settings:
    return {"page_cap": shape.page_size // 2}


def page_cache(chance: random.Random, shape: Shape) -> Settings:
    return {"page_cache_s": chance.choice([1.0, 60.0])}


def turned_over(chance: random.Random, shape: Shape) -> Settings:
    """Hardly any session of the last run is left in the next."""
    return {"insertions": hourly(20 * shape.page_size), "keep_count": 2 * shape.page_size}


def begun_anew(chance: random.Random, shape: Shape) -> Settings:
    cleanup = Cleanup(at_s=HOUR_S * chance.uniform(0.2, 3), count=10**6, every_s=5 * HOUR_S)
    return {"cleanups": (cleanup,), "insertions": hourly(chance.choice([30, 300]))}


def swaps(chance: random.Random, shape: Shape) -> Settings:
    """As many sessions go as come, both anywhere: the total stays what it is."""
    flow = hourly(chance.choice([1, 10]))
    span_s = shape.session_count * shape.spacing_ms / 1000
    return {
        "insertions": flow,
        "deletions": flow,
        "backdating": Backdating(share=1.0, by_s=span_s),
    }


def history_import(chance: random.Random, shape: Shape) -> Settings:
    span_s = shape.session_count * shape.spacing_ms / 1000
    return {
        "insertions": hourly(100, burst=chance.choice([1, 50])),
        "backdating": Backdating(share=chance.choice([0.5, 1.0]), by_s=3 * span_s),
    }


def noisy_times(chance: random.Random, shape: Shape) -> Settings:
    by_s = shape.spacing_ms / 1000 * chance.choice([2, 10]) * chance.choice([1, -1])
    return {"backdating": Backdating(share=0.5, by_s=by_s, in_place=False)}


def twins(chance: random.Random, shape: Shape) -> Settings:
    return {"twins": chance.choice([0.01, 0.1])}


def last_page_again(chance: random.Random, shape: Shape) -> Settings:
    return {"last_page_again": True}


def oldest_first(chance: random.Random, shape: Shape) -> Settings:
    return {"order": Order.OLDEST_FIRST}


def end_order(chance: random.Random, shape: Shape) -> Settings:
    return ends(chance, shape) | {
        "order_by": OrderBy.END,
        "running_last": chance.random() < 0.5,
    }


def update_order(chance: random.Random, shape: Shape) -> Settings:
    return ends(chance, shape) | {"order_by": OrderBy.UPDATE}


SEQUENCES = (
    SequenceKind("runs: nothing else", nothing, max_full=0.0, mixes=False),
    SequenceKind("runs: sessions end", ends, max_full=0.0),
    SequenceKind("runs: cuHours settle", settles, max_full=0.0),
    SequenceKind("runs: odd states", odd_states, max_full=0.0),
    SequenceKind("runs: a deletion an hour", deletion_an_hour, max_full=0.05),
    SequenceKind("runs: deletions", deletions),
    SequenceKind("runs: shown late", late_show, max_full=0.1),
    SequenceKind("runs: replicas", replicas),
    SequenceKind("runs: total of another copy", total_elsewhere),
    SequenceKind("runs: back-dated", backdated),
    SequenceKind("runs: back-dated, expiring", backdated_while_expiring, mixes=False),
    SequenceKind("runs: cleanup", cleanups),
    SequenceKind("runs: expiry at once", expiry_at_once),
    SequenceKind("runs: total capped", total_cap),
    SequenceKind("runs: total lags", total_lag),
    SequenceKind("runs: total cached", total_cache),
    SequenceKind("runs: bursts", bursts, max_full=0.05),
    SequenceKind("runs: busy", busy),
    SequenceKind("runs: ties", ties),
    SequenceKind("runs: coarse times", coarse_times, max_full=0.05),
    SequenceKind("runs: some timeless", timeless),
    SequenceKind("runs: empty answers", empty_answers),
    SequenceKind("runs: short answers", short_answers),
    SequenceKind("runs: doubled rows", doubled_rows),
    SequenceKind("runs: pages capped", page_caps, max_full=0.05),
    SequenceKind("runs: pages cached", page_cache),
    SequenceKind("runs: page sizes differ", nothing, mixes=False, resizes=True),
    SequenceKind("runs: turned over", turned_over, mixes=False),
    SequenceKind("runs: begun anew", begun_anew, mixes=False),
    SequenceKind("runs: swaps in the middle", swaps, mixes=False, beyond=True),
    SequenceKind("runs: history import", history_import, mixes=False),
    SequenceKind("runs: noisy times", noisy_times),
    SequenceKind("runs: rows twice for good", twins),
    SequenceKind("runs: last page again", last_page_again),
    SequenceKind("runs: oldest first", oldest_first, mixes=False),
    SequenceKind("runs: by end time", end_order, mixes=False),
    SequenceKind("runs: by update time", update_order, mixes=False),
)

MIXABLE = tuple(kind for kind in SEQUENCES if kind.mixes)


def mixture(chance: random.Random, shape: Shape) -> Settings:
    """Two or three kinds at once."""
    found: Settings = {}
    for kind in chance.sample(MIXABLE, chance.choice([2, 2, 3])):
        found = merge(found, kind.draw(chance, shape))
    return found


SEQUENCES_BY_NAME: Mapping[str, SequenceKind] = {
    kind.name: kind
    for kind in (*SEQUENCES, SequenceKind("runs: mixture", mixture, mixes=False, beyond=True))
}


def draw_sequence(kind: SequenceKind, seed: int) -> Sequence:
    chance = random.Random(f"{kind.name}/{seed}")  # noqa: S311 - no secret
    shape = draw_shape(chance)
    settings = merge(kind.draw(chance, shape), growth(chance, shape))
    pace_s = chance.choice([30.0, 600.0, HOUR_S, HOUR_S])
    pauses = [pace_s * chance.uniform(0.1, 2.0) for _ in range(chance.randint(4, 9))]
    churn: Churn = build_churn(settings)
    sizes = [shape.page_size] * (len(pauses) + 1)
    if kind.resizes:
        sizes = [chance.choice([100, 50, 37, 20, 7]) for _ in sizes]
    return Sequence(Case(shape, churn), tuple(pauses), tuple(sizes))
