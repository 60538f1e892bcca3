"""The program in forked processes, which may get a signal at a stage.

A server that has imported the program forks them, so that a run costs milliseconds and not a
second. A stage is a function of the program that is about to be called: no run is changed but by
the signal it gets there.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any, BinaryIO, Protocol, Self

from exporter.cli.main import main
from exporter.locks import lock
from exporter.runs.export import export_run, publish
from exporter.runs.manifest import build_manifest
from exporter.runs.publish import Publisher
from exporter.runs.verdict import require_complete
from exporter.sinks.dataset import DatasetOutput
from exporter.sinks.file import FileOutput
from exporter.sinks.partitioned import PartitionedOutput
from exporter.stores.local import LocalStore
from exporter.stores.objects import ObjectStore
from exporter.tables.output import TableOutput
from tests.support.patience import HANG_S

FORKING = get_context("forkserver")
FORKING.set_forkserver_preload(["tests.support.preloaded"])


class Function(Protocol):
    @property
    def __code__(self) -> CodeType: ...


@dataclass(frozen=True)
class Stage:
    """How far a run has come, by the function it calls next."""

    name: str
    functions: tuple[Function, ...]
    """One of these."""
    caller: Function | None = None
    """What calls it, itself or by a function inside it; None: anything."""
    count: int = 1
    """Which one of such calls."""

    def __str__(self) -> str:
        return self.name


LISTED = Stage("listed", (require_complete,), export_run)
"""All rows are written, the files are not ended."""
CLOSED = Stage("closed", (build_manifest,))
"""The data are safe and invisible."""
INTENDED = Stage(
    "intended",
    (
        *(FileOutput.publish, DatasetOutput.publish, PartitionedOutput.publish),
        *(TableOutput.publish, LocalStore.replace_together),
    ),
)
"""It is known what will be published; a folder that changes as one act has not changed yet."""
HALF_SHOWN = Stage("half shown", (FileOutput.publish,), count=2)
"""One part of several has its name."""
SHOWN = Stage("shown", (Publisher._complete,))
"""The data can be read."""
DESCRIBED = Stage("described", (Publisher._publish_state,))
"""The manifest is written, the state is not."""
STATED = Stage("stated", (LocalStore.remove, ObjectStore.remove), Publisher._complete)
"""The state is written, the note of what will be published is still there."""
TOLD = Stage("told", (Publisher.remove_leftovers,), publish)
"""All is written, the note of it is gone, too."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended, and what it said."""

    code: int
    stdout: str
    stderr: str

    @property
    def stderr_lines(self) -> list[str]:
        return self.stderr.splitlines()


@dataclass(frozen=True)
class Run:
    arguments: tuple[str, ...]
    environ: Mapping[str, str]
    folder: Path
    stage: Stage | None = None
    number: signal.Signals = signal.SIGKILL
    """The signal it gets at the stage."""
    lease_s: float | None = None
    """None: as long as the program has it."""


class ForkedProgram:
    """Looks like a `subprocess.Popen` whose streams are pipes."""

    def __init__(self, run: Run) -> None:
        streams = [os.pipe() for _ in range(2)]
        self.stdout, self.stderr = (open(each, "rb") for each, _ in streams)  # noqa: PTH123, SIM115
        ends = [Connection(each, readable=False) for _, each in streams]
        self._process = FORKING.Process(target=become_program, args=(run, *ends), daemon=True)
        self._process.start()
        for each in ends:
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._close()
        self.wait()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float = HANG_S) -> int:
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired("livy-exporter", timeout)
        return code

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float = HANG_S) -> tuple[bytes, bytes]:
        hangs = threading.Timer(timeout, self.kill)
        hangs.start()
        try:
            with ThreadPoolExecutor(1) as readers:
                stderr = readers.submit(read_rest, self.stderr)
                said = read_rest(self.stdout), stderr.result()
            self.wait(timeout)
        finally:
            hangs.cancel()
            self._close()
        return said

    def _close(self) -> None:
        self.stdout.close()
        self.stderr.close()


def read_rest(stream: BinaryIO) -> bytes:
    return b"" if stream.closed else stream.read()


def run_forked(
    *arguments: str,
    environ: Mapping[str, str],
    folder: Path,
    stage: Stage | None = None,
    number: signal.Signals = signal.SIGKILL,
) -> Ended:
    """Run the program to its end, or to a stage, where it gets the signal."""
    with ForkedProgram(Run(arguments, environ, folder, stage, number)) as process:
        stdout, stderr = process.communicate()
        return Ended(process.wait(), stdout.decode(), stderr.decode())


def become_program(run: Run, stdout: Connection, stderr: Connection) -> None:
    """In the forked process."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, stream in ((1, stdout), (2, stderr)):
        os.dup2(stream.fileno(), number)
        stream.close()
    # As Python opens them where the environment names no language.
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - till the end
    sys.stdout = open(  # noqa: SIM115 - as above
        1, "w", encoding="utf-8", errors="surrogateescape", closefd=False
    )
    sys.stderr = open(  # noqa: SIM115 - as above
        2, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    os.environ.clear()
    os.environ.update(run.environ)
    time.tzset()
    os.chdir(run.folder)
    if run.lease_s is not None:
        shorten_leases(run.lease_s)
    if run.stage is not None:
        signal_at(run.stage, run.number)
    sys.exit(main(run.arguments))


def shorten_leases(lease_s: float) -> None:
    build = lock.build_environment
    lock.build_environment = lambda: replace(build(), lease_s=lease_s)


def signal_at(stage: Stage, number: int) -> None:
    """Have this process get a signal right before it reaches a stage."""
    functions = {id(each.__code__) for each in stage.functions}
    caller = None if stage.caller is None else stage.caller.__code__
    callers = set() if caller is None else {id(each) for each in (caller, *caller.co_consts)}
    count = 0

    def watch(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        if event != "call" or id(frame.f_code) not in functions:
            return
        if caller is None or id(frame.f_back and frame.f_back.f_code) in callers:
            count += 1
            if count == stage.count:
                os.kill(os.getpid(), number)

    threading.setprofile(watch)
    sys.setprofile(watch)
