"""A listing in a process that is killed, and resumed by another one, over a real connection."""

import json
import signal
import sys
from collections import Counter
from pathlib import Path

import pytest

import exporter
from exporter.emulator.churn import Churn, Flow
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from tests.support.examples import thin_out
from tests.support.journals import CONCURRENCY
from tests.support.program import Program, environ_for, serving

SESSION_COUNT = 10_000
PAGE_COUNT = 100
CHURNS = {"quiet": Churn(), "insertions": Churn(insertions=Flow(per_s=50))}
COMMAND = (sys.executable, "-m", "tests.support.journals")


def build_scenario(churn: Churn) -> Scenario:
    gateway = EmulatedGateway(
        gateway_id="lc-1", name="one", session_count=SESSION_COUNT, churn=churn
    )
    return Scenario(
        seed=3,
        latency_s=0.01,
        jitter_s=0.01,
        workspaces=(EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,)),),
    )


@pytest.mark.parametrize("churn", CHURNS.values(), ids=CHURNS)
@pytest.mark.parametrize("die_at", thin_out([50, 1, 97], 3))
def test_process_that_is_killed_is_resumed_by_the_next(
    tmp_path: Path, churn: Churn, die_at: int
) -> None:
    flags = ("w-1", "lc-1", "--journal", str(tmp_path / "journal"))
    here = {"PYTHONPATH": str(Path(exporter.__file__).parents[1])}
    with serving(build_scenario(churn)) as emulator:
        program = Program(tmp_path, environ_for(emulator, tmp_path))
        killed = program.run(*flags, "--die-at", str(die_at), command=COMMAND, environ=here)
        resumed = program.run(*flags, "--ids", str(tmp_path / "ids"), command=COMMAND, environ=here)
        truth = emulator.truth("w-1", "lc-1")

    assert killed.code == -signal.SIGKILL
    assert resumed.code == 0, resumed.stderr
    outcome = json.loads(resumed.stdout)
    # The killed run had recorded the answer it died at.
    assert outcome["resumed_count"] >= die_at * 0.95 - CONCURRENCY
    if churn == Churn():
        assert outcome["read_count"] <= PAGE_COUNT + 1 - 0.95 * die_at + CONCURRENCY
        assert outcome["proof"] == "quiescent"
    seen = Counter((tmp_path / "ids").read_text().split())
    assert max(seen.values()) == 1
    assert not truth.lost(seen)
    assert not truth.foreign(seen)
    assert outcome["proof"] != "unproven"
    assert not (tmp_path / "journal").exists()
