"""Where a Delta table is: a store for what we write, and the same place as deltalake reads it."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from exporter.errors import CredentialsError
from exporter.stores import Store
from exporter.stores.addresses import (
    Endpoint,
    KeySource,
    StoreAccess,
    choose_oss_endpoint,
    choose_s3_endpoint,
    parse_address,
    scheme_of,
)
from exporter.stores.aws import choose_aws_identity
from exporter.stores.local import LocalStore
from exporter.stores.opening import open_store

TIMEOUTS: Final = {"connect_timeout": "10s", "timeout": "90s"}


@dataclass(frozen=True, slots=True)
class DeltaStorage:
    """A folder, for a table that is there or yet to be made."""

    store: Store
    uri: str
    """An absolute path, or a URL: OSS is one more S3 to deltalake."""
    read_options: Callable[[], Mapping[str, str]]
    """What deltalake opens the uri with. It renews no key by itself: asked for each time."""


def open_delta_storage(output: str, access: StoreAccess) -> DeltaStorage:
    """The folder that an output names; nothing is asked of it yet.

    Raises UsageError for a URL or settings that cannot be, MissingExtraError, CredentialsError.
    """
    if scheme_of(output) is None:
        store = LocalStore(output, makes_folder=True)
        return DeltaStorage(store, os.path.realpath(store.url), dict)
    address = parse_address(output)
    at = f"{address.bucket}/{address.key}"
    fetch_key: KeySource | None
    match address.scheme:
        case "gs":
            return DeltaStorage(open_store(output, access), f"gs://{at}", lambda: TIMEOUTS)
        case "s3":
            fetch_key, region = choose_aws_identity(access.environ)
            endpoint = choose_s3_endpoint(address.bucket, access, region=region)
        case "oss":
            if access.fetch_key is None:
                raise CredentialsError(f"no identity for '{address.url}'")
            fetch_key = access.fetch_key
            endpoint = choose_oss_endpoint(address.bucket, access)

    def read_options() -> Mapping[str, str]:
        return build_s3_options(endpoint, fetch_key)

    return DeltaStorage(open_store(output, access), f"s3://{at}", read_options)


def build_s3_options(endpoint: Endpoint, fetch_key: KeySource | None) -> dict[str, str]:
    """Without a key deltalake looks for a role, as the AWS rules say."""
    options = {
        **TIMEOUTS,
        # Both: the second would come from the environment otherwise.
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ENDPOINT_URL_S3": endpoint.url,
        "AWS_REGION": endpoint.region,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(endpoint.is_virtual).lower(),
        "AWS_ALLOW_HTTP": str(endpoint.url.startswith("http://")).lower(),
        # OSS wants a Content-MD5 there, which the client does not send.
        "AWS_DISABLE_BULK_DELETE": "true",
    }
    if fetch_key is not None:
        key = fetch_key()
        options["AWS_ACCESS_KEY_ID"] = key.access_key_id
        options["AWS_SECRET_ACCESS_KEY"] = key.access_key_secret
        # Empty rather than away: the token of another key would come from the environment.
        options["AWS_SESSION_TOKEN"] = key.security_token or ""
    return options
