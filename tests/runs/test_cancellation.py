"""An export that is stopped at any stage ends soon, quietly, and leaves no trace."""

import asyncio
import fcntl
import gc
import hashlib
import json
import os
import signal
import socket
import termios
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import get_args
from urllib.request import ProxyHandler, build_opener

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from exporter.api import retry
from exporter.emulator.faults import Fault, FaultRule
from exporter.emulator.quota import Quota
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.emulator.server import Emulator, open_emulator
from exporter.emulator.stats import EmulatorStats
from exporter.events import Event, RunFinished
from exporter.runs.export import export
from exporter.settings.settings import Settings
from tests.support.examples import thin_out
from tests.support.forks import ForkedProgram
from tests.support.patience import HANG_S, wait_until
from tests.support.program import Program, ProgramFor

SIGNALS = pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["SIGINT", "SIGTERM"]
)


def build_scenario(session_count: int, **changes: object) -> Scenario:
    gateway = EmulatedGateway(gateway_id="lc-1", name="one", session_count=session_count)
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,))
    return replace(Scenario(seed=5, workspaces=(workspace,)), **changes)  # type: ignore[arg-type] # a field each


def strike(fault: Fault, **changes: object) -> tuple[FaultRule, ...]:
    rule = FaultRule(kinds=(fault,), rate=1.0, hang_s=60.0, slow_s=60.0)
    return (replace(rule, **changes),)  # type: ignore[arg-type] # a field each


@dataclass(frozen=True)
class Stage:
    """A stage of a run, and how to recognize it."""

    name: str
    scenario: Scenario
    reached: Callable[[EmulatorStats], bool]
    is_worth_resuming: bool = True
    """Whether an answer was recorded."""


STAGES = (
    Stage(
        "before the first answer",
        build_scenario(400, faults=strike(Fault.HANG)),
        lambda stats: stats.in_flight > 0,
        is_worth_resuming=False,
    ),
    Stage(
        "discovering",
        build_scenario(400, faults=strike(Fault.HANG, calls=("ListLivyCompute",))),
        lambda stats: "hang" in stats.fault_counts,
        is_worth_resuming=False,
    ),
    Stage(
        "paging",
        build_scenario(4000, latency_s=0.1),
        lambda stats: stats.ok_count >= 20,
    ),
    Stage(
        "receiving a body",
        build_scenario(400, faults=strike(Fault.SLOW_BODY, from_request=10)),
        lambda stats: "slow-body" in stats.fault_counts,
    ),
    Stage(
        "waiting for a retry",
        build_scenario(400, faults=strike(Fault.ERROR_503, from_request=10)),
        lambda stats: stats.fault_counts.get("503", 0) >= 8 and stats.in_flight == 0,
    ),
    Stage(
        "connecting again",
        build_scenario(400, faults=strike(Fault.RESET, from_request=10)),
        lambda stats: stats.fault_counts.get("reset", 0) >= 12,
    ),
    Stage(
        "waiting at the gate",
        build_scenario(400, quota=Quota(rate_per_s=0.05, burst=10, hint="x-acs-retry-after")),
        lambda stats: stats.refused_count > 0 and stats.in_flight == 0,
    ),
)


def read_stats(emulator: Emulator) -> EmulatorStats:
    # Not `urlopen`, which keeps for ever the proxies that the environment had at its first use.
    with build_opener(ProxyHandler({})).open(f"{emulator.endpoint}/emulator/stats") as answer:
        return EmulatorStats.from_json(answer.read())


@contextmanager
def started(program: "Program", *arguments: str) -> Iterator[ForkedProgram]:
    process = program.start(*arguments)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def stop(process: ForkedProgram, number: signal.Signals) -> tuple[int, bytes]:
    """The exit code and stderr; nobody reads stdout."""
    assert process.stderr is not None
    process.send_signal(number)
    code = process.wait(HANG_S)
    return code, process.stderr.read()


@SIGNALS
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_signal_stops_an_export_at_any_stage_and_only_what_was_read_is_left(
    stage: Stage, number: signal.Signals, code: int, program_for: "ProgramFor"
) -> None:
    program, emulator = program_for(stage.scenario)
    (program.folder / "out.parquet").write_bytes(b"the previous output")
    before = program.listing()
    arguments = ["--workspace", "all", "-o", "out.parquet", "--page-size", "10"]

    with started(program, "export", *arguments, "--concurrency", "4", "--quiet") as process:
        wait_until(lambda: stage.reached(read_stats(emulator)))
        working = program.listing()
        ended, stderr = stop(process, number)

    assert len(working) > len(before)
    assert ended == code
    assert stderr == b"interrupted: nothing was published\n"
    left = program.listing()
    assert (left.pop(".out.parquet.journal", None) is not None) == stage.is_worth_resuming
    assert left == before


