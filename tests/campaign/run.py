"""Many listings of lists and servers of all kinds, judged against what was owed.

`python -m tests.campaign.run` prints a table; 1 when a goal is missed. `--kind NAME --seed S
--trace` shows one listing, or one sequence of runs, answer by answer.
"""

import argparse
import sys
from collections.abc import Iterator
from multiprocessing import get_context

from tests.campaign.kinds import KINDS_BY_NAME, describe_case, draw_case
from tests.campaign.listings import Judgement, judge_listing
from tests.campaign.runs import judge_sequence
from tests.campaign.sequences import SEQUENCES_BY_NAME, draw_sequence
from tests.campaign.table import collect, describe_judgement, print_failures, print_tables
from tests.campaign.wire import print_trace

MEAN_RUNS = 7.5
"""Of a sequence."""
SEEDS_AT_ONCE = 10

Chunk = tuple[str, int, int]
"""A kind, its first seed, and the seed to stop before."""


def plan(
    names: list[str], *, listing_count: int, run_count: int, first_seed: int
) -> Iterator[Chunk]:
    """As many of each kind, all kinds mixed so that an early end has seen each of them."""
    listings = [name for name in names if name in KINDS_BY_NAME]
    sequences = [name for name in names if name in SEQUENCES_BY_NAME]
    counts = {name: -(-listing_count // len(listings)) for name in listings}
    counts |= {name: -(-int(run_count / MEAN_RUNS) // len(sequences)) for name in sequences}
    for start in range(0, max(counts.values(), default=0), SEEDS_AT_ONCE):
        for name, count in counts.items():
            stop = min(start + SEEDS_AT_ONCE, count)
            if start < stop:
                yield name, first_seed + start, first_seed + stop


def judge_chunk(chunk: Chunk) -> list[Judgement]:
    name, start, stop = chunk
    return [judgement for seed in range(start, stop) for judgement in judge(name, seed)]


def judge(name: str, seed: int) -> Iterator[Judgement]:
    if name in KINDS_BY_NAME:
        yield judge_listing(name, seed)
    else:
        yield from judge_sequence(name, seed)


def judge_all(chunks: list[Chunk], *, jobs: int) -> Iterator[Judgement]:
    if jobs == 1:
        for chunk in chunks:
            yield from judge_chunk(chunk)
        return
    with get_context("spawn").Pool(jobs) as pool:
        for judgements in pool.imap_unordered(judge_chunk, chunks):
            yield from judgements


def trace(name: str, seed: int) -> int:
    if name in KINDS_BY_NAME:
        print(describe_case(draw_case(KINDS_BY_NAME[name], seed)))
        judged = [judge_listing(name, seed, trace=print_trace)]
    else:
        print(describe_case(draw_sequence(SEQUENCES_BY_NAME[name], seed).case))
        judged = []
        for each in judge_sequence(name, seed, trace=print_trace):
            print(f"-- run {len(judged) + 1}: {describe_judgement(each)}")
            judged.append(each)
    print(describe_judgement(judged[-1]))
    return int(any(each.is_wrong for each in judged))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--listings", type=int, help="full listings, of all kinds together")
    parser.add_argument("--runs", type=int, help="incremental runs, of all kinds together")
    parser.add_argument(
        "--kind", action="append", choices=[*KINDS_BY_NAME, *SEQUENCES_BY_NAME], metavar="NAME"
    )
    parser.add_argument("--seed", type=int, default=1, help="the first one of each kind")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--show", type=int, default=2, help="failures shown of each kind")
    parser.add_argument("--each", action="store_true", help="a row for each kind with --since, too")
    parser.add_argument("--unproven", action="store_true", help="tell of those, too, and why")
    parser.add_argument("--trace", action="store_true", help="one seed of one kind, each answer")
    args = parser.parse_args()
    names: list[str] = args.kind or [*KINDS_BY_NAME, *SEQUENCES_BY_NAME]
    if args.trace:
        return max([trace(name, args.seed) for name in names])
    none_given = args.listings is None and args.runs is None
    chunks = plan(
        names,
        listing_count=4_000 if none_given else args.listings or 0,
        run_count=2_000 if none_given else args.runs or 0,
        first_seed=args.seed,
    )
    tallies = collect(judge_all(list(chunks), jobs=args.jobs))
    print_tables(tallies, each=args.each or args.kind is not None)
    print_failures(tallies, most=args.show, unproven=args.unproven)
    return int(any(tally.misses() for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
