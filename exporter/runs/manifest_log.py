"""Where an output's manifest is: under its name, and for a dataset under a number too.

Who publishes a dataset under a lease puts its manifest where none is: `_manifests/00000042.json`.
That is the commit. A run that lost its lease without knowing finds its number taken, and so cannot
commit on what another one has published. `_manifest.json` is a copy of the newest, for readers.
"""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from exporter.destinations.destination import Sidecars
from exporter.errors import DestinationError, LockLostError
from exporter.runs.manifest import Manifest, NewerManifestError, parse_manifest
from exporter.stores.interface import HeldLock, Store

logger = logging.getLogger(__name__)

KEPT_COUNT: Final = 8
"""Numbered manifests that stay, however old."""
TRIES: Final = 16
"""How often the copy is looked at again when others write it too."""


@dataclass(frozen=True, slots=True)
class Published:
    """What is published now."""

    number: int
    """Of the newest manifest; 0 where they have no numbers."""
    manifest: Manifest | None
    """None when there is none, or none that can be read."""


class PlainManifest:
    """One manifest under its name: of what a lock that ends with its holder keeps others from."""

    def __init__(self, sidecars: Sidecars) -> None:
        self._sidecars = sidecars

    def read(self) -> Published:
        return Published(0, read_manifest(self._sidecars.store, self._sidecars.manifest))


class ManifestLog:
    """The numbered manifests of a dataset, and the copy of the newest one."""

    def __init__(self, sidecars: Sidecars, *, folder: str, lock: HeldLock) -> None:
        self._sidecars = sidecars
        self._store = sidecars.store
        self._folder = folder
        self._lock = lock

    def read(self) -> Published:
        """The newest manifest, or the one that a version without numbers wrote since."""
        numbers = self.list_numbers()
        highest = numbers[0] if numbers else 0
        newest = next((each for each in map(self._read_at, numbers) if each is not None), None)
        copy = read_manifest(self._sidecars.store, self._sidecars.manifest)
        if newest is None:
            return Published(highest, copy)
        if copy is None or copy.run_id == newest.run_id:
            return Published(highest, newest)
        older = (self._read_at(number) for number in numbers[:KEPT_COUNT])
        if any(each is not None and each.run_id == copy.run_id for each in older):
            return Published(highest, newest)
        if is_before(copy, newest):
            return Published(highest, newest)
        return Published(highest, copy)

    def list_numbers(self) -> list[int]:
        """From the newest downwards."""
        found = (
            re.fullmatch(r"([0-9]{8,})\.json", each.name.removeprefix(self._folder))
            for each in self._store.list_files(self._folder)
        )
        return sorted((int(match[1]) for match in found if match is not None), reverse=True)

    def has(self, number: int, run_id: str) -> bool:
        """Whether the manifest of that number is this run's."""
        manifest = self._read_at(number)
        return manifest is not None and manifest.run_id == run_id

    def commit(self, number: int, manifest: Manifest) -> None:
        """Put the manifest under its number. Raises LockLostError when another run has it."""
        name, content = self._name_of(number), manifest.dump()
        within_s = self._lock.ensure_held()
        # A write that was repeated on the way may find what it wrote itself; so may one whose run
        # was taken for dead and completed by another.
        if not self._store.create(name, content, within_s=within_s):
            if self.has(number, manifest.run_id):
                return
            raise taken(self._store.path_of(name))
        # Who has the next number has seen ours. But many numbers on, others had this one, and have
        # removed it while we were asleep.
        if max(self.list_numbers(), default=0) >= number + KEPT_COUNT:
            self._store.remove([name])
            raise taken(self._store.path_of(name))

    def write_copy(self) -> None:
        """Have the copy be the newest manifest, whoever else writes it at the same time."""
        for _ in range(TRIES):
            tag = self._store.tag_of(self._sidecars.manifest)
            published = self.read()
            if published.manifest is None:
                return
            content = published.manifest.dump()
            if self._store.read(self._sidecars.manifest) == content:
                return
            within_s = self._lock.ensure_held()
            # Where the store takes whatever comes, look again: what came late is put right.
            self._store.replace_version(
                self._sidecars.manifest, content, tag=tag, within_s=within_s
            )

    def prune(self, *, is_old: Callable[[datetime], bool]) -> None:
        """Remove manifests that were followed by many, and long ago."""
        old = {self._name_of(number) for number in self.list_numbers()[KEPT_COUNT:]}
        if not old:
            return
        files = self._store.list_files(self._folder)
        due = [each.name for each in files if each.name in old and is_old(each.modified_at)]
        if due:
            self._lock.ensure_held()
            self._store.remove(due)

    def _name_of(self, number: int) -> str:
        return f"{self._folder}{number:08d}.json"

    def _read_at(self, number: int) -> Manifest | None:
        return read_manifest(self._store, self._name_of(number))


def taken(path: str) -> LockLostError:
    return LockLostError(
        f"another run has published meanwhile: '{path}' is there",
        hint="nothing was published: run again",
    )


def is_before(manifest: Manifest, other: Manifest) -> bool:
    at, other_at = manifest.finished_at, other.finished_at
    return other_at is not None and (at is None or at < other_at)


def read_manifest(store: Store, name: str) -> Manifest | None:
    """The manifest of that name; None when there is none, or none that can be read.

    Raises DestinationError for one of a newer version, which nobody may write over unread.
    """
    content = store.read(name)
    if content is None:
        return None
    try:
        return parse_manifest(content)
    except NewerManifestError as exc:
        raise DestinationError(
            f"'{store.path_of(name)}' cannot be read: {exc}", hint="update livy-exporter"
        ) from exc
    except ValueError:
        return None
