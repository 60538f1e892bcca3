"""Sums judgements up by kind, and finds the goals that are missed."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from math import sqrt
from statistics import fmean

from tests.campaign.kinds import KINDS_BY_NAME, Kind
from tests.campaign.listings import Judgement
from tests.campaign.sequences import SEQUENCES_BY_NAME, SequenceKind

MAX_UNPROVEN = 0.02
MAX_COST = 4.0
MIN_PAGES = 10
"""Requests of a shorter list may exceed its pages by `MAX_BESIDES`."""
MAX_BESIDES = 24
"""Requests that a listing of a shorter list may take beyond `MAX_COST` times its pages."""


@dataclass(slots=True)
class Tally:
    """Of one kind."""

    name: str
    count: int = 0
    unproven_count: int = 0
    full_count: int = 0
    unnoticed_count: int = 0
    false_count: int = 0
    doubled_count: int = 0
    foreign_count: int = 0
    trouble_count: int = 0
    over_count: int = 0
    """Short lists that took too many requests."""
    costs: list[float] = field(default_factory=list)
    requests: list[int] = field(default_factory=list)
    wrong: list[Judgement] = field(default_factory=list)
    costly: list[Judgement] = field(default_factory=list)
    unproven: list[Judgement] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    """Of several kinds summed up."""

    def add(self, judgement: Judgement) -> None:
        self.count += 1
        self.unproven_count += judgement.is_unproven
        self.full_count += judgement.fell_back
        self.unnoticed_count += judgement.unnoticed_count > 0
        self.false_count += judgement.is_false
        self.doubled_count += judgement.doubled_count > 0
        self.foreign_count += judgement.foreign_count > 0
        self.trouble_count += judgement.trouble != ""
        self.requests.append(judgement.request_count)
        if judgement.because:
            self.reasons[judgement.because] += 1
        if judgement.page_count >= MIN_PAGES:
            self.costs.append(judgement.cost)
        page_count = max(judgement.page_count, judgement.whole_page_count)
        # A run that falls back to a full listing has spent requests before.
        is_excused = page_count < MIN_PAGES or judgement.fell_back
        besides = MAX_BESIDES if is_excused else 0
        if judgement.request_count > MAX_COST * page_count + besides:
            self.over_count += page_count < MIN_PAGES
            self.costly.append(judgement)
        if judgement.is_wrong:
            self.wrong.append(judgement)
        elif judgement.is_unproven:
            self.unproven.append(judgement)

    @property
    def mean(self) -> float:
        return fmean(self.costs) if self.costs else 0.0

    @property
    def worst(self) -> float:
        return max(self.costs, default=0.0)

    def traits(self) -> list[str]:
        """Why some goals do not apply to the kind."""
        kind = KINDS_BY_NAME.get(self.name) or SEQUENCES_BY_NAME.get(self.name)
        if isinstance(kind, Kind) and kind.misleads:
            return ["misleads"]
        if kind is not None and kind.impossible:
            return ["unprovable"]
        return ["beyond"] if kind is not None and kind.beyond else []

    def misses(self) -> list[str]:
        """The goals that are missed."""
        kind = KINDS_BY_NAME.get(self.name) or SEQUENCES_BY_NAME.get(self.name)
        if kind is None:
            return self.missed
        found = []
        misleads = isinstance(kind, Kind) and kind.misleads
        if any(each.is_wrong and not (misleads and each.is_false) for each in self.wrong):
            found.append("wrong")
        if kind.beyond or misleads:
            return found
        if self.unproven_count > find_max_unproven(self.count) and not kind.impossible:
            found.append("exit 4")
        # Of a part, single kinds of servers may make the whole list be read.
        if isinstance(kind, Kind) and self.mean > kind.max_mean and not kind.has_since:
            found.append("mean")
        if self.costly and not kind.impossible:
            found.append("worst")
        if (
            isinstance(kind, SequenceKind)
            and kind.max_full is not None
            and self.full_count > kind.max_full * self.count
        ):
            found.append("full runs")
        return found


def find_max_unproven(count: int) -> float:
    """The goal for `count` listings and two standard deviations, which may be chance."""
    expected = MAX_UNPROVEN * count
    return expected + 2 * sqrt(expected)


def collect(judgements: Iterable[Judgement]) -> dict[str, Tally]:
    tallies: dict[str, Tally] = {}
    for judgement in judgements:
        tallies.setdefault(judgement.kind, Tally(judgement.kind)).add(judgement)
    return tallies


def sum_up(tallies: list[Tally]) -> Tally:
    """All kinds of listings of a part of the list as one."""
    whole = Tally("the others of these with `--since`")
    for tally in tallies:
        for name in (each.name for each in fields(Tally) if each.name != "name"):
            setattr(whole, name, getattr(whole, name) + getattr(tally, name))
        whole.missed += [each for each in tally.misses() if each not in whole.missed]
    return whole


def print_tables(tallies: dict[str, Tally], *, each: bool) -> None:
    order = [*KINDS_BY_NAME, *SEQUENCES_BY_NAME]
    in_order = sorted(tallies.values(), key=lambda tally: order.index(tally.name))
    listings = [tally for tally in in_order if tally.name in KINDS_BY_NAME]
    runs = [tally for tally in in_order if tally.name in SEQUENCES_BY_NAME]
    if not each:
        parts = [
            tally
            for tally in listings
            if KINDS_BY_NAME[tally.name].has_since and not KINDS_BY_NAME[tally.name].misleads
        ]
        listings = [tally for tally in listings if tally not in parts]
        listings += [sum_up(parts)] if parts else []
    if listings:
        print_table("listings", listings, full=False)
    if runs:
        print_table("runs", runs, full=True)


def print_table(noun: str, tallies: list[Tally], *, full: bool) -> None:
    print(
        f"| kind | {noun} | false proofs | exit 4 | requests, relative to the pages: mean (worst)"
        f" |{' full runs | requests a run | not noticed |' if full else ''} doubled | |"
    )
    print("| --- " * (10 if full else 7) + "|")
    for tally in tallies:
        runs = (
            f" {share(tally.full_count, tally.count)} | {fmean(tally.requests):.1f} |"
            f" {tally.unnoticed_count} |"
            if full
            else ""
        )
        print(
            f"| {tally.name} | {tally.count:,} | {tally.false_count}"
            f" | {share(tally.unproven_count, tally.count)}"
            f" | {tally.mean:.2f} ({tally.worst:.1f}) |{runs}"
            f" {tally.doubled_count} | {', '.join([*tally.traits(), *tally.misses()])} |"
        )
    count = sum(tally.count for tally in tallies)
    false_count = sum(tally.false_count for tally in tallies)
    doubled_count = sum(tally.doubled_count for tally in tallies)
    unproven = share(sum(tally.unproven_count for tally in tallies), count)
    costs = [cost for tally in tallies for cost in tally.costs] or [0.0]
    runs = (
        f" {share(sum(tally.full_count for tally in tallies), count)}"
        f" | {fmean(each for tally in tallies for each in tally.requests):.1f} |"
        f" {sum(tally.unnoticed_count for tally in tallies)} |"
        if full
        else ""
    )
    print(
        f"| *all* | {count:,} | {false_count} | {unproven}"
        f" | {fmean(costs):.2f} ({max(costs):.1f}) |{runs} {doubled_count} | |\n"
    )


def share(part: int, whole: int) -> str:
    return f"{100 * part / max(1, whole):.1f} %"


def print_failures(tallies: dict[str, Tally], *, most: int, unproven: bool) -> None:
    """Print the first failures, each with the command that repeats it."""
    for tally in tallies.values():
        kind = KINDS_BY_NAME.get(tally.name) or SEQUENCES_BY_NAME[tally.name]
        shown = tally.wrong[: most if unproven or "wrong" in tally.misses() else 0]
        if unproven or not kind.beyond:
            shown += tally.costly[: most if unproven or "worst" in tally.misses() else 0]
            shown += tally.unproven[: most if unproven or "exit 4" in tally.misses() else 0]
        for each in shown:
            print(
                f"{describe_judgement(each)}\n    python -m tests.campaign.run --kind '{each.kind}'"
                f" --seed {each.seed} --trace"
            )
        if unproven:
            for reason, count in tally.reasons.most_common(5):
                print(f"    {tally.name}: {count} x {reason}")


def describe_judgement(each: Judgement) -> str:
    counts = {
        "lost": each.lost_count,
        "stale": each.stale_count,
        "doubled": each.doubled_count,
        "foreign": each.foreign_count,
        "not noticed": each.unnoticed_count,
    }
    parts = [f"{name} {count}" for name, count in counts.items() if count > 0]
    parts += ["such as " + " ".join(each.examples)] if each.examples else []
    parts += [f"{each.request_count} requests for {each.page_count} pages"]
    parts += [each.trouble] if each.trouble else []
    parts += [f"because {each.because}"] if each.because else []
    return f"{each.kind}, seed {each.seed}: {each.proof}, {', '.join(parts)}"
