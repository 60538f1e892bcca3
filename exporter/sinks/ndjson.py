"""NDJSON: sessions as lines of JSON, as the service sent them; plain, gzip or zstd."""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from itertools import chain
from typing import IO, Any, BinaryIO, Final, Protocol, assert_never

import orjson

from exporter.model import FileCodec, Gateway, RawSession
from exporter.records.encode import encode_json
from exporter.sinks.interface import ByteStream, Rows, SinkFacts, SinkOptions
from exporter.sinks.keys import KEY_BATCH_ROWS, SEPARATOR, UnreadableFileError
from exporter.sinks.row_groups import RowGroup
from exporter.sinks.streams import NonClosingStream
from exporter.times import format_instant

_CHUNK_BYTES: Final = 1 << 18
_READ_BYTES: Final = 1 << 20
_LINES_BYTES: Final = 1 << 8
"""Memory of a `Rows` besides its text."""
_GZIP_LEVEL: Final = 4
"""Level 6 was measured at 1.4 times the CPU seconds for 10 % less, level 9 at 3.3 for 12 %."""

_KEY_FIELDS: Final = ("regionId", "workspaceId", "computeId", "sessionId")
"""The record's fields for `KEY_COLUMNS`."""
_VERSION_FIELD: Final = "exportedAt"
_ADDED_FIELDS: Final = ("regionId", "workspaceId", _VERSION_FIELD)


class NdjsonSink:
    """Writes each record as received, with `regionId`, `workspaceId` and `exportedAt` at its end.

    `exportedAt` is RFC 3339 in UTC with milliseconds. Where the service itself sends one of these
    fields with another value, that value is kept as `received_regionId` and so on: the added names
    mean the same in every line. Nothing is coerced.
    """

    def __init__(self, stream: ByteStream, options: SinkOptions) -> None:
        self._exported_at = format_instant(options.exported_at)
        self._encoder = _open_encoder(stream, options.file_codec)
        # Whole lines for the encoder; less than a chunk between two calls.
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
    """Gathers lines, and the values of the columns that they are split by."""

    def __init__(self, partition_by: Sequence[str], *, exported_at: datetime) -> None:
        from exporter.sinks.hive import SPLIT_BYTES, SPLIT_ROWS

        self._partition_by = partition_by
        self._exported_at = format_instant(exported_at)
        self._lines = RowGroup[list[bytes]](max_rows=SPLIT_ROWS, max_bytes=SPLIT_BYTES)
        # By column: one array for each `add`.
        self._keys: list[list[Any]] = [[] for _ in partition_by]
        self.coerced_value_count = 0

    @property
    def is_full(self) -> bool:
        return self._lines.is_full

    def add(self, gateway: Gateway, sessions: Sequence[RawSession]) -> None:
        from exporter.sinks.hive import build_key

        lines = list(build_lines(gateway, sessions, self._exported_at))
        self._lines.add(lines, row_count=len(lines), size_bytes=sum(map(len, lines)))
        for name, keys in zip(self._partition_by, self._keys, strict=True):
            keys.append(build_key(name, gateway, sessions))

    def split(self) -> list[tuple[str, Rows]]:
        import pyarrow as pa

        from exporter.sinks.hive import group_rows

        lines = list(chain.from_iterable(self._lines.take()))
        if not lines:
            return []
        columns = [pa.concat_arrays(keys) for keys in self._keys]
        self._keys = [[] for _ in self._partition_by]
        partitions: list[tuple[str, Rows]] = []
        for folder, numbers in group_rows(self._partition_by, columns):
            content = b"".join([lines[number] for number in numbers.to_pylist()])
            partitions.append((folder, Rows(content, len(numbers), len(content) + _LINES_BYTES)))
        return partitions


def open_sink(stream: ByteStream, options: SinkOptions) -> NdjsonSink:
    return NdjsonSink(stream, options)


def open_partition_buffer(
    partition_by: Sequence[str], exported_at: datetime
) -> NdjsonPartitionBuffer:
    return NdjsonPartitionBuffer(partition_by, exported_at=exported_at)


def read_keys(stream: BinaryIO, codec: FileCodec, *, with_version: bool) -> Iterator[list[str]]:
    fields = (*_KEY_FIELDS, _VERSION_FIELD) if with_version else _KEY_FIELDS
    keys: list[str] = []
    for number, line in enumerate(_read_lines(stream, codec), start=1):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            raise UnreadableFileError(f"line {number:,} is no JSON: {exc}") from exc
        if not isinstance(record, dict) or record.get("sessionId") is None:
            raise UnreadableFileError(f"line {number:,} is no session")
        keys.append(SEPARATOR.join([str(record.get(field, "")) for field in fields]))
        if len(keys) == KEY_BATCH_ROWS:
            yield keys
            keys = []
    yield keys


def build_lines(
    gateway: Gateway, sessions: Sequence[RawSession], exported_at: str
) -> Iterator[bytes]:
    """Each session as a line, including the line feed."""
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
    """The record with the added fields; its own fields of these names are renamed if different."""
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
    """Compresses a file as a whole; `close` and `abort` leave the stream open."""

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
    """zlib's gzip header holds no name and no time, so equal rows make equal bytes."""

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
    """One frame for the whole file, since some readers stop after the first."""

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
        # After a failed write, ending the frame may fail too; nobody will read that frame.
        with suppress(Exception):
            self._compressor.close()


def _read_lines(stream: BinaryIO, codec: FileCodec) -> Iterator[bytes]:
    """Lines without line feeds; holds one chunk of the file in memory at a time."""
    rest = b""
    for chunk in _read_chunks(stream, codec):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _read_chunks(stream: BinaryIO, codec: FileCodec) -> Iterator[bytes]:
    try:
        source = _open_decoder(stream, codec)
        while chunk := source.read(_READ_BYTES):
            yield chunk
    except (EOFError, zlib.error, OSError) as exc:
        # gzip and zstd raise these types for corrupt files, as a disk does for its own errors.
        raise UnreadableFileError(f"{exc}") from exc


def _open_decoder(stream: BinaryIO, codec: FileCodec) -> IO[bytes] | Any:
    match codec:
        case "none":
            return stream
        case "gzip":
            import gzip

            return gzip.GzipFile(fileobj=stream)
        case "zstd":
            import pyarrow as pa

            return pa.CompressedInputStream(pa.PythonFile(stream, mode="r"), "zstd")
        case _:
            assert_never(codec)
