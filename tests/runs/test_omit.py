"""Omitted fields are in no output, and everything else is."""

import json
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest

from exporter.emulator.faults import Fault, FaultRule
from tests.support.program import SCENARIO, Program, ProgramFor

EXPORT = ("export", "--workspace", "w-1", "--gateway", "lc-a", "--progress", "none", "--output")


def read_manifest(program: "Program", name: str) -> Any:
    return json.loads((program.folder / name).read_bytes())


def test_column_stays_and_is_null(program: "Program") -> None:
    program.run(*EXPORT, "whole.parquet")

    ended = program.run(*EXPORT, "out.parquet", "--omit", "sparkConf", "--omit", "web_ui,state")

    assert ended.code == 0, ended.stderr
    whole = pq.read_table(program.folder / "whole.parquet")
    left = pq.read_table(program.folder / "out.parquet")
    assert left.schema.names == whole.schema.names
    gone = ["spark_conf", "web_ui", "state"]
    assert [left[name].null_count for name in gone] == [205] * 3
    assert left["extra"].null_count == 205
    others = [name for name in whole.schema.names if name not in {*gone, "exported_at"}]
    assert left.select(others).equals(whole.select(others))
    omitted = read_manifest(program, "out.parquet.manifest.json")["omitted"]
    assert omitted == {
        field: 205 - whole[column].null_count
        for field, column in (("sparkConf", "spark_conf"), ("state", "state"), ("webUI", "web_ui"))
    }
    assert omitted["sparkConf"] > 0


@pytest.mark.parametrize("output", ["out.ndjson", "-"])
def test_line_lacks_the_field(program: "Program", output: str) -> None:
    ended = program.run(
        *EXPORT, output, "--format", "ndjson", environ={"LIVY_EXPORTER_OMIT": "spark_conf,info"}
    )

    assert ended.code == 0, ended.stderr
    text = ended.stdout if output == "-" else (program.folder / output).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert len(lines) == 205
    assert all({"sparkConf", "info"}.isdisjoint(line) for line in lines)
    assert all("createTime" in line for line in lines)


def test_value_that_had_to_be_escaped_is_left_out_with_what_was_received(
    program_for: "ProgramFor",
) -> None:
    poison = FaultRule(kinds=(Fault.LONE_SURROGATE,), page_nums=(1,), times=99)
    program, _ = program_for(replace(SCENARIO, faults=(poison,)))

    ended = program.run(*EXPORT, "out.ndjson", "--omit", "name")

    assert ended.code == 0, ended.stderr
    assert "half of" not in (program.folder / "out.ndjson").read_text()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sparkConfs", "hint: did you mean sparkConf?"),
        ("session_id", "hint: it tells which session a row is of, or when"),
    ],
)
def test_field_that_cannot_be_left_out_is_refused(program: "Program", name: str, hint: str) -> None:
    ended = program.run(*EXPORT, "out.parquet", "--omit", name)

    assert ended.code == 2
    assert ended.stderr_lines[-1] == hint
    assert program.listing() == {}


def test_incremental_run_goes_on_only_from_one_that_left_out_the_same(program: "Program") -> None:
    run = (*EXPORT, "out/", "--incremental")
    program.run(*run, "--omit", "sparkConf")

    same = program.run(*run, "--omit", "spark_conf")
    other = program.run(*run)

    assert (same.code, other.code) == (0, 0)
    assert "nothing new" in same.stderr
    assert "the run before left other fields out" in other.stderr
    manifest = read_manifest(program, "out/_manifest.json")
    assert (manifest["session_count"], manifest["omitted"]) == (205, {})


def test_killed_run_that_left_out_other_fields_is_not_gone_on_from(
    program_for: "ProgramFor",
) -> None:
    hang = FaultRule(kinds=(Fault.HANG,), page_nums=(2,), hang_s=20)
    program, _ = program_for(replace(SCENARIO, faults=(hang,)))
    run = (*EXPORT, "out.ndjson", "--page-size", "50")

    killed = program.run(*run, "--deadline", "2s", "--omit", "info")
    [journal] = [path for path in program.folder.iterdir() if path.name.endswith(".journal")]
    mode = journal.stat().st_mode & 0o777
    ended = program.run(*run)

    assert (killed.code, ended.code) == (1, 0), ended.stderr
    assert mode == 0o600
    assert "another selection of fields" in ended.stderr
    lines = (program.folder / "out.ndjson").read_text().splitlines()
    assert all("info" in json.loads(line) for line in lines)
