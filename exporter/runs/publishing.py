"""Publishing as one act, though it takes several writes: what a crash cuts short is completed.

A run's data, manifest and state have names of their own, and no store replaces three names at once.
So a run that has written its data, still invisible, first writes what it is about to publish: the
*intent*, with the manifest and the state in it. From then on a crash leaves the intent behind, and
the next run goes by it: if all data files stand as the manifest says, the publish is completed, and
if not, it never happened.
"""

import hashlib
import logging
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import orjson

from exporter.destinations import Destination, Home, is_part
from exporter.errors import DestinationError
from exporter.held import NO_LOCK, HeldLock
from exporter.runs.manifest import dump_manifest
from exporter.sinks import Output
from exporter.stores import Store
from exporter.tables.interface import Commit

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Intent:
    """What a run is about to publish."""

    manifest: dict[str, Any]
    state: str | None


class Publisher:
    """Where one run publishes its manifest and state; blocks, as stores do."""

    def __init__(
        self,
        destination: Destination,
        home: Home,
        *,
        state_at: tuple[Store, str] | None,
        lock: HeldLock = NO_LOCK,
        keep_s: float = 0.0,
    ) -> None:
        """`keep_s` is how old what others left has to be before it is removed: 0 where who holds
        the lock knows that they are dead.
        """
        self._destination = destination
        self._home = home
        self._state_at = state_at
        """The store and name of the state; None where there is none."""
        self._lock = lock
        self._keep_s = keep_s
        self._undone_run_id: str | None = None
        """Of the run whose intent was taken back: of a table, only it can have left files."""

    def publish(self, output: Output, manifest: dict[str, Any], state: bytes | None) -> None:
        """Show the output, its manifest and its state; a crash at any point is put right later.

        Parts that were shown when another one cannot be are taken back at once.
        """
        intent = Intent(manifest, None if state is None else state.decode())
        self._home.store.replace(self._home.intent, orjson.dumps(asdict(intent)))
        try:
            output.publish(self._lock)
        except DestinationError:
            with suppress(DestinationError):  # then the next run does it
                self.recover()
            raise
        self._complete(intent)

    def recover(self) -> None:
        """Complete, or undo, what a killed run began to publish, and remove what it left.

        Only for who holds the output's lock. May itself be cut short at any point.
        """
        home = self._home
        content = home.store.read(home.intent)
        if content is not None:
            intent = parse_intent(content)
            if intent is None:  # written as one act, so nobody went by it: it was damaged since
                logger.warning("removed '%s', which is damaged", home.store.path_of(home.intent))
                home.store.remove([home.intent])
            elif self._was_shown(intent.manifest):
                self._complete(intent)
                logger.warning(
                    "completed the publish of run %s, which was cut short",
                    intent.manifest["run_id"],
                )
            else:
                self._undo(intent)
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove what is not, or no longer, part of the output: parts of former versions and what
        dead runs staged.

        Without a manifest that can be read nobody knows which parts are in use: all of them stay.
        """
        store = self._destination.store
        if self._state_at is not None:
            state_store, state_name = self._state_at
            state_store.remove_leftovers([state_name])
        if self._destination.kind != "dataset":
            store.remove_leftovers([self._destination.name, self._home.manifest, self._home.intent])
            table, run_id = self._destination.table, self._undone_run_id
            if table is not None and run_id is not None:
                table.remove_leftovers(run_id, keep_s=self._keep_s)
            return
        store.remove_leftovers()
        manifest = read_manifest(self._home)
        if manifest is not None:
            known = {each["path"] for each in manifest["files"]}
            store.remove(
                [
                    each.name
                    for each in store.list_files()
                    if is_part(each.name) and each.name not in known
                ]
            )

    def compact(self, commit: Commit) -> None:
        """Merge small files where the output is a table that has many; never raises."""
        table = self._destination.table
        if table is not None:
            from exporter.tables.output import compact

            compact(table, replace(commit, lock=self._lock), output=self._destination.output)

    def read_manifest(self) -> dict[str, Any] | None:
        """The published manifest; None when there is none, or none that can be read."""
        return read_manifest(self._home)

    def require_manifest(self) -> None:
        """Raises DestinationError for parts that no manifest names: a run that adds would leave
        them out of its own, and they would be removed.
        """
        store = self._destination.store
        if self.read_manifest() is None and any(is_part(each.name) for each in store.list_files()):
            raise DestinationError(
                f"'{self._destination.output}' has parts, and no manifest that names them",
                hint=f"put {store.path_of(self._home.manifest)} back, or have a run without"
                " --incremental replace the parts",
            )

    def read_manifest_files(self) -> list[dict[str, Any]]:
        """The files of the published output, as its manifest names them."""
        manifest = read_manifest(self._home)
        return [] if manifest is None else manifest["files"]

    def _was_shown(self, manifest: dict[str, Any]) -> bool:
        """Whether the data of the run are there to be read: a table's own log tells."""
        table = self._destination.table
        if table is not None:
            return table.find_commit(manifest["run_id"]) is not None
        return all(self._stands(each) for each in manifest["files"])

    def _stands(self, file: dict[str, Any]) -> bool:
        """Whether a file is there as the manifest says; a part's name is given to one file only."""
        destination = self._destination
        name = destination.name or file["path"]
        if destination.store.size_of(name) != file["size_bytes"]:
            return False
        return destination.kind == "dataset" or digest(destination.store, name) == file["sha256"]

    def _complete(self, intent: Intent) -> None:
        home = self._home
        home.store.replace(home.manifest, dump_manifest(intent.manifest))
        if self._state_at is not None:
            state_store, state_name = self._state_at
            if intent.state is None:  # one that is there knows nothing of what was published now
                state_store.remove([state_name])
            else:
                state_store.replace(state_name, intent.state.encode())
        home.store.remove([home.intent])

    def _undo(self, intent: Intent) -> None:
        """Remove what a run had shown already. The intent goes last: only it names those parts when
        there is no manifest yet.
        """
        self._undone_run_id = intent.manifest["run_id"]
        if self._destination.kind == "dataset":
            store = self._destination.store
            known = {each["path"] for each in self.read_manifest_files()}
            own = f"part-{intent.manifest['run_id']}-"
            store.remove(
                [
                    each.name
                    for each in store.list_files()
                    if each.name.rpartition("/")[2].startswith(own) and each.name not in known
                ]
            )
        self._home.store.remove([self._home.intent])


