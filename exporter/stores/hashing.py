"""Counts and hashes the bytes of a staged file, and writes them in chunks."""

import hashlib
from typing import Final

from exporter.stores.interface import NO_LOCK, FileFacts, HeldLock, StagedFile, Store

CHUNK_BYTES: Final = 1 << 18
READ_BYTES: Final = 1 << 20


class HashingFile:
    """A staged file as a binary stream, with the size and the digest of its bytes."""

    def __init__(self, staged: StagedFile) -> None:
        self.staged = staged
        self.size_bytes = 0
        """Bytes written so far, flushed or not."""
        self._digest = hashlib.sha256()
        # Our own buffer: one of io's would be written once more when it is dropped after a failure.
        self._pending = bytearray()

    @property
    def sha256(self) -> str:
        """Of the bytes written so far, in lower-case hexadecimal."""
        return self._digest.hexdigest()

    def write(self, chunk: bytes, /) -> int:
        self._digest.update(chunk)
        self.size_bytes += len(chunk)
        self._pending += chunk
        if len(self._pending) >= CHUNK_BYTES:
            self.flush()
        return len(chunk)

    def flush(self) -> None:
        chunk = bytes(self._pending)
        self._pending.clear()
        self.staged.write(chunk)

    def finish(self, path: str) -> FileFacts:
        """Make all bytes durable, still invisible; the facts name the file by `path`."""
        self.flush()
        self.staged.sync()
        return FileFacts(path, self.size_bytes, self.sha256)

    @property
    def held_bytes(self) -> int:
        """See `StagedFile`."""
        return len(self._pending) + self.staged.held_bytes

    def release(self) -> None:
        """See `StagedFile`."""
        self.staged.release()

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self.staged.publish(lock)

    def discard(self) -> None:
        self.staged.discard()


def digest(store: Store, name: str) -> str:
    """The SHA-256 of a file in the store, in lower-case hexadecimal; blocks."""
    hashed = hashlib.sha256()
    with store.open_input(name) as stream:
        while chunk := stream.read(READ_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()
