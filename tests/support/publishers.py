"""Runs that publish and are killed at a step: by an exception, or by the kernel."""

import math
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, Literal, get_args

from exporter.destinations.destination import Destination, Kind
from exporter.destinations.resolve import resolve_destination
from exporter.model import Gateway
from exporter.runs.manifest_log import read_manifest
from exporter.runs.publish import Publisher
from exporter.sinks.dataset import Parts
from exporter.sinks.file import FileOutput
from exporter.sinks.formats import open_partition_buffer, open_sink
from exporter.sinks.interface import ByteStream, Output, Sink
from exporter.sinks.partitioned import PartitionedOutput
from exporter.stores.hashing import digest
from exporter.stores.interface import NO_LOCK, HeldLock, StagedFile, Store, StoredFile
from exporter.stores.staging import PartialFile
from tests.support.manifests import manifest_of

Version = Literal["old", "new"]

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
RUN_IDS: dict[Version, str] = {"old": "20260101T000000Z-aaaaaa", "new": "20260102T000000Z-bbbbbb"}
PART_COUNTS: dict[Version, int] = {"old": 2, "new": 3}
STARTED_AT = datetime(2026, 1, 12, 10, 24, tzinfo=UTC)

Wrap = Callable[[Store], Store]


class Killed(BaseException):
    """Stands for the end of the process: nobody catches it."""


def output_of(folder: Path, kind: Kind) -> str:
    return f"{folder}/set/" if kind == "dataset" else f"{folder}/out.ndjson"


def resolve(folder: Path, kind: Kind, wrap: Wrap) -> tuple[Destination, Publisher]:
    plain = resolve_destination(output_of(folder, kind), chosen="ndjson")
    destination = replace(plain, store=wrap(plain.store))
    sidecars = destination.sidecars
    assert sidecars is not None
    state_at = None if sidecars.state is None else (sidecars.store, sidecars.state)
    return destination, Publisher(destination, sidecars, state_at=state_at)


def open_run(destination: Destination, version: Version) -> Output:
    run_id = RUN_IDS[version]

    def open_file_sink(stream: ByteStream) -> Sink:
        return open_sink(
            stream,
            output_format="ndjson",
            file_codec="none",
            parquet_codec="none",
            run_id=run_id,
            exporter_version="1.2.3",
            exported_at=STARTED_AT,
        )

    store, name = destination.store, destination.name
    if destination.kind == "file":
        return FileOutput(store.stage(name, run_id=run_id), name, open_sink=open_file_sink)
    parts = Parts(store, run_id=run_id, output_format="ndjson", open_sink=open_file_sink)
    gathering = open_partition_buffer("ndjson", ["queue"], exported_at=STARTED_AT)
    return PartitionedOutput(parts, gathering, target_bytes=0, empty_folder=None)


def queue_of(version: Version, number: int) -> str:
    """Each part's partition: the first is only in this version, the others are in both."""
    return f"q{number}" if number > 0 else version


def run_once(folder: Path, kind: Kind, version: Version, wrap: Wrap = lambda store: store) -> None:
    """A whole run as the pipeline does it, but for the listing."""
    destination, publisher = resolve(folder, kind, wrap)
    publisher.recover()
    output = open_run(destination, version)
    for number in range(PART_COUNTS[version]):
        queue = queue_of(version, number)
        output.write(GATEWAY, [{"sessionId": f"{version}-{number}", "queue": queue}])
    facts = output.close()
    publisher.publish(output, manifest_of(RUN_IDS[version], facts.files), version.encode())
    publisher.remove_leftovers()


def recover(folder: Path, kind: Kind, wrap: Wrap = lambda store: store) -> None:
    _, publisher = resolve(folder, kind, wrap)
    publisher.recover()


def read_version(folder: Path, kind: Kind) -> Version | None:
    """What a reader finds who goes by the manifest; the parts of a dataset must then be whole."""
    destination, _ = resolve(folder, kind, lambda store: store)
    sidecars = destination.sidecars
    assert sidecars is not None
    manifest = read_manifest(sidecars.store, sidecars.manifest)
    if manifest is None:
        return None
    if kind == "dataset":
        for file in manifest.files:
            assert digest(destination.store, file.path) == file.sha256
    return next(version for version, run_id in RUN_IDS.items() if run_id == manifest.run_id)


