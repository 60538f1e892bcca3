"""Publishes a run atomically, though in several writes: the next run completes or undoes what a
crash cut short.

A run's data, manifest and state have separate names, and no store replaces three names at once. So
a run that has written its data, still invisible, first writes the *intent*, which holds the
manifest and the state. After a crash the next run finds the intent: if all data files are as the
manifest says, it completes the publish; if not, it undoes it.

Under a lease a run may be cut off, succeeded by another run, and wake up later. Its files are kept
for a while, and its later writes have no effect: see `manifest_log`.
"""

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from exporter.destinations.dataset import is_own
from exporter.destinations.destination import Destination, Sidecars
from exporter.errors import DestinationError, LockLostError
from exporter.runs.intents import (
    Intent,
    dump_intent,
    find_intents,
    name_intent,
    parse_intent,
    read_intents,
)
from exporter.runs.manifest import Manifest, ManifestFile
from exporter.runs.manifest_log import ManifestLog, Published, read_manifest
from exporter.sinks.dataset import DatasetOutput, is_part
from exporter.sinks.interface import Output
from exporter.sinks.partitioned import PartitionedOutput
from exporter.stores.hashing import digest
from exporter.stores.interface import NO_LOCK, HeldLock, Store
from exporter.stores.local import LocalStore
from exporter.tables.interface import Commit

logger = logging.getLogger(__name__)


