"""What a file of this machine can be called, and files that are read only if they are regular ones.

A pipe would be waited for, and a device may be read without end: both are refused unopened.
"""

import errno
import os
import re
import stat
from typing import Any, BinaryIO, Final

from exporter.errors import UsageError, quote, shorten

MAX_NAME_BYTES: Final = 255
"""Of a file or a folder, on all common file systems."""
MAX_PATH_BYTES: Final = 4095
PARTIAL_BYTES: Final = 33
"""What a file's name is longer by while the file is being written."""
MAX_TOML_BYTES: Final = 1 << 20
DEEP_KEY: Final = re.compile(rb"(?:[\w\"'-]+[ \t]*\.[ \t]*){100}")
"""No table of ours is nested so deep, and reading one takes time by the square of its depth."""


class NotRegularError(OSError):
    """Raised for a pipe, a device or a socket in the place of a file."""


def find_fault(path: str, *, reserved_bytes: int = 0, is_url: bool = False) -> str | None:
    """What is wrong with a path, whatever the disk holds; None where nothing is.

    `reserved_bytes` are added to its last name while it is being written.
    """
    if "\0" in path:
        return "should hold no NUL character"
    try:
        encoded = path.encode()
    except UnicodeEncodeError:
        return "should be text in UTF-8"
    if len(encoded) > MAX_PATH_BYTES:
        return f"should be at most {MAX_PATH_BYTES:,} bytes long"
    if is_url:
        return None
    *folders, name = encoded.rstrip(b"/").split(b"/")
    if max(map(len, folders), default=0) > MAX_NAME_BYTES:
        return f"should have no folder of a name over {MAX_NAME_BYTES} bytes"
    most = MAX_NAME_BYTES - reserved_bytes
    return f"should have no name over {most} bytes" if len(name) > most else None


def require_name(path: str, *, flag: str, is_url: bool = False) -> str:
    """The path. Raises UsageError for one that no file can have."""
    fault = find_fault(path, is_url=is_url) if path else "should not be empty"
    if fault is not None:
        raise UsageError(f"{flag} {quote(path)}: {fault}", hint="give another name")
    return path


def describe_kind(mode: int) -> str:
    """What is there, for a reader."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISREG, "a file"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, unbuffered. Raises OSError, of which NotRegularError is one, never waits."""
    try:
        _require_regular(os.stat(path).st_mode)  # noqa: PTH116 - a text stays as it was typed
        # It may have been replaced since.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except ValueError as exc:
        raise OSError(errno.EINVAL, "its name holds a NUL character") from exc
    try:
        _require_regular(os.fstat(fd).st_mode)
    except BaseException:
        os.close(fd)
        raise
    return os.fdopen(fd, "rb")


def _require_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, f"it is {describe_kind(mode)}, not a file")


def read_regular(path: str | os.PathLike[str], *, max_bytes: int) -> bytes:
    """All of a small file. Raises OSError, for a longer one too."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is over {max_bytes >> 10:,} KiB long")
    return content


def read_toml(path: str, *, hint: str) -> dict[str, Any]:
    """The document of a TOML file. Raises UsageError, which names the file."""
    import tomllib

    shown = f"'{shorten(path)}'"
    try:
        content = read_regular(path, max_bytes=MAX_TOML_BYTES)
        if DEEP_KEY.search(content) is not None:
            raise UsageError(f"{shown} holds tables in too many tables", hint=hint)
        return tomllib.loads(content.decode())
    except OSError as exc:
        raise UsageError(f"cannot read {shown}: {exc.strerror}", hint=hint) from exc
    except RecursionError as exc:
        raise UsageError(f"{shown} holds lists in too many lists", hint=hint) from exc
    except ValueError as exc:
        raise UsageError(f"{shown} is no TOML: {exc}", hint=hint) from exc
