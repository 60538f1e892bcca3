"""The program exports a time range of the history, over a real connection."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter.emulator.churn import Churn, Flow
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from tests.support.program import Program, environ_for, serving

SESSION_COUNT = 3_000
CHURNS = {
    "quiet": Churn(),
    "insertions": Churn(insertions=Flow(per_s=30)),
    "deletions": Churn(insertions=Flow(per_s=20), deletions=Flow(per_s=20)),
}


def build_scenario(churn: Churn) -> Scenario:
    gateway = EmulatedGateway(
        gateway_id="lc-1", name="one", session_count=SESSION_COUNT, churn=churn
    )
    return Scenario(
        seed=3,
        latency_s=0.02,
        workspaces=(EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,)),),
    )


def read_output(folder: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    rows = (folder / "out.ndjson").read_text(encoding="utf-8").splitlines()
    manifest = json.loads((folder / "out.ndjson.manifest.json").read_bytes())
    return [json.loads(row) for row in rows], manifest


def format_at(at_ms: int) -> str:
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


@pytest.mark.parametrize("name", CHURNS)
def test_sessions_of_the_span_are_exported_and_the_list_is_not_read_past_it(
    name: str, tmp_path: Path
) -> None:
    with serving(build_scenario(CHURNS[name])) as emulator:
        program = Program(tmp_path, environ_for(emulator, tmp_path))
        assert program.run("export", "--workspace", "w-1", "-o", "out.ndjson").code == 0
        whole, _ = read_output(tmp_path)
        times = sorted((row["createTime"] for row in whole), reverse=True)
        since_ms, until_ms = times[600], times[100]
        before = emulator.truth("w-1", "lc-1").answer_count
        ended = program.run(
            *("export", "--workspace", "w-1", "-o", "out.ndjson"),
            *("--since", format_at(since_ms), "--until", format_at(until_ms)),
        )
        after = emulator.truth("w-1", "lc-1", first_answer=before + 1)

    assert ended.code == 0, ended.stderr
    rows, manifest = read_output(tmp_path)
    ids = [row["sessionId"] for row in rows]
    wanted = {row["sessionId"] for row in whole if since_ms <= row["createTime"] < until_ms}
    assert len(ids) == len(set(ids)) == manifest["session_count"]
    assert wanted & after.owed <= set(ids) <= wanted | after.allowed
    assert all(since_ms <= row["createTime"] < until_ms for row in rows)
    assert (manifest["since"], manifest["until"]) == (format_at(since_ms), format_at(until_ms))
    assert manifest["gateways"][0]["proof"] == "stitched"
    assert manifest["gateways"][0]["page_count"] < 15


def test_duration_counts_back_from_the_start_of_the_run(program: Program) -> None:
    ended = program.run(
        *("export", "--workspace", "w-1", "--gateway", "lc-b", "-o", "out.ndjson", "--since", "12h")
    )

    assert ended.code == 0, ended.stderr
    _, manifest = read_output(program.folder)
    started_at = datetime.fromisoformat(manifest["started_at"])
    assert datetime.fromisoformat(manifest["since"]) == started_at - timedelta(hours=12)
    assert manifest["until"] is None


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--since", "last week"), "--since 'last week': should be a date"),
        (("--since", "2026-11-01T08:00"), "should say its offset"),
        (("--since", "9000-01-01"), "--since 9000-01-01 is in the future"),
        (("--since", "1d", "--until", "2d"), "--since 1d is not before --until 2d"),
    ],
)
def test_span_that_cannot_be_meant_ends_with_a_hint_before_the_first_request(
    program: Program, flags: tuple[str, ...], words: str
) -> None:
    ended = program.run("export", "--workspace", "w-1", "-o", "out.ndjson", *flags)

    assert ended.code == 2
    assert words in ended.stderr_lines[0]
    assert ended.stderr_lines[1].startswith("hint: ")
    assert program.listing() == {}
