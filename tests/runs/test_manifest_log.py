"""The numbered manifests of a dataset, over a folder."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from exporter.destinations.destination import Sidecars
from exporter.destinations.resolve import resolve_destination
from exporter.errors import LockLostError
from exporter.runs.manifest import Manifest
from exporter.runs.manifest_log import KEPT_COUNT, ManifestLog, Published, read_manifest
from exporter.stores.interface import NO_LOCK
from tests.support.manifests import manifest_of

Log = tuple[ManifestLog, Sidecars]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    sidecars = resolve_destination(f"{tmp_path}/set/", chosen=None).sidecars
    assert sidecars is not None
    return ManifestLog(sidecars, folder="_manifests/", lock=NO_LOCK), sidecars


def finished(run_id: str, *, minute: int = 0) -> Manifest:
    return manifest_of(run_id, finished_at=f"2026-01-12T10:{minute:02}:00.000Z")


def test_without_any_manifest_nothing_is_published(log: Log) -> None:
    assert log[0].read() == Published(0, None)


def test_outputs_of_versions_without_numbers_go_on(log: Log) -> None:
    manifests, sidecars = log
    sidecars.store.replace(sidecars.manifest, finished("previous").dump())

    before = manifests.read()
    manifests.commit(before.number + 1, finished("next", minute=1))
    manifests.write_copy()

    assert before == Published(0, finished("previous"))
    assert manifests.read() == Published(1, finished("next", minute=1))
    assert read_manifest(sidecars.store, sidecars.manifest) == finished("next", minute=1)


def test_number_that_another_run_has_is_refused_and_left_alone(log: Log) -> None:
    manifests, _ = log
    manifests.commit(1, finished("theirs"))

    with pytest.raises(LockLostError, match=r"another run has published meanwhile: .*00000001"):
        manifests.commit(1, finished("late"))

    assert manifests.read() == Published(1, finished("theirs"))


def test_commit_that_is_there_already_is_done(log: Log) -> None:
    manifests, _ = log
    manifests.commit(1, finished("ours"))
    manifests.commit(1, finished("ours"))

    assert manifests.read().number == 1


def test_number_that_was_removed_long_ago_commits_nothing(log: Log) -> None:
    manifests, sidecars = log
    manifests.commit(41, finished("theirs"))

    with pytest.raises(LockLostError):
        manifests.commit(2, finished("asleep for days"))

    assert sidecars.store.read("_manifests/00000002.json") is None
    assert manifests.read() == Published(41, finished("theirs"))


@pytest.mark.parametrize("copied", ["first", "second", None])
def test_copy_that_lags_behind_is_put_right(log: Log, copied: str | None) -> None:
    manifests, sidecars = log
    # The clock of the second host is behind: numbers decide, not times.
    runs = {"first": finished("first", minute=30), "second": finished("second", minute=10)}
    for number, manifest in enumerate(runs.values(), start=1):
        manifests.commit(number, manifest)
    if copied is not None:
        sidecars.store.replace(sidecars.manifest, runs[copied].dump())

    found = manifests.read()
    manifests.write_copy()

    assert found == Published(2, runs["second"])
    assert read_manifest(sidecars.store, sidecars.manifest) == runs["second"]


def test_what_a_version_without_numbers_published_since_counts(log: Log) -> None:
    manifests, sidecars = log
    manifests.commit(1, finished("numbered", minute=1))
    sidecars.store.replace(sidecars.manifest, finished("unnumbered", minute=2).dump())

    assert manifests.read() == Published(1, finished("unnumbered", minute=2))


def test_manifest_that_cannot_be_read_still_takes_its_number(log: Log) -> None:
    manifests, sidecars = log
    manifests.commit(1, finished("good"))
    sidecars.store.replace("_manifests/00000002.json", b"")

    assert manifests.read() == Published(2, finished("good"))


def test_old_manifests_go_but_for_the_newest(log: Log, tmp_path: Path) -> None:
    manifests, _ = log
    for number in range(1, KEPT_COUNT + 4):
        manifests.commit(number, finished(f"run-{number}"))
    long_ago = datetime.now(UTC) - timedelta(days=2)
    for number in (1, 2, KEPT_COUNT + 3):
        path = tmp_path / "set" / "_manifests" / f"{number:08}.json"
        os.utime(path, (long_ago.timestamp(), long_ago.timestamp()))

    manifests.prune(is_old=lambda at: at < datetime.now(UTC) - timedelta(days=1))

    assert manifests.list_numbers() == list(range(KEPT_COUNT + 3, 2, -1))