def files_of(folder: Path) -> dict[str, bytes]:
    """All files by their names, and nothing for the folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


class KillingStore:
    """A store of a process that dies at a step: before an operation, or after it.

    What was staged loses its lock then, as by the kernel, and nothing more is done.
    """

    def __init__(self, store: Store, *, at: int) -> None:
        self._store = store
        self._at = at
        self.step_count = 0
        self.url = store.url
        self._staged: list[StagedFile] = []

    def step(self) -> None:
        self.step_count += 1
        if self.step_count >= self._at:
            for staged in self._staged:
                if isinstance(staged, PartialFile):
                    staged._close()
            raise Killed

    def path_of(self, name: str) -> str:
        return self._store.path_of(name)

    def stage(self, name: str, *, run_id: str) -> StagedFile:
        self.step()
        staged = self._store.stage(name, run_id=run_id)
        self._staged.append(staged)
        self.step()
        return KillingFile(staged, self.step)

    def read(self, name: str) -> bytes | None:
        return self._store.read(name)

    def size_of(self, name: str) -> int | None:
        return self._store.size_of(name)

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
        self.step()
        created = self._store.create(name, content)
        self.step()
        return created

    def replace(self, name: str, content: bytes, *, within_s: float = math.inf) -> None:
        self.step()
        self._store.replace(name, content)
        self.step()

    def tag_of(self, name: str) -> str | None:
        return self._store.tag_of(name)

    def replace_version(
        self, name: str, content: bytes, *, tag: str | None, within_s: float = math.inf
    ) -> bool:
        self.step()
        replaced = self._store.replace_version(name, content, tag=tag)
        self.step()
        return replaced

    def enclosing(self) -> Iterator[Store]:
        return self._store.enclosing()

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        return self._store.list_files(prefix)

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            self.step()
            self._store.remove([name])
            self.step()

    def remove_leftovers(self, names: Sequence[str] | None = None, *, keep_s: float = 0.0) -> None:
        self.step()
        self._store.remove_leftovers(names, keep_s=keep_s)
        self.step()

    def open_input(self, name: str) -> BinaryIO:
        return self._store.open_input(name)


class KillingFile:
    def __init__(self, staged: StagedFile, step: Callable[[], None]) -> None:
        self._staged = staged
        self._step = step
        self.name = staged.name

    def write(self, chunk: bytes, /) -> None:
        self._staged.write(chunk)

    def sync(self) -> None:
        self._step()
        self._staged.sync()
        self._step()

    @property
    def held_bytes(self) -> int:
        return self._staged.held_bytes

    def release(self) -> None:
        self._staged.release()

    def publish(self, lock: HeldLock = NO_LOCK) -> None:
        self._step()
        self._staged.publish()
        self._step()

    def discard(self) -> None:
        self._staged.discard()


def kill_at(at: int) -> None:
    """Have the kernel end this process before its so-many-th change of the file system."""
    count = 0

    def watch(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event in _CHANGES or (event == "open" and args[2] & os.O_CREAT):
            count += 1
            if count == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


_CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}


def survives(act: Callable[[], None], *, at: int) -> bool:
    """Run it in a process of its own that is killed at a step; whether it came to its end."""
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            kill_at(at)
            act()
            os._exit(0)
        os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in {0, -signal.SIGKILL}
    return os.waitstatus_to_exitcode(status) == 0


def main(doing: str, base: Path, kind: Kind) -> None:
    """`publish`: one copy of `base/start` a step, killed there. `recover`: each of them, again and
    again, killed one step later every time.
    """
    if doing == "publish":
        at = 0
        alive = False
        while not alive:
            at += 1
            case = base / f"killed-{at:03}"
            shutil.copytree(base / "start", case)
            alive = survives(lambda case=case: run_once(case, kind, "new"), at=at)  # type: ignore[misc]
        return
    for case in base.glob("killed-*"):
        at = 1
        while not survives(lambda case=case: recover(case, kind), at=at):  # type: ignore[misc]
            at += 1


if __name__ == "__main__":
    doing, base, kind = sys.argv[1:]
    main(doing, Path(base), next(each for each in get_args(Kind) if each == kind))
