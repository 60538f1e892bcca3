"""The registry of file formats: the only place that lists and opens them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from importlib import import_module
from typing import BinaryIO, Final, cast

from exporter.errors import UsageError
from exporter.model import FileCodec, FileFormat, ParquetCodec
from exporter.sinks.interface import ByteStream, FormatModule, PartitionBuffer, Sink, SinkOptions


@dataclass(frozen=True, slots=True)
class FormatKind:
    """A file format."""

    noun: str
    module: str
    """A `FormatModule`, imported only when the first file is opened."""
    suffixes: tuple[str, ...]
    """Suffixes of its files' names."""
    has_file_codecs: bool
    """Whether a file may be compressed as a whole; other formats compress inside."""


FORMATS: Final[Mapping[FileFormat, FormatKind]] = {
    "parquet": FormatKind(
        "a Parquet file", "exporter.sinks.parquet", (".parquet",), has_file_codecs=False
    ),
    "ndjson": FormatKind(
        "an NDJSON file", "exporter.sinks.ndjson", (".ndjson", ".jsonl"), has_file_codecs=True
    ),
}
DATASET_FORMAT: Final[FileFormat] = "parquet"
"""The format of a folder's parts, unless another one is chosen."""
STREAM_FORMAT: Final[FileFormat] = "ndjson"
"""The format of stdout, unless another one is chosen."""

_CODEC_OF_SUFFIX: Final[Mapping[str, FileCodec]] = {".gz": "gzip", ".zst": "zstd"}


def open_sink(
    stream: ByteStream,
    *,
    output_format: FileFormat,
    file_codec: FileCodec,
    parquet_codec: ParquetCodec,
    run_id: str,
    exporter_version: str,
    exported_at: datetime,
) -> Sink:
    """The sink of a format over an open stream; `exported_at` is the start of the run."""
    options = SinkOptions(file_codec, parquet_codec, run_id, exporter_version, exported_at)
    return _load(output_format).open_sink(stream, options)


def open_partition_buffer(
    output_format: FileFormat, partition_by: Sequence[str], *, exported_at: datetime
) -> PartitionBuffer:
    """The buffer of a format that splits rows by the values of these columns."""
    return _load(output_format).open_partition_buffer(partition_by, exported_at)


def read_keys(
    stream: BinaryIO, *, output_format: FileFormat, codec: FileCodec, with_version: bool
) -> Iterator[list[str]]:
    """The key of each row as one text; `with_version` appends the row's `exported_at`.

    Raises UnreadableFileError, and OSError as the stream does.
    """
    return _load(output_format).read_keys(stream, codec, with_version=with_version)


def resolve_format(output: str, chosen: FileFormat | None) -> tuple[FileFormat, FileCodec]:
    """The format and the codec of an output by its name; `chosen` overrides the name's format.

    `--format parquet --output x.ndjson` writes Parquet. The codec is always the name's, since
    readers go by `.gz` and `.zst`.

    Raises UsageError for a name without a format's suffix, and for a codec's suffix on the name of
    a format that compresses inside.
    """
    if output == "-":
        return STREAM_FORMAT if chosen is None else chosen, "none"
    name = output.lower()
    codec: FileCodec = "none"
    for suffix, named_codec in _CODEC_OF_SUFFIX.items():
        if name.endswith(suffix):
            codec = named_codec
            name = name.removesuffix(suffix)
    resolved = _find_format(name) if chosen is None else chosen
    if resolved is None:
        raise UsageError(
            f"the name '{output}' tells no format",
            hint="end it in .parquet, .ndjson or .jsonl (the last two also with .gz or .zst), "
            "in / for a folder of parts, or say --format",
        )
    if codec != "none" and not FORMATS[resolved].has_file_codecs:
        raise UsageError(
            f"{FORMATS[resolved].noun} is compressed inside, not as a whole like '{output}'",
            hint=f"drop the last suffix and say --compression {codec}",
        )
    return resolved, codec


def _find_format(name: str) -> FileFormat | None:
    found = (each for each, kind in FORMATS.items() if name.endswith(kind.suffixes))
    return next(found, None)


def _load(output_format: FileFormat) -> FormatModule:
    return cast("FormatModule", import_module(FORMATS[output_format].module))
