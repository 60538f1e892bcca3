"""Two runs of one output, in two processes: one at a time, and readers see whole outputs."""

import json
import platform
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from tests.support.patience import HANG_S, wait_until

if TYPE_CHECKING:  # pytest finds the fixtures by their names; this folder is no package
    from tests.support.forks import ForkedProgram
    from tests.support.program import Program, ProgramFor

OUTPUTS = pytest.mark.parametrize("output", ["out.parquet", "lake/"])


def build_scenario(latency_s: float) -> Scenario:
    gateway = EmulatedGateway(gateway_id="lc-1", name="one", session_count=400)
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,))
    return Scenario(seed=5, workspaces=(workspace,), latency_s=latency_s)


def flags_of(output: str) -> list[str]:
    slowly = ["--page-size", "20", "--concurrency", "2", "--progress", "none"]
    return ["export", "--workspace", "w-1", "-o", output, *slowly]


@contextmanager
def holding(program: "Program", output: str) -> "Iterator[ForkedProgram]":
    """A run that holds the output's lock, stopped until it is resumed."""
    lock = program.folder / ("lake/_exporter/lock" if output == "lake/" else f".{output}.lock")
    process = program.start(*flags_of(output))
    try:
        wait_until(lambda: lock.exists() and lock.stat().st_size > 0)
        process.send_signal(signal.SIGSTOP)
        yield process
    finally:
        process.kill()
        process.communicate()


def finish(process: "ForkedProgram") -> bytes:
    """Resume the run to its end; returns its output."""
    process.send_signal(signal.SIGCONT)
    return process.communicate(timeout=HANG_S)[1]


@OUTPUTS
def test_second_run_ends_at_once_and_names_the_first(
    output: str, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(build_scenario(0.01))

    with holding(program, output) as first:
        # It would wait for ever if it waited at all.
        ended = program.run(*flags_of(output), "--metrics-file", "livy.prom")
        stderr = finish(first)

    error, hint = ended.stderr_lines
    assert ended.code == 5
    assert f"another run is writing '{output}'" in error
    assert f"host {platform.node()}, pid {first.pid}, since 20" in error
    assert "--wait" in hint
    assert first.returncode == 0, stderr
    metrics = (program.folder / "livy.prom").read_text()
    assert f'livy_exporter_run_exit_code{{output="{output}"}} 5.0' in metrics


def test_of_two_runs_that_start_together_one_publishes(program_for: "ProgramFor") -> None:
    program, _ = program_for(build_scenario(0.01))
    lock = program.folder / ".out.parquet.lock"

    processes = {process.pid: process for process in [start(program), start(program)]}
    wait_until(lambda: lock.exists() and lock.stat().st_size > 0)
    winner = processes.pop(json.loads(lock.read_bytes())["pid"])
    winner.send_signal(signal.SIGSTOP)
    (loser,) = processes.values()
    told = loser.communicate(timeout=HANG_S)[1]
    stderr = finish(winner)

    assert (winner.returncode, loser.returncode) == (0, 5), (stderr, told)


def start(program: "Program") -> "ForkedProgram":
    return program.start(*flags_of("out.parquet"))


@OUTPUTS
def test_run_that_may_wait_comes_after_the_first(output: str, program_for: "ProgramFor") -> None:
    program, emulator = program_for(build_scenario(0.01))

    with holding(program, output) as first:
        second = program.start(*flags_of(output), "--wait", "10m")
        assert second.stderr is not None
        told = second.stderr.readline().decode()
        finish(first)
        stderr = second.communicate(timeout=HANG_S)[1]

    assert (first.returncode, second.returncode) == (0, 0), stderr
    assert re.search(r"waiting up to \d+s for another run", told)
    assert emulator.stats().request_counts["ListLivyComputeSessions"]["ok"] >= 2 * 20
    assert program.run("verify", output).code == 0


def test_run_that_waits_too_long_says_so(program_for: "ProgramFor") -> None:
    program, _ = program_for(build_scenario(0.01))

    with holding(program, "out.parquet"):
        ended = program.run(*flags_of("out.parquet"), "--wait", "1s")

    assert ended.code == 5
    assert re.search(r"waited \d+s for it", ended.stderr)


@OUTPUTS
def test_holder_that_was_killed_blocks_nobody(output: str, program_for: "ProgramFor") -> None:
    program, _ = program_for(build_scenario(0.05))
    with holding(program, output) as first:
        first.send_signal(signal.SIGKILL)

    ended = program.run(*flags_of(output))

    assert ended.code == 0, ended.stderr
    assert program.run("verify", output).code == 0


@OUTPUTS
def test_reader_sees_the_previous_version_while_a_run_is_at_work(
    output: str, program_for: "ProgramFor"
) -> None:
    program, emulator = program_for(build_scenario(0.1))
    assert program.run(*flags_of(output)).code == 0
    before = read_data(program.folder)
    previous_count = emulator.stats().ok_count

    with holding(program, output) as second:
        second.send_signal(signal.SIGCONT)
        wait_until(lambda: emulator.stats().ok_count >= previous_count + 8)
        second.send_signal(signal.SIGSTOP)
        checked = program.run("verify", output)
        meanwhile = read_data(program.folder)
        stderr = finish(second)

    assert checked.code == 0, checked.stderr
    assert meanwhile == before
    assert second.returncode == 0, stderr


def read_data(folder: Path) -> dict[str, bytes]:
    """The files that a reader sees, without hidden ones."""
    return {
        str(path): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.parts[-2:])
        and path.parent.name != "_exporter"
    }
