"""Files and folders of this machine, and its errors as ours."""

import errno
import os
import shlex
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from exporter.errors import DestinationError, UnusableNameError, shorten
from exporter.settings.files import NotRegularError, describe_kind

WRITERS: Final = "check who may write to the folder {folder}, or name another"
SPACE: Final = "free some space where {folder} is, or name a file on another disk"
REMEDIES: Final = {
    errno.ENOENT: "mkdir -p {folder}",
    errno.ENOTDIR: "{folder} is a file: name a folder",
    errno.EACCES: WRITERS,
    errno.EPERM: WRITERS,
    errno.EROFS: "name a file on a file system that can be written",
    errno.ENOSPC: SPACE,
    errno.EDQUOT: SPACE,
    errno.EFBIG: "raise the limit of file sizes (ulimit -f), or compress the output",
    errno.ENAMETOOLONG: "shorten the name: the run id is added to it while it is being written",
    errno.ENXIO: "start the reader of the pipe first",
}
"""For a failed write, by its error."""
SAME_WHEN_READ: Final = {errno.ENOTDIR, errno.ENAMETOOLONG}
"""Errors with the same remedy for a failed reading."""


def write_all(fd: int, chunk: bytes) -> None:
    """Write every byte, however few the system takes at a time; raises OSError as it comes."""
    rest = memoryview(chunk)
    while len(rest) > 0:
        rest = rest[os.write(fd, rest) :]


def make_folder(path: Path) -> None:
    """Make it in a folder that is there, to survive a power cut. Raises OSError as it comes."""
    path.mkdir()
    sync_folder(path.parent)


def make_folders(path: Path) -> None:
    """As `make_folder`, with all folders on the way; what is there is no error."""
    for each in reversed([path, *path.parents]):
        if not each.is_dir():
            with suppress(FileExistsError):
                make_folder(each)


def sync_folder(path: Path) -> None:
    """Make a rename, or a new name, survive a power cut, where the file system can do so."""
    with suppress(PermissionError):  # a folder may be written and yet not be read
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError as exc:
            if exc.errno not in {errno.EINVAL, errno.ENOTSUP}:
                raise
        finally:
            os.close(fd)


def mode_of(path: str) -> int | None:
    """Type and permissions of the file; None when there is none."""
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return None


def require_replaceable(path: str, mode: int | None) -> None:
    """Raises DestinationError unless the path is free or a file that may be written."""
    if mode is None:
        return
    if stat.S_ISDIR(mode):
        raise folder_error(path)
    if not stat.S_ISREG(mode):
        raise UnusableNameError(
            f"'{shorten(path)}' is {describe_kind(mode)}, not a file",
            hint="name a regular or a new file",
        )
    if not os.access(path, os.W_OK):
        raise DestinationError(
            f"'{shorten(path)}' is write-protected", hint="make it writable, or name another file"
        )


def folder_error(path: str) -> UnusableNameError:
    inside = shlex.quote(os.path.join(path, "sessions.parquet"))  # noqa: PTH118 - keeps ./ as given
    return UnusableNameError(
        f"'{shorten(path)}' is a folder", hint=f"name a file in it, such as {inside}"
    )


@contextmanager
def translated(path: str, *, doing: str = "write") -> Iterator[None]:
    """Raises the system's errors as DestinationError, but for a pipe without a reader."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as exc:
        # A name that is too long is wrong whatever the disk holds.
        is_name = isinstance(exc, NotRegularError) or exc.errno == errno.ENAMETOOLONG
        if doing == "write" or exc.errno in SAME_WHEN_READ:
            remedy = REMEDIES.get(exc.errno or 0, "see what is there, or name another place")
            folder = os.path.dirname(path) or "."  # noqa: PTH120 - keeps the user's own words
            hint = remedy.format(folder=shlex.quote(folder))
        else:
            hint = f"see what is at {shlex.quote(path)}, and who may {doing} it"
        raise (UnusableNameError if is_name else DestinationError)(
            f"cannot {doing} '{shorten(path)}': {exc.strerror}", hint=hint
        ) from exc
