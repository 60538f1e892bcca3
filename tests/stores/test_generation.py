"""A dataset on a local disk, as readers see it who list the files of the folder."""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import orjson
import pytest

from exporter.destinations.dataset import is_own
from exporter.errors import LockLostError
from exporter.locks.flock import FlockBackend
from exporter.locks.interface import Contention, Holder
from exporter.stores import generation
from exporter.stores.local import LocalStore
from tests.support.publishers import (
    PART_COUNTS,
    RUN_IDS,
    STARTED_AT,
    Version,
    read_version,
    run_once,
)

REPOSITORY = Path(__file__).parents[2]


def glob_rows(folder: Path) -> list[str]:
    """The sessions in all files of `**/*.ndjson`."""
    rows = []
    for path in sorted(folder.glob("set/**/[!.]*.ndjson")):
        rows += [orjson.loads(line)["sessionId"] for line in path.read_bytes().splitlines()]
    return sorted(rows)


def rows_of(version: Version) -> list[str]:
    return [f"{version}-{number}" for number in range(PART_COUNTS[version])]


def generations_of(folder: Path) -> list[Path]:
    return list(folder.glob(".*.generation"))


@pytest.mark.campaign
def test_killed_at_any_change_of_the_disk_the_folder_holds_one_version(tmp_path: Path) -> None:
    """Even before the recovery: a reader may come at any time."""
    (tmp_path / "start").mkdir()
    run_once(tmp_path / "start", "dataset", "old")

    kill_in_processes("publish", tmp_path)
    cases = sorted(tmp_path.glob("killed-*"))
    for folder in cases:
        named = read_version(folder, "dataset")
        assert named is not None
        assert glob_rows(folder) == rows_of(named)
    left = sum(len(generations_of(folder)) for folder in cases)
    kill_in_processes("recover", tmp_path)

    assert left > 0
    outcomes = [read_version(folder, "dataset") for folder in cases]
    switch = outcomes.index("new")
    assert set(outcomes[:switch]) == {"old"}
    assert set(outcomes[switch:]) == {"new"}
    for folder, version in zip(cases, outcomes, strict=True):
        assert generations_of(folder) == []
        assert list(folder.rglob("*.partial")) == []
        assert version is not None
        assert glob_rows(folder) == rows_of(version)
        assert (folder / "set" / "_exporter" / "state.json").read_text() == version


def kill_in_processes(doing: str, base: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "tests.support.publishers", doing, str(base), "dataset"],
        check=True,
        cwd=REPOSITORY,
        capture_output=True,
    )


def make_folder(root: Path, names: dict[str, bytes]) -> None:
    for name, content in names.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


PARTS: dict[Version, str] = {
    version: f"part-{run_id}-00000.ndjson" for version, run_id in RUN_IDS.items()
}
OLD, NEW = PARTS["old"], PARTS["new"]


def replace_old_by_new(root: Path) -> bool:
    store = LocalStore(f"{root}/")
    staged = store.stage(f"dt=1/{NEW}", run_id=RUN_IDS["new"])
    staged.write(b"new")
    staged.sync()
    replaced = store.replace_together(
        [staged],
        run_id=RUN_IDS["new"],
        is_own=is_own,
        removed=[OLD],
        contents={"_manifest.json": b"new"},
    )
    staged.discard()
    return replaced


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


