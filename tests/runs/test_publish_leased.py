"""Publishing under a lease, while another run may be asleep; over a folder."""

import os
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest

from exporter.destinations.destination import Destination, Kind
from exporter.destinations.resolve import resolve_destination
from exporter.errors import DestinationError, LockLostError
from exporter.runs.manifest_log import read_manifest
from exporter.runs.publish import Publisher
from exporter.sinks.interface import Output
from exporter.stores.interface import NO_LOCK, HeldLock
from tests.support.manifests import manifest_of
from tests.support.publishers import GATEWAY, RUN_IDS, Version, open_run, output_of, queue_of

KEEP_S = 3600.0


class Sleeper:
    """A run that publishes up to a step, and from there on when it is woken."""

    def __init__(self, folder: Path, kind: Kind, version: Version) -> None:
        self.folder = folder
        self.version = version
        self.destination, self.publisher = open_publisher(folder, kind)
        self.publisher.recover()
        self.output = open_run(self.destination, version)
        for number in range(2):
            row = {"sessionId": f"{version}-{number}", "queue": queue_of(version, number)}
            self.output.write(GATEWAY, [row])
        files = self.output.close().files
        finished_at = {"old": "2026-01-01T00:00:00.000Z", "new": "2026-01-02T00:00:00.000Z"}
        self.manifest = manifest_of(RUN_IDS[version], files, finished_at=finished_at[version])

    def publish(self, output: Output | None = None) -> None:
        self.publisher.publish(output or self.output, self.manifest, self.version.encode())


def open_publisher(
    folder: Path, kind: Kind, *, lock: HeldLock = NO_LOCK
) -> tuple[Destination, Publisher]:
    destination = resolve_destination(output_of(folder, kind), chosen="ndjson")
    sidecars = destination.sidecars
    assert sidecars is not None
    sidecars.store.replace(f"{sidecars.lock}.00000001", b"{}")
    state_at = None if sidecars.state is None else (sidecars.store, sidecars.state)
    publisher = Publisher(destination, sidecars, state_at=state_at, lock=lock, keep_s=KEEP_S)
    return destination, publisher


