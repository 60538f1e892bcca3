"""Sessions as lines of JSON, as the service sent them; plain, gzip or zstd."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, Final, Protocol, assert_never

from exporter.model import Gateway, RawSession
from exporter.records.encode import encode_json
from exporter.sinks.interface import (
    GATHERED_BYTES,
    GATHERED_ROWS,
    ByteStream,
    FileCodec,
    Rows,
    SinkFacts,
)
from exporter.sinks.row_groups import NonClosingStream
from exporter.times import format_instant

_CHUNK_BYTES: Final = 1 << 18
_OVERHEAD_BYTES: Final = 1 << 8
"""Of some lines, however few they are."""
_GZIP_LEVEL: Final = 4
"""Level 6 was measured at 1.4 times the CPU seconds for 10 % less, level 9 at 3.3 for 12 %."""

_ADDED_FIELDS: Final = ("regionId", "workspaceId", "exportedAt")


class NdjsonSink:
    """Writes each record as received, with `regionId`, `workspaceId` and `exportedAt` at its end.

    `exportedAt` is RFC 3339 in UTC with milliseconds. Where the service itself sends a field of one
    of these names and another value, its value is kept as `received_regionId` and so on: the added
    names mean the same in every line. Nothing is coerced.
    """

    def __init__(self, stream: ByteStream, *, codec: FileCodec, exported_at: datetime) -> None:
        self._exported_at = format_instant(exported_at)
        self._encoder = _open_encoder(stream, codec)
        # Whole lines that are not yet handed to the encoder; below a chunk between two calls.
        self._pending = bytearray()
        self._session_count = 0

    def write(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        pending = self._pending
        for line in build_lines(gateway, sessions, self._exported_at):
            pending += line
            if len(pending) >= _CHUNK_BYTES:
                self._flush()
        self._session_count += len(sessions)

    def write_rows(self, rows: Sequence[Rows]) -> None:
        for each in rows:
            self._encoder.write(each.content)
            self._session_count += each.row_count

    def close(self) -> SinkFacts:
        self._flush()
        self._encoder.close()
        return SinkFacts(session_count=self._session_count, coerced_value_count=0)

    def abort(self) -> None:
        self._pending.clear()
        self._encoder.abort()

    def _flush(self) -> None:
        chunk = bytes(self._pending)
        self._pending.clear()
        self._encoder.write(chunk)


class NdjsonPartitionBuffer:
    """Gathers lines, and beside them the values of the columns that they are parted by."""

    def __init__(self, partition_by: Sequence[str], *, exported_at: datetime) -> None:
        self._partition_by = partition_by
        self._exported_at = format_instant(exported_at)
        self._lines: list[bytes] = []
        self._size_bytes = 0
        # By column, one array an `add`.
        self._keys: list[list[Any]] = [[] for _ in partition_by]
        self.coerced_value_count = 0

    @property
    def is_full(self) -> bool:
        return len(self._lines) >= GATHERED_ROWS or self._size_bytes >= GATHERED_BYTES

    def add(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        from exporter.sinks.hive import build_key

        lines = list(build_lines(gateway, sessions, self._exported_at))
        self._lines += lines
        self._size_bytes += sum(map(len, lines))
        for name, keys in zip(self._partition_by, self._keys, strict=True):
            keys.append(build_key(name, gateway, sessions))

    def split(self) -> list[tuple[str, Rows]]:
        import pyarrow as pa

        from exporter.sinks.hive import group_rows

        lines, self._lines, self._size_bytes = self._lines, [], 0
        if not lines:
            return []
        columns = [pa.concat_arrays(keys) for keys in self._keys]
        self._keys = [[] for _ in self._partition_by]
        parted: list[tuple[str, Rows]] = []
        for folder, numbers in group_rows(self._partition_by, columns):
            content = b"".join([lines[number] for number in numbers.to_pylist()])
            parted.append((folder, Rows(content, len(numbers), len(content) + _OVERHEAD_BYTES)))
        return parted


def build_lines(
    gateway: Gateway, sessions: Sequence[RawSession], exported_at: str
) -> Iterator[bytes]:
    """Each session as a line, with its end."""
    added = dict(
        zip(_ADDED_FIELDS, (gateway.region_id, gateway.workspace_id, exported_at), strict=True)
    )
    if all(sessions) and set(_ADDED_FIELDS).isdisjoint(set[str]().union(*sessions)):
        ending = b"," + encode_json(added)[1:] + b"\n"
        for session in sessions:
            yield encode_json(session)[:-1] + ending  # in place of the record's closing brace
    else:
        for session in sessions:
            yield encode_json(_merge(session, added)) + b"\n"


def _merge(session: RawSession, added: dict[str, str]) -> dict[str, Any]:
    """The record with the added fields, and with its own under another name where they differ."""
    merged: dict[str, Any] = {}
    for field, value in session.items():
        if field not in added:
            merged[field] = value
        elif value != added[field]:
            merged[_free_name(f"received_{field}", session)] = value
    return merged | added


def _free_name(name: str, session: RawSession) -> str:
    while name in session:
        name = f"received_{name}"
    return name


class _Encoder(Protocol):
    """One way to compress a file as a whole; `close` and `abort` leave the stream open."""

    def write(self, chunk: bytes) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


def _open_encoder(stream: ByteStream, codec: FileCodec) -> _Encoder:
    match codec:
        case "none":
            return _PlainEncoder(stream)
        case "gzip":
            return _GzipEncoder(stream)
        case "zstd":
            return _ZstdEncoder(stream)
        case _:
            assert_never(codec)


class _PlainEncoder:
    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream

    def write(self, chunk: bytes) -> None:
        self._stream.write(chunk)

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class _GzipEncoder:
    """zlib's own gzip header holds no name and no time, so that equal rows are equal bytes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._compressor = zlib.compressobj(_GZIP_LEVEL, wbits=16 + zlib.MAX_WBITS)

    def write(self, chunk: bytes) -> None:
        self._stream.write(self._compressor.compress(chunk))

    def close(self) -> None:
        self._stream.write(self._compressor.flush())

    def abort(self) -> None:
        pass


class _ZstdEncoder:
    """One frame for the whole file: some readers stop after the first."""

    def __init__(self, stream: ByteStream) -> None:
        import pyarrow as pa

        self._stream = NonClosingStream(stream)
        self._compressor = pa.CompressedOutputStream(self._stream, "zstd")

    def write(self, chunk: bytes) -> None:
        self._compressor.write(chunk)

    def close(self) -> None:
        self._compressor.close()

    def abort(self) -> None:
        self._stream.cut_off()
        # After a failed write it may fail again to end its frame; nobody will read that frame.
        with suppress(Exception):
            self._compressor.close()
