"""Each command as a user runs it: its output in a process of its own, against an emulator."""

import gzip
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
import zstandard

from exporter.emulator.server import Emulator
from tests.support.forks import ForkedProgram
from tests.support.patience import HANG_S
from tests.support.program import Program

GATEWAYS = [("w-1", "lc-b"), ("w-1", "lc-a"), ("w-2", "lc-empty"), ("w-2", "lc-one")]
"""In the order of discovery."""

COLUMNS = {
    "session_id": "sessionId",
    "name": "name",
    "compute_id": "computeId",
    "state": "state",
    "create_time": "createTime",
    "end_time": "endTime",
    "queue": "queue",
    "cu_hours": "cuHours",
    "vcore_seconds": "vcoreSeconds",
    "mb_seconds": "mbSeconds",
    "info": "info",
    "web_ui": "webUI",
    "spark_conf": "sparkConf",
}
"""Columns that hold what the service sent, and the names it sends them by."""

Row = dict[str, Any]


def served_sessions(emulator: Emulator) -> list[tuple[str, Row]]:
    """Each session with its workspace, in the order an export has them."""
    return [
        (workspace_id, session)
        for workspace_id, gateway_id in GATEWAYS
        for session in emulator.sessions(workspace_id, gateway_id)
    ]


def expected_row(workspace_id: str, session: Row) -> Row:
    """A session as the README's table of columns has it; times in milliseconds."""
    row = {column: session.get(field) for column, field in COLUMNS.items()}
    row["end_time"] = row["end_time"] or None
    row["info"] = None if row["info"] == "null" else row["info"]
    return row | {"workspace_id": workspace_id, "region_id": "cn-hangzhou", "extra": None}


def query(path: Path, columns: str) -> list[Row]:
    """Rows of a file as DuckDB reads them."""
    found = duckdb.sql(f"SELECT {columns} FROM '{path}'")  # noqa: S608 - a path of our own
    assert found is not None
    return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def read_lines(text: bytes) -> list[Row]:
    return [json.loads(line) for line in text.decode().splitlines()]


def without_time(lines: list[Row]) -> list[Row]:
    return [{key: value for key, value in line.items() if key != "exportedAt"} for line in lines]


def test_parquet_holds_every_session_once_with_every_value(
    program: "Program", emulator: Emulator
) -> None:
    started_at = datetime.now(UTC)

    ended = program.run("export", "--workspace", "all", "--output", "out.parquet")

    rows = query(
        program.folder / "out.parquet",
        "* REPLACE (epoch_ms(create_time) AS create_time, epoch_ms(end_time) AS end_time,"
        " epoch_ms(exported_at) AS exported_at)",
    )
    exported_at_ms = {row.pop("exported_at") for row in rows}
    assert ended.code == 0, ended.stderr
    assert ended.stdout == ""
    assert rows == [expected_row(*each) for each in served_sessions(emulator)]
    assert len({row["session_id"] for row in rows}) == len(rows) == 730 + 205 + 1
    assert len(exported_at_ms) == 1
    assert 0 <= exported_at_ms.pop() / 1000 - started_at.timestamp() < 30


def test_parquet_types_are_those_promised(program: "Program") -> None:
    program.run("export", "--workspace", "w-2", "--output", "out.parquet")

    (row,) = query(program.folder / "out.parquet", "typeof(COLUMNS(*))")
    kinds = {name: str(kind) for name, kind in row.items()}
    instants = {"create_time", "end_time", "exported_at"}
    assert {name for name, kind in kinds.items() if kind != "VARCHAR"} == {
        *instants,
        "cu_hours",
        "vcore_seconds",
        "mb_seconds",
    }
    assert {kinds[name] for name in instants} == {"TIMESTAMP WITH TIME ZONE"}
    assert (kinds["cu_hours"], kinds["vcore_seconds"]) == ("DOUBLE", "BIGINT")


