import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from exporter.destinations.destination import Kind
from exporter.destinations.resolve import resolve_destination
from exporter.errors import DestinationError
from exporter.runs.intents import Intent, dump_intent, parse_intent
from exporter.runs.publish import Publisher
from exporter.sinks.interface import WrittenFile
from exporter.stores.interface import NO_LOCK, FileFacts, HeldLock, StagedFile, Store
from exporter.stores.local import LocalStore
from tests.support.manifests import manifest_of
from tests.support.publishers import (
    PART_COUNTS,
    RUN_IDS,
    Killed,
    KillingStore,
    Version,
    files_of,
    open_run,
    output_of,
    queue_of,
    read_version,
    recover,
    run_once,
)

REPOSITORY = Path(__file__).parents[2]
KINDS: list[Kind] = ["file", "dataset"]
STARTS = ["nothing", "old"]

FOREIGN: dict[Kind, list[str]] = {
    "file": [
        "out.ndjson.bak",
        ".out.ndjson.notes",
        "other.ndjson",
        ".other.ndjson.run.partial.txt",
    ],
    "dataset": ["set/notes.txt", "set/dt=1/part-00000.parquet", "set/_exporter/journal/page"],
}
"""Files of other programs in the same folder."""


def prepare(folder: Path, kind: Kind, start: str) -> Path:
    folder.mkdir()
    if start == "old":
        run_once(folder, kind, "old")
        for name in FOREIGN[kind]:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text("foreign")
    return folder


def expected_names(kind: Kind, version: Version | None, start: str) -> set[str]:
    foreign = set(FOREIGN[kind]) if start == "old" else set()
    if version is None:
        return foreign
    if kind == "file":
        return foreign | {"out.ndjson", "out.ndjson.manifest.json"}
    parts = {
        f"set/queue={queue_of(version, number)}/part-{RUN_IDS[version]}-{number:05}.ndjson"
        for number in range(PART_COUNTS[version])
    }
    return foreign | parts | {"set/_manifest.json", "set/_exporter/state.json"}


def data_version(folder: Path, kind: Kind) -> Version | None:
    """The run of the rows, all of which must be there, whole and in order."""
    found = files_of(folder)
    if kind == "file":
        text = found.get("out.ndjson", b"")
    else:
        parts = sorted(name for name in found if name.endswith(".ndjson"))
        text = b"".join(found[name] for name in sorted(parts, key=lambda each: each[-12:]))
    ids = [orjson.loads(line)["sessionId"] for line in text.splitlines()]
    versions: list[Version] = ["old", "new"]
    for version in versions:
        if ids == [f"{version}-{number}" for number in range(PART_COUNTS[version])]:
            return version
    assert ids == []
    return None


def assert_whole(folder: Path, kind: Kind, start: str) -> Version | None:
    """Data, manifest and state are of the same run, and nothing else is left."""
    found = files_of(folder)
    version = read_version(folder, kind)
    assert set(found) == expected_names(kind, version, start)
    assert data_version(folder, kind) == version
    if kind == "dataset" and version is not None:
        assert found["set/_exporter/state.json"] == version.encode()
    return version


def assert_reader_is_served(folder: Path, kind: Kind, start: str) -> None:
    """The visible run before a recovery, by the manifest of a dataset or by the one file."""
    if kind == "dataset":
        assert read_version(folder, kind) in ({"old", "new"} if start == "old" else {None, "new"})
    else:
        assert data_version(folder, kind) in ({"old", "new"} if start == "old" else {None, "new"})


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_publish_shows_one_version_and_nothing_else(kind: Kind, start: str, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "x", kind, start)

    run_once(folder, kind, "new")

    assert assert_whole(folder, kind, start) == "new"


