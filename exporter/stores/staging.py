"""Files on their way to their name: hidden beside it, locked by their writer, then renamed."""

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.stores.posix import _require_replaceable, mode_of, sync_folder, translated, write_all


class PartialFile:
    """A file on its way: hidden beside its target as `.NAME.RUNID.partial`.

    Its writer holds a lock on it, which the kernel frees when the writer dies: so a later run can
    tell what is left over from what is being written, without guessing from process ids. A file
    that was released has no lock: then the output's own keeps other runs away.
    """

    def __init__(
        self,
        path: str,
        run_id: str,
        *,
        name: str = "",
        after_discard: Callable[[], None] = lambda: None,
    ) -> None:
        self.path = path
        self.name = name
        self._after_discard = after_discard
        self._is_hidden = True
        # A link stays, and what it points to is replaced.
        self.target = Path(os.path.realpath(path))
        self._hidden = self.target.with_name(f".{self.target.name}.{run_id}.partial")
        with translated(path):
            mode = mode_of(path)
            _require_replaceable(path, mode)
            self._fd = _create_locked(self._hidden)
            if mode is not None:
                with suppress(OSError):
                    os.fchmod(self._fd, stat.S_IMODE(mode) & 0o777)

    def write(self, chunk: bytes) -> None:
        with translated(self.path):
            write_all(self._fd, chunk)

    def sync(self) -> None:
        with translated(self.path):
            os.fsync(self._fd)

    @property
    def held_bytes(self) -> int:
        return 0

    def release(self) -> None:
        self._close()

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        lock.ensure_held()
        with translated(self.path):
            self._hidden.replace(self.target)
            self._is_hidden = False
            self._close()
            sync_folder(self.target.parent)

    @property
    def hidden(self) -> Path:
        """Where it is until it has its name."""
        return self._hidden

    def settle(self) -> None:
        """Another name was given to it by who published it."""
        self._is_hidden = False
        self._close()

    def discard(self) -> None:
        if self._is_hidden:
            self._is_hidden = False
            with suppress(OSError):
                self._hidden.unlink()
            self._close()
            self._after_discard()

    def _close(self) -> None:
        if self._fd != -1:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1


def is_partial(file_name: str) -> bool:
    return _PARTIAL.fullmatch(file_name) is not None


_PARTIAL: Final = re.compile(r"\..+\.[^.]+\.partial")


def new_token() -> str:
    """Stands in a hidden name where no run id does.

    A process id would not do: a run in a container has the same one every time, and would find the
    file that it left when it was killed.
    """
    return secrets.token_hex(6)


def create_exclusively(
    path: str, content: bytes, *, link: Callable[[Path, str], None] = os.link
) -> bool:
    """Write a small file, whole from the first instant on, unless there is one.

    Where the file system knows no links, whoever reads while it is written may see it empty.
    """
    hidden = Path(path).with_name(f".{Path(path).name}.{new_token()}.partial")
    with translated(path):
        fd = _create_locked(hidden)
        try:
            write_all(fd, content)
            os.fsync(fd)
            link(hidden, path)
        except FileExistsError:
            return False
        except OSError as exc:
            if exc.errno not in _NO_LINKS:
                raise
            return _create_in_place(path, content)
        finally:
            os.close(fd)
            hidden.unlink(missing_ok=True)
        sync_folder(Path(path).parent)
    return True


_NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def _create_in_place(path: str, content: bytes) -> bool:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    try:
        write_all(fd, content)
        os.fsync(fd)
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)
    sync_folder(Path(path).parent)
    return True


def _create_locked(path: Path) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            # Where the file system has no locks, nobody gets the one it takes to remove the file.
            with suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_EX)
        except BaseException:
            os.close(fd)
            raise
        if path.exists():
            return fd
        # Before it was locked, a run that was cleaning up took it for a leftover.
        os.close(fd)


def remove_dead_partial(path: Path) -> bool:
    """Remove the file of a run that is dead; whether it is gone."""
    with suppress(OSError):
        # Open for writing: over NFS an exclusive lock needs it.
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(fd)
        return True
    return False
