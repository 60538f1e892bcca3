"""A file of checked frames, written at its end by one process at a time.

A frame that is not whole, or of which a bit changed, ends the file: it and what follows it are cut
off when the file is opened again. So what is read is always what was written up to some moment.
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

HEAD: Final = struct.Struct("<4sIqQI")
"""Mark, count, when it was written in milliseconds of the epoch, payload's size; then the checksum
of all of these and the payload."""
MARK: Final = b"LXF1"
CHECKED: Final = HEAD.size - 4
LARGEST_BYTES: Final = 1 << 30
"""No frame is larger: what says so is damaged, and is not worth reading."""


@dataclass(frozen=True, slots=True)
class Frame:
    payload: bytes
    count: int
    """How many of the writer's things are in it."""
    written_ms: int
    end: int
    """Where the next one begins."""


class FrameFile:
    """The open file, locked against a second writer until it is closed."""

    def __init__(self, path: Path) -> None:
        """Raises BlockingIOError when another process writes it, OSError as it comes."""
        self.path = path
        self._fd = open_locked(path)
        self.found_bytes = os.fstat(self._fd).st_size
        """What was there when it was opened."""
        self.size_bytes = self.found_bytes
        """Where the next frame begins; to be set with `cut` once it is known what is good."""

    def read(self, start: int = 0) -> Iterator[Frame]:
        """The good frames from `start` on, one at a time."""
        place = start
        while (frame := self._read_at(place)) is not None:
            place = frame.end
            yield frame

    def cut(self, size_bytes: int) -> None:
        """Drop what follows."""
        os.ftruncate(self._fd, size_bytes)
        self.size_bytes = size_bytes

    def append(self, frame: bytes) -> None:
        """Write what `build_frame` built. Raises OSError as it comes, and leaves nothing then."""
        rest, place = memoryview(frame), self.size_bytes
        try:
            while len(rest) > 0:
                written = os.pwrite(self._fd, rest, place)
                rest, place = rest[written:], place + written
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._fd, self.size_bytes)
            raise
        self.size_bytes = place

    def remove(self) -> None:
        """Remove the file while it is still ours, and close it."""
        with suppress(OSError):
            self.path.unlink()
        self.close()

    def close(self) -> None:
        if self._fd != -1:
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1

    def _read_at(self, place: int) -> Frame | None:
        head = os.pread(self._fd, HEAD.size, place)
        if len(head) < HEAD.size:
            return None
        mark, count, written_ms, size_bytes, checksum = HEAD.unpack(head)
        if mark != MARK or size_bytes > LARGEST_BYTES:
            return None
        payload = os.pread(self._fd, size_bytes, place + HEAD.size)
        if zlib.crc32(payload, zlib.crc32(head[:CHECKED])) != checksum:
            return None
        return Frame(payload, count, written_ms, place + HEAD.size + size_bytes)


def is_framed(path: Path) -> bool:
    """Whether a file begins as one of ours does; not so for what cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.read(fd, len(MARK)) == MARK
    except OSError:
        return False
    finally:
        os.close(fd)


def build_frame(payload: bytes, *, count: int, written_ms: int) -> bytes:
    head = HEAD.pack(MARK, count, written_ms, len(payload), 0)[:CHECKED]
    checksum = zlib.crc32(payload, zlib.crc32(head))
    return b"".join((head, checksum.to_bytes(4, "little"), payload))


def open_locked(path: Path) -> int:
    while True:
        # Sessions are nobody else's to read until they are published.
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last writer may have removed it between the two calls.
            if path.exists() and os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
