"""Keeps outputs apart: none is in the folder of another one.

Readers of a folder read every file in it, and a run removes files that its output no longer has.
So an output inside another one would be read twice, or removed.
"""

from collections.abc import Iterator

from exporter.destinations.dataset import is_manifest, require_unnested
from exporter.destinations.destination import Destination
from exporter.errors import DestinationError, StoreRefusedError, UsageError
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore
from exporter.tables.registry import FOLDER_LOGS


def require_apart(destination: Destination) -> None:
    """Raises UsageError for an output inside or around another one's folder; blocks."""
    for outer in find_enclosing(destination):
        if holds_output(outer):
            raise UsageError(
                f"'{destination.output}' is in the folder of another output, '{outer.url}'",
                hint="name a folder beside that one: its readers would take these rows for theirs",
            )
    if destination.kind == "dataset":
        require_unnested(destination.store)


def find_enclosing(destination: Destination) -> Iterator[Store]:
    """The folders that the output is in, the nearest first."""
    if destination.kind == "stream":
        return
    if destination.kind != "dataset":
        yield destination.store
    yield from destination.store.enclosing()


def holds_output(folder: Store) -> bool:
    """Whether the folder itself holds an export or a table; False where it may not be read."""
    try:
        manifest = folder.read("_manifest.json")
        return (manifest is not None and is_manifest(manifest)) or any(
            any(folder.list_files(mark)) for mark in ("_exporter/", *FOLDER_LOGS)
        )
    except StoreRefusedError:
        return False
    except DestinationError:
        if isinstance(folder, LocalStore):
            return False
        raise