def unpack_zstd(packed: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(packed)


@pytest.mark.parametrize(
    ("name", "unpack"),
    [
        ("out.ndjson", bytes),
        ("out.jsonl", bytes),
        ("out.ndjson.gz", gzip.decompress),
        ("out.ndjson.zst", unpack_zstd),
    ],
)
def test_ndjson_holds_every_record_as_received(
    name: str, unpack: Callable[[bytes], bytes], program: "Program", emulator: Emulator
) -> None:
    ended = program.run("export", "--workspace", "all", "--output", name)

    lines = read_lines(unpack((program.folder / name).read_bytes()))
    assert ended.code == 0, ended.stderr
    assert len({line["exportedAt"] for line in lines}) == 1
    assert without_time(lines) == [
        {**session, "regionId": "cn-hangzhou", "workspaceId": workspace_id}
        for workspace_id, session in served_sessions(emulator)
    ]


def test_stdout_carries_the_sessions_and_nothing_else(
    program: "Program", emulator: Emulator
) -> None:
    ended = program.run("export", "--workspace", "all", "--output", "-")

    lines = read_lines(ended.stdout.encode())
    assert [line["sessionId"] for line in lines] == [
        session["sessionId"] for _, session in served_sessions(emulator)
    ]
    assert "936 sessions of 4 gateways written to stdout" in ended.stderr
    assert program.listing() == {}


def test_parquet_goes_to_stdout_when_asked_for(program: "Program") -> None:
    shell = f'"{sys.executable}" -m exporter export --workspace w-1 -o - --format parquet > it'

    ended = program.run(command=("/bin/sh", "-c", shell))

    assert ended.code == 0, ended.stderr
    assert pq.read_table(program.folder / "it").num_rows == 730 + 205


def test_gateways_come_in_the_order_they_were_named(program: "Program") -> None:
    named = ["--workspace", "w-1", "--gateway", "lc-a", "--gateway", "lc-b"]

    ended = program.run("export", *named, "--output", "-", "--concurrency", "7")

    computes = [line["computeId"] for line in read_lines(ended.stdout.encode())]
    assert computes == ["lc-a"] * 205 + ["lc-b"] * 730


def test_two_exports_of_an_unchanged_gateway_are_equal(program: "Program") -> None:
    first = program.run("export", "--workspace", "all", "-o", "1.parquet", "--concurrency", "1")
    second = program.run("export", "--workspace", "all", "-o", "2.parquet", "--page-size", "13")

    tables = [pq.read_table(program.folder / f"{n}.parquet") for n in (1, 2)]
    assert (first.code, second.code) == (0, 0)
    assert tables[0].drop(["exported_at"]).equals(tables[1].drop(["exported_at"]))


def test_manifest_is_beside_the_output_and_has_its_facts(
    program: "Program", emulator: Emulator
) -> None:
    program.run("export", "--workspace", "all", "--output", "out.parquet")

    manifest = json.loads((program.folder / "out.parquet.manifest.json").read_bytes())
    written = (program.folder / "out.parquet").read_bytes()
    assert manifest["status"] == "complete"
    assert manifest["session_count"] == 936
    assert manifest["files"] == [
        {
            "path": "out.parquet",
            "row_count": 936,
            "size_bytes": len(written),
            "sha256": hashlib.sha256(written).hexdigest(),
        }
    ]
    assert [
        (entry["workspace_id"], entry["gateway_id"], entry["session_count"], entry["proof"])
        for entry in manifest["gateways"]
    ] == [
        (workspace_id, gateway_id, len(list(emulator.sessions(workspace_id, gateway_id))), proof)
        for (workspace_id, gateway_id), proof in zip(GATEWAYS, ["quiescent"] * 4, strict=True)
    ]
    assert manifest["requests"]["sent"] == manifest["requests"]["ok"]
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", manifest["run_id"]) is not None


def test_manifest_goes_to_a_second_place_when_asked_for(program: "Program") -> None:
    program.run("export", "--workspace", "w-2", "-o", "out.ndjson", "--manifest", "copy.json")

    files = program.listing()
    assert sorted(files) == ["copy.json", "out.ndjson", "out.ndjson.manifest.json"]
    assert files["copy.json"] == files["out.ndjson.manifest.json"]


def test_manifest_of_stdout_goes_to_the_named_file(program: "Program") -> None:
    ended = program.run("export", "--workspace", "w-1", "-o", "-", "--manifest", "it.json")

    manifest = json.loads((program.folder / "it.json").read_bytes())
    assert list(program.listing()) == ["it.json"]
    assert manifest["files"][0]["path"] == "-"
    assert manifest["files"][0]["sha256"] == hashlib.sha256(ended.stdout.encode()).hexdigest()


def test_exporting_again_replaces_output_and_manifest(program: "Program") -> None:
    program.run("export", "--workspace", "w-1", "--output", "out.parquet")

    ended = program.run("export", "--workspace", "w-2", "--output", "out.parquet")

    manifest = json.loads((program.folder / "out.parquet.manifest.json").read_bytes())
    assert ended.code == 0, ended.stderr
    assert pq.read_table(program.folder / "out.parquet").num_rows == 1
    assert manifest["session_count"] == 1
    assert len(program.listing()) == 2


def test_settings_come_from_file_environment_and_flags(program: "Program") -> None:
    (program.folder / "livy.toml").write_text(
        'workspace = ["w-9"]\noutput = "wrong.parquet"\nconcurrency = 2\n', encoding="utf-8"
    )

    ended = program.run(
        "export",
        "--config",
        "livy.toml",
        "--output",
        "right.parquet",
        environ={"LIVY_EXPORTER_WORKSPACE": "w-1,w-2"},
    )

    assert ended.code == 0, ended.stderr
    assert pq.read_table(program.folder / "right.parquet").num_rows == 936


def test_incremental_run_reports_its_additions_and_its_full_listing(
    program: "Program",
) -> None:
    flags = ("export", "--workspace", "w-1", "--gateway", "lc-b", "--incremental", "-o", "out/")
    first = program.run(*flags)
    second = program.run(*flags)
    (program.folder / "out/_exporter/state.json").unlink()
    third = program.run(*flags)

    assert (first.code, second.code, third.code) == (0, 0, 0), third.stderr
    assert any(
        each.startswith("730 sessions of w-1/lc-b added to out/ ") for each in first.stderr_lines
    )
    assert second.stderr_lines[0] == "nothing new or changed in w-1/lc-b; out/ stays as it is"
    assert third.stderr_lines[0] == (
        "warning: listing in full: there is no state at out/_exporter/state.json"
    )


def test_resumed_run_reports_the_pages_it_took_over(slow_program: "Program") -> None:
    flags = ("export", "--workspace", "w-1", "--gateway", "lc-b", "-o", "out.parquet")
    cut_short = slow_program.run(*flags, "--concurrency", "1", "--deadline", "1800ms", "-q")
    resumed = slow_program.run(*flags)

    assert cut_short.code == 1
    assert resumed.code == 0, resumed.stderr
    assert "taken over from an earlier run" in resumed.stderr
    assert "warning" not in resumed.stderr


def test_plan_asks_one_page_a_gateway_and_writes_nothing(
    program: "Program", emulator: Emulator
) -> None:
    emulator.reset()

    ended = program.run("plan", "--workspace", "w-1", "--gateway", "lc-b", "--gateway", "lc-a")

    counts = emulator.stats().request_counts
    lines = ended.stdout.splitlines()
    assert ended.code == 0, ended.stderr
    assert lines[:3] == [
        "WORKSPACE  GATEWAY  SESSIONS  PAGES  REQUESTS",
        "w-1        lc-b          730      8         9",
        "w-1        lc-a          205      3         4",
    ]
    assert lines[3].startswith("935 sessions, 13 requests, about ")
    assert re.fullmatch(r"journal: about \d+\.\d KiB on disk until it is published", lines[4])
    assert len(lines) == 5
    assert counts == {"ListLivyComputeSessions": {"ok": 2}}
    assert ended.stderr == ""
    assert program.listing() == {}


def test_plan_as_json_has_the_same_numbers(program: "Program") -> None:
    ended = program.run("plan", "--workspace", "all", "--json")

    planned = json.loads(ended.stdout)
    assert [(each["gateway_id"], each["session_count"]) for each in planned["gateways"]] == [
        ("lc-b", 730),
        ("lc-a", 205),
        ("lc-empty", 0),
        ("lc-one", 1),
    ]
    assert planned["session_count"] == 936
    assert planned["request_count"] == sum(each["request_count"] for each in planned["gateways"])
    assert 936 * 20 < planned["journal_bytes"] < 936 * 500


@pytest.mark.parametrize(
    "flags", [["--no-resume"], ["-o", "-"], ["-o", "s3://bucket/sessions.parquet"]], ids=" ".join
)
def test_plan_counts_no_journal_where_there_will_be_none(
    program: "Program", flags: list[str]
) -> None:
    ended = program.run("plan", "--workspace", "w-1", *flags, "--json")

    assert json.loads(ended.stdout)["journal_bytes"] == 0


@pytest.mark.parametrize("flags", [["--since", "7d"], ["--incremental", "-o", "sessions/"]])
def test_plan_notes_that_it_is_about_all_sessions(program: "Program", flags: list[str]) -> None:
    ended = program.run("plan", "--workspace", "w-1", *flags)

    assert ended.code == 0, ended.stderr
    assert ended.stdout.splitlines()[-1].startswith("this is for all sessions: ")


def test_plan_and_export_agree_on_the_requests(program: "Program", emulator: Emulator) -> None:
    planned = json.loads(program.run("plan", "--workspace", "all", "--json").stdout)
    emulator.reset()

    program.run("export", "--workspace", "all", "--output", "out.parquet")

    sent = emulator.stats().request_counts["ListLivyComputeSessions"]
    # That a list is empty is believed when it was told three times.
    assert sent == {"ok": planned["request_count"] + 2}


def test_gateways_are_listed_in_columns_that_chinese_names_do_not_break(
    program: "Program",
) -> None:
    ended = program.run("gateways")

    assert ended.code == 0, ended.stderr
    assert ended.stderr == ""
    assert ended.stdout.splitlines() == [
        "WORKSPACE  GATEWAY   NAME           STATUS",
        "w-1        lc-b      second letter  RUNNING",
        "w-1        lc-a      first letter   RUNNING",
        "w-2        lc-empty  empty          RUNNING",
        "w-2        lc-one    one            RUNNING",
    ]


def test_gateways_as_json_have_names_and_states(program: "Program") -> None:
    ended = program.run("gateways", "--json", "--gateway", "lc-a", "--workspace", "all")

    assert json.loads(ended.stdout) == [
        {
            "region_id": "cn-hangzhou",
            "workspace_id": "w-1",
            "gateway_id": "lc-a",
            "name": "first letter",
            "status": "RUNNING",
            "workspace_name": "用户 one",
        }
    ]


def test_effective_configuration_is_toml_without_secrets(program: "Program") -> None:
    ended = program.run(
        "config", "show", "--page-size", "7", environ={"ALIBABA_CLOUD_SECURITY_TOKEN": "hunter2"}
    )

    shown = tomllib.loads(ended.stdout)
    assert ended.code == 0, ended.stderr
    assert shown["page_size"] == 7
    assert shown["endpoint"] == program.environ["LIVY_EXPORTER_ENDPOINT"]
    assert "page_size = 7  # --page-size" in ended.stdout
    assert "access key emul***" in ended.stdout
    assert "hunter2" not in ended.stdout
    assert program.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] not in ended.stdout


