"""An unreadable row is left out and reported; the run goes on."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from exporter.emulator.faults import Fault, FaultRule
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from tests.support.program import Program, ProgramFor

ALWAYS = 10**6
SCENARIO = Scenario(
    seed=5,
    workspaces=(
        EmulatedWorkspace(
            workspace_id="w-1",
            name="one",
            gateways=(
                EmulatedGateway(gateway_id="lc-1", name="one", session_count=95),
                EmulatedGateway(gateway_id="lc-2", name="two", session_count=20),
            ),
        ),
    ),
)
EXPORT = ("export", "--workspace", "w-1", "--page-size", "10", "--progress", "none")
ONE = (*EXPORT, "--gateway", "lc-1")


def spoiling(*faults: Fault, page_num: int = 4) -> Scenario:
    """A page of each gateway has a bad row, however often it is read."""
    rules = (
        FaultRule(kinds=(fault,), page_nums=(page_num + number,), times=ALWAYS)
        for number, fault in enumerate(faults)
    )
    return replace(SCENARIO, faults=tuple(rules))


def read_lines(program: "Program", name: str = "out.ndjson") -> list[Any]:
    return [json.loads(line) for line in (program.folder / name).read_bytes().splitlines()]


def read_manifest(path: Path) -> Any:
    return json.loads(path.read_bytes())


@pytest.mark.parametrize("fault", [Fault.LONE_SURROGATE, Fault.NOT_A_NUMBER])
@pytest.mark.parametrize("output", ["out.ndjson", "out.parquet", "out/"])
def test_session_with_a_value_that_no_output_holds_is_exported_all_the_same(
    fault: Fault, output: str, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(spoiling(fault))

    ended = program.run(*ONE, "--output", output)

    assert ended.code == 0, ended.stderr
    checked = program.run("verify", output)
    assert checked.code == 0, checked.stderr


def test_value_is_escaped_in_its_column_and_kept_as_it_came_in_extra(
    program_for: "ProgramFor",
) -> None:
    program, _ = program_for(spoiling(Fault.LONE_SURROGATE, Fault.NOT_A_NUMBER))

    ended = program.run(*ONE, "--output", "out.parquet")

    assert ended.code == 0, ended.stderr
    rows = pq.read_table(program.folder / "out.parquet").to_pylist()
    assert len(rows) == len({row["session_id"] for row in rows}) == 95
    named, numbered = [row for row in rows if row["extra"] is not None]
    assert named["name"] == "half of \\ud83e"
    assert json.loads(named["extra"]) == {"received_name": '"half of \\ud83e"'}
    assert json.loads(json.loads(named["extra"])["received_name"]) == "half of \ud83e"
    assert (numbered["cu_hours"], json.loads(numbered["extra"])) == (
        None,
        {"received_cuHours": "NaN"},
    )


@pytest.mark.parametrize(
    ("fault", "reason"),
    [(Fault.NULL_ROW, "it is null"), (Fault.ROW_WITHOUT_ID, "it has no sessionId")],
)
def test_row_without_an_id_makes_the_run_incomplete_and_is_named(
    fault: Fault, reason: str, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(spoiling(fault))

    ended = program.run(*ONE, "--output", "out.ndjson")

    assert ended.code == 4
    error, hint = ended.stderr_lines
    assert error == (
        "error: row 6 of page 4 of w-1/lc-1 (of 10 rows a page) cannot be read: " + reason
    )
    assert "--allow-incomplete" in hint
    assert "endpoint" not in ended.stderr
    assert not (program.folder / "out.ndjson").exists()


@pytest.mark.parametrize("fault", [Fault.NULL_ROW, Fault.ROW_WITHOUT_ID])
@pytest.mark.parametrize("output", ["out.ndjson", "out/"])
def test_all_other_rows_are_published_where_that_is_asked_for(
    fault: Fault, output: str, program_for: "ProgramFor"
) -> None:
    program, emulator = program_for(spoiling(fault, page_num=2))

    ended = program.run(*EXPORT, "--output", output, "--format", "ndjson", "--allow-incomplete")

    assert ended.code == 0, ended.stderr
    assert "INCOMPLETE" in ended.stderr
    name = "out/_manifest.json" if output == "out/" else "out.ndjson.manifest.json"
    manifest = read_manifest(program.folder / name)
    assert manifest["status"] == "incomplete"
    assert manifest["session_count"] == sum(each["row_count"] for each in manifest["files"]) == 113
    assert [each["session_count"] for each in manifest["gateways"]] == [94, 19]
    assert {each["proof"] for each in manifest["gateways"]} == {"unproven"}
    assert manifest["unreadable_count"] == 2
    assert manifest["unreadable"] == [
        {
            "region_id": emulator.scenario.region_id,
            "workspace_id": "w-1",
            "gateway_id": gateway_id,
            "page_num": 2,
            "page_size": 10,
            "place": 6,
            "reason": "it is null" if fault is Fault.NULL_ROW else "it has no sessionId",
        }
        for gateway_id in ("lc-1", "lc-2")
    ]
    checked = program.run("verify", output)
    assert checked.code == 0, checked.stderr


def test_bad_rows_cost_no_more_requests_than_good_ones(program_for: "ProgramFor") -> None:
    program, emulator = program_for(spoiling(Fault.ROW_WITHOUT_ID))

    program.run(*ONE, "--output", "out.ndjson")

    assert emulator.stats().request_count == 10 + 1


def test_incremental_run_goes_on_from_no_gateway_that_had_a_bad_row(
    program_for: "ProgramFor",
) -> None:
    program, _ = program_for(spoiling(Fault.ROW_WITHOUT_ID, page_num=10))  # of lc-1 alone
    run = (*EXPORT, "--output", "out/", "--incremental")

    first = program.run(*run, "--allow-incomplete")
    second = program.run(*run)

    assert first.code == 0, first.stderr
    assert second.code == 4, "the row is not in the output: nobody may say that it is complete"
    state = json.loads((program.folder / "out/_exporter/state.json").read_bytes())
    assert [each["gateway_id"] for each in state["gateways"]] == ["lc-2"]


def test_bad_rows_are_the_same_in_a_run_that_is_resumed(program_for: "ProgramFor") -> None:
    scenario = spoiling(Fault.NULL_ROW, Fault.LONE_SURROGATE, page_num=2)
    hang = FaultRule(kinds=(Fault.HANG,), page_nums=(9,), hang_s=20)
    program, emulator = program_for(replace(scenario, faults=(hang, *scenario.faults)))
    run = (*ONE, "--output", "out.ndjson", "--concurrency", "1", "--allow-incomplete")

    killed = program.run(*run, "--deadline", "3s")
    before = emulator.stats().request_count
    ended = program.run(*run)

    assert killed.code == 1, killed.stderr
    assert ended.code == 0, ended.stderr
    assert emulator.stats().request_count - before < 6
    manifest = read_manifest(program.folder / "out.ndjson.manifest.json")
    assert [(each["page_num"], each["place"]) for each in manifest["unreadable"]] == [(2, 6)]
    lines = read_lines(program)
    assert len({each["sessionId"] for each in lines}) == len(lines) == 94
    assert sum("received_name" in each for each in lines) == 1
