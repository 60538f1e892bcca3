"""The folder of a Delta table: our own store for it, and deltalake's options to open it."""

import os
from dataclasses import dataclass

from exporter.errors import UsageError, mask_urls, shorten
from exporter.stores.interface import DeltaOptions, Store
from exporter.stores.local import LocalStore
from exporter.stores.registry import find_kind, open_store, parse_address
from exporter.stores.url import StoreAccess, scheme_of


@dataclass(frozen=True, slots=True)
class DeltaFolder:
    """The folder of a table, which need not exist."""

    store: Store
    uri: str
    """An absolute path, or a URL."""
    build_options: DeltaOptions
    """Gives deltalake's storage options. Call it for each use: deltalake renews no key itself."""


def open_folder(output: str, access: StoreAccess) -> DeltaFolder:
    """The folder that an output names, without asking the store.

    Raises UsageError for a name of no folder, MissingExtraError, CredentialsError.
    """
    if scheme_of(output) is None:
        local = LocalStore(output, makes_folder=True)
        return DeltaFolder(local, os.path.realpath(local.url), dict)
    address = parse_address(output)
    if not address.key:
        raise UsageError(
            f"'{shorten(mask_urls(output))}' leaves no room beside the table",
            hint="name a folder in the bucket",
        )
    options = find_kind(address).choose_delta_options(address, access)
    return DeltaFolder(open_store(output, access), address.url, options)
