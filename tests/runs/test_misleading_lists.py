"""The program against misleading servers, described by scenario files, over a real connection."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporter.emulator.scenario_file import read_scenario
from exporter.emulator.server import Emulator
from tests.support.forks import Ended
from tests.support.program import Program, ProgramFor, serving

HEAD = """
seed = 3
session_count = 1_500
gateway_count = 1
latency_s = 0.01

[churn]
"""

SURVIVED = {
    "total capped": "total_cap = 1000",
    "total capped while sessions come": "total_cap = 500\ninsertions = { per_s = 30 }",
    "total of nothing": "total_cap = 0",
    "total cached": "total_cache_s = 60\ninsertions = { per_s = 30 }",
    "page 1 empty once": "page_faults = [{ page_nums = [1], zero_total = true }]",
    "page 4 empty once": "page_faults = [{ page_nums = [4], zero_total = true }]",
    "answers empty by chance": "page_faults = [{ rate = 0.05, zero_total = true }]",
    "a row doubled in one answer": "doubled_rows = [{ rate = 0.1 }]",
    "rows twice for good": "twins = 0.02",
    "copies that disagree": "replicas = [0, 3]\ninsertions = { per_s = 30 }",
    "total of another copy": (
        "replicas = [0, 1]\ntotal_of_any_replica = true\ninsertions = { per_s = 30 }"
    ),
    "some without a time": (
        'timeless = { share = 0.01, form = "mixed" }\ninsertions = { per_s = 5 }'
    ),
    "times as text": (
        'timeless = { share = 1.0, form = "text" }\n'
        "insertions = { per_s = 20 }\nexpiries = { per_s = 20 }"
    ),
    "by update time": 'order_by = "update"\nrun_s = 5\nmax_run_s = 36000',
    "last page again": "last_page_again = true",
    "cleanup at the end": 'cleanups = [{ at_s = 0.05, count = 300, place = "end" }]',
}


def run_against(
    text: str, tmp_path: Path, program_for: ProgramFor, *, head: str = HEAD
) -> tuple[Ended, Program, Emulator]:
    path = tmp_path / "scenario.toml"
    path.write_text(head + text, encoding="utf-8")
    program, emulator = program_for(read_scenario(path))
    command = ("export", "--workspace", "w-emulated-1", "--concurrency", "8")
    return program.run(*command, "-o", "out.ndjson"), program, emulator


@pytest.mark.parametrize("text", SURVIVED.values(), ids=SURVIVED)
def test_misleading_server_costs_no_session(
    text: str, tmp_path: Path, program_for: ProgramFor
) -> None:
    ended, program, emulator = run_against(text, tmp_path, program_for)

    truth = emulator.truth("w-emulated-1", "lc-emulated-1-1")
    assert ended.code == 0, ended.stderr
    lines = (program.folder / "out.ndjson").read_text(encoding="utf-8").splitlines()
    seen = Counter(json.loads(line)["sessionId"] for line in lines)
    assert not truth.lost(seen)
    assert not truth.foreign(seen)
    assert max(seen.values()) == 1


@pytest.mark.campaign  # the end is looked for over a minute: a total may be cached as long
@pytest.mark.parametrize("text", ["depth = 2000", "max_page_num = 20", "depth = 1950"])
def test_depth_is_found_and_told_and_nothing_is_published(
    text: str, tmp_path: Path, program_for: ProgramFor
) -> None:
    head = HEAD.replace("1_500", "4_000")

    ended, program, emulator = run_against(text, tmp_path, program_for, head=head)

    shown = 1950 if "950" in text else 2000
    truth = emulator.truth("w-emulated-1", "lc-emulated-1-1")
    assert ended.code == 4
    assert f"the service shows no more than {shown:,} sessions of 4,000" in ended.stderr
    assert program.listing() == {}
    assert truth.answer_count <= 1.5 * 40


def test_empty_answer_does_not_replace_what_was_published(
    tmp_path: Path, program_for: ProgramFor
) -> None:
    first, program, _ = run_against("", tmp_path, program_for)
    before = program.listing()
    scenario = read_scenario(tmp_path / "scenario.toml")
    (workspace,) = scenario.workspaces
    gateway = replace(workspace.gateways[0], session_count=0)
    emptied = replace(scenario, workspaces=(replace(workspace, gateways=(gateway,)),))

    command = ("export", "--workspace", "w-emulated-1", "-o", "out.ndjson")
    with serving(emptied) as nothing:
        environ = {"LIVY_EXPORTER_ENDPOINT": nothing.endpoint}
        refused = program.run(*command, environ=environ)
        kept = program.listing()
        allowed = program.run(*command, "--allow-empty", environ=environ)

    assert (first.code, refused.code, allowed.code) == (0, 4, 0)
    assert "--allow-empty" in refused.stderr
    assert kept == before
    assert (program.folder / "out.ndjson").read_bytes() == b""


def test_error_told_with_status_200_is_asked_again(tmp_path: Path, program_for: ProgramFor) -> None:
    faults = '[[faults]]\nkinds = ["told-error-200"]\npage_nums = [1, 5]\n'
    path = tmp_path / "scenario.toml"
    path.write_text(HEAD + faults, encoding="utf-8")
    program, emulator = program_for(read_scenario(path))

    ended = program.run("export", "--workspace", "w-emulated-1", "-o", "out.ndjson")

    lines = (program.folder / "out.ndjson").read_text(encoding="utf-8").splitlines()
    assert ended.code == 0, ended.stderr
    assert len(lines) == len(emulator.truth("w-emulated-1", "lc-emulated-1-1").owed) == 1_500


def test_incremental_runs_go_on_behind_a_capped_total(
    tmp_path: Path, program_for: ProgramFor
) -> None:
    text = "total_cap = 1000\ninsertions = { per_s = 40 }"
    path = tmp_path / "scenario.toml"
    path.write_text(HEAD + text, encoding="utf-8")
    program, emulator = program_for(read_scenario(path))
    command = ("export", "--workspace", "w-emulated-1", "--incremental", "-o", "out/")

    codes = [program.run(*command).code for _ in range(3)]

    seen = read_ids(program.folder / "out")
    assert codes == [0, 0, 0]
    assert not emulator.truth("w-emulated-1", "lc-emulated-1-1").lost(seen)


def read_ids(folder: Path) -> set[str]:
    tables = [pq.read_table(path, columns=["session_id"]) for path in folder.rglob("*.parquet")]
    return {each for table in tables for each in table["session_id"].to_pylist()}
