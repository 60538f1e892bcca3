"""How sessions are written: one protocol, one file a format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from exporter.model import Gateway, RawSession
from exporter.settings import settings
from exporter.stores.interface import NO_LOCK, FileFacts, HeldLock

Format = settings.FileFormat

FileCodec = Literal["none", "gzip", "zstd"]
"""How a file is compressed as a whole: NDJSON by its name, Parquet never."""

ParquetCodec = settings.ParquetCodec


@dataclass(frozen=True, slots=True)
class SinkFacts:
    """What a sink wrote, counted while writing."""

    session_count: int
    coerced_value_count: int
    """Values that were converted to fit their column, or kept in `extra` because they did not."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of the output, and the rows in it."""

    facts: FileFacts
    row_count: int


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """What a run wrote, counted while writing."""

    session_count: int
    coerced_value_count: int
    files: tuple[WrittenFile, ...]
    """What this run wrote, in the order of their rows."""


class Output(Protocol):
    """One output being written by one run: `write`…, `close`, then `publish`; or `discard`.

    Methods block and are called from one thread at a time, never two at once.
    """

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Append sessions of one gateway in the order given; a thousand at a time are cheapest."""

    def close(self) -> OutputFacts:
        """End the files and make them safe; a reader still sees what was there before."""

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        """Show what was written, having made sure of the lock before each step that cannot be
        undone. May be cut short by a crash: `close` made sure that a later run can tell how far it
        got.
        """

    def discard(self) -> None:
        """Remove what is not published and free what is held; never raises, may be repeated."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Sessions in the form in which their format's sink writes them."""

    content: Any
    """A RecordBatch for Parquet; whole lines, as bytes, for NDJSON."""
    row_count: int
    size_bytes: int
    """What it takes in memory, about."""


GATHERED_ROWS: Final = 1 << 14
GATHERED_BYTES: Final = 8 << 20
"""How many rows are parted at a time, whichever comes first; they are there twice meanwhile."""


class PartitionBuffer(Protocol):
    """Sessions of many partitions, gathered until it pays to part them; performs no I/O."""

    @property
    def coerced_value_count(self) -> int:
        """Of all that was added, as in `SinkFacts`."""

    @property
    def is_full(self) -> bool:
        """Whether there are enough rows to be parted."""

    def add(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Add sessions of one gateway."""

    def split(self) -> list[tuple[str, Rows]]:
        """Take out all rows by partition, named by its folder; their order in one is kept."""


class ByteStream(Protocol):
    """What a sink needs of a stream: no more than that bytes go in at the end."""

    def write(self, chunk: bytes, /) -> int: ...


class Sink(Protocol):
    """A format writer over one binary stream that somebody else opened, publishes and closes.

    Methods block and are called from one thread at a time, never two at once. Exactly one of
    `close` and `abort` is called, once; `abort` also after `write` or `close` raised.
    What the stream raises comes out as it is.
    """

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Append sessions of one gateway in the order given.

        A thousand and more at a time are cheapest.
        """

    def write_rows(self, rows: Sequence[Rows]) -> None:
        """Write rows that a `PartitionBuffer` of the format made, at once; none of them is kept."""

    def close(self) -> SinkFacts:
        """Write what is buffered and the format's ending; the stream itself stays open."""

    def abort(self) -> None:
        """Drop what is buffered and free what is held, without raising and without a write."""
