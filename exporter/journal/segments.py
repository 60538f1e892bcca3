"""Encodes recorded answers as Arrow segments, and decodes them; performs no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from exporter.listing.interface import Purpose
from exporter.model import SessionPage

CODEC: Final = "lz4_raw"
"""Saves five sixths of a body, since sessions look alike, in little more time than a copy."""


@dataclass(frozen=True, slots=True)
class SegmentRow:
    """One recorded answer, and its request."""

    gateway_index: int
    """The gateway's index among those of the run."""
    asked_count: int
    number: int
    page_num: int
    page_size: int
    purpose: Purpose
    body_bytes: int
    packed_body: bytes
    """Each body is compressed alone, as it arrives: compressing many at once costs more."""


@cache
def open_codec() -> Any:
    import pyarrow as pa

    return pa.Codec(CODEC)


def pack_body(body: bytes) -> bytes:
    packed: bytes = open_codec().compress(body, asbytes=True)
    return packed


def unpack_body(row: SegmentRow) -> bytes:
    body: bytes = open_codec().decompress(row.packed_body, row.body_bytes, asbytes=True)
    return body


@cache
def build_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("gateway_index", pa.uint32()),
            ("asked_count", pa.uint64()),
            ("number", pa.uint64()),
            ("page_num", pa.uint64()),
            ("page_size", pa.uint32()),
            ("purpose", pa.string()),
            ("body_bytes", pa.uint64()),
            ("packed_body", pa.large_binary()),
        ]
    )


def pack_segment(rows: Sequence[SegmentRow]) -> bytes:
    """An Arrow stream of one batch."""
    import pyarrow as pa

    schema = build_schema()
    arrays = [pa.array([getattr(row, field.name) for row in rows], field.type) for field in schema]
    stream = pa.BufferOutputStream()
    with pa.ipc.new_stream(stream, schema) as writer:
        writer.write_batch(pa.record_batch(arrays, schema=schema))
    return memoryview(stream.getvalue()).tobytes()


def read_segment(segment: bytes) -> list[SegmentRow]:
    import pyarrow as pa

    with pa.ipc.open_stream(segment) as reader:
        batch = reader.read_next_batch()
    return [SegmentRow(*row) for row in zip(*(c.to_pylist() for c in batch.columns), strict=True)]


def estimate_journal_bytes(session_count: int, page: SessionPage) -> int:
    """The size of the journal of so many sessions, estimated from one page and its body."""
    if not page.session_ids:
        return 0
    size_bytes = len(pack_body(page.body))
    return -(-size_bytes * session_count // len(page.session_ids))
