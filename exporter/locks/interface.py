"""Who holds an output's lock, and what a backend on a lock is; performs no I/O."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from exporter.times import format_second, parse_rfc3339


@dataclass(frozen=True, slots=True)
class Holder:
    """The run that holds a lock, as it says itself."""

    host: str
    pid: int
    run_id: str
    since: datetime

    def __str__(self) -> str:
        return (
            f"host {self.host}, pid {self.pid}, since {format_second(self.since)}"
            f" (run {self.run_id})"
        )


@dataclass(frozen=True, slots=True)
class Contention:
    """An attempt to get a lock that another run holds, or seems to."""

    holder: Holder | None
    """None when that cannot be read, or not yet."""
    clear_at_s: float = 0.0
    """By the steady clock, when to look again although nobody wants to wait: the run may be dead,
    or still writing who it is. In the past when there is nothing more to see.
    """


class LockBackend(Protocol):
    """One run's way to a lock. All methods block, and may be called from any thread."""

    is_lease: bool
    """Whether it ends by itself, and not only with its holder."""
    poll_s: float
    """How often it is worth looking again while another run holds it."""
    renew_s: float
    """How often a holder calls `renew`."""

    @property
    def valid_until_s(self) -> float:
        """By the steady clock: until when nobody else can hold it."""

    def try_acquire(self) -> Contention | None:
        """Get it, None, or not. Raises DestinationError."""

    def renew(self) -> None:
        """See to it that we hold it for some more time.

        Raises LockLostError when we do not any more, DestinationError when that cannot be told.
        """

    def release(self) -> None:
        """Free it if we hold it; the backend is of no use after that. Raises DestinationError."""


def dump_holder(holder: Holder) -> dict[str, Any]:
    return {
        "host": holder.host,
        "pid": holder.pid,
        "run_id": holder.run_id,
        "since": format_second(holder.since),
    }


def parse_holder(content: bytes) -> Holder | None:
    """None when it cannot be read: cut short, or written by somebody else."""
    try:
        known = orjson.loads(content)
        return Holder(
            host=str(known["host"]),
            pid=int(known["pid"]),
            run_id=str(known["run_id"]),
            since=parse_rfc3339(known["since"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