def killed_runs(base: Path, kind: Kind, start: str) -> Iterator[Path]:
    """The folders left by runs that were killed, one at each step."""
    prepare(base / "start", kind, start)
    at = 0
    while True:
        at += 1
        folder = base / f"killed-{at}"
        shutil.copytree(base / "start", folder)
        try:
            run_once(folder, kind, "new", lambda store, at=at: KillingStore(store, at=at))  # type: ignore[misc]
        except Killed:
            yield folder
        else:
            return


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_run_that_dies_at_any_operation_is_put_right(
    kind: Kind, start: str, tmp_path: Path
) -> None:
    outcomes = []
    for folder in killed_runs(tmp_path, kind, start):
        assert_reader_is_served(folder, kind, start)

        recover(folder, kind)

        outcomes.append(assert_whole(folder, kind, start))

    before = None if start == "nothing" else "old"
    turn = outcomes.index("new")
    assert outcomes == [before] * turn + ["new"] * (len(outcomes) - turn)
    assert 0 < turn < len(outcomes) - 1


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_recovery_that_dies_at_any_operation_can_be_repeated(
    kind: Kind, start: str, tmp_path: Path
) -> None:
    for folder in killed_runs(tmp_path, kind, start):
        at = 0
        died = True
        while died:
            at += 1
            again = folder.with_name("again")
            shutil.copytree(folder, again)
            try:
                recover(again, kind, lambda store, at=at: KillingStore(store, at=at))  # type: ignore[misc]
                died = False
            except Killed:
                assert_reader_is_served(again, kind, start)
                recover(again, kind)

            assert_whole(again, kind, start)
            shutil.rmtree(again)


@pytest.mark.campaign
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("kind", KINDS)
def test_process_that_is_killed_at_any_change_of_the_disk_is_put_right(
    kind: Kind, start: str, tmp_path: Path
) -> None:
    prepare(tmp_path / "start", kind, start)

    kill_in_processes("publish", tmp_path, kind)
    cases = sorted(tmp_path.glob("killed-*"))
    for folder in cases:
        assert_reader_is_served(folder, kind, start)
    kill_in_processes("recover", tmp_path, kind)

    outcomes = [assert_whole(folder, kind, start) for folder in cases]
    before = None if start == "nothing" else "old"
    turn = outcomes.index("new")
    assert outcomes == [before] * turn + ["new"] * (len(outcomes) - turn)
    assert 0 < turn < len(outcomes) - 1


def kill_in_processes(doing: str, base: Path, kind: Kind) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.support.publishers", doing, str(base), kind],
        check=True,
        cwd=REPOSITORY,
        capture_output=True,
    )


INTENTS = {
    "file": "{folder}/.out.ndjson.publishing.json",
    "dataset": "{folder}/set/_exporter/publishing.json",
}


