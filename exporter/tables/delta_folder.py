"""The folder of a Delta table: our own store for it, and deltalake's options to open it."""

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from exporter.errors import CredentialsError, UsageError, mask_urls, shorten
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore
from exporter.stores.oss import choose_oss_endpoint
from exporter.stores.registry import open_store
from exporter.stores.s3 import choose_aws_identity, choose_s3_endpoint
from exporter.stores.url import Endpoint, KeySource, StoreAccess, parse_address, scheme_of

TIMEOUTS: Final = {"connect_timeout": "10s", "timeout": "90s"}


@dataclass(frozen=True, slots=True)
class DeltaFolder:
    """The folder of a table, which need not exist."""

    store: Store
    uri: str
    """An absolute path, or a URL."""
    build_options: Callable[[], Mapping[str, str]]
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
    store = open_store(output, access)
    match address.scheme:
        case "gs":
            return DeltaFolder(store, address.url, lambda: TIMEOUTS)
        case "s3":
            fetch_key, region = choose_aws_identity(access.environ)
            endpoint = choose_s3_endpoint(address.bucket, access, region=region)
            return DeltaFolder(store, address.url, lambda: build_s3_options(endpoint, fetch_key))
        case "oss":
            if (fetch_key := access.fetch_key) is None:
                raise CredentialsError(f"no identity for 'oss://{address.bucket}'")
            endpoint = choose_oss_endpoint(address.bucket, access)
            return DeltaFolder(
                store,
                address.url,
                lambda: build_oss_options(address.bucket, endpoint, fetch_key),
            )
        case _:
            assert_never(address.scheme)


def build_s3_options(endpoint: Endpoint, fetch_key: KeySource | None) -> dict[str, str]:
    """Without a key deltalake looks for a role, as the AWS rules say."""
    options = {
        **TIMEOUTS,
        # Entries of the log are created only where there is none.
        "AWS_CONDITIONAL_PUT": "etag",
        # Both: the second would come from the environment otherwise.
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ENDPOINT_URL_S3": endpoint.url,
        "AWS_REGION": endpoint.region,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(endpoint.is_virtual).lower(),
        "AWS_ALLOW_HTTP": str(endpoint.url.startswith("http://")).lower(),
    }
    if fetch_key is not None:
        key = fetch_key()
        options["AWS_ACCESS_KEY_ID"] = key.access_key_id
        options["AWS_SECRET_ACCESS_KEY"] = key.access_key_secret
        # Empty rather than absent: the token of another key would come from the environment.
        options["AWS_SESSION_TOKEN"] = key.security_token or ""
    return options


def build_oss_options(bucket: str, endpoint: Endpoint, fetch_key: KeySource) -> dict[str, str]:
    """For OSS's own API, which can create an object only where there is none."""
    key = fetch_key()
    scheme, _, host = endpoint.url.partition("://")
    # The library adds the bucket itself, and does not speak to OSS's S3 endpoints.
    host = re.sub(r"^s3\.(?=oss-)", "", host.removeprefix(f"{bucket}."))
    return {
        "opendal.endpoint": f"{scheme}://{host}",
        "opendal.addressing_style": "virtual" if endpoint.is_virtual else "path",
        "opendal.access_key_id": key.access_key_id,
        "opendal.access_key_secret": key.access_key_secret,
        "opendal.security_token": key.security_token or "",
    }