class Publisher:
    """Publishes the output, manifest and state of one run; blocks."""

    def __init__(
        self,
        destination: Destination,
        sidecars: Sidecars,
        *,
        state_at: tuple[Store, str] | None,
        lock: HeldLock = NO_LOCK,
        keep_s: float | None = None,
    ) -> None:
        """`keep_s` is the age at which leftovers of other runs are removed under a lease; None for
        a lock whose holder knows that those runs are dead.
        """
        self._destination = destination
        self._sidecars = sidecars
        self._state_at = state_at
        """The store and name of the state; None where there is none."""
        self._lock = lock
        self._is_fenced = keep_s is not None
        """Whether another run may hold the lock without this one knowing."""
        self._keep_s = keep_s or 0.0
        self._log: ManifestLog | None = None
        if keep_s is not None and sidecars.manifests is not None:
            self._log = ManifestLog(sidecars, folder=sidecars.manifests, lock=lock)
        self._base: Published | None = None
        """The manifest that was published when this run began."""
        self._is_committed = False
        """Whether the publish is committed: readers find it, whatever fails from now on."""
        self._undone_run_id: str | None = None
        """The run whose intent was undone; in a table, only that run can have left files."""

    def publish(self, output: Output, manifest: Manifest, state: bytes | None) -> None:
        """Make the output, its manifest and its state visible; the next run recovers from a crash.

        If a part cannot be published, the others are removed at once. A failed publish that turns
        out to be complete counts as published. Raises LockLostError when another run has published
        meanwhile, and leaves the files of that run alone.
        """
        intent = self._build_intent(manifest, state)
        tags = self._read_tags()
        self._is_committed = False
        is_visible = self._replace_folder(output, intent)
        if not is_visible:
            self._lock.ensure_held()
            self._sidecars.store.replace(self._name_of(intent), dump_intent(intent))
        try:
            if not is_visible:
                output.publish(self._lock)
            self._is_committed = self._log is None
            self._complete(intent, tags)
        except DestinationError:
            if not self._finish_or_undo(intent):
                raise
        except LockLostError as exc:
            if not self._is_committed and not self._was_completed(intent):
                raise
            log_loss(exc, intent)

    def _replace_folder(self, output: Output, intent: Intent) -> bool:
        """Replace the whole folder at once, if more than one file changes and the disk supports it.

        The new folder contains the intent, which is still to be completed.
        """
        store = self._destination.store
        if (
            self._is_fenced
            or not isinstance(store, LocalStore)
            or not isinstance(output, DatasetOutput | PartitionedOutput)
            or len(output.staged) + len(intent.superseded) < 2
        ):
            return False
        self._lock.ensure_held()
        return store.replace_together(
            output.staged,
            run_id=intent.run_id,
            is_own=is_own,
            removed=intent.superseded,
            contents={
                self._sidecars.manifest: intent.manifest.dump(),
                self._sidecars.intent: dump_intent(intent),
            },
        )

    def ensure_held(self) -> None:
        """Raises LockLostError when another run may hold the output's lock."""
        self._lock.ensure_held()

    def recover(self) -> None:
        """Complete or undo the publish of a killed run, and remove its leftovers.

        For the holder of the output's lock only. May itself be cut short at any point.
        """
        for each in find_intents(self._sidecars):
            content = self._sidecars.store.read(each.name)
            intent = None if content is None else parse_intent(content)
            if intent is not None:
                self._recover(each.name, intent)
            elif content is not None:  # written atomically, so it was damaged later
                path = self._sidecars.store.path_of(each.name)
                logger.warning("removed '%s', which is damaged", path)
                self._sidecars.store.remove([each.name])
        if self._log is not None:
            self._log.write_copy()
        self._base = self._read_published()
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove the staged files of dead runs; under a lease, only old ones."""
        store = self._destination.store
        if self._state_at is not None:
            state_store, state_name = self._state_at
            state_store.remove_leftovers([state_name], keep_s=self._keep_s)
        if self._destination.kind == "dataset":
            store.remove_leftovers(keep_s=self._keep_s)
            if isinstance(store, LocalStore) and not self._is_fenced:
                store.remove_generations(is_own)
        else:
            names = [self._destination.name, self._sidecars.manifest, self._sidecars.intent]
            store.remove_leftovers(names, keep_s=self._keep_s)
            table, run_id = self._destination.table, self._undone_run_id
            if table is not None and run_id is not None:
                table.remove_leftovers(run_id, keep_s=self._keep_s)
        if self._is_fenced:
            self._remove_abandoned()

    def compact(self, commit: Commit) -> None:
        """Merge the small files of a table that has many; never raises."""
        table = self._destination.table
        if table is not None:
            from exporter.tables.output import compact

            compact(table, replace(commit, lock=self._lock), output=self._destination.output)

    def read_manifest(self) -> Manifest | None:
        """The published manifest; None when there is none, or no readable one."""
        return self._read_published().manifest

    def require_manifest(self) -> None:
        """Raises DestinationError for parts without a manifest.

        The manifest of a run that adds would not name them, so they would be removed.
        """
        store = self._destination.store
        if self.read_manifest() is None and any(is_part(each.name) for each in store.list_files()):
            raise DestinationError(
                f"'{self._destination.output}' has parts, and no manifest that names them",
                hint=f"put {store.path_of(self._sidecars.manifest)} back, or have a run without"
                " --incremental replace the parts",
            )

    def _read_published(self) -> Published:
        if self._log is not None:
            return self._log.read()
        return Published(0, read_manifest(self._sidecars.store, self._sidecars.manifest))

    def _name_of(self, intent: Intent) -> str:
        return name_intent(self._sidecars, intent.run_id, is_shared=not self._is_fenced)

    def _build_intent(self, manifest: Manifest, state: bytes | None) -> Intent:
        base = self._base = self._base or self._read_published()
        superseded: tuple[str, ...] = ()
        if self._destination.kind == "dataset":
            named = {each.path for each in manifest.files}
            previous = (
                self._find_unnamed()
                if base.manifest is None
                else [each.path for each in base.manifest.files]
            )
            superseded = tuple(path for path in previous if path not in named and is_part(path))
        return Intent(
            manifest,
            None if state is None else state.decode(),
            number=None if self._log is None else base.number + 1,
            superseded=superseded,
        )

    def _find_unnamed(self) -> list[str]:
        """The parts in a dataset whose manifest is lost, except those in other runs' intents."""
        files = list(self._destination.store.list_files())
        named = {
            part for intent in read_intents(self._sidecars).values() for part in intent.own_parts
        }
        return [each.name for each in files if is_part(each.name) and each.name not in named]

    def _recover(self, name: str, intent: Intent) -> None:
        if self._is_visible(intent):
            tags = self._read_tags()
            self._complete(intent, tags, name=name)
            logger.warning("completed the publish of run %s, which was cut short", intent.run_id)
        elif not self._is_fenced:
            self._undo(name, intent)

    def _finish_or_undo(self, intent: Intent) -> bool:
        """Complete a publish that failed midway, if its data are visible; undo it if not.

        Returns whether it is published. If this fails too, the next run does it.
        """
        with suppress(DestinationError):
            try:
                self._lock.ensure_held()
            except LockLostError as exc:
                if not self._is_committed:
                    raise
                log_loss(exc, intent)
                return True
            if self._is_visible(intent):
                self._complete(intent, self._read_tags())
                logger.info("the publish failed midway, and was found done or ended since")
                return True
            self._undo(self._name_of(intent), intent)
        return False

    def _is_visible(self, intent: Intent) -> bool:
        """Whether readers can see the run's data, and no later run has published.

        For a table, its own log decides.
        """
        table = self._destination.table
        if table is not None:
            return table.find_commit(intent.run_id) is not None
        if self._log is not None:
            if intent.number is not None and self._log.has(intent.number, intent.run_id):
                return True
            if intent.number is not None and intent.number <= self._log.read().number:
                return False
        return all(self._is_intact(each) for each in intent.manifest.files)

    def _was_completed(self, intent: Intent) -> bool:
        """Whether the run that took the lock has completed this publish; false if unknown."""
        with suppress(DestinationError):
            return (
                self._log is not None
                and intent.number is not None
                and self._log.has(intent.number, intent.run_id)
            )
        return False

    def _is_intact(self, file: ManifestFile) -> bool:
        """Whether a file is as the manifest says. A part's size suffices: its name is unique."""
        destination = self._destination
        name = destination.name or file.path
        if destination.store.size_of(name) != file.size_bytes:
            return False
        return destination.kind == "dataset" or digest(destination.store, name) == file.sha256

    def _read_tags(self) -> "Tags":
        """The tags of the files to be replaced, so that later versions of other runs are kept."""
        if not self._is_fenced:
            return {}
        places = [(self._sidecars.store, self._sidecars.manifest)]
        if self._state_at is not None:
            places.append(self._state_at)
        return {name: store.tag_of(name) for store, name in places}

    def _complete(self, intent: Intent, tags: "Tags", *, name: str | None = None) -> None:
        """Do the steps after the data are visible; a dataset under a lease is committed here."""
        sidecars = self._sidecars
        if self._log is not None:
            number = self._log.read().number + 1 if intent.number is None else intent.number
            self._log.commit(number, intent.manifest)
            self._is_committed = True
        if not self._is_fenced:
            sidecars.store.replace(sidecars.manifest, intent.manifest.dump())
        elif self._log is None:
            self._put(sidecars.store, sidecars.manifest, intent.manifest.dump(), tags)
        else:
            self._log.write_copy()
        if self._is_newest(intent):
            self._publish_state(intent, tags)
        if intent.superseded:
            self._lock.ensure_held()
            sidecars.store.remove(self._list_superseded(intent))
        sidecars.store.remove([name or self._name_of(intent)])

    def _is_newest(self, intent: Intent) -> bool:
        """Whether no later run has published: an older run's state is of no use."""
        return self._log is None or self._log.has(self._log.read().number, intent.run_id)

    def _publish_state(self, intent: Intent, tags: "Tags") -> None:
        if self._state_at is None:
            return
        store, name = self._state_at
        if intent.state is None:  # an existing one does not cover this publish
            store.remove([name])
        elif self._is_fenced:
            self._put(store, name, intent.state.encode(), tags)
        else:
            store.replace(name, intent.state.encode())

    def _put(self, store: Store, name: str, content: bytes, tags: "Tags") -> None:
        within_s = self._lock.ensure_held()
        if not store.replace_version(name, content, tag=tags.get(name), within_s=within_s):
            logger.info("'%s' is another run's already", store.path_of(name))

    def _list_superseded(self, intent: Intent) -> list[str]:
        published = self.read_manifest()
        named = set() if published is None else {each.path for each in published.files}
        return [path for path in intent.superseded if path not in named]

    def _undo(self, name: str, intent: Intent) -> None:
        """Remove the visible parts of a run, then its intent: without a manifest, only the intent
        names those parts.
        """
        self._undone_run_id = intent.run_id
        if self._destination.kind == "dataset":
            published = self.read_manifest()
            named = set() if published is None else {each.path for each in published.files}
            parts = [path for path in intent.own_parts if path not in named]
            self._lock.ensure_held()
            self._destination.store.remove(parts)
        self._sidecars.store.remove([name])

    def _remove_abandoned(self) -> None:
        """Undo intents that can no longer be committed, once old by the store's own clock."""
        lease_at = max(
            (
                each.modified_at
                for each in self._sidecars.store.list_files(f"{self._sidecars.lock}.")
            ),
            default=None,
        )
        if lease_at is None:
            return

        def is_old(modified_at: datetime) -> bool:
            return (lease_at - modified_at).total_seconds() >= self._keep_s

        number = self._read_published().number
        intents = read_intents(self._sidecars)
        for each in find_intents(self._sidecars):
            intent = intents.get(each.name)
            # A run may still commit under a number that is not taken.
            if intent is None or (intent.number is not None and intent.number > number):
                continue
            if is_old(each.modified_at):
                self._undo(each.name, intent)
        if self._log is not None:
            self._log.prune(is_old=is_old)


def log_loss(error: LockLostError, intent: Intent) -> None:
    """Log the loss of the lock after the commit: its new holder completes the publish."""
    logger.warning("run %s is published, and another one goes on from it: %s", intent.run_id, error)


Tags = Mapping[str, str | None]
"""Version tags of files, by name."""