class ActingOutput:
    """An output with a callback before it is published, and one after."""

    def __init__(
        self,
        output: Output,
        *,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        self._output = output
        self._before = before
        self._after = after
        self.write = output.write
        self.close = output.close
        self.discard = output.discard

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._before()
        self._output.publish(lock)
        self._after()


def published_run(sleeper: Sleeper) -> str | None:
    sidecars = sleeper.destination.sidecars
    assert sidecars is not None
    manifest = read_manifest(sidecars.store, sidecars.manifest)
    return None if manifest is None else manifest.run_id


def parts_of(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("part-*.ndjson")}


def age(folder: Path, pattern: str) -> None:
    for path in folder.rglob(pattern):
        os.utime(path, (path.stat().st_mtime - 2 * KEEP_S,) * 2)


def die() -> None:
    raise KeyboardInterrupt


def sleep_half_shown(folder: Path) -> Sleeper:
    """A run that has written its intent, and published one of its parts."""
    sleeper = Sleeper(folder, "dataset", "old")
    with pytest.raises(KeyboardInterrupt):
        sleeper.publish(ActingOutput(sleeper.output, before=die))
    staged = next(iter(folder.rglob(".part-*-00000.*.partial")))
    staged.rename(staged.with_name(staged.name[1:].rsplit(".", 2)[0]))
    return sleeper


def test_half_shown_parts_wait_until_they_are_old(tmp_path: Path) -> None:
    sleeper = sleep_half_shown(tmp_path)
    shown = parts_of(tmp_path)
    next_run = Sleeper(tmp_path, "dataset", "new")
    after_recovery = parts_of(tmp_path)

    next_run.publish()
    next_run.publisher.remove_leftovers()
    while_young = parts_of(tmp_path)
    age(tmp_path, "publishing.*")
    next_run.publisher.remove_leftovers()

    assert len(shown) == 1
    assert after_recovery == shown
    assert shown < while_young
    assert parts_of(tmp_path) == while_young - shown
    assert published_run(sleeper) == RUN_IDS["new"]
    assert list(tmp_path.rglob("publishing.*")) == []


def test_old_leftovers_stay_while_their_run_could_still_commit(tmp_path: Path) -> None:
    """Its number is still free: its manifest would name parts that are gone."""
    sleep_half_shown(tmp_path)
    age(tmp_path, "publishing.*")
    shown = parts_of(tmp_path)

    _, publisher = open_publisher(tmp_path, "dataset")
    publisher.recover()

    assert parts_of(tmp_path) == shown


def test_run_that_wakes_after_another_published_touches_nothing_of_it(tmp_path: Path) -> None:
    sleeper = Sleeper(tmp_path, "dataset", "old")
    other = Sleeper(tmp_path, "dataset", "new")
    other.publish()
    before = {
        path: path.read_bytes()
        for path in tmp_path.rglob("*")
        if path.is_file() and path.suffix != ".partial"
    }

    with pytest.raises(LockLostError, match="another run has published meanwhile"):
        sleeper.publish()

    assert published_run(other) == RUN_IDS["new"]
    assert all(path.read_bytes() == content for path, content in before.items())


def test_all_shown_parts_are_published_by_the_next_run_and_the_first_ends_well(
    tmp_path: Path,
) -> None:
    sleeper = Sleeper(tmp_path, "dataset", "old")
    others: list[Sleeper] = []

    def publish_meanwhile() -> None:
        others.append(Sleeper(tmp_path, "dataset", "new"))

    sleeper.publish(ActingOutput(sleeper.output, after=publish_meanwhile))

    assert published_run(sleeper) == RUN_IDS["old"]
    assert [path.name for path in sorted(tmp_path.rglob("_manifests/*"))] == ["00000001.json"]
    others[0].publish()
    assert published_run(sleeper) == RUN_IDS["new"]
    assert all(RUN_IDS["new"] in name for name in parts_of(tmp_path))


@pytest.mark.parametrize("kind", ["file", "dataset"])
def test_publish_whose_answer_was_lost_is_found_done(kind: Kind, tmp_path: Path) -> None:
    sleeper = Sleeper(tmp_path, kind, "old")

    def lose() -> None:
        raise DestinationError("the store gave no whole answer in time")

    sleeper.publish(ActingOutput(sleeper.output, after=lose))

    assert published_run(sleeper) == RUN_IDS["old"]
    assert list(tmp_path.rglob("*publishing*")) == []


def test_lock_that_is_lost_after_the_commit_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class EndingLock:
        def __init__(self) -> None:
            self.count = 0

        def ensure_held(self) -> float:
            self.count += 1
            if list((tmp_path / "set").rglob("_manifests/*.json")):
                raise LockLostError("it is another's")
            return 30.0

    sleeper = Sleeper(tmp_path, "dataset", "old")
    _, sleeper.publisher = open_publisher(tmp_path, "dataset", lock=EndingLock())

    sleeper.publish()
    left = list(tmp_path.rglob("publishing.*"))
    Sleeper(tmp_path, "dataset", "new")

    assert "is published, and another one goes on from it" in caplog.text
    assert len(left) == 1
    assert published_run(sleeper) == RUN_IDS["old"]
    state = tmp_path / "set" / "_exporter" / "state.json"
    assert state.read_bytes() == b"old"
    assert list(tmp_path.rglob("publishing.*")) == []


def test_state_of_a_run_that_was_followed_is_not_published(tmp_path: Path) -> None:
    sleeper = Sleeper(tmp_path, "dataset", "old")
    sleeper.publish()
    sidecars = sleeper.destination.sidecars
    assert sidecars is not None
    Sleeper(tmp_path, "dataset", "new").publish()
    # As if the first had been stopped before it removed its intent.
    intent = {"manifest": sleeper.manifest, "state": "old", "number": 1}
    sidecars.store.replace(f"_exporter/publishing.{RUN_IDS['old']}.json", orjson.dumps(intent))

    _, publisher = open_publisher(tmp_path, "dataset")
    publisher.recover()

    assert published_run(sleeper) == RUN_IDS["new"]
    assert sidecars.store.read("_exporter/state.json") == b"new"
