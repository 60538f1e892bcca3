"""One run per output: on real files, with a simulated clock."""

import asyncio
import errno
import fcntl
import json
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest

from exporter.errors import DestinationError, LockHeldError, LockLostError
from exporter.locks.lock import Lock, LockEnvironment, build_environment, hold_lock
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore
from tests.support.lease_simulation import MemoryStore
from tests.support.patience import HANG_S

LOCK = ".out.parquet.lock"
AT = datetime(2026, 11, 23, 1, 2, 3, tzinfo=UTC)


class Time:
    """Simulated: it goes on in steps while a task sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        until_s = self.now_s + seconds
        while self.now_s < until_s:
            await anyio.sleep(0.001)
            self.now_s = max(self.now_s, min(self.now_s + 0.5, until_s))


def environment_of(time: Time, *, host: str = "etl-1") -> LockEnvironment:
    return LockEnvironment(
        host=host,
        pid=4242,
        now=lambda: AT + timedelta(seconds=time.now_s),
        now_s=lambda: time.now_s,
        sleep=time.sleep,
        jitter=lambda: 0.5,
    )


def without_locks(environment: LockEnvironment) -> LockEnvironment:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    return replace(environment, flock=flock)


def hold(
    store: Store,
    environment: LockEnvironment | None = None,
    *,
    run_id: str = "run-1",
    wait_s: float | None = None,
    name: str = LOCK,
) -> AbstractAsyncContextManager[Lock]:
    return hold_lock(
        store, name, output="out.parquet", run_id=run_id, wait_s=wait_s, environment=environment
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def work() -> None:
    """Takes longer than the test: only to be cancelled."""
    with anyio.fail_after(HANG_S):
        await anyio.sleep_forever()


def start_sleeper() -> "subprocess.Popen[bytes]":
    """A child that inherits every file descriptor it can."""
    return subprocess.Popen(["/bin/sleep", "600"], close_fds=False)


HOLDER = """\
import sys, anyio
from exporter.locks.lock import hold_lock
from exporter.stores.local import LocalStore
from exporter.errors import ExporterError

async def main():
    try:
        async with hold_lock(
            LocalStore(sys.argv[1]), ".out.parquet.lock", output="out.parquet", run_id=sys.argv[2],
            wait_s=None,
        ):
            print("held", flush=True)
            await anyio.to_thread.run_sync(sys.stdin.read)
    except ExporterError as exc:
        print(exc, flush=True)
        sys.exit(exc.exit_code)

