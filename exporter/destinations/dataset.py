"""The files of a dataset's folder: which are a run's, and whether it may be written to."""

import shlex
from collections.abc import Iterator

import orjson

from exporter.errors import (
    DestinationError,
    UsageError,
)
from exporter.sinks.dataset import is_part
from exporter.stores.interface import Store

OWN_FOLDERS = ("_exporter/", "_manifests/")
"""Folders of a dataset that hold no data."""


def is_own(name: str) -> bool:
    """Whether a file of a dataset is one that runs write there."""
    return name == "_manifest.json" or name.startswith(OWN_FOLDERS) or is_part(name)


def require_dataset(store: Store) -> None:
    """Raises DestinationError for a folder that holds something else, UsageError for one that holds
    another output.
    """
    manifest = store.read("_manifest.json")
    if manifest is not None and is_ours(manifest):
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
    """Raises UsageError for a folder that has an output of its own somewhere below."""
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
        for mark in ("/_exporter/", "/_delta_log/"):
            if mark in each.name:
                yield each.name.partition(mark)[0]
        if each.name.endswith("/_manifest.json") and is_ours(store.read(each.name) or b"null"):
            yield each.name.removesuffix("/_manifest.json")


def is_ours(manifest: bytes) -> bool:
    try:
        read = orjson.loads(manifest)
    except orjson.JSONDecodeError:  # one that was damaged since; the next publish replaces it
        return True
    return isinstance(read, dict) and "manifest_version" in read
