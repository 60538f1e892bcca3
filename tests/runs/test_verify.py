"""Damage to a published output is found, and harmless changes are not reported."""

import gzip
import hashlib
import io
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.destinations.resolve import resolve_destination
from exporter.errors import UsageError
from exporter.listing.keyset import KeySet
from exporter.model import FileCodec, FileFormat, Gateway, RawSession
from exporter.runs.manifest import parse_manifest
from exporter.runs.verify import Verification, verify
from exporter.sinks.formats import open_sink

ONE = Gateway("cn-hangzhou", "w-1", "lc-1")
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
FILES = ("out.parquet", "out.ndjson", "out.ndjson.gz", "out.ndjson.zst")
FORMATS: dict[str, tuple[FileFormat, FileCodec]] = {
    "out.parquet": ("parquet", "none"),
    "out.ndjson": ("ndjson", "none"),
    "out.ndjson.gz": ("ndjson", "gzip"),
    "out.ndjson.zst": ("ndjson", "zstd"),
}


def sessions_of(*numbers: int) -> list[RawSession]:
    return [{"sessionId": f"s-{n}", "computeId": "lc-1", "createTime": 1000 + n} for n in numbers]


def encoded(
    sessions: Sequence[RawSession],
    *,
    output_format: FileFormat = "parquet",
    codec: FileCodec = "none",
    exported_at: datetime = NOON,
) -> bytes:
    stream = io.BytesIO()
    sink = open_sink(
        stream,
        output_format=output_format,
        file_codec=codec,
        parquet_codec="zstd",
        run_id="20260101T000001Z-aaaaaa",
        exporter_version="1",
        exported_at=exported_at,
    )
    sink.write(ONE, sessions)
    sink.close()
    return stream.getvalue()


