"""The holder of an output's lock, and the interface of lock backends; performs no I/O."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import orjson

from exporter.times import format_second, parse_rfc3339


@dataclass(frozen=True, slots=True)
class Holder:
    """The run that holds a lock, as it describes itself."""

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
    """The outcome of an attempt to get a lock that another run holds, or seems to hold."""

    holder: Holder | None
    """None when the lock does not name it, or not yet."""
    clear_at_s: float = 0.0
    """By the steady clock, when another attempt is due even for a run that does not wait: the
    holder may be dead, or still writing its name. In the past where nothing more will show.
    """


class LockBackend(Protocol):
    """One run's access to a lock. All methods block, and may be called from any thread."""

    is_lease: bool
    """Whether the lock ends by itself, and not only with its holder."""
    poll_s: float
    """Seconds between attempts while another run holds the lock."""
    renew_s: float
    """Seconds between a holder's calls of `renew`."""

    @property
    def valid_until_s(self) -> float:
        """By the steady clock, the time until which nobody else can hold the lock."""

    def try_acquire(self) -> Contention | None:
        """Get the lock; None when it was got. Raises DestinationError."""

    def renew(self) -> None:
        """Hold the lock for another period.

        Raises LockLostError when it was lost, DestinationError when that cannot be determined.
        """

    def release(self) -> None:
        """Free the lock if it is held; the backend is unusable then. Raises DestinationError."""


def dump_holder(holder: Holder) -> dict[str, Any]:
    return {
        "host": holder.host,
        "pid": holder.pid,
        "run_id": holder.run_id,
        "since": format_second(holder.since),
    }


def parse_holder(content: bytes) -> Holder | None:
    """None when it cannot be read: cut short, or written by another program."""
    try:
        fields = orjson.loads(content)
        return Holder(
            host=str(fields["host"]),
            pid=int(fields["pid"]),
            run_id=str(fields["run_id"]),
            since=parse_rfc3339(fields["since"]),
        )
    except (KeyError, TypeError, ValueError):
        return None