def test_all_changes_come_at_once_and_the_rest_stays_as_it_is(tmp_path: Path) -> None:
    root = tmp_path / "set"
    kept = "dt=0/" + OLD.replace("00000", "00001")
    make_folder(root, {OLD: b"old", kept: b"kept", "_manifest.json": b"old"})
    make_folder(root, {"_exporter/state.json": b"state"})
    root.chmod(0o750)
    (root / "_manifest.json").chmod(0o640)
    inode = (root / kept).stat().st_ino

    replaced = replace_old_by_new(root)

    assert replaced
    assert files_of(root) == {
        kept: b"kept",
        f"dt=1/{NEW}": b"new",
        "_manifest.json": b"new",
        "_exporter/state.json": b"state",
    }
    assert (root / kept).stat().st_ino == inode
    assert root.stat().st_mode & 0o777 == 0o750
    assert (root / "_manifest.json").stat().st_mode & 0o777 == 0o640
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("what", ["file", "link", "partial"])
def test_folder_with_files_of_others_is_not_replaced(what: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    make_folder(root, {OLD: b"old", "_manifest.json": b"old"})
    match what:
        case "file":
            make_folder(root, {"notes/read.me": b"theirs"})
        case "link":
            (root / "link").symlink_to(OLD)
        case _:
            make_folder(root, {".copy.json.run.partial": b"on its way"})
    before = files_of(root)

    replaced = replace_old_by_new(root)

    assert not replaced
    assert files_of(root) == before
    assert list(tmp_path.iterdir()) == [root]


@pytest.mark.parametrize("failing", ["exchange", "link_file", "copy_folder"])
def test_failed_replacement_leaves_the_folder_as_it_was(
    failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    make_folder(root, {OLD: b"old", "_manifest.json": b"old"})
    before = files_of(root)

    def fail(*arguments: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(generation, failing, fail)

    assert not replace_old_by_new(root)
    assert files_of(root) == before
    assert list(tmp_path.iterdir()) == [root]


def test_publish_takes_many_steps_where_folders_cannot_be_exchanged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(generation, "exchange", fail)

    run_once(tmp_path, "dataset", "old")
    run_once(tmp_path, "dataset", "new")

    assert glob_rows(tmp_path) == rows_of("new")


def test_folder_around_the_working_folder_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    make_folder(root, {f"dt=1/{OLD}": b"old"})
    monkeypatch.chdir(root / "dt=1")

    assert not replace_old_by_new(root)


def test_file_that_others_put_there_meanwhile_moves_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "set"
    make_folder(root, {OLD: b"old"})
    exchange = generation.exchange

    def put_and_exchange(one: Path, other: Path) -> None:
        make_folder(root, {"dt=9/notes.txt": b"theirs"})
        exchange(one, other)

    monkeypatch.setattr(generation, "exchange", put_and_exchange)

    assert replace_old_by_new(root)
    assert (root / "dt=9" / "notes.txt").read_bytes() == b"theirs"
    assert list(tmp_path.iterdir()) == [root]


def test_lock_of_the_folder_stays_held(tmp_path: Path) -> None:
    def backend(run_id: str) -> FlockBackend:
        store = LocalStore(f"{tmp_path}/set/", makes_folder=True)
        holder = Holder("host", 1, run_id, STARTED_AT)
        return FlockBackend(store, "_exporter/lock", holder, now_s=lambda: 0.0)

    ours, other = backend("ours"), backend("other")
    assert ours.try_acquire() is None
    make_folder(tmp_path / "set", {OLD: b"old"})

    assert replace_old_by_new(tmp_path / "set")
    ours.renew()
    contention = other.try_acquire()
    ours.release()

    assert isinstance(contention, Contention)
    assert contention.holder is not None
    assert contention.holder.run_id == "ours"
    assert other.try_acquire() is None
    with pytest.raises(LockLostError):
        ours.renew()
    other.release()


def test_reader_of_one_folder_never_sees_two_versions(tmp_path: Path) -> None:
    root = tmp_path / "set"
    names = {
        version: [f"part-{run_id}-{number:05}.ndjson" for number in range(8)]
        for version, run_id in RUN_IDS.items()
    }
    make_folder(root, dict.fromkeys(names["old"], b""))
    seen: list[set[str]] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.append({each for each in os.listdir(root) if not each.startswith((".", "_"))})  # noqa: PTH208 - one reading of the folder

    reader = threading.Thread(target=read)
    reader.start()
    for _ in range(5):
        for before, after in (("old", "new"), ("new", "old")):
            store = LocalStore(f"{root}/")
            run_id = RUN_IDS["new"] if after == "new" else RUN_IDS["old"]
            staged = [store.stage(name, run_id=run_id) for name in dict(names)[after]]  # type: ignore[index]
            assert store.replace_together(
                staged,
                run_id=run_id,
                is_own=is_own,
                removed=names[before],  # type: ignore[index]
                contents={"_manifest.json": b"{}"},
            )
    done.set()
    reader.join()

    # A listing that goes on while the former version is removed misses some of that, which can't
    # be opened any more.
    assert all(any(each <= set(version) for version in names.values()) for each in seen)
