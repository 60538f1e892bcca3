"""Bytes on their way into a staged file: counted, hashed, and handed on in chunks."""

import hashlib
from typing import Final

from exporter.stores.interface import NO_LOCK, FileFacts, HeldLock, StagedFile

CHUNK_BYTES: Final = 1 << 18


class HashingFile:
    """A staged file as a binary stream, which knows what went into it."""

    def __init__(self, staged: StagedFile, *, chunk_bytes: int = CHUNK_BYTES) -> None:
        self.size_bytes = 0
        """Bytes given so far, flushed or not."""
        self._staged = staged
        self._digest = hashlib.sha256()
        self._chunk_bytes = chunk_bytes
        # Our own buffer: one of io's would be written once more when it is dropped after a failure.
        self._pending = bytearray()

    @property
    def staged(self) -> StagedFile:
        return self._staged

    @property
    def sha256(self) -> str:
        """Of the bytes given so far, in lower-case hexadecimal."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes, /) -> int:
        self._digest.update(chunk)
        self.size_bytes += len(chunk)
        self._pending += chunk
        if len(self._pending) >= self._chunk_bytes:
            self.flush()
        return len(chunk)

    def flush(self) -> None:
        chunk = bytes(self._pending)
        self._pending.clear()
        self._staged.write(chunk)

    def finish(self, path: str) -> FileFacts:
        """Make all bytes safe, still invisible; the facts name them by `path`."""
        self.flush()
        self._staged.sync()
        return FileFacts(path, self.size_bytes, self.sha256)

    @property
    def held_bytes(self) -> int:
        """Memory that what was written takes until the file is finished."""
        return len(self._pending) + self._staged.held_bytes

    def release(self) -> None:
        """See `StagedFile`."""
        self._staged.release()

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._staged.publish(lock)

    def discard(self) -> None:
        self._staged.discard()