def entry(path: str, content: bytes, row_count: int) -> dict[str, Any]:
    return {
        "path": path,
        "row_count": row_count,
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def manifest_of(files: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    return {
        "manifest_version": 1,
        "run_id": "20260101T000001Z-aaaaaa",
        "status": "complete",
        "format": "parquet",
        "session_count": sum(each["row_count"] for each in files),
        "files": files,
    } | changes


def write_file(folder: Path, name: str = "out.parquet", numbers: Sequence[int] = range(50)) -> Path:
    """A published file with its manifest."""
    output_format, codec = FORMATS[name]
    path = folder / name
    content = encoded(sessions_of(*numbers), output_format=output_format, codec=codec)
    path.write_bytes(content)
    write_manifest(path, manifest_of([entry(name, content, len(numbers))], format=output_format))
    return path


def manifest_path(output: Path) -> Path:
    return output / "_manifest.json" if output.is_dir() else Path(f"{output}.manifest.json")


def write_manifest(output: Path, manifest: dict[str, Any]) -> None:
    manifest_path(output).write_text(json.dumps(manifest), encoding="utf-8")


def change_manifest(output: Path, **changes: Any) -> None:
    manifest = json.loads(manifest_path(output).read_text(encoding="utf-8"))
    write_manifest(output, manifest | changes)


def write_dataset(folder: Path, output_format: FileFormat = "parquet") -> Path:
    """The parts of two runs; the second exported one session of the first again."""
    output = folder / "sessions"
    output.mkdir()
    files = []
    for run, numbers in (
        ("20260101T000000Z-aaaaaa", range(30)),
        ("20260101T000001Z-aaaaaa", range(29, 40)),
    ):
        name = f"part-{run}-00000.{output_format}"
        at = NOON if run == "20260101T000001Z-aaaaaa" else NOON - timedelta(hours=1)
        content = encoded(sessions_of(*numbers), output_format=output_format, exported_at=at)
        (output / name).write_bytes(content)
        files.append(entry(name, content, len(numbers)))
    write_manifest(output, manifest_of(files, format=output_format))
    return output


def verified(output: Path) -> Verification:
    return verify(resolve_destination(str(output), chosen="ndjson"))


def problems_of(output: Path) -> list[str]:
    return [each.message for each in verified(output).problems]


@pytest.mark.parametrize("name", FILES)
def test_a_file_as_it_was_published_has_no_problem(name: str, tmp_path: Path) -> None:
    output = write_file(tmp_path, name)

    found = verified(output)

    assert found.problems == ()
    assert [(each.what, each.promised, each.found) for each in found.checked] == [
        ("files", 1, 1),
        ("bytes", output.stat().st_size, output.stat().st_size),
        ("files of equal SHA-256", 1, 1),
        ("rows", 50, 50),
        ("distinct keys", 50, 50),
    ]


@pytest.mark.parametrize("output_format", ["parquet", "ndjson"])
def test_versions_of_a_session_in_a_dataset_are_no_problem(
    output_format: FileFormat, tmp_path: Path
) -> None:
    found = verified(write_dataset(tmp_path, output_format))

    assert found.problems == ()
    assert [each.found for each in found.checked if each.what != "bytes"] == [2, 2, 41, 41]


@pytest.mark.parametrize("name", FILES)
def test_an_export_of_nothing_has_no_problem(name: str, tmp_path: Path) -> None:
    assert problems_of(write_file(tmp_path, name, ())) == []


def test_a_file_that_was_moved_with_its_manifest_has_no_problem(tmp_path: Path) -> None:
    output = write_file(tmp_path)
    moved = tmp_path / "other.data"

    manifest_path(output).rename(tmp_path / "other.data.manifest.json")
    output.rename(moved)

    assert problems_of(moved) == []


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_byte_is_found_wherever_it_is(name: str, tmp_path: Path) -> None:
    output = write_file(tmp_path, name, range(3))
    content = output.read_bytes()

    for place in [*range(0, len(content), max(1, len(content) // 150)), len(content) - 1]:
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        output.write_bytes(flipped)

        (problem,) = problems_of(output)
        assert f"'{output}' has SHA-256 " in problem


def test_a_flipped_byte_in_a_part_is_found(tmp_path: Path) -> None:
    output = write_dataset(tmp_path)
    part = output / "part-20260101T000000Z-aaaaaa-00000.parquet"
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 0x10
    part.write_bytes(content)

    (problem,) = problems_of(output)
    assert f"'{part}' has SHA-256 " in problem


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kept", [0, 1, -1])
def test_a_truncated_file_is_found(name: str, kept: int, tmp_path: Path) -> None:
    output = write_file(tmp_path, name)
    output.write_bytes(output.read_bytes()[:kept])

    (problem,) = problems_of(output)
    assert "bytes, its manifest says" in problem


def test_a_file_that_grew_is_found(tmp_path: Path) -> None:
    output = write_file(tmp_path, "out.ndjson")
    with output.open("ab") as stream:
        stream.write(b"\n")

    (problem,) = problems_of(output)
    assert "bytes, its manifest says" in problem


def test_a_missing_file_is_found(tmp_path: Path) -> None:
    output = write_file(tmp_path)
    output.unlink()

    assert problems_of(output) == [f"'{output}' is missing"]


def test_a_missing_part_is_found_and_the_others_are_still_read(tmp_path: Path) -> None:
    output = write_dataset(tmp_path)
    (output / "part-20260101T000000Z-aaaaaa-00000.parquet").unlink()

    found = verified(output)

    assert [each.message for each in found.problems] == [
        f"'{output}/part-20260101T000000Z-aaaaaa-00000.parquet' is missing"
    ]
    assert [each.found for each in found.checked if each.what == "rows"] == [11]


@pytest.mark.parametrize(
    "name", ["part-20260101T000009Z-aaaaaa-00000.parquet", "dt=2026-01-01/x.parquet", "notes"]
)
def test_a_foreign_file_in_a_dataset_is_found(name: str, tmp_path: Path) -> None:
    output = write_dataset(tmp_path)
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_bytes(b"x")

    assert problems_of(output) == [f"'{output}/{name}' is not named by the manifest"]


@pytest.mark.parametrize("name", ["_SUCCESS", ".DS_Store", "_exporter/state.json"])
def test_files_that_no_engine_reads_are_none_of_the_data(name: str, tmp_path: Path) -> None:
    output = write_dataset(tmp_path)
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_bytes(b"{}")

    assert problems_of(output) == []


def test_what_stands_beside_a_file_is_none_of_it(tmp_path: Path) -> None:
    output = write_file(tmp_path)
    (tmp_path / "part-20260101T000009Z-aaaaaa-00000.parquet").write_bytes(b"x")

    assert problems_of(output) == []


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("row_count", [49, 51])
def test_another_count_of_rows_is_found(name: str, row_count: int, tmp_path: Path) -> None:
    output = write_file(tmp_path, name)
    files = [entry(name, output.read_bytes(), row_count)]
    change_manifest(output, files=files, session_count=row_count)

    assert problems_of(output) == [f"'{output}' has 50 rows, its manifest says {row_count}"]


def test_another_count_of_sessions_is_found(tmp_path: Path) -> None:
    output = write_file(tmp_path)
    change_manifest(output, session_count=51)

    assert problems_of(output) == [
        "the manifest counts 51 sessions, and 50 rows in the files of its run"
    ]


@pytest.mark.parametrize("count", [11, 41])
def test_sessions_are_those_of_the_run_or_of_the_whole(count: int, tmp_path: Path) -> None:
    output = write_dataset(tmp_path)
    change_manifest(output, session_count=count)

    assert problems_of(output) == []


@pytest.mark.parametrize("name", FILES)
def test_a_session_that_is_there_twice_is_found(name: str, tmp_path: Path) -> None:
    output = write_file(tmp_path, name, [1, 2, 3, 2, 3])

    assert problems_of(output) == [
        f"'{output}' has 2 rows whose key was there before, the first is cn-hangzhou w-1 lc-1 s-2"
    ]


def test_a_version_that_is_there_twice_is_found_across_parts(tmp_path: Path) -> None:
    output = write_dataset(tmp_path)
    copy = output / "part-20260101T000001Z-aaaaaa-00001.parquet"
    copy.write_bytes((output / "part-20260101T000000Z-aaaaaa-00000.parquet").read_bytes())
    files = json.loads(manifest_path(output).read_text())["files"]
    files.append(files[0] | {"path": copy.name})
    change_manifest(output, files=files, session_count=71)

    (problem,) = problems_of(output)
    assert f"'{copy}' has 30 rows whose key was there before" in problem


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_something_else_is_found_although_its_bytes_are_right(
    name: str, tmp_path: Path
) -> None:
    output = write_file(tmp_path, name)
    content = b"[1, 2, 3]\n"
    output.write_bytes(content)
    change_manifest(output, files=[entry(name, content, 50)])

    (problem,) = problems_of(output)
    assert f"'{output}' cannot be read: " in problem


@pytest.mark.parametrize("content", [b"{}\n", b'{"sessionId": null}\n', b"{\n", b"\n", b"1\n"])
def test_a_line_that_is_no_session_is_found(content: bytes, tmp_path: Path) -> None:
    output = write_file(tmp_path, "out.ndjson")
    content = output.read_bytes() + content
    output.write_bytes(content)
    change_manifest(output, files=[entry(output.name, content, 51)], session_count=51)

    (problem,) = problems_of(output)
    assert "cannot be read: line 51 is no " in problem


def test_a_last_line_without_its_end_is_read(tmp_path: Path) -> None:
    output = write_file(tmp_path, "out.ndjson")
    content = output.read_bytes().rstrip(b"\n")
    output.write_bytes(content)
    change_manifest(output, files=[entry(output.name, content, 50)])

    assert problems_of(output) == []


def test_a_gzip_file_that_ends_early_is_found(tmp_path: Path) -> None:
    output = write_file(tmp_path, "out.ndjson.gz")
    content = gzip.compress(b'{"sessionId": "s"}\n' * 1000)[:-12]
    output.write_bytes(content)
    change_manifest(output, files=[entry(output.name, content, 1000)], session_count=1000)

    assert any("cannot be read: " in each for each in problems_of(output))


def test_a_missing_manifest_is_found_with_a_remedy(tmp_path: Path) -> None:
    output = write_file(tmp_path)
    manifest_path(output).unlink()

    (problem,) = verified(output).problems
    assert problem.message == (f"'{output}' has no manifest: there is no '{output}.manifest.json'")
    assert problem.hint is not None


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "empty document"),
        (b'{"manifest_version": 1', "unexpected end"),
        (b"\xff\xfe", ""),
        (b"[]", "it is no JSON object"),
        (b"{}", "'manifest_version' is None"),
        (b'{"manifest_version": true}', "'manifest_version' is True"),
        (b'{"manifest_version": 2}', "its version 2 is of a newer livy-exporter"),
        (b'{"manifest_version": 1, "format": "orc"}', "its format 'orc' is unknown"),
    ],
)
def test_a_manifest_that_is_none_is_found(content: bytes, says: str, tmp_path: Path) -> None:
    output = write_file(tmp_path)
    manifest_path(output).write_bytes(content)

    (problem,) = problems_of(output)
    assert problem.startswith(f"'{output}.manifest.json' is no manifest: ")
    assert says in problem


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {}},
        {"files": [1]},
        {"files": [{"path": "out.parquet"}]},
        {"session_count": -1},
        {"session_count": "50"},
        {"run_id": None},
    ],
    ids=repr,
)
def test_a_manifest_with_a_wrong_value_is_found(changes: dict[str, Any], tmp_path: Path) -> None:
    output = write_file(tmp_path)
    change_manifest(output, **changes)

    (problem,) = problems_of(output)
    assert "is no manifest: " in problem


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_manifest_breaks_the_reader(value: Any) -> None:
    for key in ("manifest_version", "run_id", "status", "format", "session_count", "files"):
        content = json.dumps(manifest_of([]) | {key: value}).encode()
        with suppress(ValueError):
            assert parse_manifest(content).row_count == 0


