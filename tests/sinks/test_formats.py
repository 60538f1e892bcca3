from typing import get_args

import pytest

from exporter.errors import UsageError
from exporter.model import FileCodec, FileFormat
from exporter.sinks.formats import resolve_format


@pytest.mark.parametrize(
    ("output", "chosen", "expected"),
    [
        ("out.parquet", None, ("parquet", "none")),
        ("OUT.PARQUET", None, ("parquet", "none")),
        ("out.ndjson", None, ("ndjson", "none")),
        ("out.jsonl", None, ("ndjson", "none")),
        ("a.b/out.ndjson.gz", None, ("ndjson", "gzip")),
        ("out.jsonl.zst", None, ("ndjson", "zstd")),
        ("-", None, ("ndjson", "none")),
        ("-", "parquet", ("parquet", "none")),
        ("sessions", "ndjson", ("ndjson", "none")),
        ("sessions.gz", "ndjson", ("ndjson", "gzip")),
        ("out.ndjson", "parquet", ("parquet", "none")),
        ("out.parquet", "ndjson", ("ndjson", "none")),
    ],
)
def test_format_is_the_chosen_one_or_the_names(
    output: str, chosen: FileFormat | None, expected: tuple[FileFormat, FileCodec]
) -> None:
    assert resolve_format(output, chosen) == expected


@pytest.mark.parametrize("output", ["out.csv", "out", "out.gz", "parquet", "", "out.json", "-.gz"])
def test_name_without_a_format_is_refused_with_the_known_ones(output: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_format(output, None)

    assert caught.value.exit_code == 2
    assert all(
        word in str(caught.value.hint) for word in (".parquet", ".ndjson", ".jsonl", "--format")
    )


@pytest.mark.parametrize("chosen", [None, "parquet"])
@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_parquet_is_not_compressed_as_a_whole(suffix: str, chosen: FileFormat | None) -> None:
    with pytest.raises(UsageError, match="compressed inside"):
        resolve_format(f"out.parquet{suffix}", chosen)


def test_every_format_can_be_told_by_a_name() -> None:
    for output_format in get_args(FileFormat):
        assert resolve_format(f"out.{output_format}", None) == (output_format, "none")