def test_completed_publish_is_told_and_an_undone_one_is_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = []
    for folder in killed_runs(tmp_path, "dataset", "nothing"):
        caplog.clear()
        was_publishing = Path(INTENTS["dataset"].format(folder=folder)).exists()

        recover(folder, "dataset")
        recover(folder, "dataset")

        completed = was_publishing and read_version(folder, "dataset") == "new"
        message = f"completed the publish of run {RUN_IDS['new']}, which was cut short"
        assert [record.getMessage() for record in caplog.records] == [message] * completed
        told.append(completed)
    assert set(told) == {True, False}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"manifest": {"run_id": "x", "fi',
        b"[]",
        b"null",
        b'{"manifest": 5, "state": null}',
        b'{"manifest": {"run_id": "x", "files": [{"path": "y"}]}, "state": null}',
        b'{"manifest": {"run_id": "x", "files": []}, "state": 5}',
        b'{"manifest": {"run_id": "x", "files": []}}',
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_intent_is_removed_and_nothing_else(
    kind: Kind, content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = prepare(tmp_path / "x", kind, "old")
    before = files_of(folder)
    Path(INTENTS[kind].format(folder=folder)).write_bytes(content)

    recover(folder, kind)

    assert files_of(folder) == before
    assert "which is damaged" in caplog.text


def test_intent_is_read_as_it_was_written() -> None:
    manifest = manifest_of("r", [WrittenFile(FileFacts("p", 1, "s"), 1)], more=1)
    document = manifest.to_dict()

    assert parse_intent(orjson.dumps({"manifest": document, "state": "s"})) == Intent(manifest, "s")
    assert parse_intent(orjson.dumps({"manifest": document, "state": None})) == Intent(
        manifest, None
    )
    assert parse_intent(dump_intent(Intent(manifest, "s"))) == Intent(manifest, "s")


@pytest.mark.parametrize("content", [None, b"", b'{"manifest_version": 1, "fi', b"{}"])
def test_without_a_manifest_that_can_be_read_no_part_is_removed(
    content: bytes | None, tmp_path: Path
) -> None:
    folder = prepare(tmp_path / "x", "dataset", "nothing")
    run_once(folder, "dataset", "old")
    manifest = folder / "set" / "_manifest.json"
    if content is None:
        manifest.unlink()
    elif content != b"{}":
        manifest.write_bytes(content)
    before = files_of(folder)

    recover(folder, "dataset")
    after_recovery = files_of(folder)
    run_once(folder, "dataset", "new")

    assert after_recovery == before
    assert assert_whole(folder, "dataset", "nothing") == "new"


def test_undone_run_removes_no_part_that_the_manifest_names(tmp_path: Path) -> None:
    """An intent that was completed long ago, restored after a part was lost."""
    folder = prepare(tmp_path / "x", "dataset", "old")
    manifest = orjson.loads((folder / "set" / "_manifest.json").read_bytes())
    intent = folder / "set" / "_exporter" / "publishing.json"
    intent.write_bytes(orjson.dumps({"manifest": manifest, "state": "old"}))
    (folder / "set" / manifest["files"][0]["path"]).unlink()
    before = files_of(folder)

    recover(folder, "dataset")

    assert set(before) - set(files_of(folder)) == {"set/_exporter/publishing.json"}


class RefusingStore(KillingStore):
    """A store that fails once, when it publishes the n-th file."""

    def __init__(self, store: Store, *, at: int) -> None:
        super().__init__(store, at=1 << 30)
        self._refuse_at = at
        self._shown_count = 0

    def stage(self, name: str, *, run_id: str) -> StagedFile:
        store = self
        staged = self._store.stage(name, run_id=run_id)

        class RefusedFile:
            name = staged.name
            write = staged.write
            sync = staged.sync
            held_bytes = staged.held_bytes
            release = staged.release
            discard = staged.discard

            def publish(self, lock: HeldLock = NO_LOCK) -> None:
                store._shown_count += 1
                if store._shown_count == store._refuse_at:
                    raise DestinationError("the disk is gone")
                staged.publish()

        return RefusedFile()


@pytest.mark.parametrize("at", [1, 2, 3])
@pytest.mark.parametrize("start", STARTS)
def test_parts_shown_before_one_that_cannot_be_are_taken_back(
    start: str, at: int, tmp_path: Path
) -> None:
    folder = prepare(tmp_path / "x", "dataset", start)

    with pytest.raises(DestinationError, match="the disk is gone"):
        run_once(folder, "dataset", "new", lambda store: RefusingStore(store, at=at))

    shown = {name for name in files_of(folder) if not name.endswith(".partial")}
    before: Version | None = "old" if start == "old" else None
    assert shown == expected_names("dataset", before, start)


def test_state_elsewhere_is_published_with_the_rest(tmp_path: Path) -> None:
    destination = resolve_destination(output_of(tmp_path, "dataset"), chosen="ndjson")
    assert destination.sidecars is not None
    elsewhere = LocalStore(str(tmp_path / "states"), makes_folder=True)
    publisher = Publisher(destination, destination.sidecars, state_at=(elsewhere, "nightly.json"))
    output = open_run(destination, "new")
    facts = output.close()

    publisher.publish(output, manifest_of("r"), b"state")

    assert facts.session_count == 0
    assert elsewhere.read("nightly.json") == b"state"
