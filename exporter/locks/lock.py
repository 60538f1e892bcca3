"""One run per output at a time: a second run fails and names the first one, or waits for it."""

import fcntl
import logging
import math
import os
import platform
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import anyio
import anyio.to_thread

from exporter.errors import DestinationError, LockHeldError, LockLostError
from exporter.locks.flock import FlockBackend, NoLocksError
from exporter.locks.interface import Holder, LockBackend
from exporter.locks.lease import DURATION_S, LeaseBackend, require_conditions
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore

logger = logging.getLogger(__name__)

RELEASE_S: Final = 5.0
"""The longest an ending run waits for a store to free its lock; a lease ends by itself."""

MIN_RENEWALS_LEFT: Final = 1.5
"""How much of a lease must be left before a request that cannot be undone, in times between
renewals: half of it. The regular renewals keep it above that while the store can be reached.
"""

Sleep = Callable[[float], Awaitable[None]]


def read_steady_clock() -> float:
    """In seconds; it runs while the machine sleeps, where the system has such a clock."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


@dataclass(frozen=True, slots=True, kw_only=True)
class LockEnvironment:
    """The clocks and the identity of the machine, as a lock uses them."""

    host: str
    pid: int
    now: Callable[[], datetime]
    now_s: Callable[[], float]
    """Steady: it never jumps."""
    sleep: Sleep
    jitter: Callable[[], float]
    """Between 0 and 1."""
    flock: Callable[[int, int], None] = fcntl.flock
    lease_s: float = DURATION_S


def build_environment() -> LockEnvironment:
    return LockEnvironment(
        host=platform.node() or "unknown",
        pid=os.getpid(),
        now=lambda: datetime.now(UTC),
        now_s=read_steady_clock,
        sleep=anyio.sleep,
        jitter=random.random,
    )


class Lock:
    """An output's lock while this run holds it."""

    def __init__(self, backend: LockBackend, environment: LockEnvironment) -> None:
        self._backend = backend
        self._environment = environment
        self.lost: LockLostError | None = None
        """Why the run does not hold the lock any more; None while it does."""

    def check(self) -> None:
        """Raises LockLostError when the lock is known to be lost; performs no I/O."""
        if self.lost is not None:
            raise self.lost

    @property
    def is_lease(self) -> bool:
        """Whether the lock may end while its holder lives, and before the holder knows."""
        return self._backend.is_lease

    def ensure_held(self) -> float:
        """See `HeldLock`."""
        self.check()
        left_s = self._backend.valid_until_s - self._environment.now_s()
        if not self._backend.is_lease or left_s < MIN_RENEWALS_LEFT * self._backend.renew_s:
            self._renew()
        return self._backend.valid_until_s - self._environment.now_s()

    async def renew(self) -> None:
        """Called right before publishing: check the lock again, and renew a lease for its whole
        duration from now on.

        Raises LockLostError when another run may have the lock, DestinationError when that cannot
        be determined.
        """
        self.check()
        await anyio.to_thread.run_sync(self._renew, abandon_on_cancel=True)

    async def keep(self, scope: anyio.CancelScope) -> None:
        """Renew the lock for ever; cancels the scope once it is lost."""
        pause_s = self._backend.renew_s
        while True:
            await self._environment.sleep(pause_s)
            try:
                await anyio.to_thread.run_sync(self._renew, abandon_on_cancel=True)
                pause_s = self._backend.renew_s
            except LockLostError:
                scope.cancel()
                return
            except DestinationError as exc:
                logger.info("cannot renew the lock, trying again: %s", exc)
                pause_s = self._backend.renew_s / 4

    async def watch_expiry(self, scope: anyio.CancelScope) -> None:
        """Cancel the scope once the lock has expired, however long a renewal takes."""
        while True:
            left_s = self._backend.valid_until_s - self._environment.now_s()
            if left_s == math.inf:
                return
            if left_s <= 0:
                self.lost = self.lost or LockLostError(
                    "the lock was lost: it could not be renewed in time",
                    hint="nothing was published: see whether the store can be reached, run again",
                )
                scope.cancel()
                return
            await self._environment.sleep(left_s)

    def _renew(self) -> None:
        try:
            self._backend.renew()
        except LockLostError as exc:
            self.lost = self.lost or exc
            raise


