"""Where a Delta table is: a store for what we ask of it, and the same place as for deltalake."""

import os
from dataclasses import dataclass

from exporter.errors import UsageError, mask_urls, shorten
from exporter.stores.interface import DeltaOptions, Store
from exporter.stores.local import LocalStore
from exporter.stores.registry import find_kind, open_store, parse_address
from exporter.stores.url import StoreAccess, scheme_of


@dataclass(frozen=True, slots=True)
class DeltaFolder:
    """The folder of a table that is there or yet to be made."""

    store: Store
    uri: str
    """An absolute path, or a URL."""
    build_options: DeltaOptions


def open_folder(output: str, access: StoreAccess) -> DeltaFolder:
    """The folder that an output names; nothing is asked of it yet.

    Raises UsageError for what cannot be one, MissingExtraError, CredentialsError.
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
