"""Claims about watching an unattended run: metrics, JSON lines, silence."""

import json
import signal
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporter.emulator.churn import Churn, Flow
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from tests.support.patience import HANG_S, wait_until
from tests.support.program import Program, ProgramFor

EXPORT = ("export", "--workspace", "all", "--output", "o.parquet")
METRICS = ("--metrics-file", "livy.prom")
LAST_SUCCESS = "livy_exporter_last_success_timestamp_seconds"


def read_metrics(program: "Program", name: str = "livy.prom") -> dict[str, float]:
    """Values by name, those of several gateways or outcomes added up."""
    found: dict[str, float] = {}
    text = (program.folder / name).read_text(encoding="utf-8")
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.labels["output"] == "o.parquet"
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return found


def test_metrics_of_a_good_run_agree_with_its_manifest(program: "Program") -> None:
    before_s = time.time()

    ended = program.run(*EXPORT, *METRICS, "-q")

    manifest = json.loads((program.folder / "o.parquet.manifest.json").read_bytes())
    shown = read_metrics(program)
    assert (ended.code, ended.stderr) == (0, "")
    assert shown["livy_exporter_run_exit_code"] == 0
    assert shown["livy_exporter_run_sessions"] == manifest["session_count"] == 936
    assert shown["livy_exporter_gateway_sessions"] == 936
    assert shown["livy_exporter_gateway_proof"] == 4
    assert shown["livy_exporter_run_requests"] == manifest["requests"]["sent"]
    assert shown["livy_exporter_run_published_bytes"] == manifest["files"][0]["size_bytes"]
    assert before_s <= shown[LAST_SUCCESS] <= time.time()
    assert shown["livy_exporter_newest_session_lag_seconds"] == pytest.approx(
        shown[LAST_SUCCESS] - shown["livy_exporter_newest_session_timestamp_seconds"], abs=0.01
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        (["--workspace", "w-9"], 2),
        (["--output", "none/deeper/o.parquet"], 1),
        (["--deadline", "1ms"], 1),
    ],
)
def test_metrics_of_a_failed_run_keep_the_last_success(
    changes: list[str], code: int, program: "Program"
) -> None:
    assert program.run(*EXPORT, *METRICS, "-q").code == 0
    former = read_metrics(program)
    arguments = {"--workspace": "all", "--output": "o.parquet", changes[0]: changes[1]}

    ended = program.run("export", *(word for pair in arguments.items() for word in pair), *METRICS)

    text = (program.folder / "livy.prom").read_text().replace("none/deeper/o.parquet", "o.parquet")
    (program.folder / "livy.prom").write_text(text)
    assert ended.code == code
    assert read_metrics(program)["livy_exporter_run_exit_code"] == code
    assert read_metrics(program)[LAST_SUCCESS] == former[LAST_SUCCESS]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_metrics_of_an_interrupted_run_are_written(
    number: signal.Signals, code: int, slow_program: "Program"
) -> None:
    running = slow_program.start(*EXPORT, *METRICS, "-q", "--concurrency", "1")
    wait_until(lambda: list(slow_program.folder.glob(".o.parquet.*.partial")))

    running.send_signal(number)
    _, stderr = running.communicate(timeout=HANG_S)

    assert running.returncode == code
    assert b"interrupted" in stderr
    assert read_metrics(slow_program)["livy_exporter_run_exit_code"] == code


def test_metrics_that_cannot_be_written_undo_nothing(program: "Program") -> None:
    ended = program.run(*EXPORT, "--metrics-file", "none/livy.prom", "-q")

    assert ended.code == 0
    assert ended.stderr_lines[0].startswith("error: cannot write the metrics to 'none/livy.prom': ")
    assert ended.stderr_lines[1].startswith("hint: ")
    assert program.run("verify", "o.parquet").code == 0


def test_metrics_that_cannot_be_written_hide_no_error(program: "Program") -> None:
    ended = program.run(*EXPORT, "--gateway", "lc-9", "--metrics-file", "none/livy.prom", "-q")

    assert ended.code == 2
    assert [line.partition(": ")[0] for line in ended.stderr_lines] == ["warning", "error", "hint"]


def test_metrics_in_the_place_of_the_output_are_refused(program: "Program") -> None:
    ended = program.run(*EXPORT, "--metrics-file", "./o.parquet")

    assert ended.code == 2
    assert "which the export writes itself" in ended.stderr
    assert program.listing() == {}


def unprovable() -> Scenario:
    """A list in no order from which sessions go: it cannot be proven complete."""
    churn = Churn(tie_size=10**6, deletions=Flow(per_s=100))
    gateway = EmulatedGateway(gateway_id="lc-1", name="one", session_count=3000, churn=churn)
    return Scenario(
        seed=3,
        latency_s=0.02,
        jitter_s=0.02,
        workspaces=(EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,)),),
    )


