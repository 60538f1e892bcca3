"""A file of checksummed frames, appended to by one process at a time.

An incomplete or corrupt frame ends the file: it and everything after it are cut off when the file
is opened again. So a reader always gets exactly the frames that were written up to some moment.
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

HEADER: Final = struct.Struct("<4sIqQI")
"""Magic bytes, count, time of writing in milliseconds since 1970, size of the payload; then the
CRC-32 of all of these and the payload."""
MAGIC: Final = b"LXF1"
CHECKED_BYTES: Final = HEADER.size - 4
MAX_PAYLOAD_BYTES: Final = 1 << 30
"""A header that claims a larger payload is corrupt."""


@dataclass(frozen=True, slots=True)
class Frame:
    payload: bytes
    count: int
    """Records in the payload."""
    written_ms: int
    end: int
    """Where the next frame begins."""


class FrameFile:
    """The open file, locked against a second writer until it is closed."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when another process writes the file, and any other OSError."""
        self.path = path
        self._fd = open_locked(path)
        self.found_bytes = os.fstat(self._fd).st_size
        """Size of the file when it was opened."""
        self.size_bytes = self.found_bytes
        """Where the next frame is written; the caller cuts off a corrupt end first, with `cut`."""

    def read(self, start: int = 0) -> Iterator[Frame]:
        """The good frames from `start` on, one at a time."""
        while (frame := self._read_at(start)) is not None:
            start = frame.end
            yield frame

    def cut(self, size_bytes: int) -> None:
        """Drop everything after the first `size_bytes`."""
        os.ftruncate(self._fd, size_bytes)
        self.size_bytes = size_bytes

    def append(self, frame: bytes) -> None:
        """Append a frame of `build_frame`; after an OSError nothing of it is left in the file."""
        rest, end = memoryview(frame), self.size_bytes
        try:
            while len(rest) > 0:
                written_bytes = os.pwrite(self._fd, rest, end)
                rest, end = rest[written_bytes:], end + written_bytes
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size_bytes)
            raise
        self.size_bytes = end

    def remove(self) -> None:
        """Remove the file while it is still locked, and close it."""
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        if self._fd != -1:
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1

    def _read_at(self, start: int) -> Frame | None:
        header = os.pread(self._fd, HEADER.size, start)
        if len(header) < HEADER.size:
            return None
        magic, count, written_ms, size_bytes, checksum = HEADER.unpack(header)
        if magic != MAGIC or size_bytes > MAX_PAYLOAD_BYTES:
            return None
        payload = os.pread(self._fd, size_bytes, start + HEADER.size)
        if zlib.crc32(payload, zlib.crc32(header[:CHECKED_BYTES])) != checksum:
            return None
        return Frame(payload, count, written_ms, start + HEADER.size + size_bytes)


def is_framed(path: Path) -> bool:
    """Whether a file begins with the magic bytes; false for one that cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, len(MAGIC)) == MAGIC
    except OSError:
        return False
    finally:
        os.close(fd)


def build_frame(payload: bytes, *, count: int, written_ms: int) -> bytes:
    header = HEADER.pack(MAGIC, count, written_ms, len(payload), 0)[:CHECKED_BYTES]
    checksum = zlib.crc32(payload, zlib.crc32(header))
    return b"".join((header, checksum.to_bytes(4, "little"), payload))


def open_locked(path: Path) -> int:
    while True:
        # Only this user may read sessions that are not published.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The last writer may have removed the file between the two calls.
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
