"""What the journal costs, and what it saves a run after a kill."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from tests.benchmarks.measuring import (
    GATEWAY,
    WORKSPACE,
    Row,
    emulator,
    measure,
    read_stats,
    reset,
    spread,
)

SESSIONS = 200_000
READING = [sys.executable, "-m", "tests.support.journals", WORKSPACE, GATEWAY]


def read(environment: dict[str, str], *flags: str) -> dict[str, Any]:
    """Read in a process of its own; what it said, empty if it was killed."""
    ended = subprocess.run([*READING, *flags], env=environment, stdout=subprocess.PIPE, check=False)
    said: dict[str, Any] = orjson.loads(ended.stdout or b"{}")
    return said


def benchmark_journal(runs: int, folder: Path) -> Iterator[Row]:
    """CPU of a listing with a journal against one without, in turn; nothing is written else."""
    journal = ("--journal", str(folder / "journal"))
    with_it, without, ratios, walls, pages = [], [], [], [], SESSIONS / 100
    with emulator("--sessions", str(SESSIONS), "--gateways", "1", "--latency", "10ms") as env:
        for turn in range(runs + 1):
            a = measure([*READING, *journal], env)
            b = measure(READING, env)
            if turn > 0:
                with_it.append(a.cpu_s)
                without.append(b.cpu_s)
                ratios.append(a.cpu_s / b.cpu_s)
                walls.append(a.wall_s / b.wall_s)
        outcome = read(env, *journal)
    cost_ms = [1000 * (a - b) / pages for a, b in zip(with_it, without, strict=True)]
    yield Row(f"{SESSIONS:,} sessions read and dropped, CPU", f"{spread(without)} s")
    yield Row("with a journal", f"{spread(with_it)} s")
    yield Row("ratio of the two, pair by pair", spread(ratios))
    yield Row("ratio of the wall times", spread(walls))
    yield Row("journal, CPU a page of 100", f"{spread(cost_ms, '.3f')} ms")
    size = outcome["journal_bytes"] / SESSIONS
    yield Row("journal on disk", f"{size:.0f} bytes a session")


def benchmark_resume(runs: int, folder: Path) -> Iterator[Row]:
    """A run killed at 50 % of 200 pages, and the run after it."""
    journal = ("--journal", str(folder / "journal"))
    requests, again = [], []
    with emulator("--sessions", "20000", "--gateways", "1", "--latency", "10ms") as env:
        for _ in range(runs):
            read(env, *journal, "--die-at", "100")
            # What was in flight then is answered, to nobody.
            time.sleep(0.2)
            reset(env)
            outcome = read(env, *journal)
            stats = orjson.loads(read_stats(env))
            requests.append(stats["request_count"])
            again.append(100 - outcome["resumed_count"])
    measured = "200 pages, killed when 100 were read: requests of the next run"
    yield Row(measured, spread(requests, ".0f"), "at most 106: 100, 5 % of 100, and the sentinel")
    yield Row("finished pages asked for again", spread(again, ".0f"), "at most 5")


BENCHMARKS = {"journal": benchmark_journal, "resume": benchmark_resume}
