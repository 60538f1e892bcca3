"""Writers of a Paimon table that are killed at random moments of their publish."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from exporter.tables.interface import TableRequest
from exporter.tables.paimon import PaimonTable, open_table

ROOT = Path(__file__).parents[2]
LONGEST_S = 0.15
"""Most publishes of so many rows have ended by then."""


def read_states(table: PaimonTable) -> dict[str, str]:
    rows = [row for each in table.read_columns(["session_id", "state"]) for row in each.to_pylist()]
    states = {row["session_id"]: row["state"] for row in rows}
    assert len(states) == len(rows)
    return states


def publish_until(delay_s: float | None, *arguments: str) -> None:
    """Let a writer publish, or kill it so many seconds after it has begun to."""
    command = [sys.executable, "-m", "tests.paimon_writer", *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "publishing\n"
        if delay_s is not None:
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
    assert process.returncode in {0, -signal.SIGKILL}


def run_campaign(folder: Path, *, kill_count: int, seed: int) -> tuple[int, int]:
    """Kill so many writers; how many had committed, and how many not."""
    chance = random.Random(seed)  # noqa: S311 - the same moments each time
    model: dict[str, str] = {}
    committed_count = 0
    for number in range(kill_count):
        mode = chance.choice(["replace", "upsert", "upsert"])
        first = chance.randrange(2_000)
        state, end = f"state-{number}", first + chance.randrange(1, 2_000)
        delay_s = chance.random() * LONGEST_S
        run = (str(folder), mode, f"run-{number}", state, str(first), str(end))
        rows = {f"livy-{each}": state for each in range(first, end)}

        publish_until(delay_s, *run)

        table = open_table(TableRequest(output=str(folder)))
        if table.find_commit(f"run-{number}") is not None:
            committed_count += 1
            model = rows if mode == "replace" else model | rows
            publish_until(None, *run)  # which changes nothing
        assert read_states(table) == model
    return committed_count, kill_count - committed_count


def test_killed_writer_has_committed_all_or_nothing(tmp_path: Path) -> None:
    ends = run_campaign(tmp_path / "warehouse" / "ops.db" / "sessions", kill_count=6, seed=1)

    assert sum(ends) == 6


@pytest.mark.soak
def test_hundred_killed_writers(tmp_path: Path) -> None:
    ends = run_campaign(tmp_path / "warehouse" / "ops.db" / "sessions", kill_count=100, seed=2)

    print("committed, not:", ends)
    assert min(ends) > 0
