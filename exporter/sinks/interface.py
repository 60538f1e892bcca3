"""The interfaces of outputs, sinks and file formats."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, BinaryIO, Protocol

from exporter.model import FileCodec, Gateway, ParquetCodec, RawSession
from exporter.stores.interface import NO_LOCK, FileFacts, HeldLock


@dataclass(frozen=True, slots=True)
class SinkFacts:
    """The counts of one sink, taken while it wrote."""

    session_count: int
    coerced_value_count: int
    """Values that were converted to fit their column, or kept in `extra` because they did not."""


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A file of the output, and its row count."""

    facts: FileFacts
    row_count: int


@dataclass(frozen=True, slots=True)
class OutputFacts:
    """The counts and files of one run, taken while it wrote."""

    session_count: int
    coerced_value_count: int
    files: tuple[WrittenFile, ...]
    """The files of this run, in the order of their rows."""


class Output(Protocol):
    """One output being written by one run: `write`…, `close`, then `publish`; or `discard`.

    Methods block and are called from one thread at a time, never two at once.
    """

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Append sessions of one gateway in the order given; cheapest a thousand at a time."""

    def close(self) -> OutputFacts:
        """End the files and make them durable; readers still see the previous output."""

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        """Make the output visible; `lock` is ensured before each step that cannot be undone.

        A crash may cut this short: after `close`, a later run can tell how far it got.
        """

    def discard(self) -> None:
        """Remove unpublished files and free all resources; never raises, may be repeated."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Sessions as their format's sink writes them."""

    content: Any
    """A RecordBatch for Parquet; whole lines, as bytes, for NDJSON."""
    row_count: int
    size_bytes: int
    """Approximate size in memory."""


class PartitionBuffer(Protocol):
    """Sessions of many partitions, gathered until it pays to split them; performs no I/O."""

    @property
    def coerced_value_count(self) -> int:
        """Over all sessions added, as in `SinkFacts`."""

    @property
    def is_full(self) -> bool:
        """Whether there are enough rows to be split."""

    def add(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Add sessions of one gateway."""

    def split(self) -> list[tuple[str, Rows]]:
        """Take out all rows, by the folder of their partition; each keeps the order of its rows."""


class ByteStream(Protocol):
    """The stream under a sink: bytes can be appended."""

    def write(self, chunk: bytes, /) -> int: ...


class Sink(Protocol):
    """A format writer over one binary stream that somebody else opened, publishes and closes.

    Methods block and are called from one thread at a time, never two at once. Exactly one of
    `close` and `abort` is called, once; `abort` also after `write` or `close` raised.
    Errors of the stream pass through.
    """

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Append sessions of one gateway in the order given; cheapest by the thousand."""

    def write_rows(self, rows: Sequence[Rows]) -> None:
        """Write rows of a `PartitionBuffer` of the same format, at once."""

    def close(self) -> SinkFacts:
        """Write the buffered rows and the format's footer; the stream stays open."""

    def abort(self) -> None:
        """Drop the buffered rows and free all resources, without raising and without a write."""


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """Options and facts of a run that sinks depend on; each format uses some of them."""

    file_codec: FileCodec
    parquet_codec: ParquetCodec
    run_id: str
    exporter_version: str
    exported_at: datetime
    """The start of the run."""


class FormatModule(Protocol):
    """The functions of the module of a file format."""

    def open_sink(self, stream: ByteStream, options: SinkOptions, /) -> Sink: ...

    def open_partition_buffer(
        self, partition_by: Sequence[str], exported_at: datetime, /
    ) -> PartitionBuffer:
        """A buffer that splits rows by the values of these columns."""

    def read_keys(
        self, stream: BinaryIO, codec: FileCodec, /, *, with_version: bool
    ) -> Iterator[list[str]]:
        """The key of each row as one text, batch by batch; `with_version` appends the row's
        `exported_at`. Raises UnreadableFileError, and OSError as the stream does.
        """
