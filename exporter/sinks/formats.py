"""The file formats: the one place that lists them, and opens their sinks."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final, assert_never

from exporter.errors import UsageError
from exporter.sinks.interface import (
    ByteStream,
    FileCodec,
    Format,
    ParquetCodec,
    PartitionBuffer,
    Sink,
)


def open_sink(
    stream: ByteStream,
    *,
    output_format: Format,
    file_codec: FileCodec,
    parquet_codec: ParquetCodec,
    run_id: str,
    exporter_version: str,
    exported_at: datetime,
) -> Sink:
    """The sink of a format over an open stream; `exported_at` is when the run began."""
    match output_format:
        case "parquet":
            from exporter.sinks.parquet import ParquetSink

            return ParquetSink(
                stream,
                codec=parquet_codec,
                run_id=run_id,
                exporter_version=exporter_version,
                exported_at=exported_at,
            )
        case "ndjson":
            from exporter.sinks.ndjson import NdjsonSink

            return NdjsonSink(stream, codec=file_codec, exported_at=exported_at)
        case _:
            assert_never(output_format)


def open_partition_buffer(
    output_format: Format, partition_by: Sequence[str], *, exported_at: datetime
) -> PartitionBuffer:
    """What parts the rows of a format by these columns."""
    match output_format:
        case "parquet":
            from exporter.sinks.parquet import ParquetPartitionBuffer

            return ParquetPartitionBuffer(partition_by, exported_at=exported_at)
        case "ndjson":
            from exporter.sinks.ndjson import NdjsonPartitionBuffer

            return NdjsonPartitionBuffer(partition_by, exported_at=exported_at)
        case _:
            assert_never(output_format)


_FORMAT_OF_SUFFIX: Final[dict[str, Format]] = {
    ".parquet": "parquet",
    ".ndjson": "ndjson",
    ".jsonl": "ndjson",
}


_CODEC_OF_SUFFIX: Final[dict[str, FileCodec]] = {".gz": "gzip", ".zst": "zstd"}


def resolve_format(output: str, chosen: Format | None) -> tuple[Format, FileCodec]:
    """The format and the codec of an output by its name; `chosen` comes before the name.

    `--format parquet --output x.ndjson` writes Parquet: whoever says the format means it. The codec
    is always the name's, since every reader goes by `.gz` and `.zst`. Stdout (`-`) is NDJSON.

    Raises UsageError for a name that tells no format, and for Parquet named as compressed.
    """
    if output == "-":
        return "ndjson" if chosen is None else chosen, "none"
    name = output.lower()
    codec: FileCodec = "none"
    for suffix, named_codec in _CODEC_OF_SUFFIX.items():
        if name.endswith(suffix):
            codec = named_codec
            name = name.removesuffix(suffix)
    resolved = _format_of(name) if chosen is None else chosen
    if resolved is None:
        raise UsageError(
            f"the name '{output}' tells no format",
            hint="end it in .parquet, .ndjson or .jsonl (the last two also with .gz or .zst), "
            "in / for a folder of parts, or say --format",
        )
    if resolved == "parquet" and codec != "none":
        raise UsageError(
            f"a Parquet file is compressed inside, not as a whole like '{output}'",
            hint=f"drop the last suffix and say --compression {codec}",
        )
    return resolved, codec


def _format_of(name: str) -> Format | None:
    for suffix, named_format in _FORMAT_OF_SUFFIX.items():
        if name.endswith(suffix):
            return named_format
    return None
