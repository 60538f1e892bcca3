"""The lock of an output in a store that can only create a file where there is none.

The lock is a series of small files, NAME.00000001, NAME.00000002 and so on. The highest one is the
current lease, and its run the holder. A run that finds it released, or its holder dead, creates the
next one; the store lets one of several runs do so. The highest file is never removed, only marked
released: if numbers came again, a run that was asleep could take one with a new meaning.

A holder rewrites its lease before it ends, and is the holder for `duration_s` from the moment it
began to write, by its own steady clock. A run that has seen a lease unchanged for that long, by its
own steady clock, knows that it has ended. So clocks that differ between hosts, or jump, cannot make
two holders: the time of day in a lease only decides whether the lease is worth watching.
"""

import math
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from exporter.errors import LockLostError, StoreUnfitError
from exporter.locks.interface import Contention, Holder, dump_holder, parse_holder
from exporter.stores.interface import Store
from exporter.times import format_second, parse_rfc3339

DURATION_S: Final = 60.0
POLL_S: Final = 2.0
CLOCKS_DIFFER_S: Final = 10.0
"""A lease that ended less than this ago may still be held: the clocks of two hosts differ."""
PROBE: Final = b"livy-exporter tries to write this twice, to see that it cannot\n"
TRIES: Final = 16
"""How often a run that is overtaken while it takes a lease tries again at once."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The content of a lease's file."""

    holder: Holder | None
    """None when the file cannot be read."""
    duration_s: float
    expires_at: datetime | None
    is_released: bool

    def seems_alive(self, at: datetime) -> bool:
        """A guess by the time of day, which saves watching a lease that was just renewed."""
        if self.expires_at is None:
            return False
        left_s = (self.expires_at - at).total_seconds()
        return -CLOCKS_DIFFER_S <= left_s <= self.duration_s + CLOCKS_DIFFER_S


@dataclass(frozen=True, slots=True)
class LeaseObservation:
    """A lease when it was first seen with this content."""

    generation: int
    content: bytes
    since_s: float
    """By the steady clock."""
    was_renewed: bool
    """It had another content when it was seen before: its holder was alive."""