def test_quiet_reports_an_unproven_listing(program_for: "ProgramFor") -> None:
    program, _ = program_for(unprovable())

    ended = program.run(*EXPORT, *METRICS, "-q")

    assert ended.code == 4
    assert ended.stderr_lines[0].startswith("error: cannot prove that w-1/lc-1 is complete")
    assert read_metrics(program)["livy_exporter_run_exit_code"] == 4
    text = (program.folder / "livy.prom").read_text()
    assert 'proof="unproven"' in text


def test_quiet_sums_up_an_incomplete_output(program_for: "ProgramFor") -> None:
    program, _ = program_for(unprovable())

    ended = program.run(*EXPORT, "-q", "--allow-incomplete")

    assert ended.code == 0
    assert ended.stderr_lines[0].startswith("INCOMPLETE: ")


def test_quiet_json_has_one_line_for_an_incomplete_output(
    program_for: "ProgramFor",
) -> None:
    program, _ = program_for(unprovable())

    ended = program.run(*EXPORT, "-q", "--allow-incomplete", "--log-format", "json")

    (line,) = [json.loads(each) for each in ended.stderr_lines]
    assert (line["event"], line["level"], line["status"]) == (
        "run_finished",
        "warning",
        "incomplete",
    )
    assert {"run_id", "gateways"} <= line.keys()


def test_json_error_names_run_and_gateway(program_for: "ProgramFor") -> None:
    program, _ = program_for(unprovable())

    ended = program.run(*EXPORT, "-q", "--log-format", "json")

    (error,) = [json.loads(each) for each in ended.stderr_lines]
    assert (error["workspace_id"], error["gateway_id"]) == ("w-1", "lc-1")
    assert error["run_id"] != ""


def test_json_lines_about_a_gateway_name_it(program: "Program") -> None:
    ended = program.run(*EXPORT, "--log-format", "json", "-v")

    lines = [json.loads(each) for each in ended.stderr_lines]
    about = [each for each in lines if each["event"].startswith("listing_")]
    assert {(each["workspace_id"], each["gateway_id"]) for each in about} == {
        ("w-1", "lc-a"),
        ("w-1", "lc-b"),
        ("w-2", "lc-empty"),
        ("w-2", "lc-one"),
    }
    assert len({each["run_id"] for each in lines}) == 1


def test_quiet_failure_is_an_error_and_its_hint(program: "Program") -> None:
    ended = program.run("export", "--workspace", "w-9", "--output", "o.parquet", "-q")

    assert ended.code == 2
    assert [each.partition(":")[0] for each in ended.stderr_lines] == ["error", "hint"]


def export_both(program: "Program") -> None:
    for output in ("o.parquet", "o.ndjson.zst"):
        assert program.run("export", "--workspace", "all", "-o", output, "-q").code == 0


def test_published_outputs_are_verified(program: "Program") -> None:
    export_both(program)
    assert program.run("export", "--workspace", "all", "-o", "dataset/", "-q").code == 0

    for output in ("o.parquet", "o.ndjson.zst", "dataset", "dataset/"):
        ended = program.run("verify", output)

        assert (ended.code, ended.stderr) == (0, "")
        assert "rows" in ended.stdout
        assert "936" in ended.stdout
        assert all(len(line) <= 80 for line in ended.stdout.splitlines())


def test_verified_output_is_shown_as_json(program: "Program") -> None:
    export_both(program)
    (program.folder / "o.parquet").unlink()

    ended = program.run("verify", "o.parquet", "--json")

    shown = json.loads(ended.stdout)
    assert ended.code == 1
    assert shown["is_as_promised"] is False
    assert shown["problems"] == ["'o.parquet' is missing"]
    assert shown["checked"][0] == {"what": "files", "promised": 1, "found": 0}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damage_is_one_line_each_on_stderr(program: "Program") -> None:
    assert program.run("export", "--workspace", "all", "-o", "dataset/", "-q").code == 0
    (part,) = (program.folder / "dataset").glob("part-*")
    flip(part)
    (program.folder / "dataset" / "part-x-00000.parquet").write_bytes(b"")

    ended = program.run("verify", "dataset")

    assert ended.code == 1
    assert ended.stdout.startswith("CHECKED")
    assert [line.partition(":")[0] for line in ended.stderr_lines] == ["error", "error"]


def test_damage_is_json_where_errors_are(program: "Program") -> None:
    export_both(program)
    flip(program.folder / "o.parquet")

    ended = program.run("verify", "o.parquet", environ={"LIVY_EXPORTER_LOG_FORMAT": "json"})

    (error,) = [json.loads(line) for line in ended.stderr_lines]
    assert (ended.code, error["event"]) == (1, "error")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [([], 2), (["-"], 2), (["none.parquet"], 1), (["none/"], 1), (["a", "b"], 2)],
)
def test_output_that_cannot_be_verified_is_reported(
    arguments: list[str], code: int, program: "Program"
) -> None:
    ended = program.run("verify", *arguments)

    assert (ended.code, ended.stdout) == (code, "")
    assert ended.stderr_lines[0].startswith("error: ")
    assert program.listing() == {}
