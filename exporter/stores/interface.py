"""Where files are kept: one protocol, one module a kind of store."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final, Protocol


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as its writer knows it: nothing here was read back."""

    path: str
    """As the user named the output; `-` for stdout. A part's is relative to its dataset."""
    size_bytes: int
    sha256: str
    """In lower-case hexadecimal."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file that is there, by its name in the store."""

    name: str
    size_bytes: int
    modified_at: datetime
    """By the store's own clock."""


class HeldLock(Protocol):
    """An output's lock as those see it who write to the output."""

    def ensure_held(self) -> float:
        """How many seconds nobody else can hold it from now on; infinite where only the death of
        this process ends it.

        To be called right before each request that cannot be undone: a commit, a replacement, a
        removal. Such a request, with all its retries, must be over when the time is. A lease that
        is about to end is renewed first. Blocks; raises LockLostError when another run may hold the
        lock, DestinationError when that cannot be told.
        """


class NoLock:
    """Stands for the lock of what nobody else can write: a stream, a file of a test."""

    def ensure_held(self) -> float:
        return math.inf


NO_LOCK: Final = NoLock()


class StagedFile(Protocol):
    """A file on its way: invisible under its name until `publish`, and gone after `discard`.

    A file of the same name stays as it was until then. All methods block; all but `discard` raise
    DestinationError.
    """

    @property
    def name(self) -> str:
        """Its name in the store."""

    def write(self, chunk: bytes, /) -> None:
        """Append bytes; a store that sends them in parts keeps no more than some in memory."""

    def sync(self) -> None:
        """Make all that was written safe: what is published after this survives a crash.

        An object store keeps no part of an object: there it raises what failed so far.
        """

    @property
    def held_bytes(self) -> int:
        """Memory that what was written takes, at most, until the file is finished."""

    def release(self) -> None:
        """After `sync`: free what the file holds open until it is published.

        Only where the output's lock is held: to other runs it looks like one of a dead run now.
        """

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        """Show the file under its name, in place of one that is there, as one act.

        Makes sure of the lock right before. Where the store can tell, a file that was put under the
        name since then is left alone: LockLostError.
        """

    def discard(self) -> None:
        """Remove what is not published and free what is held; never raises, may be repeated."""


class Store(Protocol):
    """A folder, or what stands for one: files by their names below it, `/` between folders.

    All methods block and may be called from any thread; they raise DestinationError, of which
    StoreRefusedError is one.
    """

    @property
    def url(self) -> str:
        """As the user named it, without a slash at the end and without secrets."""

    def path_of(self, name: str) -> str:
        """How a reader would name a file of it, for messages and manifests."""

    def stage(self, name: str, *, run_id: str) -> StagedFile:
        """Begin a file; folders on the way to it are made. Proves that it can be written."""

    def read(self, name: str) -> bytes | None:
        """The whole file; None when there is none."""

    def size_of(self, name: str) -> int | None:
        """In bytes; None when there is no such file."""

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
        """Write a small file unless there is one, as one act; whether it was written.

        Here and below, `within_s` is when the write has to be over, one way or the other, however
        often it is tried.
        """

    def replace(self, name: str, content: bytes, *, within_s: float = math.inf) -> None:
        """Write a small file in place of what is there, as one act."""

    @property
    def tells_versions(self) -> bool:
        """Whether `replace_version` leaves other versions alone; else it is a plain `replace`."""

    def tag_of(self, name: str) -> str | None:
        """What tells this version of a file from others; None when there is no such file."""

    def replace_version(
        self, name: str, content: bytes, *, tag: str | None, within_s: float = math.inf
    ) -> bool:
        """Write a small file in place of the version with this tag, as one act; whether that was
        the version that was there.
        """

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose name starts with the prefix, in folders below too; no order promised.

        Files that are being staged are not among them.
        """

    def remove(self, names: Sequence[str]) -> None:
        """Remove files, and folders that this leaves empty; those that are gone are no error."""

    def remove_leftovers(self, names: Sequence[str] | None = None, *, keep_s: float = 0.0) -> None:
        """Remove what dead runs staged under these names, or under any, and never published, if it
        was begun longer than `keep_s` ago; never raises.
        """

    def enclosing(self) -> "Iterator[Store]":
        """The folders that this one is in, from the next one outwards."""

    def open_input(self, name: str) -> BinaryIO:
        """The file for reading, seekable. Raises DestinationError when there is none, too."""