def test_a_file_whose_manifest_names_two_is_found(tmp_path: Path) -> None:
    output = write_file(tmp_path)
    files = json.loads(manifest_path(output).read_text())["files"]
    change_manifest(output, files=files * 2, session_count=100)

    assert problems_of(output) == ["its manifest names 2 files, not one"]


@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_a_publish_that_was_cut_short_is_found_with_a_remedy(kind: str, tmp_path: Path) -> None:
    output = write_file(tmp_path) if kind == "file" else write_dataset(tmp_path)
    sidecars = resolve_destination(str(output), chosen=None).sidecars
    assert sidecars is not None
    sidecars.store.replace(sidecars.intent, b"{}")

    (problem,) = verified(output).problems
    assert problem.message.startswith("a publish was cut short, or is going on: ")
    assert problem.hint == "run the export again, which completes it"


def test_several_problems_are_all_told(tmp_path: Path) -> None:
    output = write_dataset(tmp_path)
    (output / "part-20260101T000000Z-aaaaaa-00000.parquet").unlink()
    (output / "part-20260101T000001Z-aaaaaa-00000.parquet").write_bytes(b"")
    (output / "part-20260101T000002Z-aaaaaa-00000.parquet").write_bytes(b"")

    assert len(problems_of(output)) == 3


def test_a_stream_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read again"):
        verify(resolve_destination("-", chosen="ndjson"))


def test_a_million_keys_are_told_apart() -> None:
    keys = KeySet(0)

    repeated = [
        keys.add_all([f"cn-hangzhou\0w-1\0lc-1\0s-{n}" for n in range(start, start + 10_000)])
        for start in range(0, 1_000_000, 10_000)
    ]

    assert len(keys) == 1_000_000
    assert not any(repeated)
