"""Keeps outputs apart: none is in the folder of another one.

Readers of a folder take all that is in it for its rows, and a run removes what its output no longer
consists of. An output inside of another one would be read twice, or removed.
"""

from collections.abc import Iterator

from exporter.destinations.dataset import is_ours, require_unnested
from exporter.destinations.destination import Destination
from exporter.errors import DestinationError, StoreRefusedError, UsageError
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore


def require_apart(destination: Destination) -> None:
    """Raises UsageError for an output in the folder of another one, or around one; blocks."""
    for outer in find_enclosing(destination):
        if holds_output(outer):
            raise UsageError(
                f"'{destination.output}' is in the folder of another output, '{outer.url}'",
                hint="name a folder beside that one: its readers would take these rows for theirs",
            )
    if destination.kind == "dataset":
        require_unnested(destination.store)


def find_enclosing(destination: Destination) -> Iterator[Store]:
    if destination.kind == "stream":
        return
    if destination.kind != "dataset":
        yield destination.store
    yield from destination.store.enclosing()


def holds_output(folder: Store) -> bool:
    """Whether an export or a table is kept in the folder itself; not so where nobody may look."""
    try:
        manifest = folder.read("_manifest.json")
        return (
            (manifest is not None and is_ours(manifest))
            or any(folder.list_files("_exporter/"))
            or any(folder.list_files("_delta_log/"))
        )
    except StoreRefusedError:
        return False
    except DestinationError:
        if isinstance(folder, LocalStore):
            return False
        raise
