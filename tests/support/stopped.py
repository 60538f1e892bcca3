"""Runs that are stopped at a step for longer than their lease, while another run publishes.

    python -m tests.support.stopped

reads cases as JSON and answers what came of each. In every case one run is stopped right before it
calls a function of the program; a second one waits for its lease, takes it over and publishes; then
the first is woken. The leases are short, the processes are forked: see `tests.support.forks`.
"""

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from tests.support.forks import Stage, prepare_to_fork, signal_at

LEASE_S = 15.0
AT_A_TIME = 7
"""Cases that go on at the same time: more would keep each other from renewing their leases."""


@dataclass(frozen=True)
class Case:
    """Where a run is stopped, and what it wrote to."""

    stage: Stage | None
    """None where only the second run is wanted."""
    output: str
    flags: tuple[str, ...] = ()
    is_committed: bool = False
    """Whether nothing that readers go by is left to do when it is stopped."""

    def __str__(self) -> str:
        return str(self.stage)


@dataclass(frozen=True)
class Outcome:
    was_stopped: bool
    first_code: int
    first_stderr: str
    second_code: int
    second_stderr: str
    second_run_id: str


def run_cases(
    cases: Sequence[Case], *, environ: Mapping[str, str], folder: Path, arguments: Sequence[str]
) -> list[Outcome]:
    asked = {
        "cases": [
            {
                "number": number,
                "stage": None if case.stage is None else vars(case.stage),
                "output": case.output,
                "flags": case.flags,
            }
            for number, case in enumerate(cases)
        ],
        "environ": dict(environ),
        "folder": str(folder),
        "arguments": list(arguments),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "tests.support.stopped"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return [Outcome(**each) for each in json.loads(ended.stdout)]


class Child:
    """A forked run of the program."""

    def __init__(self, run: Callable[[], int]) -> None:
        self._stderr: IO[bytes] = TemporaryFile()  # noqa: SIM115 - read at its end
        self.pid = os.fork()
        if self.pid == 0:
            code = 70
            try:
                os.dup2(os.open(os.devnull, os.O_RDWR), 0)
                os.dup2(0, 1)
                os.dup2(self._stderr.fileno(), 2)
                code = run()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def wait(self) -> tuple[int, str]:
        _, status = os.waitpid(self.pid, 0)
        self._stderr.seek(0)
        return os.waitstatus_to_exitcode(status), self._stderr.read().decode()

    def wait_until_stopped(self) -> bool:
        """False when it ended instead."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return os.WIFSTOPPED(status)


def start(asked: Mapping[str, Any], case: Mapping[str, Any], stage: Stage | None) -> Child:
    def run() -> int:
        from exporter.cli.main import main

        os.environ.clear()
        os.environ.update(asked["environ"])
        os.chdir(asked["folder"])
        arguments = [*asked["arguments"], *case["flags"], "--output", case["output"]]
        if stage is None:
            return main([*arguments, "--manifest", f"{case['number']}.json"])
        signal_at(stage, signal.SIGSTOP)
        return main(arguments)

    return Child(run)


def run_batch(asked: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> list[Outcome]:
    firsts = [
        None if case["stage"] is None else start(asked, case, Stage(**case["stage"]))
        for case in cases
    ]
    stopped = [
        first if first is not None and first.wait_until_stopped() else None for first in firsts
    ]
    seconds = [start(asked, case, None) for case in cases]
    return [
        wake(first, second, Path(asked["folder"]) / f"{case['number']}.json")
        for case, first, second in zip(cases, stopped, seconds, strict=True)
    ]


def wake(first: Child | None, second: Child, manifest: Path) -> Outcome:
    """Wait for the second run, and wake the first."""
    second_code, second_stderr = second.wait()
    first_code, first_stderr = -1, ""
    if first is not None:
        os.kill(first.pid, signal.SIGCONT)
        first_code, first_stderr = first.wait()
    run_id = json.loads(manifest.read_bytes())["run_id"] if manifest.exists() else ""
    return Outcome(first is not None, first_code, first_stderr, second_code, second_stderr, run_id)


def shorten_leases(lease_s: float) -> None:
    from dataclasses import replace

    from exporter.locks import lock

    build = lock.build_environment
    setattr(lock, "build_environment", lambda: replace(build(), lease_s=lease_s))  # noqa: B010 - a test's own


def main() -> None:
    importlib.import_module("exporter.cli.main")
    prepare_to_fork()
    shorten_leases(LEASE_S)
    asked = json.load(sys.stdin)
    cases = asked["cases"]
    outcomes = [
        outcome
        for start_at in range(0, len(cases), AT_A_TIME)
        for outcome in run_batch(asked, cases[start_at : start_at + AT_A_TIME])
    ]
    print(json.dumps([asdict(each) for each in outcomes]))


if __name__ == "__main__":
    main()
