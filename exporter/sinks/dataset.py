"""An output of many files: a folder of parts, each of them immutable once it is published."""

from collections.abc import Sequence

from exporter.gateway import Gateway
from exporter.records import RawSession
from exporter.sinks import Format, OutputFacts
from exporter.sinks.single import FileOutput, OpenSink
from exporter.stores import Store


class DatasetOutput:
    """Writes rows to parts of about `target_bytes` each.

    Readers of a whole dataset want at least one part, which is empty if need be: `stands_alone`. A
    run that adds to a dataset and has nothing to add writes none. A part's name has the run's id in
    it: names never collide between runs.
    """

    def __init__(
        self,
        store: Store,
        *,
        run_id: str,
        output_format: Format,
        open_sink: OpenSink,
        target_bytes: int,
        stands_alone: bool,
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._format = output_format
        self._open_sink = open_sink
        self._target_bytes = target_bytes
        self._stands_alone = stands_alone
        self._part: FileOutput | None = None
        # Parts in the order they were begun, and the facts of those that are written to their end.
        self._parts: list[FileOutput] = []
        self._closed: list[OutputFacts] = []

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        part = self._part or self._begin_part()
        part.write(gateway, sessions)
        if part.size_bytes >= self._target_bytes:
            self._end_part()

    def close(self) -> OutputFacts:
        if self._stands_alone and not self._parts:
            self._begin_part()
        self._end_part()
        return OutputFacts(
            session_count=sum(each.session_count for each in self._closed),
            coerced_value_count=sum(each.coerced_value_count for each in self._closed),
            files=tuple(file for each in self._closed for file in each.files),
        )

    def publish(self) -> None:
        for part in self._parts:
            part.publish()

    def discard(self) -> None:
        for part in self._parts:
            part.discard()

    def _begin_part(self) -> FileOutput:
        name = f"part-{self._run_id}-{len(self._parts):05}.{self._format}"
        staged = self._store.stage(name, run_id=self._run_id)
        self._part = FileOutput(staged, name, open_sink=self._open_sink)
        self._parts.append(self._part)
        return self._part

    def _end_part(self) -> None:
        if self._part is not None:
            self._closed.append(self._part.close())
            self._part = None
