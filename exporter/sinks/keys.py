"""The keys of the rows in a published file, read back batch by batch; blocks."""

import zlib
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, Any, BinaryIO, Final, assert_never

import orjson

from exporter.sinks.interface import FileCodec, Format

if TYPE_CHECKING:
    import pyarrow as pa

READ_BYTES: Final = 1 << 20
KEYS_AT_ONCE: Final = 1 << 13

COLUMNS: Final = ("region_id", "workspace_id", "compute_id", "session_id")
FIELDS: Final = ("regionId", "workspaceId", "computeId", "sessionId")
VERSION_COLUMN: Final = "exported_at"
VERSION_FIELD: Final = "exportedAt"

SEPARATOR: Final = "\0"
"""Between the parts of a key; no id has one."""


class Unreadable(ValueError):  # noqa: N818 - names what the file is
    """Raised when the content of a file is not what its format asks for."""


def read_keys(
    stream: BinaryIO, *, output_format: Format, codec: FileCodec, with_version: bool
) -> Iterator[list[str]]:
    """The key of each row as one text; `with_version` adds when the row was exported.

    Raises Unreadable, and OSError as the stream does.
    """
    match output_format:
        case "parquet":
            return read_parquet_keys(stream, with_version=with_version)
        case "ndjson":
            return read_ndjson_keys(stream, codec=codec, with_version=with_version)
        case _:
            assert_never(output_format)


def read_parquet_keys(stream: BinaryIO, *, with_version: bool) -> Iterator[list[str]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [*COLUMNS, VERSION_COLUMN] if with_version else list(COLUMNS)
    try:
        file = pq.ParquetFile(stream)
        missing = [name for name in columns if name not in file.schema_arrow.names]
        if missing:
            raise Unreadable(f"it has no column {missing[0]}")
        row_count = 0
        for batch in file.iter_batches(batch_size=KEYS_AT_ONCE, columns=columns):
            row_count += batch.num_rows
            yield join_keys(batch, with_version=with_version)
    except pa.ArrowException as exc:
        raise Unreadable(f"{exc}") from exc
    if row_count != file.metadata.num_rows:
        raise Unreadable(f"it has {row_count:,} rows, its footer says {file.metadata.num_rows:,}")


def join_keys(batch: "pa.RecordBatch", *, with_version: bool) -> list[str]:
    """The key of each row as one text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    parts = [batch.column(name) for name in COLUMNS]
    if with_version:
        parts.append(batch.column(VERSION_COLUMN).cast(pa.int64()))
    texts = [part.cast(pa.string()) for part in parts]
    keys: list[str] = pc.binary_join_element_wise(
        *texts, SEPARATOR, null_handling="replace", null_replacement=""
    ).to_pylist()
    return keys


def read_ndjson_keys(
    stream: BinaryIO, *, codec: FileCodec, with_version: bool
) -> Iterator[list[str]]:
    fields = (*FIELDS, VERSION_FIELD) if with_version else FIELDS
    keys: list[str] = []
    for number, line in enumerate(read_lines(stream, codec=codec), start=1):
        try:
            record = orjson.loads(line)
        except orjson.JSONDecodeError as exc:
            raise Unreadable(f"line {number:,} is no JSON: {exc}") from exc
        if not isinstance(record, dict) or record.get("sessionId") is None:
            raise Unreadable(f"line {number:,} is no session")
        keys.append(SEPARATOR.join([str(record.get(field, "")) for field in fields]))
        if len(keys) == KEYS_AT_ONCE:
            yield keys
            keys = []
    yield keys


def read_lines(stream: BinaryIO, *, codec: FileCodec) -> Iterator[bytes]:
    """Lines without their ends; one is kept in memory at a time, and a piece of the file."""
    rest = b""
    for chunk in read_chunks(stream, codec=codec):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def read_chunks(stream: BinaryIO, *, codec: FileCodec) -> Iterator[bytes]:
    try:
        source = open_decoder(stream, codec)
        while chunk := source.read(READ_BYTES):
            yield chunk
    except (EOFError, zlib.error, OSError) as exc:
        # gzip and zstd tell of damage by errors of these types, as the disk does of its own.
        raise Unreadable(f"{exc}") from exc


def open_decoder(stream: BinaryIO, codec: FileCodec) -> "IO[bytes] | Any":
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