def test_effective_configuration_can_be_used_again(program: "Program") -> None:
    shown = program.run("config", "show", "--workspace", "w-2", "--timeout", "5m", "-v")
    (program.folder / "livy.toml").write_text(shown.stdout, encoding="utf-8")

    again = program.run(
        "config",
        "show",
        "--config",
        "livy.toml",
        environ={"LIVY_EXPORTER_ENDPOINT": "", "LIVY_EXPORTER_REGION": ""},
    )

    assert tomllib.loads(again.stdout) == tomllib.loads(shown.stdout)


def test_schema_of_the_configuration_is_json(program: "Program") -> None:
    ended = program.run("config", "schema")

    assert json.loads(ended.stdout)["properties"]["page_size"]["maximum"] == 100


@contextmanager
def emulating(program: "Program", *arguments: str) -> Iterator[tuple[str, ForkedProgram]]:
    """What `emulate` announces, while it serves."""
    process = program.start("emulate", *arguments)
    assert process.stdout is not None
    try:
        announced = process.stdout.readline()
        while not announced.endswith(b" sessions\n"):
            announced += process.stdout.readline()
        yield announced.decode(), process
    finally:
        process.kill()
        process.communicate()


def read_exports(announced: str) -> dict[str, str]:
    """What a POSIX shell makes of the announced lines."""
    shell = subprocess.run(
        ["/bin/sh", "-c", f"{announced}\nenv"],
        env={"ALIBABA_CLOUD_SECURITY_TOKEN": "left over"},
        capture_output=True,
        check=True,
        text=True,
    )
    found = dict(line.split("=", 1) for line in shell.stdout.splitlines())
    return {name: found[name] for name in found if name.startswith(("ALIBABA_", "LIVY_"))}


