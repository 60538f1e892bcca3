"""Staged objects: a small one in memory, a large one uploaded in parts while it is written.

An object is there only when its upload is completed, and an upload that is aborted leaves nothing.
The client aborts an upload when the iterator of its parts raises.
"""

import os
import queue
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Final

from exporter.errors import LockLostError
from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.stores.pipe import check_cancelled

PART_BYTES: Final = 8 << 20
"""A store takes ten thousand parts at most: objects of 80 GiB."""
PARTS_IN_FLIGHT: Final = 2
UPLOAD_BYTES: Final = (PARTS_IN_FLIGHT + 2) * PART_BYTES
"""Memory of one upload at most: parts in flight, the next one, and one that waits."""
MAX_KEPT_BYTES: Final = 1 << 16
"""A finished object that waits to be published keeps no more than this in memory."""
POLL_S: Final = 0.1
ABORT_S: Final = 30.0

Put = Callable[[bytes | Iterator[bytes]], None]
"""Makes the object from bytes in one request, from an iterator in parts."""


@dataclass(frozen=True, slots=True)
class ObjectRequests:
    """The requests of a staged object to its store."""

    put: Put
    put_version: Callable[[bytes, str | None, float], bool]
    """Makes the object in place of the version with a tag, within some seconds; False if another
    version was there.
    """
    read_tag: Callable[[], str | None]
    abort_failed: Callable[[], None]
    """Ends an upload that the client could not end; never raises."""
    abort_others: Callable[[], None]
    """Ends the uploads to the same name that were there when this run began; never raises."""


class UploadAbortedError(Exception):
    """Raised within an upload, to end it."""


class Spool:
    """A nameless file of this machine for the last parts of many objects; made when needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._file: IO[bytes] | None = None
        self._end = 0

    def put(self, content: bytes) -> int:
        """Returns its place in the file. Raises OSError."""
        with self._lock:
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as we do
            start, self._end = self._end, self._end + len(content)
            fd = self._file.fileno()
        rest, at = memoryview(content), start
        while len(rest) > 0:
            written = os.pwrite(fd, rest, at)
            rest, at = rest[written:], at + written
        return start

    def get(self, start: int, size_bytes: int) -> bytes:
        if self._file is None:
            return b""
        return os.pread(self._file.fileno(), size_bytes, start)

    def __del__(self) -> None:
        if self._file is not None:
            self._file.close()


class StagedObject:
    """An unpublished object, see `StagedFile`.

    Bytes are safe only once they are published: a store keeps no part of an object. `sync` raises
    the errors so far.

    A name that `is_shared` is the same for every run. There the store itself has to refuse a run
    that lost the lock and does not know it: an object that is sent whole replaces only the version
    that was there while the lock was held; and an upload in parts is aborted by the next run before
    that one publishes.
    """

    def __init__(
        self, name: str, requests: ObjectRequests, *, is_shared: bool, spool: Spool
    ) -> None:
        self.name = name
        self._requests = requests
        self._is_shared = is_shared
        self._spool = spool
        # Less than a part; `_spooled` is its place and size while it is not in memory.
        self._rest = bytearray()
        self._spooled: tuple[int, int] | None = None
        self._upload: Upload | None = None

    def write(self, chunk: bytes, /) -> None:
        self._restore()
        self._rest += chunk
        while len(self._rest) >= PART_BYTES:
            part = bytes(self._rest[:PART_BYTES])
            del self._rest[:PART_BYTES]
            if self._upload is None:
                self._upload = Upload(self._requests.put)
            self._upload.feed(part)

    def sync(self) -> None:
        if self._upload is not None:
            self._upload.require_alive()
        if len(self._rest) > MAX_KEPT_BYTES:
            with suppress(OSError):  # no disk, or a full one: then it stays where it is
                self._spooled = self._spool.put(bytes(self._rest)), len(self._rest)
                self._rest = bytearray()

    @property
    def held_bytes(self) -> int:
        return len(self._rest) + (0 if self._upload is None else UPLOAD_BYTES)

    def release(self) -> None:
        """Nothing to close: after `sync` an object without an upload holds little."""

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._restore()
        rest, self._rest = bytes(self._rest), bytearray()
        if self._is_shared:
            lock.ensure_held()
            self._requests.abort_others()
        if self._upload is None:
            self._put_whole(rest, lock)
            return
        if rest:
            self._upload.feed(rest)
        lock.ensure_held()
        self._upload.complete()
        self._upload = None
        if self._is_shared:
            lock.ensure_held()  # if it took too long, the object does not count as published

    def _put_whole(self, content: bytes, lock: HeldLock) -> None:
        if not self._is_shared:
            lock.ensure_held()
            self._requests.put(content)
            return
        # The version first: a run that writes another one after this has taken the lock.
        tag = self._requests.read_tag()
        within_s = lock.ensure_held()
        if not self._requests.put_version(content, tag, within_s):
            raise LockLostError(
                f"another run wrote '{self.name}' meanwhile",
                hint="nothing was published: run again",
            )

    def discard(self) -> None:
        self._rest, self._spooled = bytearray(), None
        upload, self._upload = self._upload, None
        if upload is not None and not upload.abort():
            self._requests.abort_failed()

    def _restore(self) -> None:
        if self._spooled is not None:
            start, size_bytes = self._spooled
            self._rest = bytearray(self._spool.get(start, size_bytes))
            self._spooled = None


class Upload:
    """Sends the parts of one object, in a thread that ends with the upload."""

    def __init__(self, put: Put) -> None:
        self._put = put
        # None ends the parts.
        self._parts: queue.Queue[bytes | None] = queue.Queue(maxsize=1)
        self._is_aborted = False
        self._result = Future[None]()
        # A daemon: only a killed process ends without `abort` or `complete`.
        threading.Thread(target=self._run, name="upload", daemon=True).start()

    def feed(self, part: bytes | None) -> None:
        """Queue a part. Waits while enough parts are in flight; raises the upload's error."""
        while True:
            self.require_alive()
            try:
                self._parts.put(part, timeout=POLL_S)
            except queue.Full:
                check_cancelled()
            else:
                return

    def require_alive(self) -> None:
        if self._result.done():
            self._result.result()

    def complete(self) -> None:
        self.feed(None)
        self._result.result()

    def abort(self) -> bool:
        """False if the upload may still be open, since it failed by itself or takes too long."""
        self._is_aborted = True
        with suppress(queue.Full):  # then a part wakes it
            self._parts.put_nowait(None)
        try:
            failure = self._result.exception(timeout=ABORT_S)
        except TimeoutError:
            return False
        return failure is None or isinstance(failure, UploadAbortedError)

    def _run(self) -> None:
        try:
            self._put(self._take())
        except BaseException as exc:  # noqa: BLE001 - raised by `require_alive` and `complete`
            self._result.set_exception(exc)
        else:
            self._result.set_result(None)

    def _take(self) -> Iterator[bytes]:
        while True:
            part = self._parts.get()
            if self._is_aborted:
                raise UploadAbortedError
            if part is None:
                return
            yield part
