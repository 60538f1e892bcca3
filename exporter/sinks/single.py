"""An output of one file, or of a stream: one sink over one file on its way."""

from collections.abc import Callable, Sequence

from exporter.gateway import Gateway
from exporter.records import RawSession
from exporter.sinks import ByteStream, OutputFacts, Sink, WrittenFile
from exporter.stores import StagedFile
from exporter.stores.metered import MeteredFile

OpenSink = Callable[[ByteStream], Sink]


class FileOutput:
    """Writes rows to a staged file in the format that `open_sink` gives it."""

    def __init__(self, staged: StagedFile, path: str, *, open_sink: OpenSink) -> None:
        self._path = path
        self._file = MeteredFile(staged)
        try:
            self._sink = open_sink(self._file)
        except BaseException:
            staged.discard()
            raise
        self._is_open = True

    @property
    def size_bytes(self) -> int:
        """Bytes written so far; rows that the sink still gathers are not among them."""
        return self._file.size_bytes

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        self._sink.write(gateway, sessions)

    def close(self) -> OutputFacts:
        facts = self._sink.close()
        self._is_open = False
        written = WrittenFile(self._file.finish(self._path), facts.session_count)
        return OutputFacts(facts.session_count, facts.coerced_value_count, (written,))

    def publish(self) -> None:
        self._file.publish()

    def discard(self) -> None:
        if self._is_open:
            self._sink.abort()
            self._is_open = False
        self._file.discard()