def test_emulator_prints_variables_for_a_client(program: "Program") -> None:
    with emulating(program, "--gateways", "1", "--sessions", "30") as (announced, _):
        exports = read_exports(announced)
        ended = program.run("export", "--workspace", "all", "-o", "-", environ=exports)

    assert "# --workspace w-emulated-1 --gateway lc-emulated-1-1: 30 sessions" in announced
    assert "ALIBABA_CLOUD_SECURITY_TOKEN" not in exports
    assert len(ended.stdout.splitlines()) == 30


def test_exported_file_is_served_and_exported_again_alike(program: "Program") -> None:
    program.run("export", "--workspace", "w-1", "--output", "first.ndjson.zst")

    with emulating(program, "--from", "first.ndjson.zst", "--latency", "0ms") as (announced, _):
        ended = program.run(
            "export", "--workspace", "all", "-o", "second.ndjson", environ=read_exports(announced)
        )

    first = unpack_zstd((program.folder / "first.ndjson.zst").read_bytes())
    second = (program.folder / "second.ndjson").read_bytes()
    assert ended.code == 0, ended.stderr
    assert without_time(read_lines(second)) == without_time(read_lines(first))


def test_anonymous_emulator_answers_unsigned_requests(program: "Program") -> None:
    with emulating(program, "--anonymous") as (announced, _):
        exports = read_exports(announced)
        ended = program.run(
            "gateways", environ=exports | {"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "another"}
        )

    assert ended.code == 0, ended.stderr


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_emulator_ends_quietly(number: int, code: int, program: "Program") -> None:
    with emulating(program) as (_, process):
        process.send_signal(number)
        _, stderr = process.communicate(timeout=HANG_S)

    assert (process.returncode, stderr) == (code, b"")


def test_demo_needs_no_account_and_may_be_repeated(program: "Program") -> None:
    nobody = {name: "" for name in program.environ if name.startswith(("ALIBABA_", "LIVY_"))}

    first = program.run("demo", environ=nobody)
    again = program.run("demo", environ=nobody)

    assert (first.code, again.code) == (0, 0), first.stderr + again.stderr
    assert sorted(program.listing()) == [
        "livy-demo",
        "livy-demo/sessions.ndjson.zst",
        "livy-demo/sessions.ndjson.zst.manifest.json",
        "livy-demo/sessions.parquet",
        "livy-demo/sessions.parquet.manifest.json",
    ]
    assert "24,000 sessions of 2 gateways written to livy-demo/sessions.parquet" in first.stderr
    assert "proof: quiescent" in first.stderr


def test_query_of_the_demo_can_be_run(program: "Program", monkeypatch: pytest.MonkeyPatch) -> None:
    ended = program.run("demo", "--directory", "it's here", "-q")
    monkeypatch.chdir(program.folder)

    found = duckdb.sql(ended.stdout[ended.stdout.index("SELECT") :])

    assert found is not None
    assert ended.stderr == ""
    assert sum(count for _, count, _ in found.fetchall()) == 24_000
    assert all(len(line) <= 80 for line in ended.stdout.splitlines())


def test_quiet_export_is_silent(program: "Program") -> None:
    ended = program.run("export", "--workspace", "all", "--output", "out.parquet", "-q")

    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")


def test_every_line_on_stderr_is_json_when_asked_for(program: "Program") -> None:
    ended = program.run("export", "--workspace", "all", "-o", "o.parquet", "--log-format", "json")

    events = [json.loads(line) for line in ended.stderr_lines]
    assert {"listing_started", "listing_finished", "run_finished"} <= {
        event["event"] for event in events
    }
    assert len({event["run_id"] for event in events}) == 1


def test_errors_are_json_lines_with_the_run_they_ended(program: "Program") -> None:
    ended = program.run(
        "export",
        "--workspace",
        "w-9",
        "-o",
        "o.parquet",
        environ={"LIVY_EXPORTER_LOG_FORMAT": "json"},
    )

    (error,) = [json.loads(line) for line in ended.stderr_lines]
    assert ended.code == 2
    assert (error["level"], error["event"]) == ("error", "error")
    assert "w-9" in error["error"]
    assert error["hint"] != ""
    assert re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}", error["run_id"]) is not None


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "--log-format", "json", "--pagesize", "1"],
        ["export", "--log-format=json", "--page-size"],
        ["export", "--log-format", "json", "--page-size", "0"],
        ["exprt", "--log-format", "json"],
    ],
    ids=" ".join,
)
def test_errors_before_the_settings_are_json_too(arguments: list[str], program: "Program") -> None:
    ended = program.run(*arguments)

    (error,) = [json.loads(line) for line in ended.stderr_lines]
    assert ended.code == 2
    assert error["event"] == "error"
    assert "run_id" not in error


