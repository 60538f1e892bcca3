"""How sessions are written: one protocol, one file a format."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, Protocol, assert_never

from exporter.errors import UsageError
from exporter.gateway import Gateway
from exporter.held import NO_LOCK, HeldLock
from exporter.records import RawSession
from exporter.stores import FileFacts

Format = Literal["parquet", "ndjson"]
"""Of a file."""

TableFormat = Literal["delta", "iceberg", "paimon"]

FileCodec = Literal["none", "gzip", "zstd"]
"""How a file is compressed as a whole: NDJSON by its name, Parquet never."""

ParquetCodec = Literal["none", "snappy", "gzip", "brotli", "lz4", "zstd"]
"""How the pages inside a Parquet file are compressed."""


TableMode = Literal["replace", "upsert"]
"""All rows of a table for those of the run; or only the rows of the sessions it has read."""


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


class Gathering(Protocol):
    """Sessions of many partitions, gathered until it pays to part them; performs no I/O."""

    @property
    def coerced_value_count(self) -> int:
        """Of all that was added, as in `SinkFacts`."""

    @property
    def is_full(self) -> bool:
        """Whether there are enough rows to be parted."""

    def add(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        """Add sessions of one gateway."""

    def part(self) -> list[tuple[str, Rows]]:
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
        """Write rows that a `Gathering` of the format made, at once; none of them is kept."""

    def close(self) -> SinkFacts:
        """Write what is buffered and the format's ending; the stream itself stays open."""

    def abort(self) -> None:
        """Drop what is buffered and free what is held, without raising and without a write."""


def open_sink(
    stream: ByteStream,
    *,
    output_format: Format,
    file_codec: FileCodec,
    parquet_codec: ParquetCodec,
    run_id: str,
    exporter_version: str,
    exported_at: datetime,
) -> Sink:
    """The sink of a format over an open stream; `exported_at` is when the run began."""
    match output_format:
        case "parquet":
            from exporter.sinks.parquet import ParquetSink

            return ParquetSink(
                stream,
                codec=parquet_codec,
                run_id=run_id,
                exporter_version=exporter_version,
                exported_at=exported_at,
            )
        case "ndjson":
            from exporter.sinks.ndjson import NdjsonSink

            return NdjsonSink(stream, codec=file_codec, exported_at=exported_at)
        case _:
            assert_never(output_format)


def open_gathering(
    output_format: Format, partition_by: Sequence[str], *, exported_at: datetime
) -> Gathering:
    """What parts the rows of a format by these columns."""
    match output_format:
        case "parquet":
            from exporter.sinks.parquet import ParquetGathering

            return ParquetGathering(partition_by, exported_at=exported_at)
        case "ndjson":
            from exporter.sinks.ndjson import NdjsonGathering

            return NdjsonGathering(partition_by, exported_at=exported_at)
        case _:
            assert_never(output_format)


_FORMAT_OF_SUFFIX: Final[dict[str, Format]] = {
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}
_CODEC_OF_SUFFIX: Final[dict[str, FileCodec]] = {".gz": "gzip", ".zst": "zstd"}


def resolve_format(output: str, chosen: Format | None) -> tuple[Format, FileCodec]:
    """The format and the codec of an output by its name; `chosen` comes before the name.

    `--format parquet --output x.ndjson` writes Parquet: whoever says the format means it. The codec
    is always the name's, since every reader goes by `.gz` and `.zst`. Stdout (`-`) is NDJSON.

    Raises UsageError for a name that tells no format, and for Parquet named as compressed.
    """
    if output == "-":
        return "ndjson" if chosen is None else chosen, "none"
    name = output.lower()
    codec: FileCodec = "none"
    for suffix, named_codec in _CODEC_OF_SUFFIX.items():
        if name.endswith(suffix):
            codec = named_codec
            name = name.removesuffix(suffix)
    resolved = _format_of(name) if chosen is None else chosen
    if resolved is None:
        raise UsageError(
            f"the name '{output}' tells no format",
            hint="end it in .parquet, .ndjson or .jsonl (the last two also with .gz or .zst), "
            "in / for a folder of parts, or say --format",
        )
    if resolved == "parquet" and codec != "none":
        raise UsageError(
            f"a Parquet file is compressed inside, not as a whole like '{output}'",
            hint=f"drop the last suffix and say --compression {codec}",
        )
    return resolved, codec


def _format_of(name: str) -> Format | None:
    for suffix, named_format in _FORMAT_OF_SUFFIX.items():
        if name.endswith(suffix):
            return named_format
    return None


class BorrowedStream:
    """A stream as pyarrow wants one: it may close it, and its writer can be silenced.

    pyarrow's writers close what they are given, and write once more when they are dropped in the
    middle. Here the first leaves the stream open, and the second goes nowhere after `cut_off`.
    """

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._size_bytes = 0
        self._is_cut_off = False
        self.closed = False

    def cut_off(self) -> None:
        """Swallow all further writes."""
        self._is_cut_off = True

    def write(self, chunk: bytes) -> int:
        if not self._is_cut_off:
            self._stream.write(chunk)
        self._size_bytes += len(chunk)
        return len(chunk)

    def tell(self) -> int:
        return self._size_bytes

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False