def parse_intent(content: bytes) -> Intent | None:
    """None for what is no intent."""
    read = parse_json(content)
    if not isinstance(read, dict) or read.keys() != {"manifest", "state"}:
        return None
    manifest, state = read["manifest"], read["state"]
    if not is_manifest(manifest) or not (state is None or isinstance(state, str)):
        return None
    return Intent(manifest, state)


def read_manifest(home: Home) -> dict[str, Any] | None:
    """The published manifest; None when there is none, or none that can be read."""
    content = home.store.read(home.manifest)
    manifest = None if content is None else parse_json(content)
    return manifest if is_manifest(manifest) else None


def is_manifest(value: Any) -> bool:
    """Whether it has what is relied on here."""
    return (
        isinstance(value, dict)
        and isinstance(value.get("run_id"), str)
        and isinstance(value.get("files"), list)
        and all(
            isinstance(file, dict)
            and isinstance(file.get("path"), str)
            and isinstance(file.get("size_bytes"), int)
            and isinstance(file.get("sha256"), str)
            for file in value["files"]
        )
    )


def parse_json(content: bytes) -> Any:
    """None for what cannot be read."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def digest(store: Store, name: str) -> str:
    """The file's SHA-256 in lower-case hexadecimal, read in pieces."""
    hashed = hashlib.sha256()
    with store.open_input(name) as stream:
        while chunk := stream.read(READ_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()
