"""The program against moving lists and misleading answers, over a real connection."""

import json
from collections import Counter
from pathlib import Path

import pytest

from exporter.emulator.churn import Churn, Flow, Order, PageFault
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from tests.support.program import Program, environ_for, serving

SESSION_COUNT = 3_000
CHURNS = {
    "quiet": Churn(),
    "insertions": Churn(insertions=Flow(per_s=50)),
    "retention": Churn(insertions=Flow(per_s=30), expiries=Flow(per_s=30)),
    "retention by count": Churn(insertions=Flow(per_s=30), keep_count=SESSION_COUNT),
    "deletions": Churn(insertions=Flow(per_s=20), deletions=Flow(per_s=30)),
    "ties": Churn(tie_size=9),
    "ties and insertions": Churn(tie_size=9, insertions=Flow(per_s=20)),
    "oldest first": Churn(
        order=Order.OLDEST_FIRST, insertions=Flow(per_s=20), deletions=Flow(per_s=20)
    ),
    "no order": Churn(order=Order.UNORDERED),
    "total behind": Churn(insertions=Flow(per_s=20), total_lag_changes=3),
    "short pages": Churn(page_faults=(PageFault(missing_count=1, rate=0.05),)),
    "empty pages": Churn(page_faults=(PageFault(page_nums=(7,)),), null_when_empty=True),
    "capped pages": Churn(insertions=Flow(per_s=20), page_cap=50),
}


@pytest.fixture(params=CHURNS)
def churn(request: pytest.FixtureRequest) -> Churn:
    return CHURNS[request.param]


def build_scenario(churn: Churn) -> Scenario:
    gateway = EmulatedGateway(
        gateway_id="lc-1", name="one", session_count=SESSION_COUNT, churn=churn
    )
    return Scenario(
        seed=3,
        latency_s=0.02,
        jitter_s=0.02,
        workspaces=(EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,)),),
    )


def test_every_session_owed_is_in_the_output_once(churn: Churn, tmp_path: Path) -> None:
    with serving(build_scenario(churn)) as emulator:
        program = Program(tmp_path, environ_for(emulator, tmp_path))
        ended = program.run(
            "export", "--workspace", "w-1", "-o", "out.ndjson", "--concurrency", "8"
        )
        truth = emulator.truth("w-1", "lc-1")

    assert ended.code == 0, ended.stderr
    lines = (tmp_path / "out.ndjson").read_text(encoding="utf-8").splitlines()
    seen = Counter(json.loads(line)["sessionId"] for line in lines)
    (entry,) = json.loads((tmp_path / "out.ndjson.manifest.json").read_bytes())["gateways"]
    assert not truth.lost(seen)
    assert not truth.foreign(seen)
    assert max(seen.values()) == 1
    assert entry["proof"] != "unproven"
    assert entry["session_count"] == len(seen)
    assert entry["page_count"] == truth.answer_count


def test_listing_without_proof_ends_with_its_own_code_and_publishes_nothing(
    tmp_path: Path,
) -> None:
    scenario = build_scenario(Churn(tie_size=10**6, deletions=Flow(per_s=100)))
    with serving(scenario) as emulator:
        program = Program(tmp_path, environ_for(emulator, tmp_path))
        refused = program.run("export", "--workspace", "w-1", "-o", "out.ndjson")
        published = program.listing()
        allowed = program.run("export", "--workspace", "w-1", "-o", "-", "--allow-incomplete")

    assert refused.code == 4
    assert "the list changes its order, and two sweeps differ" in refused.stderr
    assert published == {}
    assert allowed.code == 0
    assert allowed.stdout.count("\n") > 0
