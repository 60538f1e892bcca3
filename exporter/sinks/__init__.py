"""How sessions are written: one protocol, one file a format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from exporter.gateway import Gateway
from exporter.records import RawSession


@dataclass(frozen=True, slots=True)
class SinkFacts:
    """What a sink wrote, counted while writing."""

    session_count: int
    coerced_value_count: int
    """Values that were converted to fit their column, or kept in `extra` because they did not."""


class Sink(Protocol):
    """A format writer over one binary stream that somebody else opened, publishes and closes.

    Methods block and are called from one thread at a time, never two at once. Exactly one of `close` and
    `abort` is called, once.
    """

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Append sessions of one gateway in the order given."""

    def close(self) -> SinkFacts:
        """Write what is buffered and the format's ending; the stream itself stays open."""

    def abort(self) -> None:
        """Drop what is buffered and free what is held, without raising."""
