"""Runs that race for a lease in simulated time: slow, failing, stopped, killed, with wrong clocks.

Each run is a thread, so that the code under test stays as it is, and only one of them runs at a
time: the outcome follows from the seed alone.
"""

import heapq
import io
import math
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import BinaryIO

from exporter.errors import DestinationError, LockLostError
from exporter.locks.interface import Holder
from exporter.locks.lease import LeaseBackend
from exporter.stores.interface import NO_LOCK, HeldLock, StagedFile, Store, StoredFile

BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
DURATION_S = 60.0
NAME = "_exporter/lock"


class MemoryFile:
    def __init__(self, store: "MemoryStore", name: str) -> None:
        self.name = name
        self._store = store
        self._content = bytearray()

    def write(self, chunk: bytes, /) -> None:
        self._content += chunk

    def sync(self) -> None:
        pass

    @property
    def held_bytes(self) -> int:
        return len(self._content)

    def release(self) -> None:
        pass

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._store.files[self.name] = bytes(self._content)

    def discard(self) -> None:
        self._content.clear()


class MemoryStore:
    """An object store in memory; `arrive` is called before each request, `leave` after it."""

    url = "memory://bucket"

    def __init__(
        self,
        files: dict[str, bytes] | None = None,
        *,
        arrive: Callable[[], None] = lambda: None,
        leave: Callable[[], None] = lambda: None,
    ) -> None:
        self.files = {} if files is None else files
        self._arrive = arrive
        self._leave = leave

    def path_of(self, name: str) -> str:
        return f"{self.url}/{name}"

    def stage(self, name: str, *, run_id: str) -> StagedFile:
        return MemoryFile(self, name)

    def read(self, name: str) -> bytes | None:
        self._arrive()
        content = self.files.get(name)
        self._leave()
        return content

    def size_of(self, name: str) -> int | None:
        content = self.read(name)
        return None if content is None else len(content)

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
        self._arrive()
        created = name not in self.files
        self.files.setdefault(name, content)
        self._leave()
        return created

    def replace(self, name: str, content: bytes, *, within_s: float = math.inf) -> None:
        self._arrive()
        self.files[name] = content
        self._leave()

    def tag_of(self, name: str) -> str | None:
        content = self.read(name)
        return None if content is None else content.hex()

    def replace_version(
        self, name: str, content: bytes, *, tag: str | None, within_s: float = math.inf
    ) -> bool:
        self._arrive()
        found = self.files.get(name)
        is_it = (None if found is None else found.hex()) == tag
        if is_it:
            self.files[name] = content
        self._leave()
        return is_it

    def enclosing(self) -> Iterator[Store]:
        return iter(())

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        self._arrive()
        found = [
            StoredFile(name, len(content), BEGIN)
            for name, content in self.files.items()
            if name.startswith(prefix)
        ]
        self._leave()
        return iter(found)

    def remove(self, names: Sequence[str]) -> None:
        self._arrive()
        for name in names:
            self.files.pop(name, None)
        self._leave()

    def remove_leftovers(self, names: Sequence[str] | None = None, *, keep_s: float = 0.0) -> None:
        pass

    def open_input(self, name: str) -> BinaryIO:
        return io.BytesIO(self.files[name])


class KilledError(BaseException):
    """Ends a run as SIGKILL does, without any clean-up."""


class World:
    """Simulated time, and the schedule of the threads."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._numbers = count()
        self._waiting: list[tuple[float, int, threading.Semaphore]] = []
        self._paused = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    def start(self, program: Callable[[], None]) -> None:
        def run() -> None:
            wake.acquire()
            try:
                program()
            except BaseException as exc:  # noqa: BLE001 - the test raises it
                self.failures.append(exc)
            self._paused.release()

        wake = threading.Semaphore(0)
        thread = threading.Thread(target=run, daemon=True)
        self._threads.append(thread)
        heapq.heappush(self._waiting, (self.now_s, next(self._numbers), wake))
        thread.start()

    def pause(self, seconds: float) -> None:
        """Called by a running program: let the others run for that long."""
        wake = threading.Semaphore(0)
        heapq.heappush(self._waiting, (self.now_s + seconds, next(self._numbers), wake))
        self._paused.release()
        wake.acquire()

    def run(self, observe: Callable[[], None]) -> None:
        while self._waiting:
            self.now_s, _, wake = heapq.heappop(self._waiting)
            observe()
            wake.release()
            self._paused.acquire()
            observe()
        for thread in self._threads:
            thread.join()
        for failure in self.failures:
            raise failure


@dataclass(slots=True)
class Odds:
    """The probabilities of mishaps during one request."""

    stall: float = 0.0
    failure: float = 0.0
    kill: float = 0.0
    skew_s: float = 0.0
    """The largest error of a clock."""


@dataclass(slots=True)
class Contender:
    """One process that runs again and again, as if started by cron."""

    world: World
    files: dict[str, bytes]
    host: str
    odds: Odds
    chance: random.Random
    wait_s: float = 0.0
    holding: LeaseBackend | None = None
    holds_count: int = 0
    steady_s: float = field(init=False)
    skew_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.steady_s = self.chance.uniform(0, 10**6)
        self.skew_s = self.chance.uniform(-1, 1) * self.odds.skew_s

    def now_s(self) -> float:
        return self.world.now_s + self.steady_s

    def now(self) -> datetime:
        return BEGIN + timedelta(seconds=self.world.now_s + self.skew_s)

    @property
    def believes(self) -> bool:
        """True while it acts on the belief that nobody else can hold the lease."""
        return self.holding is not None and self.now_s() < self.holding.valid_until_s

    def live(self, run_count: int) -> None:
        for number in range(run_count):
            self.world.pause(self.chance.uniform(0, 120))
            if self.chance.random() < 0.2:
                self.skew_s = self.chance.uniform(-1, 1) * self.odds.skew_s
            try:
                self.run(f"{self.host}-{number}")
            except (DestinationError, LockLostError):
                pass
            except KilledError:
                # A dead run acts on no belief.
                self.holding = None

    def run(self, run_id: str) -> None:
        store = MemoryStore(self.files, arrive=self.travel, leave=self.travel)
        holder = Holder(self.host, 1, run_id, self.now())
        backend = LeaseBackend(
            store, NAME, holder, now_s=self.now_s, now=self.now, duration_s=DURATION_S
        )
        try:
            if self.acquire(backend):
                self.holding = backend
                self.holds_count += 1
                self.work(backend)
        finally:
            self.holding = None
            backend.release()

    def acquire(self, backend: LeaseBackend) -> bool:
        begun_s = self.now_s()
        while True:
            attempted_s = self.now_s()
            contention = backend.try_acquire()
            if contention is None:
                return True
            if attempted_s >= max(begun_s + self.wait_s, contention.clear_at_s):
                return False
            self.world.pause(backend.poll_s * self.chance.uniform(0.5, 1.5))

    def work(self, backend: LeaseBackend) -> None:
        pause_s = backend.renew_s
        for _ in range(self.chance.randrange(8)):
            self.world.pause(pause_s)
            try:
                backend.renew()
                pause_s = backend.renew_s
            except LockLostError:
                raise
            except DestinationError:
                pause_s = backend.renew_s / 4
        backend.renew()

    def travel(self) -> None:
        """Half of a request: it takes some time, fails, or its run dies."""
        slow = self.chance.random() < self.odds.stall
        self.world.pause(self.chance.uniform(5, 200) if slow else self.chance.uniform(0, 0.2))
        if self.chance.random() < self.odds.failure:
            raise DestinationError("cannot write: connection reset")
        if self.chance.random() < self.odds.kill:
            raise KilledError
