"""What every benchmark needs: an emulator in a process of its own, and what a child process
cost."""

import os
import platform
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from urllib.request import urlopen

EXPORTER = (sys.executable, "-m", "exporter")
FOLDER = Path(__file__).parent
WORKSPACE, GATEWAY = "w-emulated-1", "lc-emulated-1-1"


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what was measured, what came out, and what it should be."""

    measured: str
    figure: str
    goal: str = ""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one child process took, by the operating system's account."""

    cpu_s: float
    wall_s: float
    peak_mib: float


@contextmanager
def emulator(*flags: str) -> Iterator[dict[str, str]]:
    """`livy-exporter emulate` with the flags; yields the environment that points a client at it."""
    child = subprocess.Popen([*EXPORTER, "emulate", *flags], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    try:
        while "LIVY_EXPORTER_REGION" not in environment:
            words = shlex.split(child.stdout.readline(), comments=True)
            if words[:1] == ["export"]:
                name, _, value = words[1].partition("=")
                environment[name] = value
        yield environment
    finally:
        child.terminate()
        child.wait()
        child.stdout.close()


def reset(environment: dict[str, str]) -> None:
    """The emulator's counters back to zero."""
    with urlopen(environment["LIVY_EXPORTER_ENDPOINT"] + "/emulator/reset", data=b""):  # noqa: S310 - loopback
        pass


def read_stats(environment: dict[str, str]) -> bytes:
    with urlopen(environment["LIVY_EXPORTER_ENDPOINT"] + "/emulator/stats") as answer:  # noqa: S310 - loopback
        body: bytes = answer.read()
    return body


def measure(command: Sequence[str], environment: dict[str, str]) -> Cost:
    """Run a command to its end. Raises CalledProcessError with what it said when it fails."""
    started_s = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as child:
        assert child.stderr is not None
        said = child.stderr.read()
        _, status, usage = os.wait4(child.pid, 0)
        wall_s = time.perf_counter() - started_s
        child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise subprocess.CalledProcessError(child.returncode, command, stderr=said)
    return Cost(usage.ru_utime + usage.ru_stime, wall_s, usage.ru_maxrss / 1024)


def spread(values: Sequence[float], form: str = ".2f") -> str:
    """The median, then the least and the most."""
    return f"{statistics.median(values):{form}} ({min(values):{form}}-{max(values):{form}})"


def describe_machine() -> str:
    versions = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("aiohttp", "orjson", "pyarrow")
    )
    return (
        f"{os.cpu_count()} cores, {platform.system()} {platform.machine()},"
        f" Python {platform.python_version()}, {versions}"
    )
