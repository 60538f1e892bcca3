"""The places of an output's manifest: its name, and for a dataset under a lease a number too.

To publish a dataset under a lease is to create its manifest under the next free number, such as
`_manifests/00000042.json`; that is the commit. A run that lost its lease without knowing finds its
number taken, and cannot commit over another run. `_manifest.json` is a copy of the newest, for
readers.
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
"""Numbered manifests that are kept, however old."""
MAX_COPY_ATTEMPTS: Final = 16
"""Attempts to write the copy while other runs write it too."""


@dataclass(frozen=True, slots=True)
class Published:
    """The manifest that is published now."""

    number: int
    """The newest manifest's number; 0 where manifests are not numbered."""
    manifest: Manifest | None
    """None when there is none, or no readable one."""


class ManifestLog:
    """The numbered manifests of a dataset, and the copy of the newest one."""

    def __init__(self, sidecars: Sidecars, *, folder: str, lock: HeldLock) -> None:
        self._sidecars = sidecars
        self._store = sidecars.store
        self._folder = folder
        self._lock = lock

    def read(self) -> Published:
        """The newest manifest, or a later one from a version of this program without numbers."""
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
        """The numbers of all manifests, newest first."""
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
        """Create the manifest under its number. Raises LockLostError when another run has that."""
        name, content = self._name_of(number), manifest.dump()
        within_s = self._lock.ensure_held()
        # The number may be taken by this very manifest: after a retried write, or when another run
        # took this one for dead and completed its publish.
        if not self._store.create(name, content, within_s=within_s):
            if self.has(number, manifest.run_id):
                return
            raise build_error(self._store.path_of(name))
        # The run of the next number has seen ours. But if there are many later numbers, another run
        # had this one, and it was pruned while this run was asleep.
        if max(self.list_numbers(), default=0) >= number + KEPT_COUNT:
            self._store.remove([name])
            raise build_error(self._store.path_of(name))

    def write_copy(self) -> None:
        """Make the copy equal to the newest manifest, even if other runs write it meanwhile."""
        for _ in range(MAX_COPY_ATTEMPTS):
            tag = self._store.tag_of(self._sidecars.manifest)
            published = self.read()
            if published.manifest is None:
                return
            content = published.manifest.dump()
            if self._store.read(self._sidecars.manifest) == content:
                return
            within_s = self._lock.ensure_held()
            # Checked once more: a store without conditional writes accepts other runs' late ones.
            self._store.replace_version(
                self._sidecars.manifest, content, tag=tag, within_s=within_s
            )

    def prune(self, *, is_old: Callable[[datetime], bool]) -> None:
        """Remove old manifests, except the newest `KEPT_COUNT`."""
        prunable = {self._name_of(number) for number in self.list_numbers()[KEPT_COUNT:]}
        if not prunable:
            return
        files = self._store.list_files(self._folder)
        old = [each.name for each in files if each.name in prunable and is_old(each.modified_at)]
        if old:
            self._lock.ensure_held()
            self._store.remove(old)

    def _name_of(self, number: int) -> str:
        return f"{self._folder}{number:08d}.json"

    def _read_at(self, number: int) -> Manifest | None:
        return read_manifest(self._store, self._name_of(number))


def build_error(path: str) -> LockLostError:
    return LockLostError(
        f"another run has published meanwhile: '{path}' is there",
        hint="nothing was published: run again",
    )


def is_before(manifest: Manifest, other: Manifest) -> bool:
    at, other_at = manifest.finished_at, other.finished_at
    return other_at is not None and (at is None or at < other_at)


def read_manifest(store: Store, name: str) -> Manifest | None:
    """The manifest of that name; None when there is none, or no readable one.

    Raises DestinationError for one of a newer version, which must not be overwritten unread.
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
