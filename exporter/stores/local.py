"""A folder of this machine as a store."""

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from exporter.errors import DestinationError
from exporter.settings.files import open_regular
from exporter.stores.generation import remove_generations, replace_generation
from exporter.stores.interface import StagedFile, StoredFile
from exporter.stores.posix import folder_error, make_folder, translated
from exporter.stores.staging import (
    PartialFile,
    create_exclusively,
    find_partials,
    is_partial,
    new_token,
    remove_dead_partial,
)

T = TypeVar("T")

OWN_NAMES: Final = frozenset({"_manifest.json", "_exporter", "_delta_log"})
"""By these a folder is known as an output of its own."""

TRIES: Final = 5
"""How often a folder is made while others remove it, since it is empty."""


class LocalStore:
    """Files below a folder, which must be there unless the store `makes_folder`.

    A staged file is hidden beside its name, see `staging`. The empty url is the working folder.
    """

    def __init__(self, url: str, *, makes_folder: bool = False) -> None:
        self.url = url.rstrip("/") or url[:1]
        self.makes_folder = makes_folder

    @classmethod
    def holding(cls, path: str) -> tuple["LocalStore", str]:
        """The store of the folder that a file is in, which must be there, and the file's name."""
        if path.endswith("/"):
            raise folder_error(path)
        folder, slash, name = path.rpartition("/")
        return cls(folder + slash), name

    def path_of(self, name: str) -> str:
        return os.path.join(self.url, name)  # noqa: PTH118 - keeps ./ as given

    def stage(self, name: str, *, run_id: str) -> PartialFile:
        def create() -> PartialFile:
            return PartialFile(
                self.path_of(name),
                run_id,
                name=name,
                after_discard=lambda: self._remove_empty_folders(name),
            )

        return self._in_its_folder(name, create)

    def read(self, name: str) -> bytes | None:
        path = self.path_of(name)
        with translated(path, doing="read"):
            try:
                with open_regular(path) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def size_of(self, name: str) -> int | None:
        status = self._stat(name)
        return None if status is None else status.st_size

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:  # noqa: ARG002 - a disk is never late
        return self._in_its_folder(name, lambda: create_exclusively(self.path_of(name), content))

    def replace(self, name: str, content: bytes, *, within_s: float = math.inf) -> None:  # noqa: ARG002 - as above
        staged = self.stage(name, run_id=new_token())
        try:
            staged.write(content)
            staged.sync()
            staged.publish()
        finally:
            staged.discard()

    def tag_of(self, name: str) -> str | None:
        status = self._stat(name)
        if status is None:
            return None
        return f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"

    def replace_version(
        self, name: str, content: bytes, *, tag: str | None, within_s: float = math.inf
    ) -> bool:
        if tag is None:
            return self.create(name, content, within_s=within_s)
        if self.tag_of(name) != tag:
            return False
        self.replace(name, content, within_s=within_s)
        return True

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        for path, name in self._walk(prefix):
            if name.startswith(prefix) and not is_partial(path.name):
                with translated(str(path), doing="read"), suppress(FileNotFoundError):
                    status = path.stat()
                    modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
                    yield StoredFile(name, status.st_size, modified_at)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            path = Path(self.path_of(name))
            with translated(str(path), doing="remove"), suppress(FileNotFoundError):
                path.unlink()
            self._remove_empty_folders(name)

    def remove_leftovers(self, names: Sequence[str] | None = None, *, keep_s: float = 0.0) -> None:
        if keep_s > 0:  # no locks here: a dead run's file looks like one that is being written
            return
        with suppress(OSError, DestinationError):
            if names is None:
                walked = self._walk("", enters_outputs=False)
                found = [(path, name) for path, name in walked if is_partial(path.name)]
            else:
                found = [
                    (path, name)
                    for name in names
                    for path in find_partials(Path(os.path.realpath(self.path_of(name))))
                ]
            for path, name in found:
                if remove_dead_partial(path):
                    self._remove_empty_folders(name)

    def enclosing(self) -> Iterator["LocalStore"]:
        with translated(self.url):
            folder = Path(os.path.realpath(self.url))
        for each in folder.parents:
            yield LocalStore(str(each))

    def replace_together(
        self,
        staged: Sequence[StagedFile],
        *,
        run_id: str,
        is_own: Callable[[str], bool],
        removed: Collection[str],
        contents: Mapping[str, bytes],
    ) -> bool:
        """Publish files, remove others and write some small ones, as one act for readers of the
        folder. False where that cannot be done; nothing has changed then: see `generation`.
        """
        partials = [each for each in staged if isinstance(each, PartialFile)]
        if len(partials) < len(staged):
            return False
        replaced = replace_generation(
            Path(os.path.realpath(self.url)),
            run_id=run_id,
            is_own=is_own,
            added={each.name: each.hidden for each in partials},
            removed=removed,
            contents=contents,
        )
        if replaced:
            for each in partials:
                each.mark_published()
        return replaced

    def remove_generations(self, is_own: Callable[[str], bool]) -> None:
        """Remove the folders left by runs that died in `replace_together`; never raises."""
        with suppress(OSError):
            remove_generations(Path(os.path.realpath(self.url)), is_own)

    def open_input(self, name: str) -> BinaryIO:
        path = self.path_of(name)
        with translated(path, doing="read"):
            return open_regular(path)

    def _stat(self, name: str) -> os.stat_result | None:
        path = self.path_of(name)
        with translated(path, doing="read"):
            try:
                return Path(path).stat()
            except FileNotFoundError:
                return None

    def _in_its_folder(self, name: str, act: Callable[[], T]) -> T:
        """Run `act`, which needs the file's folder to be there."""
        for _ in range(TRIES):
            self._make_folders(name)
            try:
                return act()
            except DestinationError as exc:
                if "/" not in name or not isinstance(exc.__cause__, FileNotFoundError):
                    raise
        self._make_folders(name)
        return act()

    def _make_folders(self, name: str) -> None:
        inner = name.split("/")[:-1]
        paths = [self.path_of("/".join(inner[:depth])) for depth in range(1, len(inner) + 1)]
        if self.makes_folder:
            paths.insert(0, self.url)
        for path in paths:
            with translated(path), suppress(FileExistsError):
                make_folder(Path(path))

    def _remove_empty_folders(self, name: str) -> None:
        *folders, _ = name.split("/")
        with suppress(OSError):  # at the first one that is not empty
            while folders:
                Path(self.path_of("/".join(folders))).rmdir()
                folders.pop()

    def _walk(self, prefix: str, *, enters_outputs: bool = True) -> Iterator[tuple[Path, str]]:
        """Files whose names start with the prefix, and all staged ones beside them; without those
        in folders that are outputs of their own, unless it `enters_outputs`.
        """
        folders, slash, _ = prefix.rpartition("/")
        pending = [folders + slash]
        while pending:
            folder = pending.pop()
            with translated(self.url, doing="read"):
                try:
                    entries = sorted(os.scandir(self.path_of(folder) or "."), key=lambda e: e.name)
                except FileNotFoundError:
                    continue
            if folder and not enters_outputs and OWN_NAMES & {entry.name for entry in entries}:
                continue
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    inside = f"{name}/"
                    if inside.startswith(prefix) or prefix.startswith(inside):
                        pending.append(inside)
                else:
                    yield Path(entry.path), name
