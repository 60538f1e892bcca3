"""The kinds of object stores: the one place that lists them, and opens them."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final, cast

from exporter.errors import UsageError, mask_url, shorten
from exporter.stores.interface import Store, StoreKind
from exporter.stores.url import Address, StoreAccess, scheme_of, split_url

STORES: Final[Mapping[str, str]] = {
    "s3": "exporter.stores.s3",
    "oss": "exporter.stores.oss",
    "gs": "exporter.stores.gcs",
}
"""The module of each kind by the scheme of its URLs. It has KIND, a `StoreKind`, and is loaded only
when a store is opened. A new kind needs one such module, and one line here.
"""


def is_object_store(output: str) -> bool:
    return scheme_of(output) in STORES


def parse_address(url: str) -> Address:
    """Raises UsageError for a URL of no known store, without a bucket, or of an unusable key."""
    scheme = url.partition("://")[0]
    if scheme not in STORES:
        urls = ", ".join(f"{each}://BUCKET/KEY" for each in STORES)
        raise UsageError(
            f"cannot write to '{shorten(mask_url(url))}': '{shorten(scheme)}://' is not supported",
            hint=f"name a local file, a folder, {urls}, or - for stdout",
        )
    return split_url(url)


def find_kind(address: Address) -> StoreKind:
    return cast("StoreKind", import_module(STORES[address.scheme]).KIND)


def open_store(url: str, access: StoreAccess) -> Store:
    """The store of the folder that a URL names; sends no request yet.

    Raises UsageError for a URL or settings that cannot be, MissingExtraError, CredentialsError.
    """
    address = parse_address(url)
    return find_kind(address).open_store(address, access)
