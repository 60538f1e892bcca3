"""Stdout, a pipe or a device as a file on its way: what is written is visible at once."""

import os
import stat
import sys
from contextlib import suppress

import anyio.from_thread

from exporter.errors import DestinationError
from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.stores.posix import mode_of, translated, write_pipe


class PipeFile:
    """A staged file that cannot be taken back: `discard` only ends it."""

    def __init__(self, path: str) -> None:
        self.name = path
        self._fd = _stdout_fd() if path == "-" else _open_pipe(path)

    def write(self, chunk: bytes, /) -> None:
        with translated(self.name):
            write_pipe(self._fd, chunk, give_up=check_cancelled)

    def sync(self) -> None:
        pass

    @property
    def held_bytes(self) -> int:
        return 0

    def release(self) -> None:
        """Nothing to free: nobody publishes it later."""

    def publish(self, lock: HeldLock = NO_LOCK) -> None:  # noqa: ARG002 - a stream has none
        self.discard()

    def discard(self) -> None:
        if self._fd > 2:  # stdout stays open for whoever started us
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1


def is_pipe_or_device(path: str) -> bool:
    with translated(path):
        mode = mode_of(path)
    return mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))


def check_cancelled() -> None:
    """End a thread of a cancelled task; nothing outside of one."""
    try:
        anyio.from_thread.check_cancelled()
    except RuntimeError:  # no thread of anyio's: nobody can cancel it
        return


def _stdout_fd() -> int:
    if sys.stdout is None:  # closed by whoever started us; the number may be another file by now
        raise DestinationError("stdout is closed", hint="redirect it, or name a file by --output")
    return 1


def _open_pipe(path: str) -> int:
    with translated(path):
        # O_NONBLOCK: without it this would wait for a reader, and nothing could interrupt it.
        fd = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        os.set_blocking(fd, True)
        return fd