def test_colour_stays_out_of_pipes_and_of_no_color(program: "Program") -> None:
    for environ in ({}, {"NO_COLOR": "1"}, {"TERM": "xterm-256color"}):
        ended = program.run("export", "--workspace", "w-2", "-o", "o.parquet", environ=environ)

        assert "\x1b" not in ended.stderr
        assert ended.code == 0


def on_a_terminal(program: "Program", command: str, **environ: str) -> str:
    """What a command writes when stdout and stderr are one terminal."""
    ended = program.run(
        command=("script", "-qec", command, "/dev/null"), environ={"TERM": "xterm", **environ}
    )
    assert ended.code == 0, ended.stdout
    return ended.stdout


@pytest.mark.skipif(shutil.which("script") is None, reason="needs util-linux's script")
@pytest.mark.parametrize("progress", ["auto", "bar"])
def test_no_bar_is_drawn_into_the_sessions_on_a_terminal(progress: str, program: "Program") -> None:
    command = f"{sys.executable} -m exporter export --workspace w-1 -o - --progress {progress}"

    shown = on_a_terminal(program, command)

    lines = shown.splitlines()
    assert "\x1b" not in shown
    assert len([json.loads(line) for line in lines if line.startswith("{")]) == 935
    assert "935 sessions of 2 gateways written to stdout" in shown


