"""The lock of an output on a local disk: a file locked by its holder."""

import errno
import fcntl
import math
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

from exporter.errors import LockLostError
from exporter.locks.interface import Contention, Holder, dump_holder, parse_holder
from exporter.stores.local import LocalStore
from exporter.stores.posix import make_folder, translated, write_all

POLL_S: Final = 0.25
RENEW_S: Final = 20.0
NAMELESS_S: Final = 1.0
"""The longest time from locking the file to writing the holder's name."""
MAX_BYTES: Final = 4096
TRIES: Final = 100
NO_LOCKS: Final = frozenset({errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS})

Flock = Callable[[int, int], None]


class NoLocksError(Exception):
    """Raised when the file system has no locks; never leaves `locks`."""


class FlockBackend:
    """A backend by flock(2): the kernel frees the lock when its holder dies, however that happens.

    The file names the holder for other runs. Its mere presence means nothing: a dead holder's file
    is taken over, and a living one removes its own.
    """

    is_lease = False
    poll_s = POLL_S
    renew_s = RENEW_S
    valid_until_s = math.inf

    def __init__(
        self,
        store: LocalStore,
        name: str,
        holder: Holder,
        *,
        now_s: Callable[[], float],
        output: str | None = None,
        flock: Flock = fcntl.flock,
    ) -> None:
        """Errors name the `output`: a user knows nothing of the lock file beside it."""
        self._shown_path = store.path_of(name)
        self._output = self._shown_path if output is None else output
        with translated(self._output):
            root = Path(os.path.realpath(store.url))
        # Absolute, for the working folder may change; the file itself is never a link.
        self._path = root / name
        self._folders = [
            folder
            for folder in reversed(self._path.parents)
            if root in folder.parents or (folder == root and store.makes_folder)
        ]
        self._holder = holder
        self._now_s = now_s
        self._flock = flock
        self._nameless_since_s: float | None = None
        # Guards the attributes below: an attempt of an abandoned thread may still run when the
        # backend is released, and must not leave a locked file behind.
        self._mutex = threading.Lock()
        self._fd = -1
        self._released = False
        self._made_folders: list[Path] = []

    def try_acquire(self) -> Contention | None:
        """See `LockBackend`; raises NoLocksError where the file system has none."""
        with self._mutex, translated(self._output):
            while not self._released:
                fd = self._open()
                keep = False
                try:
                    if not self._lock(fd):
                        return self._read_contention(fd)
                    if not self._is_in_place(fd):
                        continue  # its holder removed it meanwhile
                    if self._is_read_only(fd):
                        # A dead run of another user left it, and we may not write it.
                        self._path.unlink()
                        continue
                    self._write_holder(fd)
                    keep = True
                finally:
                    if not keep:
                        os.close(fd)
                self._fd = fd
                return None
            return Contention(None)

    def renew(self) -> None:
        with self._mutex:
            if self._fd == -1 or not self._is_in_place(self._fd):
                raise LockLostError(
                    f"the lock file '{self._shown_path}' was removed while the run went on",
                    hint="nothing was published: leave that file alone, the run removes it",
                )

    def release(self) -> None:
        with self._mutex:
            self._released = True
            if self._fd != -1:
                with suppress(OSError):
                    if self._is_in_place(self._fd):
                        self._path.unlink()
                # Closing is not enough where a forked child has the file open too.
                with suppress(OSError):
                    self._flock(self._fd, fcntl.LOCK_UN)
                os.close(self._fd)
                self._fd = -1
            self._remove_made_folders()

    def _open(self) -> int:
        for _ in range(TRIES - 1):
            # A run that removes a file of the folder may remove the empty folder with it.
            with suppress(FileNotFoundError):
                self._make_folders()
                return self._open_in_folder()
        self._make_folders()
        return self._open_in_folder()

    def _make_folders(self) -> None:
        """The store's own folder, if it makes that, and those below; its parent must be there."""
        for folder in self._folders:
            if not folder.is_dir():
                with suppress(FileExistsError):
                    make_folder(folder)
                    self._made_folders.append(folder)

    def _open_in_folder(self) -> int:
        flags = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT | flags, 0o666)
        except PermissionError:
            # Another user's, perhaps: reading is enough to see whether it is held.
            if not self._path.exists():
                raise
            return os.open(self._path, os.O_RDONLY | flags)

    def _remove_made_folders(self) -> None:
        with suppress(OSError):  # at the first one that is in use
            while self._made_folders:
                self._made_folders.pop().rmdir()

    def _lock(self, fd: int) -> bool:
        try:
            self._flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as exc:
            if exc.errno not in NO_LOCKS:
                raise
            self._path.unlink(missing_ok=True)
            self._remove_made_folders()
            raise NoLocksError from exc
        return True

    def _is_in_place(self, fd: int) -> bool:
        """Whether the path still names that file, and not another one or none."""
        with suppress(FileNotFoundError, NotADirectoryError):
            return os.path.samestat(os.fstat(fd), os.lstat(self._path))
        return False

    def _is_read_only(self, fd: int) -> bool:
        return fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY

    def _write_holder(self, fd: int) -> None:
        os.ftruncate(fd, 0)
        write_all(fd, orjson.dumps(dump_holder(self._holder), option=orjson.OPT_APPEND_NEWLINE))

    def _read_contention(self, fd: int) -> Contention:
        holder = parse_holder(os.pread(fd, MAX_BYTES, 0))
        if holder is not None:
            self._nameless_since_s = None
            return Contention(holder)
        if self._nameless_since_s is None:
            self._nameless_since_s = self._now_s()
        return Contention(None, clear_at_s=self._nameless_since_s + NAMELESS_S)
