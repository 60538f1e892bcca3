import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.destinations.destination import Kind
from exporter.destinations.open import open_output
from exporter.destinations.resolve import resolve_destination
from exporter.errors import DestinationError, UsageError
from exporter.model import FileFormat
from exporter.records.schema import SCHEMA
from exporter.runs.prepare import build_run_id
from exporter.sinks.dataset import is_part
from exporter.sinks.interface import Output

STARTED_AT = datetime(2026, 1, 12, 10, 24, tzinfo=UTC)
PART = "part-20260112T102400Z-0123ab-00000.parquet"


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def open_named(output: str, *, chosen: FileFormat | None = "parquet") -> Output:
    return open_output(
        resolve_destination(output, chosen=chosen),
        run_id="run-1",
        exporter_version="1.2.3",
        exported_at=STARTED_AT,
        parquet_codec="zstd",
        adds=False,
        partition_by=(),
        target_bytes=1 << 20,
    )


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("output", "kind", "url", "name"),
    [
        ("out.parquet", "file", "", "out.parquet"),
        ("./out.ndjson.gz", "file", ".", "out.ndjson.gz"),
        ("/data/out.parquet", "file", "/data", "out.parquet"),
        ("-", "stream", "", "-"),
        ("/dev/null", "stream", "", "/dev/null"),
        ("pipe", "stream", "", "pipe"),
        ("new/", "dataset", "new", ""),
        ("new.parquet/", "dataset", "new.parquet", ""),
        ("empty", "dataset", "empty", ""),
        ("empty//", "dataset", "empty", ""),
        ("link", "dataset", "link", ""),
    ],
)
def test_name_determines_the_kind_and_the_store(
    output: str, kind: Kind, url: str, name: str, working_folder: Path
) -> None:
    os.mkfifo("pipe")
    Path("empty").mkdir()
    Path("link").symlink_to("empty")

    found = resolve_destination(output, chosen="parquet" if "gz" not in output else None)

    assert (found.kind, found.store.url, found.name) == (kind, url, name)
    assert found.output == output
    assert (found.sidecars is None) == (kind == "stream")


@pytest.mark.parametrize("output", [".", "./"])
def test_working_folder_that_is_empty_is_a_dataset(output: str, working_folder: Path) -> None:
    written = open_named(output)
    written.close()
    written.publish()

    assert names(working_folder) == {"part-run-1-00000.parquet"}


def test_folder_is_parquet_unless_the_format_is_named() -> None:
    assert resolve_destination("new/", chosen=None).format == "parquet"
    assert resolve_destination("new/", chosen="ndjson").format == "ndjson"


def test_own_files_of_a_run_are_hidden_from_readers_of_the_data() -> None:
    """Spark and Hive ignore files and folders whose names begin with `.` or `_`."""
    sidecars = resolve_destination("new/", chosen=None).sidecars
    assert sidecars is not None

    for name in (
        sidecars.manifest,
        sidecars.intent,
        sidecars.lock,
        sidecars.journal,
        sidecars.state,
    ):
        assert name is not None
        assert name.startswith(("_", "."))


@pytest.mark.parametrize(
    ("output", "message", "hint"),
    [
        ("missing/out.parquet", "No such file", "mkdir -p missing"),
        ("missing/deeper/out.parquet", "No such file", "mkdir -p missing/deeper"),
        ("missing/folder/", "No such file", "mkdir -p missing"),
        ("file/out.parquet", "Not a directory", "file is a file"),
        ("file/", "Not a directory", "file is a file"),
        ("n" * 255, "name too long", "shorten the name"),
        ("n" * 215, "name too long", "shorten the name"),
        ("loop", "symbolic links", None),
        ("blocked.parquet", "is a folder", None),
    ],
)
def test_output_that_cannot_be_is_refused_at_once(
    output: str, message: str, hint: str | None, working_folder: Path
) -> None:
    Path("file").touch()
    Path("loop").symlink_to("loop")
    Path("blocked.parquet.manifest.json").mkdir()
    before = names(working_folder)

    with pytest.raises(DestinationError, match=message) as caught:
        open_output(
            resolve_destination(output, chosen="parquet"),
            run_id=build_run_id(STARTED_AT),
            exporter_version="1.2.3",
            exported_at=STARTED_AT,
            parquet_codec="zstd",
            adds=False,
            partition_by=(),
            target_bytes=1 << 20,
        )

    assert hint is None or hint in str(caught.value.hint)
    assert names(working_folder) == before


@pytest.mark.parametrize("output", ["ftp://host/x", "xyz://bucket/key.parquet", "", "a\0b"])
def test_output_of_another_kind_is_a_usage_error(output: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_destination(output, chosen="parquet")

    assert caught.value.exit_code == 2
    assert caught.value.hint is not None


@pytest.mark.campaign
def test_folder_of_a_delta_table_need_not_be_named_as_such() -> None:
    from deltalake import DeltaTable

    Path("table").mkdir()
    DeltaTable.create("table", SCHEMA)

    destination = resolve_destination("table", chosen=None)

    assert (destination.kind, destination.format) == ("table", "delta")


@pytest.mark.parametrize(
    "foreign",
    [
        "notes.txt",
        "sessions.parquet",
        "dt=2026-01-12/data.parquet",
        "part-00000-5b1d2c3e-8f0c-4a7b-9d57-0123456789ab-c000.snappy.parquet",
        "part-5b1d2c3e-8f0c-4a7b-9d57-00001.parquet",
        "_delta_log/00000000000000000000.json",
        "_SUCCESS",
    ],
)
@pytest.mark.parametrize("output", ["folder", "folder/"])
def test_folder_that_holds_something_else_is_refused(output: str, foreign: str) -> None:
    path = Path("folder", foreign)
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    Path("folder", PART).touch()

    with pytest.raises(DestinationError, match="holds something else") as caught:
        resolve_destination(output, chosen="parquet")

    assert foreign in str(caught.value)
    assert "folder/sessions.parquet" in str(caught.value.hint)


@pytest.mark.parametrize(
    "manifest", [b'{"manifest_version": 1, "files": []}', b'{"manifest_version": 1, "fil']
)
def test_folder_of_an_export_may_hold_more(manifest: bytes) -> None:
    Path("folder").mkdir()
    Path("folder", "_manifest.json").write_bytes(manifest)
    Path("folder", "README.md").touch()

    assert resolve_destination("folder", chosen=None).kind == "dataset"


def test_manifest_of_another_program_makes_no_export() -> None:
    Path("folder").mkdir()
    Path("folder", "_manifest.json").write_text('{"entries": []}')

    with pytest.raises(DestinationError, match="holds something else"):
        resolve_destination("folder", chosen=None)


def test_folder_that_a_killed_first_run_left_is_accepted() -> None:
    Path("folder/_exporter").mkdir(parents=True)
    Path("folder/_exporter/publishing.json").touch()
    Path("folder", PART).touch()
    Path("folder", f".{PART}.20260112T102400Z-0123ab.partial").touch()

    assert resolve_destination("folder/", chosen=None).kind == "dataset"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (PART, True),
        ("dt=2026-01-12/part-20260112T102400Z-0123ab-123456.ndjson", True),
        (f"{PART}.bak", False),
        ("part-00000.parquet", False),
        ("part-nightly-00000.parquet", False),
    ],
)
def test_part_is_known_by_its_run(name: str, expected: bool) -> None:
    assert is_part(name) is expected


def test_part_of_any_run_is_known() -> None:
    assert is_part(f"part-{build_run_id(STARTED_AT)}-00000.parquet")
