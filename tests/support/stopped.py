"""Runs that are stopped at a stage for longer than their lease, while another run publishes.

In every case one run is stopped right before it calls a function of the program; a second one waits
for its lease, takes it over and publishes; then the first is woken. The leases are short.
"""

import json
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.forks import ForkedProgram, Run, Stage
from tests.support.patience import wait_until

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
    def start(case: Case, stage: Stage | None, *flags: str) -> ForkedProgram:
        words = (*arguments, *case.flags, "--output", case.output, *flags)
        return ForkedProgram(Run(words, environ, folder, stage, signal.SIGSTOP, LEASE_S))

    def run_batch(batch: Sequence[Case]) -> list[Outcome]:
        firsts = [None if case.stage is None else start(case, case.stage) for case in batch]
        stopped = [first if first and wait_until_stopped(first) else None for first in firsts]
        manifests = [folder / f"{number}.json" for number in range(len(batch))]
        seconds = [
            start(case, None, "--manifest", str(manifest))
            for case, manifest in zip(batch, manifests, strict=True)
        ]
        return [wake(*each) for each in zip(stopped, seconds, manifests, strict=True)]

    batches = [cases[at : at + AT_A_TIME] for at in range(0, len(cases), AT_A_TIME)]
    return [outcome for batch in batches for outcome in run_batch(batch)]


def wait_until_stopped(process: ForkedProgram) -> bool:
    """False when it ended instead."""
    status = Path(f"/proc/{process.pid}/stat")

    def is_stopped() -> bool:
        return status.exists() and status.read_text().rpartition(")")[2].split()[0] == "T"

    wait_until(lambda: process.poll() is not None or is_stopped())
    return process.poll() is None


def wake(first: ForkedProgram | None, second: ForkedProgram, manifest: Path) -> Outcome:
    """Wait for the second run, and wake the first."""
    with second:
        _, second_stderr = second.communicate()
        second_code = second.wait()
    first_code, first_stderr = -1, b""
    if first is not None:
        with first:
            first.send_signal(signal.SIGCONT)
            _, first_stderr = first.communicate()
            first_code = first.wait()
    run_id = json.loads(manifest.read_bytes())["run_id"] if manifest.exists() else ""
    manifest.unlink(missing_ok=True)
    return Outcome(
        first is not None,
        first_code,
        first_stderr.decode(),
        second_code,
        second_stderr.decode(),
        run_id,
    )
