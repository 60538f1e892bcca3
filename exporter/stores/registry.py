"""Opens the store that a URL names, with the identity and the endpoint that belong to it."""

import logging
import math
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from exporter.errors import CredentialsError, ExporterError
from exporter.stores.error_map import Failures
from exporter.stores.interface import Store
from exporter.stores.multipart import OpenUploads
from exporter.stores.objects import Clients, ObjectStore
from exporter.stores.oss import choose_oss_endpoint
from exporter.stores.s3 import choose_aws_identity, choose_s3_endpoint
from exporter.stores.url import Address, Endpoint, KeySource, StoreAccess, parse_address

if TYPE_CHECKING:
    from obstore.store import ClientConfig, GCSConfig, RetryConfig, S3Credential, S3Store

CONNECT_TIMEOUT: Final = timedelta(seconds=10)
REQUEST_TIMEOUT: Final = timedelta(seconds=90)
"""Of one attempt; a part of 8 MiB takes that long at 100 KB/s."""
RETRY_TIMEOUT: Final = timedelta(seconds=120)
"""All attempts of one request: a signature is made once and is good for 15 minutes."""
logger = logging.getLogger(__name__)

REUSE: Final = timedelta(seconds=60)
"""A provider renews its token minutes before the end, so that one is always good for this long."""


def open_store(url: str, access: StoreAccess) -> Store:
    """The store of the folder that a URL names; nothing is asked of it yet.

    Raises UsageError for a URL or settings that cannot be, MissingExtraError, CredentialsError.
    """
    address = parse_address(url)
    match address.scheme:
        case "s3":
            fetch_key, region = choose_aws_identity(access.environ)
            endpoint = choose_s3_endpoint(address.bucket, access, region=region)
            return open_s3(address, endpoint, access, fetch_key=fetch_key)
        case "oss":
            if access.fetch_key is None:
                raise CredentialsError(f"no identity for '{address.url}'")
            endpoint = choose_oss_endpoint(address.bucket, access)
            return open_s3(address, endpoint, access, fetch_key=access.fetch_key)
        case "gs":
            return open_gcs(address, access)


def open_s3(
    address: Address, endpoint: Endpoint, access: StoreAccess, *, fetch_key: KeySource | None
) -> ObjectStore:
    from obstore.store import S3Store

    failures = Failures(address, endpoint)
    keys = None if fetch_key is None else KeyCallback(fetch_key, failures)
    is_oss = address.scheme == "oss"

    def build(*, headers: dict[str, str], retries: int, within_s: float) -> "S3Store":
        with failures.translated(address.url, doing="open"):
            return S3Store(
                address.bucket,
                config={
                    # Both: the second would come from the environment otherwise.
                    "endpoint": endpoint.url,
                    "aws_endpoint_url_s3": endpoint.url,
                    "region": endpoint.region,
                    "virtual_hosted_style_request": endpoint.is_virtual,
                    # OSS wants a Content-MD5 there, which the client does not send.
                    "disable_bulk_delete": is_oss,
                },
                client_options=build_client_options(
                    endpoint.url, headers=headers, within_s=within_s
                ),
                retry_config=build_retry_config(retries, within_s=within_s),
                credential_provider=keys,
            )

    def build_clients(within_s: float) -> Clients:
        plain = build(headers={}, retries=access.retries, within_s=within_s)
        if not is_oss:
            return Clients(plain, None)
        # One attempt: a second could meet the object of the first, whose answer was lost.
        forbidding = {"x-oss-forbid-overwrite": "true"}
        return Clients(plain, build(headers=forbidding, retries=0, within_s=within_s))

    return ObjectStore(
        address,
        build_clients=build_clients,
        failures=failures,
        uploads=None
        if fetch_key is None
        else OpenUploads(address, endpoint, fetch_key=fetch_key, now=lambda: datetime.now(UTC)),
    )


def open_gcs(address: Address, access: StoreAccess) -> ObjectStore:
    from obstore.store import GCSStore

    failures = Failures(address, None)
    config: GCSConfig = {} if access.endpoint is None else {"base_url": access.endpoint}

    def build_clients(within_s: float) -> Clients:
        url = access.endpoint or "https://"
        with failures.translated(address.url, doing="open"):
            client = GCSStore(
                address.bucket,
                config=config,
                client_options=build_client_options(url, headers={}, within_s=within_s),
                retry_config=build_retry_config(access.retries, within_s=within_s),
            )
        return Clients(client, None)

    return ObjectStore(address, build_clients=build_clients, failures=failures, uploads=None)


def build_client_options(
    url: str, *, headers: dict[str, str], within_s: float = math.inf
) -> "ClientConfig":
    return {
        "allow_http": url.startswith("http://"),
        "connect_timeout": shorten(CONNECT_TIMEOUT, within_s),
        "timeout": shorten(REQUEST_TIMEOUT, within_s),
        "default_headers": headers,
        "user_agent": "livy-exporter",
    }


def build_retry_config(retries: int, *, within_s: float = math.inf) -> "RetryConfig":
    return {
        "max_retries": retries,
        "retry_timeout": shorten(RETRY_TIMEOUT, within_s),
        "backoff": {
            "init_backoff": shorten(timedelta(milliseconds=200), within_s),
            "max_backoff": shorten(timedelta(seconds=10), within_s),
            "base": 2,
        },
    }


def shorten(time: timedelta, within_s: float) -> timedelta:
    """A third of the time that all tries of a request have: the last one begins after as much of
    them as `retry_timeout` says and one wait more, and takes one `timeout` at most.
    """
    return time if within_s == math.inf else min(time, timedelta(seconds=within_s / 3))


class KeyCallback:
    """Gives the client a key whenever it signs, so that an upload outlives the token it began
    with. One that cannot be had anew is used on, until the store refuses it.
    """

    def __init__(self, fetch_key: KeySource, failures: Failures) -> None:
        self._fetch_key = fetch_key
        self._failures = failures
        self._found: S3Credential | None = None
        self._found_at = datetime.min.replace(tzinfo=UTC)
        self._warned = False

    def __call__(self) -> "S3Credential":
        now = datetime.now(UTC)
        if self._found is None or now - self._found_at >= REUSE:
            try:
                key = self._fetch_key()
            except ExporterError as exc:
                if self._found is not None:
                    if not self._warned:
                        self._warned = True
                        logger.warning("the store's key is used on: %s", exc)
                    self._found_at = now
                    return self._found
                self._failures.of_identity = exc
                raise
            self._failures.of_identity = None
            self._found = {
                "access_key_id": key.access_key_id,
                "secret_access_key": key.access_key_secret,
                "token": key.security_token,
                # The client asks again for each request: how long to keep a key is decided here.
                "expires_at": now,
            }
            self._found_at = now
        return self._found