@pytest.mark.skipif(shutil.which("script") is None, reason="needs util-linux's script")
def test_bar_is_drawn_without_colour_under_no_color(program: "Program") -> None:
    command = f"{sys.executable} -m exporter export --workspace w-1 -o out.parquet"

    shown = on_a_terminal(program, command, NO_COLOR="1")

    assert "\x1b[?25l" in shown
    assert re.search(r"\x1b\[(\d+;)*3\d", shown) is None


def test_module_and_script_are_the_same_program(program: "Program") -> None:
    script = Path(sys.executable).with_name("livy-exporter")

    for arguments in (["--version"], ["--help"], ["export", "--help"], ["export", "--nonsense"]):
        by_module = program.run(*arguments)
        by_script = program.run(*arguments, command=(str(script),))

        assert by_module == by_script


def test_version_is_the_one_of_the_distribution(program: "Program") -> None:
    from importlib.metadata import version

    ended = program.run("--version")

    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout == f"livy-exporter {version('livy-exporter')}\n"


@pytest.mark.parametrize(
    "command",
    [[], ["export"], ["plan"], ["gateways"], ["demo"], ["emulate"], ["config"], ["config", "show"]],
    ids=" ".join,
)
def test_help_fits_a_terminal_of_80_columns(command: list[str], program: "Program") -> None:
    ended = program.run(*command, "--help", environ={"COLUMNS": "80"})

    assert (ended.code, ended.stderr) == (0, "")
    assert ended.stdout.startswith(" ".join(["usage: livy-exporter", *command]))
    assert [line for line in ended.stdout.splitlines() if len(line) > 80] == []