@SIGNALS
@pytest.mark.parametrize("session_count", [3000, 200], ids=["writing", "closing"])
def test_signal_stops_an_export_whose_reader_has_fallen_asleep(
    session_count: int, number: signal.Signals, code: int, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(build_scenario(session_count))
    arguments = ["--workspace", "all", "-o", "-", "--manifest", "it.json", "--quiet"]

    with started(program, "export", *arguments) as process:
        wait_until(lambda: pipe_is_full(process))
        ended, stderr = stop(process, number)

    assert ended == code
    assert stderr.startswith(b"interrupted")
    assert len(stderr.splitlines()) == 1
    assert program.listing() == {}


def pipe_is_full(process: ForkedProgram) -> bool:
    """Whether the pipe is nearly full."""
    assert process.stdout is not None
    waiting = fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4)
    return int.from_bytes(waiting, "little") > 60_000


@SIGNALS
def test_signal_stops_an_export_that_waits_for_its_identity(
    number: signal.Signals, code: int, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(build_scenario(10))

    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        program = replace(
            program,
            environ={
                **program.environ,
                "ALIBABA_CLOUD_ACCESS_KEY_ID": "",
                "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "",
                "ALIBABA_CLOUD_CREDENTIALS_URI": f"http://127.0.0.1:{port}/",
            },
        )
        with started(program, "export", "--workspace", "all", "-o", "out.parquet") as process:
            connection, _ = silent.accept()
            with connection:
                ended, stderr = stop(process, number)

    assert ended == code
    assert stderr == b"interrupted: nothing was published\n"
    assert program.listing() == {}


PREVIOUS = {"out.ndjson": b"the previous output", "out.ndjson.manifest.json": b"its manifest"}

BUSY = build_scenario(
    600,
    latency_s=0.001,
    jitter_s=0.004,
    quota=Quota(rate_per_s=150.0, burst=10),
    faults=(
        FaultRule(kinds=(Fault.RESET, Fault.CUT_OFF), rate=0.1, from_request=3),
        FaultRule(kinds=(Fault.ERROR_503,), requests=(9, 12)),
        # Where the machine is so slow that the quota suffices, the pace is learnt by this one.
        FaultRule(kinds=(Fault.THROTTLING_USER_429,), requests=(15,)),
    ),
)
"""All kinds of faults, within a fraction of a second."""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """An emulator for exports in this process."""
    monkeypatch.setattr(retry, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(retry, "MAX_BACKOFF_S", 0.1)


@dataclass
class Rig:
    """An export in this process, into a folder that holds a previous one."""

    folder: Path
    emulator: Emulator

    def __post_init__(self) -> None:
        self.restore()

    def restore(self) -> None:
        for path in self.folder.iterdir():
            path.unlink()
        for name, written in PREVIOUS.items():
            (self.folder / name).write_bytes(written)

    def read_folder(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.folder.iterdir()}

    async def export(self, emit: Callable[[Event], None]) -> None:
        self.emulator.reset()
        settings = Settings(
            endpoint=self.emulator.endpoint,
            region="cn-hangzhou",
            workspace=("all",),
            output=str(self.folder / "out.ndjson"),
            page_size=10,
            concurrency=6,
        )
        environ = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": self.emulator.scenario.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": self.emulator.scenario.access_key_secret,
        }
        await export(settings, run_id="run", environ=environ, emit=emit)

    def assert_untouched(self) -> None:
        """Ignores the journal, from which the next run resumes."""
        files = self.read_folder()
        files.pop(".out.ndjson.journal", None)
        assert files == PREVIOUS

    def assert_published(self) -> None:
        files = self.read_folder()
        assert set(files) == set(PREVIOUS)
        manifest = json.loads(files["out.ndjson.manifest.json"])
        assert manifest["files"][0]["sha256"] == hashlib.sha256(files["out.ndjson"]).hexdigest()
        assert manifest["session_count"] == files["out.ndjson"].count(b"\n") == 600


@asynccontextmanager
async def open_rig(folder: Path) -> AsyncIterator[Rig]:
    async with open_emulator(BUSY) as emulator:
        yield Rig(folder, emulator)
        await settle(emulator)


async def settle(emulator: Emulator) -> None:
    """Wait until the emulator has seen its clients disconnect."""
    with anyio.fail_after(HANG_S):
        while emulator.stats().in_flight > 0:  # noqa: ASYNC110 - it is the emulator's to know
            await anyio.sleep(0.001)
    await anyio.sleep(0.01)


async def count_open_files(emulator: Emulator) -> int:
    await settle(emulator)
    gc.collect()  # a socket or coroutine that nobody closed warns here, and warnings are errors
    return len(os.listdir("/dev/fd"))  # noqa: PTH208 - it changes while it is read


@pytest.mark.parametrize("share", thin_out(range(1, 20, 2), 3))
async def test_cancelled_export_leaves_everything_as_it_was_at_any_moment(
    share: int, tmp_path: Path
) -> None:
    """Moments are counted in events: a run has about as many on any machine."""
    heard_count = 0

    def cancel_at(event: Event) -> None:
        nonlocal heard_count
        heard_count += 1
        if heard_count == share * 10:
            scope.cancel()

    async with open_rig(tmp_path) as rig:
        await anyio.to_thread.run_sync(rig.restore)  # the threads stay
        open_count = await count_open_files(rig.emulator)
        with anyio.CancelScope() as scope:
            await rig.export(cancel_at)

        assert heard_count >= share * 10
        assert scope.cancelled_caught
        rig.assert_untouched()
        assert await count_open_files(rig.emulator) <= open_count
        assert asyncio.all_tasks() - server_tasks() == {asyncio.current_task()}


def server_tasks() -> "set[asyncio.Task[object]]":
    """The emulator's tasks, one a connection."""
    return {task for task in asyncio.all_tasks() if "RequestHandler" in repr(task.get_coro())}


class ByScope:
    """Cancels an anyio scope, as the program's own signals do."""

    def __init__(self) -> None:
        self._scope = anyio.CancelScope()

    def cancel(self) -> None:
        self._scope.cancel()

    async def run(self, command: Callable[[], Awaitable[None]]) -> bool:
        """Whether it was cancelled."""
        with self._scope:
            await command()
        return self._scope.cancelled_caught


class ByTask:
    """Cancels the task past any anyio shield, as asyncio does at Ctrl-C and its timeouts."""

    def __init__(self) -> None:
        self._task: asyncio.Task[None] | None = None

    def cancel(self) -> None:
        assert self._task is not None
        self._task.cancel()

    async def run(self, command: Callable[[], Awaitable[None]]) -> bool:
        async def call() -> None:
            await command()

        async with asyncio.TaskGroup() as tasks:
            self._task = tasks.create_task(call())
        return self._task.cancelled()


WAYS = pytest.mark.parametrize("way", [ByScope, ByTask])


@WAYS
@pytest.mark.parametrize("kind", get_args(Event), ids=lambda kind: kind.__name__)
async def test_export_cancelled_at_any_event_leaves_everything_as_it_was(
    kind: type[Event], way: type[ByScope | ByTask], tmp_path: Path
) -> None:
    heard: list[Event] = []
    canceller = way()

    def cancel_at_the_first(event: Event) -> None:
        if isinstance(event, kind) and not heard:
            heard.append(event)
            canceller.cancel()

    async with open_rig(tmp_path) as rig:
        cancelled = await canceller.run(lambda: rig.export(cancel_at_the_first))

        assert heard != []
        if kind is RunFinished:
            # It is published already, and to be stopped then changes nothing.
            rig.assert_published()
        else:
            rig.assert_untouched()
    assert cancelled == (kind is not RunFinished)


@WAYS
@pytest.mark.parametrize(
    ("sync", "is_published"),
    [
        pytest.param(1, False, id="the output"),
        pytest.param(2, True, id="the intent"),
        pytest.param(4, True, id="the output's folder"),
        pytest.param(5, True, id="the manifest"),
        pytest.param(6, True, id="the manifest's folder"),
    ],
)
async def test_export_cancelled_while_it_publishes_shows_all_or_nothing(
    sync: int,
    is_published: bool,
    way: type[ByScope | ByTask],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    synced: list[int] = []
    fsync = os.fsync
    canceller = way()

    def cancel_at_a_sync(fd: int) -> None:
        synced.append(fd)
        if len(synced) == sync:
            anyio.from_thread.run_sync(canceller.cancel)
            # So that a task that does not wait for this thread is seen to be gone.
            anyio.from_thread.run(anyio.sleep, 0.05)
        fsync(fd)

    async with open_rig(tmp_path) as rig:
        monkeypatch.setattr(os, "fsync", cancel_at_a_sync)
        cancelled = await canceller.run(lambda: rig.export(lambda event: None))

        if is_published:
            rig.assert_published()
        else:
            rig.assert_untouched()
    assert len(synced) >= sync
    assert cancelled != is_published
