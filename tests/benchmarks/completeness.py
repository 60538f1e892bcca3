"""What completeness costs in requests while a list moves, and what a plain loop loses then.

`python -m tests.benchmarks.completeness` prints a table, in simulated time: 20,000 sessions unless
it says otherwise, 16 requests in flight, 40 ms latency. Requests are relative to the pages.
"""

import argparse
import sys
from collections import Counter
from dataclasses import dataclass
from statistics import fmean

from exporter.emulator.churn import Churn, Flow, Order
from tests.support.simulation import build_list, read_in_full, read_naively

IN_FLIGHT = 16
LATENCY_S = 0.04


@dataclass(frozen=True, slots=True)
class Kind:
    name: str
    churn: Churn
    max_cost: float | None = None
    """Requests relative to the pages, at most; None: no promise."""
    session_count: int = 20_000


KINDS = (
    Kind("quiet", Churn(), 1.01),
    Kind("10 insertions/s", Churn(insertions=Flow(per_s=10)), 1.10),
    Kind("50 insertions/s", Churn(insertions=Flow(per_s=50)), 1.25),
    Kind(
        "retention, 10 + 10/s",
        Churn(insertions=Flow(per_s=10), expiries=Flow(per_s=10)),
        1.5,
    ),
    Kind("retention by count, 10/s", Churn(insertions=Flow(per_s=10), keep_count=20_000), 1.5),
    Kind(
        "deletions anywhere, 10 + 5/s",
        Churn(insertions=Flow(per_s=10), deletions=Flow(per_s=5)),
        1.6,
    ),
    Kind("shuffled ties of 9", Churn(tie_size=9), 2.5, 10_000),
    Kind("oldest first, quiet", Churn(order=Order.OLDEST_FIRST)),
    Kind(
        "oldest first, 10 + 10/s",
        Churn(order=Order.OLDEST_FIRST, insertions=Flow(per_s=10), expiries=Flow(per_s=10)),
    ),
    Kind("no order, quiet", Churn(order=Order.UNORDERED)),
)


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of churn, over all seeds."""

    kind: Kind
    cost: float
    worst_cost: float
    lost_count: int
    doubled_count: int
    foreign_count: int
    proofs: Counter[str]
    naive_lost: tuple[int, int]
    """Least and most in a run."""
    naive_doubled: tuple[int, int]


def measure(kind: Kind, *, seeds: int) -> Row:
    pages = -(-kind.session_count // 100)
    known = {"in_flight": IN_FLIGHT, "latency_s": LATENCY_S}
    ours, naive = [], []
    for seed in range(seeds):
        sessions = build_list(kind.churn, kind.session_count, seed=seed)
        ours.append(read_in_full(sessions, seed=seed, **known))  # type: ignore[arg-type]  # of two types
        sessions.restart()
        naive.append(read_naively(sessions, seed=seed, **known))  # type: ignore[arg-type]  # of two types
    lost = [each.lost_count for each in naive]
    doubled = [each.doubled_count for each in naive]
    return Row(
        kind,
        cost=fmean(each.request_count for each in ours) / pages,
        worst_cost=max(each.request_count for each in ours) / pages,
        lost_count=sum(each.lost_count for each in ours),
        doubled_count=sum(each.doubled_count for each in ours),
        foreign_count=sum(each.foreign_count for each in ours),
        proofs=Counter(each.facts.proof for each in ours if each.facts is not None),
        naive_lost=(min(lost), max(lost)),
        naive_doubled=(min(doubled), max(doubled)),
    )


def main() -> int:
    """Prints the table; 1 when a kind of churn costs more than promised, or loses a session."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=20)
    seeds = parser.parse_args().seeds
    print("| churn | cost (worst) | lost | doubled | proofs | plain loop lost | doubled |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    broken = 0
    for kind in KINDS:
        row = measure(kind, seeds=seeds)
        costs_more = kind.max_cost is not None and row.cost > kind.max_cost
        broken += costs_more or row.lost_count + row.doubled_count + row.foreign_count > 0
        proofs = ", ".join(f"{count} {proof}" for proof, count in row.proofs.most_common())
        print(
            f"| {kind.name} | {row.cost:.3f} ({row.worst_cost:.3f}) | {row.lost_count}"
            f" | {row.doubled_count + row.foreign_count} | {proofs}"
            f" | {row.naive_lost[0]}-{row.naive_lost[1]}"
            f" | {row.naive_doubled[0]}-{row.naive_doubled[1]} |",
            flush=True,
        )
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
