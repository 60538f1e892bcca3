"""Publishing as one act, though it takes several writes: what a crash cuts short is completed.

A run's data, manifest and state have names of their own, and no store replaces three names at once.
So a run that has written its data, still invisible, first writes what it is about to publish: the
*intent*, with the manifest and the state in it. From then on a crash leaves the intent behind, and
the next run goes by it: if all data files stand as the manifest says, the publish is completed, and
if not, it never happened.
"""

import hashlib
import logging
from typing import Any

import orjson

from exporter.destinations import Destination, Home, is_part
from exporter.runs.manifest import dump_manifest
from exporter.sinks import Output
from exporter.stores import Store

logger = logging.getLogger(__name__)

READ_BYTES = 1 << 20


class Publisher:
    """Where one run publishes its manifest and state; blocks, as stores do."""

    def __init__(
        self, destination: Destination, home: Home, *, state_at: tuple[Store, str] | None
    ) -> None:
        self._destination = destination
        self._home = home
        self._state_at = state_at
        """The store and name of the state; None where there is none."""

    def publish(self, output: Output, manifest: dict[str, Any], state: bytes | None) -> None:
        """Show the output, its manifest and its state; a crash at any point is put right later."""
        text = None if state is None else state.decode()
        intent = orjson.dumps({"manifest": manifest, "state": text})
        self._home.store.replace(self._home.intent, intent)
        output.publish()
        self._complete(manifest, text)

    def recover(self) -> None:
        """Complete, or undo, what a killed run began to publish, and remove what it left.

        Only for who holds the output's lock.
        """
        home = self._home
        intent = read_json(home.store, home.intent)
        if intent is not None:
            manifest, state = intent["manifest"], intent["state"]
            if all(self._stands(each) for each in manifest["files"]):
                self._complete(manifest, state)
                logger.warning(
                    "completed the publish of run %s, which was cut short", manifest["run_id"]
                )
            else:
                home.store.remove([home.intent])
        self.remove_leftovers()

    def remove_leftovers(self) -> None:
        """Remove what is not, or no longer, part of the output: parts of former versions and of
        runs that died.
        """
        store = self._destination.store
        if self._destination.kind != "dataset":
            store.remove_leftovers([self._destination.name, self._home.manifest, self._home.intent])
            return
        store.remove_leftovers()
        known = {each["path"] for each in self.read_manifest_files()}
        store.remove(
            [
                each.name
                for each in store.list_files()
                if is_part(each.name) and each.name not in known
            ]
        )

    def read_manifest_files(self) -> list[dict[str, Any]]:
        """The files of the published output, as its manifest names them."""
        manifest = read_json(self._home.store, self._home.manifest)
        return [] if manifest is None else manifest["files"]

    def _stands(self, file: dict[str, Any]) -> bool:
        """Whether a file is there as the manifest says; a part's name is given to one file only."""
        destination = self._destination
        name = destination.name or file["path"]
        if destination.store.size_of(name) != file["size_bytes"]:
            return False
        return destination.kind == "dataset" or digest(destination.store, name) == file["sha256"]

    def _complete(self, manifest: dict[str, Any], state: str | None) -> None:
        home = self._home
        home.store.replace(home.manifest, dump_manifest(manifest))
        if state is not None and self._state_at is not None:
            state_store, state_name = self._state_at
            state_store.replace(state_name, state.encode())
        home.store.remove([home.intent])


def read_json(store: Store, name: str) -> Any:
    """The document; None when there is none, or none that can be read."""
    content = store.read(name)
    try:
        return None if content is None else orjson.loads(content)
    except orjson.JSONDecodeError:
        return None


def digest(store: Store, name: str) -> str:
    """The file's SHA-256 in lower-case hexadecimal, read in pieces."""
    hashed = hashlib.sha256()
    with store.open_input(name) as stream:
        while chunk := stream.read(READ_BYTES):
            hashed.update(chunk)
    return hashed.hexdigest()
