"""Parts that the clients of all object stores share: limits of time, retries, the current key."""

import logging
import math
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from exporter.errors import ExporterError
from exporter.stores.error_map import ErrorMap
from exporter.stores.url import KeySource

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Credential

logger = logging.getLogger(__name__)

CONNECT_TIMEOUT: Final = timedelta(seconds=10)
REQUEST_TIMEOUT: Final = timedelta(seconds=90)
"""Of one attempt; a part of 8 MiB takes that long at 100 KB/s."""
RETRY_TIMEOUT: Final = timedelta(seconds=120)
"""All attempts of one request: a signature is made once and is good for 15 minutes."""
DELTA_TIMEOUTS: Final = {"connect_timeout": "10s", "timeout": "90s"}
"""The same limits, as deltalake reads them."""
KEY_REUSE: Final = timedelta(seconds=60)
"""A provider renews its token minutes before the end, so that one is always good for this long."""


@dataclass(frozen=True, slots=True)
class Clients:
    """The clients of one bucket. Each request of theirs ends within the same time."""

    plain: "ObjectStore"
    creator: "ObjectStore | None" = None
    """A client whose writes the store refuses where there is an object; None where the store knows
    the usual conditional write, `If-None-Match`.
    """


def build_client_options(
    url: str, *, within_s: float, headers: dict[str, str] | None = None
) -> "ClientConfig":
    return {
        "allow_http": url.startswith("http://"),
        "connect_timeout": limit(CONNECT_TIMEOUT, within_s),
        "timeout": limit(REQUEST_TIMEOUT, within_s),
        "default_headers": headers or {},
        "user_agent": "livy-exporter",
    }


def build_retry_config(retries: int, *, within_s: float) -> "RetryConfig":
    return {
        "max_retries": retries,
        "retry_timeout": limit(RETRY_TIMEOUT, within_s),
        "backoff": {
            "init_backoff": limit(timedelta(milliseconds=200), within_s),
            "max_backoff": limit(timedelta(seconds=10), within_s),
            "base": 2,
        },
    }


def limit(time: timedelta, within_s: float) -> timedelta:
    """At most a third of the time that a request has with all its attempts: the last one begins
    after `retry_timeout` and one wait at the latest, and takes one `timeout` at most.
    """
    return time if within_s == math.inf else min(time, timedelta(seconds=within_s / 3))


class KeyCallback:
    """Gives the client a key whenever it signs, so that an upload outlives the token it began with.

    While no new key can be fetched the old one is used, until the store refuses it.
    """

    def __init__(self, fetch_key: KeySource, errors: ErrorMap) -> None:
        self._fetch_key = fetch_key
        self._errors = errors
        self._credential: S3Credential | None = None
        self._fetched_at = datetime.min.replace(tzinfo=UTC)
        self._has_warned = False

    def __call__(self) -> "S3Credential":
        now = datetime.now(UTC)
        if self._credential is not None and now - self._fetched_at < KEY_REUSE:
            return self._credential
        self._fetched_at = now
        try:
            key = self._fetch_key()
        except ExporterError as exc:
            if self._credential is None:
                self._errors.identity_error = exc
                raise
            if not self._has_warned:
                self._has_warned = True
                logger.warning("the store's key is used on: %s", exc)
            return self._credential
        self._errors.identity_error = None
        self._credential = {
            "access_key_id": key.access_key_id,
            "secret_access_key": key.access_key_secret,
            "token": key.security_token,
            # The client asks again for each request: how long to keep a key is decided here.
            "expires_at": now,
        }
        return self._credential
