"""An output of one file, or of a stream: one sink over one staged file."""

from collections.abc import Callable, Sequence

from exporter.model import Gateway, RawSession
from exporter.sinks.interface import ByteStream, OutputFacts, Rows, Sink, WrittenFile
from exporter.stores.hashing import HashingFile
from exporter.stores.interface import NO_LOCK, HeldLock, StagedFile

OpenSink = Callable[[ByteStream], Sink]


class FileOutput:
    """Writes rows to a staged file in the format of `open_sink`."""

    def __init__(self, staged: StagedFile, path: str, *, open_sink: OpenSink) -> None:
        self._path = path
        self._file = HashingFile(staged)
        # None after its end, which frees its memory.
        self._sink: Sink | None = None
        try:
            self._sink = open_sink(self._file)
        except BaseException:
            staged.discard()
            raise

    @property
    def staged(self) -> StagedFile:
        return self._file.staged

    @property
    def size_bytes(self) -> int:
        """Bytes written so far; rows that the sink still gathers are not among them."""
        return self._file.size_bytes

    @property
    def held_bytes(self) -> int:
        """Memory that the written bytes take until the file is closed."""
        return self._file.held_bytes

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        self._open_sink.write(gateway, sessions)

    def write_rows(self, rows: Sequence[Rows]) -> None:
        self._open_sink.write_rows(rows)

    def close(self) -> OutputFacts:
        facts = self._open_sink.close()
        self._sink = None
        written = WrittenFile(self._file.finish(self._path), facts.session_count)
        return OutputFacts(facts.session_count, facts.coerced_value_count, (written,))

    def release(self) -> None:
        """After `close`, and only under the output's lock: see `StagedFile`."""
        self._file.release()

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._file.publish(lock)

    def discard(self) -> None:
        if self._sink is not None:
            self._sink.abort()
            self._sink = None
        self._file.discard()

    @property
    def _open_sink(self) -> Sink:
        assert self._sink is not None, "written to after it was closed"  # noqa: S101 - a bug
        return self._sink
