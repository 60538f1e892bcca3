"""A dataset's folder: which files runs write there, and whether a run may."""

import shlex
from collections.abc import Iterator

import orjson

from exporter.errors import DestinationError, UsageError
from exporter.sinks.dataset import is_part
from exporter.stores.interface import Store
from exporter.tables.registry import FOLDER_LOGS

OWN_FOLDERS = ("_exporter/", "_manifests/")
"""Folders of a dataset that hold no data."""


def is_own(name: str) -> bool:
    """Whether runs write a file of this name in a dataset."""
    return name == "_manifest.json" or name.startswith(OWN_FOLDERS) or is_part(name)


def require_dataset(store: Store) -> None:
    """Raises DestinationError for a folder with other files, UsageError for one with another output
    in it.
    """
    manifest = store.read("_manifest.json")
    if manifest is not None and is_manifest(manifest):
        return
    require_unnested(store)
    for each in store.list_files():
        if not each.name.startswith(OWN_FOLDERS) and not is_part(each.name):
            raise DestinationError(
                f"'{store.url}' holds something else than an export: '{each.name}'",
                hint="name a new or an empty folder, or a file in it, such as "
                + shlex.quote(store.path_of("sessions.parquet")),
            )


def require_unnested(store: Store) -> None:
    """Raises UsageError for a folder that has another output anywhere below it."""
    inner = next(find_nested(store), None)
    if inner is not None:
        raise UsageError(
            f"'{store.url}' holds another output, '{store.path_of(inner)}'",
            hint="name a folder beside that one: readers of this one would take its rows for"
            " theirs",
        )


def find_nested(store: Store) -> Iterator[str]:
    """The folders below this one that are outputs of their own."""
    for each in store.list_files():
        if each.name.startswith(OWN_FOLDERS):
            continue
        for mark in ("_exporter/", *FOLDER_LOGS):
            if f"/{mark}" in each.name:
                yield each.name.partition(f"/{mark}")[0]
        if each.name.endswith("/_manifest.json") and is_manifest(store.read(each.name) or b"null"):
            yield each.name.removesuffix("/_manifest.json")


def is_manifest(content: bytes) -> bool:
    """Whether a `_manifest.json` is one of ours: other tools write files of that name."""
    try:
        read = orjson.loads(content)
    except orjson.JSONDecodeError:  # a damaged one; the next publish replaces it
        return True
    return isinstance(read, dict) and "manifest_version" in read
