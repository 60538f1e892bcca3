"""Staged files of a local folder: hidden beside their name, locked, and renamed at last."""

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
from exporter.stores.posix import mode_of, require_replaceable, sync_folder, translated, write_all

PARTIAL: Final = re.compile(r"\.(.+)\.[^.]+\.partial")
NO_LINKS: Final = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class PartialFile:
    """A staged file: hidden beside its target as `.NAME.RUNID.partial`.

    Its writer holds a lock on it, which the kernel frees when the writer dies: so a later run can
    tell the file of a dead run from one that is being written, without guessing from process ids. A
    file that was released has no lock: then the output's own keeps other runs away.
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
        # A link stays, and the file it points to is replaced.
        self.target = Path(os.path.realpath(path))
        self.hidden = hidden_path(self.target, run_id)
        with translated(path):
            mode = mode_of(path)
            require_replaceable(path, mode)
            self._fd = create_locked(self.hidden)
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
            self.hidden.replace(self.target)
            self.mark_published()
            sync_folder(self.target.parent)

    def mark_published(self) -> None:
        """Called when the file has got its name, here or by another way."""
        self._is_hidden = False
        self._close()

    def discard(self) -> None:
        if self._is_hidden:
            self._is_hidden = False
            with suppress(OSError):
                self.hidden.unlink()
            self._close()
            self._after_discard()

    def _close(self) -> None:
        if self._fd != -1:
            with suppress(OSError):
                os.close(self._fd)
            self._fd = -1


def hidden_path(target: Path, run_id: str) -> Path:
    return target.with_name(f".{target.name}.{run_id}.partial")


def is_partial(file_name: str) -> bool:
    return PARTIAL.fullmatch(file_name) is not None


def find_partials(target: Path) -> list[Path]:
    """All partial files of one file; none where its folder cannot be read."""
    with suppress(OSError):
        return [
            path
            for path in target.parent.iterdir()
            if (match := PARTIAL.fullmatch(path.name)) is not None and match[1] == target.name
        ]
    return []


def remove_dead_partial(path: Path) -> bool:
    """Remove the file of a dead run; False if it is another run's still, or cannot be removed."""
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

    Where the file system has no links, a reader may see it empty while it is being written.
    """
    hidden = hidden_path(Path(path), new_token())
    with translated(path):
        fd = create_locked(hidden)
        try:
            write_all(fd, content)
            os.fsync(fd)
            link(hidden, path)
        except FileExistsError:
            return False
        except OSError as exc:
            if exc.errno not in NO_LINKS:
                raise
            return create_in_place(path, content)
        finally:
            os.close(fd)
            hidden.unlink(missing_ok=True)
        sync_folder(Path(path).parent)
    return True


def create_in_place(path: str, content: bytes) -> bool:
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


def create_locked(path: Path) -> int:
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
