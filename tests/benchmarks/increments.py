"""What an incremental run costs in requests, in a list of 20,000 sessions (a bulk run asks 201).

`python -m tests.benchmarks.increments` prints a table.
"""

from collections.abc import Sequence

from exporter.listing.increment import Increment
from tests.simulation import GATEWAY, HeldList

SESSIONS = 20_000
NEAR_HEAD = range(0, 60, 2)
SPREAD = range(300, SESSIONS, SESSIONS // 30)


def count_requests(*, new_count: int, unfinished: Sequence[int], settle: bool) -> tuple[int, int]:
    """Of a second run, and the sessions that left it."""
    held = HeldList(SESSIONS)
    held.set_state(unfinished, "running")
    first = Increment(GATEWAY, None, page_size=100)
    held.read(first)
    held.insert(new_count)
    if settle:
        held.set_state([place + new_count for place in unfinished], "terminated")
    second = Increment(GATEWAY, first.known, page_size=100)
    rows = held.read(second)
    return second.asked_count, len(rows)


KINDS = (
    ("nothing new, nothing unfinished", 0, (), False),
    ("nothing new, 30 unfinished near the head", 0, NEAR_HEAD, False),
    ("nothing new, 30 unfinished all over the list", 0, SPREAD, False),
    ("150 new, 30 settled near the head", 150, NEAR_HEAD, True),
    ("150 new, 30 settled all over the list", 150, SPREAD, True),
)


def main() -> None:
    print("| second run | requests | sessions |\n| --- | --- | --- |")
    for name, new_count, unfinished, settle in KINDS:
        requests, rows = count_requests(new_count=new_count, unfinished=unfinished, settle=settle)
        print(f"| {name} | {requests} | {rows} |")


if __name__ == "__main__":
    main()
