"""Stdout, a pipe or a device as a staged file: written bytes are visible at once."""

import os
import select
import stat
import sys
from contextlib import suppress
from typing import Final

import anyio.from_thread

from exporter.errors import DestinationError
from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.stores.posix import mode_of, translated

POLL_S: Final = 0.1


class PipeFile:
    """A staged file that cannot be taken back: `discard` only ends it."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._fd = open_stdout() if path == "-" else open_pipe(path)

    def write(self, chunk: bytes) -> None:
        """Waits for a slow reader, unless the thread's task is cancelled."""
        rest = memoryview(chunk)
        with translated(self.name):
            while len(rest) > 0:
                if not select.select([], [self._fd], [], POLL_S)[1]:
                    check_cancelled()
                    continue
                # Another process that shares our stdout may have made it non-blocking.
                with suppress(BlockingIOError):
                    # More than this could block although there is room.
                    rest = rest[os.write(self._fd, rest[: select.PIPE_BUF]) :]

    def sync(self) -> None:
        pass

    @property
    def held_bytes(self) -> int:
        return 0

    def release(self) -> None:
        """Nothing to close: a stream is never published later."""

    def publish(self, lock: HeldLock = NO_LOCK) -> None:  # noqa: ARG002 - a stream has none
        self.discard()

    def discard(self) -> None:
        if self._fd > 2:  # stdout stays open for the process that started us
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1


def is_pipe_or_device(path: str) -> bool:
    with translated(path):
        mode = mode_of(path)
    return mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))


def check_cancelled() -> None:
    """End the thread of a cancelled task; does nothing in other threads."""
    try:
        anyio.from_thread.check_cancelled()
    except RuntimeError:  # no thread of anyio's: nobody can cancel it
        return


def open_stdout() -> int:
    if sys.stdout is None:  # it was closed before we started; the number may be another file by now
        raise DestinationError("stdout is closed", hint="redirect it, or name a file by --output")
    return 1


def open_pipe(path: str) -> int:
    with translated(path):
        # O_NONBLOCK: without it this would wait for a reader, and nothing could interrupt it.
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        os.set_blocking(fd, True)
        return fd
