"""An output of many files: a folder of parts, each of them immutable once it is published."""

import re
from collections.abc import Sequence
from typing import Final

from exporter.model import FileFormat, Gateway, RawSession
from exporter.sinks.file import FileOutput, OpenSink
from exporter.sinks.formats import FORMATS
from exporter.sinks.interface import OutputFacts
from exporter.stores.interface import NO_LOCK, HeldLock, StagedFile, Store

PART_NAME: Final = r"part-(?P<run_id>[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6})-[0-9]{5,}\.(?P<format>[a-z]+)"
"""The name of a part: the id of the run that wrote it, and its number.

The pattern is as narrow as possible, since files that match it are removed once no manifest names
them: other programs name theirs `part-…` too.
"""


def name_part(run_id: str, number: int, output_format: FileFormat) -> str:
    return f"part-{run_id}-{number:05}.{output_format}"


def find_run_id(path: str) -> str | None:
    """The run that wrote a part, by the part's name; None for any other file."""
    match = re.fullmatch(PART_NAME, path.rpartition("/")[2])
    return match["run_id"] if match is not None and match["format"] in FORMATS else None


def is_part(path: str) -> bool:
    return find_run_id(path) is not None


class Parts:
    """The parts that one run writes to a dataset, in the order in which they were begun.

    A part's name contains the run's id, so names never collide between runs. A part that is ended
    holds no file open, so there may be many. For the holder of the output's lock only.
    """

    def __init__(
        self, store: Store, *, run_id: str, output_format: FileFormat, open_sink: OpenSink
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._format = output_format
        self._open_sink = open_sink
        # None while a part is being written.
        self._facts: dict[FileOutput, OutputFacts | None] = {}

    def __len__(self) -> int:
        return len(self._facts)

    def begin(self, folder: str = "") -> FileOutput:
        """A new part in a folder of the dataset; `folder` ends in a slash."""
        name = folder + name_part(self._run_id, len(self._facts), self._format)
        staged = self._store.stage(name, run_id=self._run_id)
        part = FileOutput(staged, name, open_sink=self._open_sink)
        self._facts[part] = None
        return part

    def end(self, part: FileOutput) -> None:
        """Write the part to its end, durably; readers do not see it yet."""
        self._facts[part] = part.close()
        part.release()

    def build_facts(self, *, coerced_value_count: int = 0) -> OutputFacts:
        """The sum over the ended parts; `coerced_value_count` are values coerced elsewhere."""
        ended = [each for each in self._facts.values() if each is not None]
        return OutputFacts(
            session_count=sum(each.session_count for each in ended),
            coerced_value_count=coerced_value_count
            + sum(each.coerced_value_count for each in ended),
            files=tuple(file for each in ended for file in each.files),
        )

    @property
    def staged(self) -> list[StagedFile]:
        return [part.staged for part in self._facts]

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        for part in self._facts:
            part.publish(lock)

    def discard(self) -> None:
        for part in self._facts:
            part.discard()


class DatasetOutput:
    """Writes rows to parts of about `target_bytes` each.

    A dataset that `stands_alone` has at least one part, if only an empty one, since readers need
    it. A run that adds to a dataset and has nothing to add writes none.
    """

    def __init__(self, parts: Parts, *, target_bytes: int, stands_alone: bool) -> None:
        self._parts = parts
        self._target_bytes = target_bytes
        self._stands_alone = stands_alone
        self._part: FileOutput | None = None

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        if not sessions:
            return
        if self._part is None:
            self._part = self._parts.begin()
        self._part.write(gateway, sessions)
        if self._part.size_bytes >= self._target_bytes:
            self._end_part()

    def close(self) -> OutputFacts:
        if self._stands_alone and len(self._parts) == 0:
            self._part = self._parts.begin()
        self._end_part()
        return self._parts.build_facts()

    @property
    def staged(self) -> list[StagedFile]:
        """The parts that are not published."""
        return self._parts.staged

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._parts.publish(lock)

    def discard(self) -> None:
        self._parts.discard()

    def _end_part(self) -> None:
        if self._part is not None:
            self._parts.end(self._part)
            self._part = None