anyio.run(main)
"""


def start_holder(folder: Path, run_id: str = "other") -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder), run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline()


@contextmanager
def held_elsewhere(folder: Path) -> "Iterator[subprocess.Popen[str]]":
    with start_holder(folder) as process:
        try:
            assert read_line(process) == "held\n"
            yield process
        finally:
            process.kill()


async def test_lock_file_names_its_holder_and_goes_with_it(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))

    async with hold(store, environment_of(Time())):
        written = json.loads((tmp_path / LOCK).read_bytes())

    assert written == {
        "host": "etl-1",
        "pid": 4242,
        "run_id": "run-1",
        "since": "2026-11-23T01:02:03Z",
    }
    assert names(tmp_path) == set()


async def test_second_run_fails_at_once_and_names_the_first(tmp_path: Path) -> None:
    store, time = LocalStore(str(tmp_path)), Time()

    async with hold(store, environment_of(time)):
        with pytest.raises(LockHeldError) as caught:
            async with hold(store, environment_of(time, host="etl-2"), run_id="run-2"):
                pass

    assert str(caught.value) == (
        "another run is writing 'out.parquet':"
        " host etl-1, pid 4242, since 2026-11-23T01:02:03Z (run run-1)"
    )
    assert caught.value.hint == (
        "wait for its end with --wait, such as --wait 10m, or name another output"
    )
    assert caught.value.exit_code == 5
    assert time.slept in ([], [20.0])


async def test_other_outputs_of_a_folder_have_other_locks(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))

    async with hold(store), hold(store, name=".other.parquet.lock"):
        found = names(tmp_path)

    assert found == {LOCK, ".other.parquet.lock"}


async def test_spellings_of_a_folder_are_one_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)

    async with hold(LocalStore(str(tmp_path / "real"))):
        for url in ("link", "./real/", "real/../link", str(tmp_path / "link")):
            with pytest.raises(LockHeldError):
                async with hold(LocalStore(url)):
                    pass
        monkeypatch.chdir("link")
        with pytest.raises(LockHeldError):
            async with hold(LocalStore("")):
                pass


async def test_folders_made_for_the_lock_go_when_nothing_else_is_in_them(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path / "dataset"), makes_folder=True)

    async with hold(store, name="_exporter/lock"):
        assert (tmp_path / "dataset" / "_exporter" / "lock").exists()
    emptied = names(tmp_path)
    async with hold(store, name="_exporter/lock"):
        (tmp_path / "dataset" / "part").touch()

    assert emptied == set()
    assert names(tmp_path / "dataset") == {"part"}


async def test_missing_folder_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match="No such file or directory") as caught:
        async with hold(LocalStore(str(tmp_path / "a" / "b"))):
            pass

    assert str(caught.value.hint).startswith("mkdir -p ")


async def test_leftover_of_a_dead_run_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text(
        "left by somebody who died, and longer than what comes after\n" * 9
    )

    async with hold(LocalStore(str(tmp_path))):
        json.loads((tmp_path / LOCK).read_bytes())

    assert names(tmp_path) == set()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everything")
async def test_read_only_leftover_is_replaced(tmp_path: Path) -> None:
    (tmp_path / LOCK).touch(mode=0o444)

    async with hold(LocalStore(str(tmp_path))):
        json.loads((tmp_path / LOCK).read_bytes())


async def test_nameless_holder_is_given_a_second_to_write_its_name(tmp_path: Path) -> None:
    time = Time()
    with (tmp_path / LOCK).open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)

        with pytest.raises(LockHeldError, match="it does not say who it is"):
            async with hold(LocalStore(str(tmp_path)), environment_of(time)):
                pass

    assert sum(time.slept) == pytest.approx(1.0)


async def test_lock_is_not_inherited_by_children(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))
    async with hold(store):
        child = start_sleeper()
    try:
        async with hold(store):
            pass
    finally:
        child.kill()
        child.wait()


async def test_two_processes_race_and_one_wins(tmp_path: Path) -> None:
    racers = [start_holder(tmp_path, f"run-{number}") for number in range(4)]
    try:
        lines = [read_line(each) for each in racers]
        winner = racers[lines.index("held\n")]
        losers = [each for each in racers if each is not winner]

        codes = [each.wait(timeout=HANG_S) for each in losers]

        assert lines.count("held\n") == 1
        assert codes == [5, 5, 5]
        assert all(f"pid {winner.pid}, since" in line for line in lines if line != "held\n")
    finally:
        for each in racers:
            each.kill()
            each.communicate()


async def test_killed_holder_is_followed_at_once(tmp_path: Path) -> None:
    with held_elsewhere(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert (tmp_path / LOCK).exists()

        async with hold(LocalStore(str(tmp_path))):
            pass

    assert names(tmp_path) == set()


async def test_wait_gets_the_lock_when_its_holder_ends(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment = replace(build_environment(), jitter=lambda: 0.0)
    with held_elsewhere(tmp_path) as process:
        async with anyio.create_task_group() as tasks:
            reached = anyio.Event()

            async def follow() -> None:
                async with hold(LocalStore(str(tmp_path)), environment, wait_s=60):
                    reached.set()

            tasks.start_soon(follow)
            while not caplog.records:  # noqa: ASYNC110 - logging tells nobody
                await anyio.sleep(0.01)
            assert not reached.is_set()
            assert process.stdin is not None
            process.stdin.close()
            with anyio.fail_after(HANG_S):
                await reached.wait()

    waits = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert [each.getMessage().partition(": ")[0] for each in waits] == [
        "waiting up to 60s for another run that writes 'out.parquet'"
    ]


@pytest.mark.parametrize("wait_s", [5.0, 600.0])
async def test_wait_that_runs_out_says_how_long_it_was(tmp_path: Path, wait_s: float) -> None:
    store, time = LocalStore(str(tmp_path)), Time()
    async with hold(store):
        with pytest.raises(LockHeldError, match=f"; waited {wait_s:.0f}s for it$") as caught:
            async with hold(store, environment_of(time), wait_s=wait_s):
                pass

    assert sum(time.slept) == pytest.approx(wait_s)
    assert caught.value.hint == "wait longer with --wait, or end that run"


@pytest.mark.parametrize("way", ["scope", "task"])
async def test_cancelled_wait_leaves_nothing(tmp_path: Path, way: str) -> None:
    store = LocalStore(str(tmp_path))

    async def wait() -> None:
        async with hold(store, run_id="run-2", wait_s=60):
            raise AssertionError("it is held")

    async with hold(store):
        if way == "scope":
            with anyio.move_on_after(0.4):
                await wait()
        else:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait(), 0.4)
        assert json.loads((tmp_path / LOCK).read_bytes())["run_id"] == "run-1"

    assert names(tmp_path) == set()
    async with hold(store):
        pass


@pytest.mark.parametrize("delay_s", [0.0, 0.0002, 0.0005, 0.001, 0.002, 0.005])
async def test_cancelled_attempt_leaves_nothing(tmp_path: Path, delay_s: float) -> None:
    store = LocalStore(str(tmp_path))

    async def run() -> None:
        async with hold(store):
            await anyio.sleep(60)

    for _ in range(10):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run(), delay_s)

        assert names(tmp_path) == set()
        async with hold(store):
            pass


async def test_error_of_the_block_is_raised_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(DestinationError, match=r"^disk full$"):
        async with hold(LocalStore(str(tmp_path))):
            raise DestinationError("disk full")

    assert names(tmp_path) == set()


async def test_removed_lock_file_is_noticed_before_publishing(tmp_path: Path) -> None:
    store = LocalStore(str(tmp_path))

    async def run() -> None:
        async with hold(store) as lock:
            await lock.renew()
            (tmp_path / LOCK).unlink()
            async with hold(store, run_id="run-2"):
                await lock.renew()

    with pytest.raises(LockLostError, match="was removed while the run went on"):
        await run()

    assert names(tmp_path) == set()


async def test_removed_lock_file_ends_the_run_sooner_or_later(tmp_path: Path) -> None:
    locks = []

    async def run() -> None:
        async with hold(LocalStore(str(tmp_path)), environment_of(Time())) as lock:
            locks.append(lock)
            (tmp_path / LOCK).unlink()
            await work()

    with pytest.raises(LockLostError):
        await run()

    with pytest.raises(LockLostError):
        locks[0].check()


async def test_lease_stands_in_where_files_cannot_be_locked(tmp_path: Path) -> None:
    store, time = LocalStore(str(tmp_path)), Time()
    first, second = (without_locks(environment_of(time, host=host)) for host in ("etl-1", "etl-2"))

    async with hold(store, first) as lock:
        found = names(tmp_path)
        await lock.renew()
        with pytest.raises(LockHeldError, match="host etl-1, pid 4242"):
            async with hold(store, second, run_id="run-2"):
                pass
    async with hold(store, second, run_id="run-2"):
        pass

    assert found == {f"{LOCK}.00000001"}
    assert names(tmp_path) == {f"{LOCK}.00000002"}


async def test_lease_is_renewed_as_long_as_the_block_lasts() -> None:
    time, store = Time(), MemoryStore()

    async with hold(store, environment_of(time)):
        await time.sleep(300)
        with pytest.raises(LockHeldError):
            async with hold(store, environment_of(time), run_id="run-2", wait_s=120):
                pass


async def test_lease_of_a_dead_run_is_watched_and_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    time = Time()
    dead = MemoryStore()
    async with hold(dead, environment_of(time)):
        store = MemoryStore(dict(dead.files))
    time.now_s += 3600

    async with hold(store, environment_of(time), run_id="run-2"):
        pass

    assert (
        "making sure for up to 60s that the run that wrote 'out.parquet' died: host" in caplog.text
    )
    assert time.now_s >= 3660


async def test_run_whose_lease_cannot_be_renewed_is_cancelled_at_its_end() -> None:
    time = Time()
    is_broken = False

    def arrive() -> None:
        if is_broken:
            raise DestinationError("cannot reach the store")

    async def run() -> None:
        nonlocal is_broken
        async with hold(MemoryStore(arrive=arrive), environment_of(time)) as lock:
            is_broken = True
            with pytest.raises(DestinationError):
                await lock.renew()
            await work()

    with pytest.raises(LockLostError, match="could not be renewed"):
        await run()

    assert 60 <= time.now_s <= 70


async def test_run_whose_renewal_hangs_is_cancelled_at_its_end() -> None:
    time, answer = Time(), threading.Event()
    is_hanging = False

    def arrive() -> None:
        if is_hanging:
            answer.wait(10)

    async def run() -> None:
        nonlocal is_hanging
        async with hold(MemoryStore(arrive=arrive), environment_of(time)):
            is_hanging = True
            try:
                await work()
            finally:
                answer.set()

    with pytest.raises(LockLostError, match="could not be renewed in time"):
        await run()

    assert 60 <= time.now_s <= 70


async def test_run_whose_lease_was_taken_is_cancelled() -> None:
    time, store = Time(), MemoryStore()

    async def run() -> None:
        async with hold(store, environment_of(time)):
            store.files[f"{LOCK}.00000002"] = b"{}"
            await work()

    with pytest.raises(LockLostError, match="another run took it"):
        await run()
