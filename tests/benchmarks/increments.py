"""What an incremental run costs in requests, in a list of 20,000 sessions (a bulk run asks 202)."""

import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from exporter.listing.incremental import IncrementalListing
from tests.benchmarks.measuring import EXPORTER, Row, emulator, read_stats, spread
from tests.support.simulation import GATEWAY, LATER, HeldList

SESSIONS = 20_000
PAGE_SIZE = 100
MAX_MORE = 3
"""Requests beyond the pages that hold something new or unfinished."""
NEAR_HEAD = range(0, 60, 2)
SPREAD = range(300, SESSIONS, SESSIONS // 30)

# 30 sessions run at the first request, and end within 3 s; 150 come after 4 s, and end likewise.
SCENARIO = f"""
session_spacing_s = 0.1
[[workspaces]]
workspace_id = "w-1"
name = "one"
[[workspaces.gateways]]
gateway_id = "lc-1"
name = "one"
session_count = {SESSIONS}
[workspaces.gateways.churn]
run_s = 3.0
insertions = {{per_s = 1000, burst = 150, limit = 150, start_s = 4.0}}
"""
SETTLED_S = 8.0


def count_requests(*, new_count: int, unfinished: Sequence[int], settle: bool) -> tuple[int, int]:
    """Of a second run, and the sessions that left it."""
    held = HeldList(SESSIONS)
    held.set_state(unfinished, "running")
    first = IncrementalListing(GATEWAY, None, page_size=PAGE_SIZE, watch=LATER)
    held.read(first)
    held.insert(new_count)
    if settle:
        held.set_state([place + new_count for place in unfinished], "terminated")
    second = IncrementalListing(GATEWAY, first.bookmark, page_size=PAGE_SIZE, watch=LATER)
    rows = held.read(second)
    return second.asked_count, len(rows)


def count_pages(*, new_count: int, unfinished: Sequence[int]) -> int:
    """That hold something new or unfinished."""
    places = [*range(new_count), *(place + new_count for place in unfinished)]
    return len({place // PAGE_SIZE for place in places})


KINDS = (
    ("nothing new, nothing unfinished", 0, (), False),
    ("nothing new, 30 unfinished near the head", 0, NEAR_HEAD, False),
    ("nothing new, 30 unfinished all over the list", 0, SPREAD, False),
    ("150 new, 30 settled near the head", 150, NEAR_HEAD, True),
    ("150 new, 30 settled all over the list", 150, SPREAD, True),
)


def benchmark_increments(runs: int, folder: Path) -> Iterator[Row]:
    """Requests of the run after a bulk run: of the listing alone, then of the whole program."""
    for name, new_count, unfinished, settle in KINDS:
        requests, rows = count_requests(new_count=new_count, unfinished=unfinished, settle=settle)
        pages = count_pages(new_count=new_count, unfinished=unfinished)
        yield Row(
            f"{name}: requests of the listing, simulated",
            f"{requests} ({rows} sessions)",
            f"at most {pages + MAX_MORE}",
        )
    second, third, walls = [], [], []
    scenario = folder / "scenario.toml"
    scenario.write_text(SCENARIO)
    for turn in range(runs):
        with emulator("--scenario", str(scenario)) as env:
            output = folder / f"sessions-{turn}"
            export(output, env)
            time.sleep(SETTLED_S)
            second.append(count_sent(output, env))
            started_s = time.perf_counter()
            third.append(count_sent(output, env))
            walls.append(time.perf_counter() - started_s)
    yield Row(
        "150 new, 30 settled near the head: requests of the whole program",
        f"{spread(second, '.0f')}, one of them for the gateway",
        f"at most {2 + MAX_MORE}, and that one",
    )
    yield Row(
        "nothing new: requests of the whole program",
        f"{spread(third, '.0f')}, one of them for the gateway",
        f"at most {MAX_MORE}, and that one",
    )
    yield Row("nothing new: wall", f"{spread(walls)} s")


def export(output: Path, environment: dict[str, str]) -> None:
    command = [*EXPORTER, "export", "--workspace", "w-1", "--incremental", "--output"]
    subprocess.run([*command, f"{output}/", "-q"], env=environment, check=True)


def count_sent(output: Path, environment: dict[str, str]) -> int:
    """Requests of one more run, as the emulator counts them: to reset it would reset its list."""
    before = orjson.loads(read_stats(environment))["request_count"]
    export(output, environment)
    count: int = orjson.loads(read_stats(environment))["request_count"] - before
    return count


BENCHMARKS = {"increments": benchmark_increments}