def test_nothing_asked_for_shows_the_help_and_fails(program: "Program") -> None:
    ended = program.run()

    assert (ended.code, ended.stdout) == (2, "")
    assert ended.stderr == program.run("--help").stdout


COMPLETE = """
source completion.bash
COMP_WORDS=("$@")
COMP_CWORD=$(($# - 1))
_shtab_livy_exporter "$1" "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}" 2>/dev/null
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.parametrize(
    ("words", "offered", "not_offered"),
    [
        (["ex"], {"export"}, {"plan"}),
        ([""], {"export", "plan", "gateways", "demo", "emulate", "config"}, set[str]()),
        (["export", "--pa"], {"--page-size"}, {"--profile"}),
        (["export", "--no-"], {"--no-allow-incomplete", "--no-quiet"}, {"--network"}),
        (["export", "--network", ""], {"public", "vpc"}, {"livy.toml"}),
        (["export", "--format", "n"], {"ndjson"}, {"parquet"}),
        (["plan", "--log-format", ""], {"text", "json"}, set[str]()),
        (["export", "--config", ""], {"livy.toml", "sub"}, {"text"}),
        (["export", "--output", "l"], {"livy.toml"}, {"sub"}),
        (["export", "--manifest", "l"], {"livy.toml"}, set[str]()),
        (["emulate", "--from", "l"], {"livy.toml"}, set[str]()),
        (["demo", "--directory", ""], {"sub"}, {"livy.toml"}),
        (["config", "s"], {"show", "schema"}, {"export"}),
        (["config", "show", "--ver"], {"--verbose"}, {"--version"}),
        (["--show-completion", ""], {"bash", "zsh", "tcsh"}, set[str]()),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bash_completes(
    words: list[str], offered: set[str], not_offered: set[str], program: "Program"
) -> None:
    script = program.run("--show-completion", "bash")
    (program.folder / "completion.bash").write_text(script.stdout, encoding="utf-8")
    (program.folder / "livy.toml").touch()
    (program.folder / "sub").mkdir()

    ended = program.run(command=("/bin/bash", "-c", COMPLETE, "bash", "livy-exporter", *words))

    found = set(ended.stdout.split("\n"))
    assert offered <= found
    assert found.isdisjoint(not_offered)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_script_is_for_the_command_as_installed(shell: str, program: "Program") -> None:
    ended = program.run("--show-completion", shell)

    assert (ended.code, ended.stderr) == (0, "")
    assert "livy-exporter" in ended.stdout
    if shutil.which(shell) is not None and shell != "tcsh":
        checked = program.run("-n", "/dev/stdin", command=(shell,))
        assert checked.code == 0
