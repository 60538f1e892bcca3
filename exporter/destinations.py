"""Where an export is written: checked at once, published as one act, or left as it was."""

import hashlib
import os
import re
import stat
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Protocol

import anyio.from_thread

from exporter.errors import DestinationError, UsageError
from exporter.partials import (
    PartialFile,
    folder_error,
    mode_of,
    open_partials,
    publish_partials,
    translated,
    write_pipe,
)

_CHUNK_BYTES: Final = 1 << 18


@dataclass(frozen=True, slots=True)
class FileFacts:
    """A file as its writer knows it: nothing here was read back."""

    path: str
    """As the user named the output; `-` for stdout."""
    size_bytes: int
    sha256: str
    """In lower-case hexadecimal."""


class MeteredStream:
    """A binary stream that counts and hashes what it is given, and hands it on in chunks."""

    def __init__(self, emit: Callable[[bytes], None], *, chunk_bytes: int) -> None:
        self.size_bytes = 0
        """Bytes given so far, flushed or not."""
        self._digest = hashlib.sha256()
        self._emit = emit
        self._chunk_bytes = chunk_bytes
        # Our own buffer: one of io's would be written once more when it is dropped after a failure.
        self._pending = bytearray()

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
        self._emit(chunk)


class Destination(Protocol):
    """One output being written: `finish`, then `publish`; or `discard` at any point.

    The order holds for every kind of store: the bytes first, then the manifest, which is known when
    they are. All methods block, and are called from one thread at a time. All but `discard` raise
    DestinationError; on a pipe whose reader is gone they raise BrokenPipeError, as that is no fault
    of the output.
    """

    @property
    def stream(self) -> MeteredStream: ...

    def finish(self) -> FileFacts:
        """End the bytes and make them safe, still invisible where the store allows it."""

    def publish(self, manifest: bytes) -> None:
        """Show the bytes under the output's name, the manifest after them; free what is held."""

    def discard(self) -> None:
        """Remove what is not published and free what is held; never raises, may be repeated."""


def open_destination(output: str, *, run_id: str, manifest_path: str | None = None) -> Destination:
    """Open the output for writing under a hidden name, which proves that it can be written.

    The manifest goes to `<output>.manifest.json`, and also to `manifest_path` if there is one; that
    of stdout (`-`), a pipe or a device goes to `manifest_path` only.

    Raises UsageError for what cannot be an output, DestinationError for one that cannot be written.
    """
    _require_local(output)
    manifest_paths = []
    if manifest_path is not None:
        _require_local(manifest_path)
        manifest_paths.append(manifest_path)
        if os.path.realpath(manifest_path) == os.path.realpath(output) or manifest_path == "-":
            raise UsageError(
                f"the manifest of '{output}' cannot go to '{manifest_path}'",
                hint="give --manifest the name of another file",
            )
    if output == "-" or _is_pipe_or_device(output):
        return _open_pipe_destination(output, open_partials(manifest_paths, run_id))
    beside = f"{output}.manifest.json"
    if os.path.realpath(beside) not in map(os.path.realpath, manifest_paths):
        manifest_paths.insert(0, beside)
    data, *manifests = open_partials([output, *manifest_paths], run_id)
    return LocalDestination(data, manifests)


class LocalDestination:
    """A file on a local disk: written beside its name, flushed to the disk, renamed."""

    def __init__(self, data: PartialFile, manifests: Sequence[PartialFile]) -> None:
        self._data = data
        self._manifests = manifests
        self._stream = MeteredStream(data.write, chunk_bytes=_CHUNK_BYTES)

    @property
    def stream(self) -> MeteredStream:
        return self._stream

    def finish(self) -> FileFacts:
        self._stream.flush()
        self._data.sync()
        return FileFacts(self._data.path, self._stream.size_bytes, self._stream.sha256)

    def publish(self, manifest: bytes) -> None:
        _write_manifests(self._manifests, manifest)
        publish_partials([self._data, *self._manifests])

    def discard(self) -> None:
        for partial in (self._data, *self._manifests):
            partial.discard()


class PipeDestination:
    """Stdout, a pipe or a device: what is written is visible at once and cannot be taken back."""

    def __init__(self, output: str, fd: int, manifests: Sequence[PartialFile]) -> None:
        self._output = output
        self._fd = fd
        self._manifests = manifests
        self._stream = MeteredStream(self._write, chunk_bytes=_CHUNK_BYTES)

    @property
    def stream(self) -> MeteredStream:
        return self._stream

    def finish(self) -> FileFacts:
        self._stream.flush()
        return FileFacts(self._output, self._stream.size_bytes, self._stream.sha256)

    def publish(self, manifest: bytes) -> None:
        _write_manifests(self._manifests, manifest)
        publish_partials(self._manifests)
        self._close()

    def discard(self) -> None:
        for partial in self._manifests:
            partial.discard()
        self._close()

    def _write(self, chunk: bytes) -> None:
        with translated(self._output):
            write_pipe(self._fd, chunk, give_up=check_cancelled)

    def _close(self) -> None:
        if self._fd > 2:  # stdout stays open for whoever started us
            with suppress(OSError):
                os.close(self._fd)
        self._fd = -1


def check_cancelled() -> None:
    """End a thread of a cancelled task; nothing outside of one."""
    try:
        anyio.from_thread.check_cancelled()
    except RuntimeError:  # no thread of anyio's: nobody can cancel it
        return


def _write_manifests(partials: Sequence[PartialFile], manifest: bytes) -> None:
    for partial in partials:
        partial.write(manifest)
        partial.sync()


def _open_pipe_destination(output: str, manifests: Sequence[PartialFile]) -> PipeDestination:
    try:
        fd = _stdout_fd() if output == "-" else _open_pipe(output)
    except BaseException:
        for partial in manifests:
            partial.discard()
        raise
    return PipeDestination(output, fd, manifests)


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


def _is_pipe_or_device(path: str) -> bool:
    with translated(path):
        mode = mode_of(path)
    return mode is not None and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode))


def _require_local(path: str) -> None:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", path)
    if scheme is not None:
        raise UsageError(
            f"cannot write to '{path}': '{scheme[1]}://' is not supported",
            hint="name a local file, or - for stdout",
        )
    if path == "" or "\0" in path:
        raise UsageError(f"{path!r} names no file", hint="name a local file, or - for stdout")
    if path.endswith("/"):
        raise folder_error(path)
