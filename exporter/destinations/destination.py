"""A destination: an output's kind, format and store, and the names of its sidecar files."""

import os
from dataclasses import dataclass
from typing import Literal, assert_never

from exporter.model import FileCodec, FileFormat, TableFormat
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore
from exporter.tables.interface import Table

Kind = Literal["file", "stream", "dataset", "table"]
"""One file; stdout, a pipe or a device; a folder of parts; a table with its own log."""

OutputFormat = FileFormat | TableFormat


@dataclass(frozen=True, slots=True)
class Sidecars:
    """The names of a run's own files beside an output, and the store that they are in."""

    store: Store
    manifest: str
    intent: str
    """Names what a run is publishing, while it does."""
    lock: str
    journal: str
    """Keeps the answers that a run has read so far."""
    state: str | None
    """Keeps the bookmark of the next incremental run; None where there can be none."""
    manifests: str | None = None
    """The folder of the numbered manifests; None where there are none."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An output as its name and the settings describe it; nothing has been written yet."""

    output: str
    """As the user named it."""
    kind: Kind
    file_format: FileFormat
    """Of its files; a table has its own."""
    file_codec: FileCodec
    store: Store
    """The store of its files; for a table, of its folder; for a stream, the working folder."""
    name: str
    """Of the file, or the table's folder, in the store; empty for a dataset."""
    table: Table | None = None
    table_format: TableFormat | None = None

    @property
    def format(self) -> OutputFormat:
        return self.table_format or self.file_format

    @property
    def key(self) -> str:
        """The output's name, however it was spelled: a state and a journal belong to it."""
        path = self.store.path_of(self.name)
        if isinstance(self.store, LocalStore):
            # It becomes JSON, and the working folder's name may not be UTF-8.
            return os.path.realpath(path).encode("utf-8", "backslashreplace").decode()
        return path

    @property
    def sidecars(self) -> Sidecars | None:
        """The run's own files; None for a stream, which has no place beside it."""
        match self.kind:
            case "stream":
                return None
            case "file" | "table":
                return Sidecars(
                    self.store,
                    manifest=f"{self.name}.manifest.json",
                    intent=f".{self.name}.publishing.json",
                    lock=f".{self.name}.lock",
                    journal=f".{self.name}.journal",
                    state=f"{self.name}.state.json" if self.kind == "table" else None,
                )
            case "dataset":
                return Sidecars(
                    self.store,
                    manifest="_manifest.json",
                    intent="_exporter/publishing.json",
                    lock="_exporter/lock",
                    journal="_exporter/journal",
                    state="_exporter/state.json",
                    manifests="_manifests/",
                )
            case _:
                assert_never(self.kind)