class LeaseBackend:
    """A backend by leases, for every `Store`."""

    is_lease = True
    poll_s = POLL_S

    def __init__(
        self,
        store: Store,
        name: str,
        holder: Holder,
        *,
        now_s: Callable[[], float],
        now: Callable[[], datetime],
        duration_s: float = DURATION_S,
    ) -> None:
        self.renew_s = duration_s / 3
        self._store = store
        self._name = name
        self._holder = holder
        self._now_s = now_s
        self._now = now
        self._duration_s = duration_s
        # Guards the attributes below: an attempt or renewal of an abandoned thread may still run
        # when the backend is released, and must not write after that.
        self._mutex = threading.Lock()
        self._observation: LeaseObservation | None = None
        self._generation: int | None = None
        """Of our lease, set before it is written."""
        self._valid_until_s = -math.inf
        self._write_count = 0
        self._released = False

    @property
    def valid_until_s(self) -> float:
        return self._valid_until_s

    def try_acquire(self) -> Contention | None:
        with self._mutex:
            for _ in range(TRIES):
                if self._released:
                    break
                attempted_s = self._now_s()
                found = self._read_highest()
                if found is not None:
                    contention = self._check_lease(*found, attempted_s=attempted_s)
                    if contention is not None:
                        return contention
                if self._take(1 if found is None else found[0] + 1):
                    return None
            return Contention(None)

    def renew(self) -> None:
        with self._mutex:
            if self._generation is None or self._released:
                raise lost(self._path, "it is not held")
            begun_s = self._now_s()
            self._require_unexpired()
            self._require_highest(self._generation)
            self._store.replace(self._name_of(self._generation), self._build(is_released=False))
            # Again after the write: a run that came in between is seen.
            self._require_highest(self._generation)
            # A renewal that ends late does not count: others could take the lease meanwhile.
            self._require_unexpired()
            self._valid_until_s = begun_s + self._duration_s

    def release(self) -> None:
        with self._mutex:
            if self._released:
                return
            self._released = True
            if self._generation is None:
                return
            name = self._name_of(self._generation)
            content = self._store.read(name)
            # Not ours: never written, or another run has it and removed ours.
            if content is None or parse_holder(content) != self._stored_holder:
                return
            self._store.replace(name, self._build(is_released=True))
            self._store.remove(
                [
                    self._name_of(generation)
                    for generation in self._list_generations()
                    if generation < self._generation
                ]
            )

    @property
    def _path(self) -> str:
        return self._store.path_of(self._name)

    @property
    def _stored_holder(self) -> Holder | None:
        """As it is read back, with times to the second."""
        return parse_holder(orjson.dumps(dump_holder(self._holder)))

    def _name_of(self, generation: int) -> str:
        return f"{self._name}.{generation:08d}"

    def _list_generations(self) -> list[int]:
        found = (
            re.fullmatch(r"\.([0-9]{8,})", each.name.removeprefix(self._name))
            for each in self._store.list_files(f"{self._name}.")
        )
        return [int(match[1]) for match in found if match is not None]

    def _read_highest(self) -> tuple[int, bytes] | None:
        highest = 0
        for _ in range(TRIES):
            highest = max(self._list_generations(), default=0)
            if highest == 0:
                return None
            content = self._store.read(self._name_of(highest))
            if content is not None:
                return highest, content
            # A higher one was created meanwhile, and this one removed.
        return highest, b""

    def _check_lease(
        self, generation: int, content: bytes, *, attempted_s: float
    ) -> Contention | None:
        """None when the lease has ended and the next one may be ours."""
        lease = parse_lease(content)
        if lease.is_released:
            return None
        observation = self._observe(generation, content, self._now_s())
        ends_s = observation.since_s + lease.duration_s
        # The request must begin after the end: an answer may be old when it arrives.
        if attempted_s >= ends_s:
            return None
        if observation.was_renewed or lease.seems_alive(self._now()):
            return Contention(lease.holder)
        return Contention(lease.holder, clear_at_s=ends_s)

    def _observe(self, generation: int, content: bytes, seen_s: float) -> LeaseObservation:
        before = self._observation
        if before is None or (before.generation, before.content) != (generation, content):
            was_renewed = before is not None and before.generation == generation
            before = self._observation = LeaseObservation(generation, content, seen_s, was_renewed)
        return before

    def _take(self, generation: int) -> bool:
        """Create the lease of this number; True when it is ours and the current one."""
        self._generation = generation
        begun_s = self._now_s()
        name, content = self._name_of(generation), self._build(is_released=False)
        # A write that was sent twice may find its own file.
        if not self._store.create(name, content) and self._store.read(name) != content:
            self._generation = None
            return False
        if max(self._list_generations(), default=0) > generation:
            # We were asleep: others used this number, went on, and removed it.
            self._store.remove([name])
            self._generation = None
            return False
        self._valid_until_s = begun_s + self._duration_s
        return True

    def _require_unexpired(self) -> None:
        if self._now_s() >= self._valid_until_s:
            raise lost(self._path, f"it could not be renewed for {self._duration_s:g}s")

    def _require_highest(self, generation: int) -> None:
        if max(self._list_generations(), default=0) > generation:
            raise lost(self._path, "another run took it")

    def _build(self, *, is_released: bool) -> bytes:
        self._write_count += 1
        now = self._now()
        fields: dict[str, Any] = {
            **dump_holder(self._holder),
            "renewed_at": format_second(now),
            "expires_at": format_second(now + timedelta(seconds=self._duration_s)),
            "duration_s": self._duration_s,
            # Makes each content unique, however coarse the clock.
            "write_count": self._write_count,
            "released": is_released,
        }
        return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def require_conditions(store: Store, name: str) -> None:
    """Raises StoreUnfitError where the store overwrites a file although it was told not to.

    The file stays: the first run to an output sends two writes, later runs one.
    """
    probe = f"{name}.probe"
    if store.create(probe, PROBE) and store.create(probe, PROBE):
        store.remove([probe])
        raise unfit(
            f"the store of '{store.url}' ignores conditions: it wrote '{store.path_of(probe)}'"
            " twice, though it was told not to"
        )


def unfit(message: str) -> StoreUnfitError:
    return StoreUnfitError(
        message,
        hint="two runs could write here at once: name a bucket without versioning (OSS), or a store"
        " that knows If-None-Match; or a table of a catalog that commits through a server,"
        " iceberg://CATALOG/NAMESPACE.TABLE, with its files in such a bucket",
    )


def parse_lease(content: bytes) -> Lease:
    """A lease that cannot be read ends as any other does, after the usual duration."""
    try:
        fields = orjson.loads(content)
        duration_s = float(fields["duration_s"])
        expires_at = parse_rfc3339(fields["expires_at"])
        return Lease(parse_holder(content), duration_s, expires_at, fields["released"] is True)
    except (KeyError, TypeError, ValueError):
        return Lease(parse_holder(content), DURATION_S, None, is_released=False)


def lost(path: str, reason: str) -> LockLostError:
    return LockLostError(
        f"the lock '{path}' was lost: {reason}",
        hint="nothing was published: run again",
    )