@asynccontextmanager
async def hold_lock(
    store: Store,
    name: str,
    *,
    output: str,
    run_id: str,
    wait_s: float | None,
    environment: LockEnvironment | None = None,
) -> AsyncIterator[Lock]:
    """Hold the output's lock, named `name` in its store, for the block.

    Raises LockHeldError when another run holds it, at once or after `wait_s`, DestinationError
    when that cannot be determined, and StoreUnfitError when no lock would hold in that store. A
    block whose lock is lost is cancelled, and LockLostError raised; errors of the block are raised
    as they are. `output` is the name in messages.
    """
    environment = environment or build_environment()
    holder = Holder(environment.host, environment.pid, run_id, environment.now())
    lease = LeaseBackend(
        store,
        name,
        holder,
        now_s=environment.now_s,
        now=environment.now,
        duration_s=environment.lease_s,
    )
    backend: LockBackend = lease
    if isinstance(store, LocalStore):
        backend = FlockBackend(
            store, name, holder, output=output, now_s=environment.now_s, flock=environment.flock
        )
    else:
        await anyio.to_thread.run_sync(require_conditions, store, name, abandon_on_cancel=True)
    try:
        try:
            await acquire(backend, output=output, wait_s=wait_s, environment=environment)
        except NoLocksError:
            logger.info("no file can be locked where '%s' is: taking a lease instead", output)
            backend = lease
            await acquire(backend, output=output, wait_s=wait_s, environment=environment)
        async with keep_held(Lock(backend, environment)) as lock:
            yield lock
    finally:
        await release(backend)


async def acquire(
    backend: LockBackend, *, output: str, wait_s: float | None, environment: LockEnvironment
) -> None:
    """Attempt until the lock is ours. Raises LockHeldError when that takes too long."""
    begun_s = environment.now_s()
    is_reported = False
    while True:
        attempted_s = environment.now_s()
        contention = await anyio.to_thread.run_sync(backend.try_acquire, abandon_on_cancel=True)
        if contention is None:
            return
        wait_until_s = begun_s + (wait_s or 0.0)
        give_up_s = max(wait_until_s, contention.clear_at_s)
        if attempted_s >= give_up_s:
            raise held_error(
                output, contention.holder, waited_s=attempted_s - begun_s if wait_s else None
            )
        left_s = give_up_s - environment.now_s()
        if not is_reported and contention.holder is not None:
            is_reported = True
            logger.warning(
                "%s: %s",
                f"waiting up to {left_s:.0f}s for another run that writes '{output}'"
                if attempted_s < wait_until_s
                else f"making sure for up to {left_s:.0f}s that the run that wrote '{output}' died",
                contention.holder,
            )
        await environment.sleep(
            min(backend.poll_s * (0.5 + environment.jitter()), max(left_s, 0.0))
        )


def held_error(output: str, holder: Holder | None, *, waited_s: float | None) -> LockHeldError:
    waited = "" if waited_s is None else f"; waited {waited_s:.0f}s for it"
    return LockHeldError(
        f"another run is writing '{output}': {holder or 'it does not say who it is'}{waited}",
        hint="wait for its end with --wait, such as --wait 10m, or name another output"
        if waited_s is None
        else "wait longer with --wait, or end that run",
    )


@asynccontextmanager
async def keep_held(lock: Lock) -> AsyncIterator[Lock]:
    """Renew the lock during the block, which is cancelled when the lock is lost."""
    failure: BaseException | None = None
    is_done = False
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(lock.keep, tasks.cancel_scope)
        tasks.start_soon(lock.watch_expiry, tasks.cancel_scope)
        try:
            yield lock
            is_done = True
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001 - raised below, not as a group of one
            failure = exc
        finally:
            tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    if lock.lost is not None and is_done:
        logger.warning("%s, when the run was over", lock.lost)
    elif lock.lost is not None:
        raise lock.lost


async def release(backend: LockBackend) -> None:
    """Free the lock, whatever ended the run; errors are only logged."""
    with anyio.move_on_after(RELEASE_S, shield=True) as scope:
        try:
            await anyio.to_thread.run_sync(backend.release, abandon_on_cancel=True)
        except DestinationError as exc:
            logger.warning("the lock was not freed, and will end by itself: %s", exc)
    if scope.cancelled_caught:
        logger.warning("the lock is not freed yet, and will end by itself")
