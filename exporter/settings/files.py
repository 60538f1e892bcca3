"""Names that local files can have, and reading of regular files only.

A pipe would block, and a device may never end: neither is opened.
"""

import errno
import os
import re
import stat
from typing import Any, BinaryIO, Final

from exporter.errors import UsageError, quote, shorten

MAX_NAME_BYTES: Final = 255
"""The limit for a file or a folder on all common file systems."""
MAX_PATH_BYTES: Final = 4095
PARTIAL_BYTES: Final = 33
"""The length of a partial file's suffix."""
MAX_TOML_BYTES: Final = 1 << 20
DEEP_KEY: Final = re.compile(rb"(?:[\w\"'-]+[ \t]*\.[ \t]*){100}")
"""No table of ours is nested so deep, and parsing takes time by the square of the depth."""


class NotRegularError(OSError):
    """Raised for a pipe, a device or a socket in place of a file."""


def find_fault(path: str, *, reserved_bytes: int = 0, is_url: bool = False) -> str | None:
    """The fault of a path, whatever the disk holds; None if it has none.

    `reserved_bytes` are added to its last name while the file is being written.
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
    """The path. Raises UsageError if no file can have it."""
    fault = find_fault(path, is_url=is_url) if path else "should not be empty"
    if fault is not None:
        raise UsageError(f"{flag} {quote(path)}: {fault}", hint="give another name")
    return path


def describe_kind(mode: int) -> str:
    """The kind of a file, by its `st_mode`."""
    kinds = (
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISFIFO, "a pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISREG, "a file"),
    )
    return next((name for is_kind, name in kinds if is_kind(mode)), "a device")


def open_regular(path: str | os.PathLike[str]) -> BinaryIO:
    """A regular file, opened without blocking. Raises OSError, such as NotRegularError."""
    try:
        _require_regular(os.stat(path).st_mode)  # noqa: PTH116 - a text stays as it was typed
        # Checked again once it is open: it may have been replaced.
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
    """The content of a regular file. Raises OSError, also if it is over `max_bytes`."""
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise OSError(errno.EFBIG, f"it is over {max_bytes >> 10:,} KiB long")
    return content


def read_toml(path: str, *, hint: str) -> dict[str, Any]:
    """The document of a TOML file. Raises UsageError, naming the file."""
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
