"""A folder of this machine as a store."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from exporter.errors import DestinationError
from exporter.stores import StoredFile
from exporter.stores.partials import (
    PartialFile,
    create_exclusively,
    is_partial,
    remove_dead_partial,
    translated,
    unique_word,
)


class LocalStore:
    """Files below a folder, which must be there but for the store's own last part.

    A staged file is hidden beside its name, see `partials`. The empty url is the working folder.
    """

    def __init__(self, url: str) -> None:
        self.url = url if url == "/" else url.rstrip("/")

    def path_of(self, name: str) -> str:
        return os.path.join(self.url, name)  # noqa: PTH118 - keeps ./ as given

    def stage(self, name: str, *, run_id: str) -> PartialFile:
        self._make_folder(name)
        return PartialFile(self.path_of(name), run_id, name=name)

    def read(self, name: str) -> bytes | None:
        path = self.path_of(name)
        with translated(path, doing="read"):
            try:
                return Path(path).read_bytes()
            except FileNotFoundError:
                return None

    def size_of(self, name: str) -> int | None:
        path = self.path_of(name)
        with translated(path, doing="read"):
            try:
                return Path(path).stat().st_size
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes) -> bool:
        self._make_folder(name)
        return create_exclusively(self.path_of(name), content)

    def replace(self, name: str, content: bytes) -> None:
        staged = self.stage(name, run_id=unique_word())
        try:
            staged.write(content)
            staged.sync()
            staged.publish()
        finally:
            staged.discard()

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        for path, name in self._walk(prefix):
            if name.startswith(prefix) and not is_partial(path.name):
                with suppress(FileNotFoundError):
                    yield StoredFile(name, path.stat().st_size)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            path = Path(self.path_of(name))
            with translated(str(path), doing="remove"), suppress(FileNotFoundError):
                path.unlink()
            self._remove_empty_folders(name)

    def remove_leftovers(self, names: Sequence[str] | None = None) -> None:
        with suppress(OSError, DestinationError):
            if names is None:
                found = list(self._walk(""))
            else:
                found = [
                    (path, name)
                    for name in names
                    for path in Path(self.path_of(name)).resolve().parent.iterdir()
                    if target_name(path.name) == Path(self.path_of(name)).resolve().name
                ]
            for path, name in found:
                if is_partial(path.name) and remove_dead_partial(path):
                    self._remove_empty_folders(name)

    def open_input(self, name: str) -> BinaryIO:
        path = self.path_of(name)
        with translated(path, doing="read"):
            return Path(path).open("rb")

    def _make_folder(self, name: str) -> None:
        folder = Path(self.path_of(name)).parent
        if not self.url or folder == Path(self.url).parent:
            return
        with translated(self.url):
            Path(self.url).mkdir(exist_ok=True)
            folder.mkdir(parents=True, exist_ok=True)

    def _remove_empty_folders(self, name: str) -> None:
        *folders, _ = name.split("/")
        with suppress(OSError):  # one that is not empty ends it
            while folders:
                Path(self.path_of("/".join(folders))).rmdir()
                folders.pop()

    def _walk(self, prefix: str) -> Iterator[tuple[Path, str]]:
        """Files whose names start with the prefix, and all that are being staged beside them."""
        pending = [""]
        while pending:
            folder = pending.pop()
            with translated(self.url, doing="read"):
                try:
                    entries = sorted(os.scandir(self.path_of(folder) or "."), key=lambda e: e.name)
                except FileNotFoundError:
                    continue
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    inside = f"{name}/"
                    if inside.startswith(prefix) or prefix.startswith(inside):
                        pending.append(inside)
                else:
                    yield Path(entry.path), name


def target_name(file_name: str) -> str:
    """The name that a partial file is on its way to; that of any other file is its own."""
    if not is_partial(file_name):
        return file_name
    return file_name.removeprefix(".").rsplit(".", maxsplit=2)[0]
