"""Where files are kept: one protocol, one module a kind of store."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import BinaryIO, Final, Protocol

from exporter.stores.url import Address, StoreAccess

RUN_ID: Final = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"
"""Matches the id of any run in the name of a file."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file by its writer's own count: nothing here was read back."""

    path: str
    """As the user named the output; `-` for stdout. A part's is relative to its dataset."""
    size_bytes: int
    sha256: str
    """In lower-case hexadecimal."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A published file, by its name in the store."""

    name: str
    size_bytes: int
    modified_at: datetime
    """By the store's own clock."""


class HeldLock(Protocol):
    """An output's lock as the writers of the output see it."""

    def ensure_held(self) -> float:
        """The seconds from now during which nobody else can hold it; infinite where only the death
        of this process ends it.

        Called right before each request that cannot be undone: a commit, a replacement, a removal.
        Such a request, with all its attempts, must end within that time. A lease that is about to
        end is renewed first. Blocks; raises LockLostError when another run may hold the lock,
        DestinationError when that cannot be determined.
        """


class NoLock:
    """The lock of an output that nobody else can write: a stream, a file of a test."""

    def ensure_held(self) -> float:
        return math.inf


NO_LOCK: Final = NoLock()


class StagedFile(Protocol):
    """An unpublished file: invisible under its name until `publish`, and gone after `discard`.

    A file of the same name stays as it was until then. All methods block; all but `discard` raise
    DestinationError.
    """

    @property
    def name(self) -> str:
        """Its name in the store."""

    def write(self, chunk: bytes, /) -> None:
        """Append bytes; a store that sends them in parts keeps only a few parts in memory."""

    def sync(self) -> None:
        """Make all written bytes durable: a file published after this survives a crash.

        An object store keeps no part of an object: there this raises the errors so far.
        """

    @property
    def held_bytes(self) -> int:
        """Memory that the written bytes take, at most, until the file is finished."""

    def release(self) -> None:
        """After `sync`: close what the file holds open until it is published.

        Only while the output's lock is held: to other runs the file now looks like a dead run's.
        """

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        """Show the file under its name, in place of one that is there, as one act.

        Ensures that the lock is held right before. Where the store can compare versions, a file
        that was put under the name since then is left alone: LockLostError.
        """

    def discard(self) -> None:
        """Remove it unless it is published, and free its resources; idempotent, never raises."""


class Store(Protocol):
    """A folder, or its equivalent: files by their names below it, `/` between folders.

    All methods block and may be called from any thread; they raise DestinationError, of which
    StoreRefusedError is one.
    """

    @property
    def url(self) -> str:
        """As the user named it, without a slash at the end and without secrets."""

    def path_of(self, name: str) -> str:
        """A file's full path or URL, for messages and manifests."""

    def stage(self, name: str, *, run_id: str) -> StagedFile:
        """Begin a file, and make the folders on the way. Proves that it can be written."""

    def read(self, name: str) -> bytes | None:
        """The whole file; None when there is none."""

    def size_of(self, name: str) -> int | None:
        """In bytes; None when there is no such file."""

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
        """Write a small file unless there is one, as one act. True if it was written.

        Here and below, the write ends within `within_s`, one way or the other, however often it is
        attempted.
        """

    def replace(self, name: str, content: bytes, *, within_s: float = math.inf) -> None:
        """Write a small file in place of the one that is there, as one act."""

    def tag_of(self, name: str) -> str | None:
        """Identifies the current version of a file; None when there is no such file."""

    def replace_version(
        self, name: str, content: bytes, *, tag: str | None, within_s: float = math.inf
    ) -> bool:
        """Write a small file in place of the version with this tag, as one act. False if another
        version was there, which stays; a store that cannot compare versions replaces any.
        """

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        """Every file whose name starts with the prefix, in folders below too, in any order.

        Staged files are not listed.
        """

    def remove(self, names: Sequence[str]) -> None:
        """Remove files, and folders that this leaves empty; missing ones are no error."""

    def remove_leftovers(self, names: Sequence[str] | None = None, *, keep_s: float = 0.0) -> None:
        """Remove the files that dead runs staged under these names, or under any, more than
        `keep_s` ago and never published; never raises.
        """

    def enclosing(self) -> "Iterator[Store]":
        """The folders that this one is in, from the next one outwards."""

    def open_input(self, name: str) -> BinaryIO:
        """The file for reading, seekable. Raises DestinationError when there is none, too."""


DeltaOptions = Callable[[], Mapping[str, str]]
"""Gives the options by which deltalake opens a table; called each time, for it renews no key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreKind:
    """A kind of object store. Its module holds all that is particular to it.

    Both functions send no request yet. They raise UsageError for settings that cannot be,
    MissingExtraError and CredentialsError.
    """

    open_store: Callable[[Address, StoreAccess], Store]
    choose_delta_options: Callable[[Address, StoreAccess], DeltaOptions]
