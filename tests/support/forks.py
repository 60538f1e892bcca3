"""The program in processes that are forked when they are wanted, and that may be ended at a stage.

    python -m tests.support.forks

reads one run a line and answers with its end, JSON both. It has imported what the program imports
late, and has started no thread, so that a run costs a fork and not a second. A stage is a function
of the program that is about to be called: no run is changed but by the signal it gets there.
"""

import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Stage:
    """What a run has done so far, told by the function it calls next."""

    name: str
    functions: tuple[str, ...]
    """The end of its qualified name: one of these."""
    caller: str = ""
    """The end of its caller's qualified name."""
    count: int = 1
    """Which one of such calls."""

    def __str__(self) -> str:
        return self.name

    def is_met(self, frame: FrameType) -> bool:
        code, before = frame.f_code, frame.f_back
        return (
            code.co_qualname.endswith(tuple(self.functions))
            and "exporter" in code.co_filename
            and before is not None
            and before.f_code.co_qualname.endswith(self.caller)
        )


LISTED = Stage("listed", ("require_complete",), "export_run")
"""All rows are written, the files are not ended."""
CLOSED = Stage("closed", ("build_manifest",))
"""The data are safe and invisible."""
INTENDED = Stage("intended", ("Output.publish", "LocalStore.replace_together"))
"""It is known what will be published; a folder that changes as one act has not changed yet."""
HALF_SHOWN = Stage("half shown", ("FileOutput.publish",), count=2)
"""One part of several has its name."""
SHOWN = Stage("shown", ("Publisher._complete",))
"""The data can be read."""
DESCRIBED = Stage("described", ("Publisher._publish_state",))
"""The manifest is written, the state is not."""
STATED = Stage("stated", (".remove",), "Publisher._complete")
"""The state is written, the note of what will be published is still there."""
TOLD = Stage("told", ("Publisher.remove_leftovers",), "act")
"""All is written, the note of it is gone, too."""


@dataclass(frozen=True)
class Ended:
    """A process that has ended, and what it said."""

    code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class Forks:
    """Runs the program in processes of their own, one at a time."""

    process: "subprocess.Popen[str]"

    def run(
        self,
        *arguments: str,
        environ: Mapping[str, str],
        folder: Path,
        stage: Stage | None = None,
        number: signal.Signals = signal.SIGKILL,
    ) -> Ended:
        """Run it to its end, or to a stage, where it gets the signal."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        ask = {
            "arguments": arguments,
            "environ": dict(environ),
            "folder": str(folder),
            "stage": None if stage is None else vars(stage),
            "number": int(number),
        }
        print(json.dumps(ask), file=self.process.stdin, flush=True)
        return Ended(**json.loads(self.process.stdout.readline()))


@contextmanager
def forking() -> Iterator[Forks]:
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.forks"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as process:
        try:
            yield Forks(process)
        finally:
            process.kill()


def signal_at(stage: Stage, number: int) -> None:
    """Have this process get a signal right before it reaches a stage."""
    count = 0

    def watch(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal count
        if event == "call" and stage.is_met(frame):
            count += 1
            if count == stage.count:
                os.kill(os.getpid(), number)

    threading.setprofile(watch)
    sys.setprofile(watch)


def run_here(ask: Mapping[str, Any]) -> int:
    """In a child: become the program. Its exit code."""
    from exporter.cli.main import main

    os.environ.clear()
    os.environ.update(ask["environ"])
    os.chdir(ask["folder"])
    if ask["stage"] is not None:
        signal_at(Stage(**ask["stage"]), ask["number"])
    return main(ask["arguments"])


def fork(run: Callable[[], int]) -> Ended:
    """Its end, and what it said."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(stdout.fileno(), 1)
                os.dup2(stderr.fileno(), 2)
                code = run()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        stdout.seek(0)
        stderr.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, stdout.read().decode(), stderr.read().decode())


IMPORTED = (
    "deltalake",
    "exporter.cli.main",
    "exporter.cli.export",
    "exporter.sinks.parquet",
    "exporter.tables.delta",
    "exporter.tables.iceberg",
    "exporter.tables.paimon",
    "obstore.store",
    "pyiceberg.catalog.sql",
    "pyiceberg.io.pyarrow",
)
"""What takes long, and is imported only once a run needs it."""


def prepare_to_fork() -> None:
    for name in IMPORTED:
        importlib.import_module(name)
    assert threading.active_count() == 1
    gc.freeze()  # a child that collects would copy every page it looks at


def serve() -> None:
    prepare_to_fork()
    for line in sys.stdin:
        ask = json.loads(line)
        print(json.dumps(vars(fork(lambda: run_here(ask)))), flush=True)  # noqa: B023 - called here


if __name__ == "__main__":
    serve()
