"""Two runs of one output, in processes of their own: one at a time, and readers see no half."""

import platform
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario

if TYPE_CHECKING:  # pytest finds the fixtures by their names; this folder is no package
    import subprocess

    from tests.integration.conftest import Program, ProgramFor

AT_ONCE_S = 4.0
"""Most of it is the interpreter's start, on a machine that does other things, too."""

OUTPUTS = pytest.mark.parametrize("output", ["out.parquet", "lake/"])


def build_scenario(latency_s: float) -> Scenario:
    gateway = EmulatedGateway(gateway_id="lc-1", name="one", session_count=400)
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,))
    return Scenario(seed=5, workspaces=(workspace,), latency_s=latency_s)


def flags_of(output: str) -> list[str]:
    slowly = ["--page-size", "20", "--concurrency", "2", "--progress", "none"]
    return ["export", "--workspace", "w-1", "-o", output, *slowly]


@contextmanager
def holding(program: "Program", output: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A run that has the output's lock."""
    lock = program.folder / ("lake/_exporter/lock" if output == "lake/" else f".{output}.lock")
    process = program.start(*flags_of(output))
    until_s = time.monotonic() + 20
    while not lock.exists() or lock.stat().st_size == 0:
        assert time.monotonic() < until_s
        time.sleep(0.01)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@OUTPUTS
def test_second_run_ends_at_once_and_names_the_first(
    output: str, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(build_scenario(0.3))

    with holding(program, output) as first:
        started_s = time.monotonic()
        ended = program.run(*flags_of(output), "--metrics-file", "livy.prom")
        took_s = time.monotonic() - started_s
        _, stderr = first.communicate(timeout=30)

    error, hint = ended.stderr_lines
    assert ended.code == 5
    assert took_s < AT_ONCE_S
    assert f"another run is writing '{output}'" in error
    assert f"host {platform.node()}, pid {first.pid}, since 20" in error
    assert "--wait" in hint
    assert first.returncode == 0, stderr
    metrics = (program.folder / "livy.prom").read_text()
    assert f'livy_exporter_run_exit_code{{output="{output}"}} 5.0' in metrics


def test_of_two_runs_that_start_together_one_publishes(program_for: "ProgramFor") -> None:
    program, _ = program_for(build_scenario(0.3))

    processes = [program.start(*flags_of("out.parquet")) for _ in range(2)]
    ends = [process.communicate(timeout=30)[1] for process in processes]

    assert sorted(process.returncode for process in processes) == [0, 5], ends


@OUTPUTS
def test_run_that_may_wait_comes_after_the_first(output: str, program_for: "ProgramFor") -> None:
    program, emulator = program_for(build_scenario(0.1))

    with holding(program, output) as first:
        ended = program.run(*flags_of(output), "--wait", "20s")
        first.communicate(timeout=30)

    assert (first.returncode, ended.code) == (0, 0)
    assert "waiting up to 20s for another run" in ended.stderr
    assert emulator.stats().request_counts["ListLivyComputeSessions"]["ok"] >= 2 * 20
    assert program.run("verify", output).code == 0


def test_run_that_waits_too_long_says_so(program_for: "ProgramFor") -> None:
    program, _ = program_for(build_scenario(0.5))

    with holding(program, "out.parquet"):
        ended = program.run(*flags_of("out.parquet"), "--wait", "1s")

    assert ended.code == 5
    assert "waited 1s for it" in ended.stderr


@OUTPUTS
def test_holder_that_was_killed_blocks_nobody(output: str, program_for: "ProgramFor") -> None:
    program, _ = program_for(build_scenario(0.05))
    with holding(program, output) as first:
        first.send_signal(signal.SIGKILL)

    ended = program.run(*flags_of(output))

    assert ended.code == 0, ended.stderr
    assert program.run("verify", output).code == 0


@OUTPUTS
def test_reader_sees_the_former_version_while_a_run_is_at_work(
    output: str, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(build_scenario(0.3))
    assert program.run(*flags_of(output)).code == 0
    before = read_data(program.folder)

    with holding(program, output) as second:
        time.sleep(0.3)
        checked = program.run("verify", output)
        meanwhile = read_data(program.folder)
        second.communicate(timeout=30)

    assert checked.code == 0, checked.stderr
    assert meanwhile == before
    assert second.returncode == 0


def read_data(folder: Path) -> dict[str, bytes]:
    """The files that a reader sees; hidden ones are the run's own."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.parts[-2:])
        and path.parent.name != "_exporter"
    }
