"""How the stores' URLs are read, and by which host a bucket is reached; performs no I/O."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final, Literal, Protocol

from exporter.errors import UsageError, mask_url, quote, shorten

MAX_LABEL_LENGTH: Final = 63
"""Of a bucket's name, between its dots: it becomes part of a host's."""
MAX_KEY_BYTES: Final = 850
"""Stores take 1,023 at least; an export's own files have longer names than its output."""


class AccessKey(Protocol):
    """One generation of a key; the three values belong together."""

    @property
    def access_key_id(self) -> str: ...
    @property
    def access_key_secret(self) -> str: ...
    @property
    def security_token(self) -> str | None: ...


KeySource = Callable[[], AccessKey]
"""Gives the current key; blocks while it fetches one, and raises CredentialsError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreAccess:
    """The settings of object stores, whichever the output's URL names."""

    region_id: str | None = None
    """The run's region, for stores of the same cloud."""
    network: Literal["public", "vpc"] = "public"
    endpoint: str | None = None
    """In place of the store's own; without a slash at the end."""
    addressing: Literal["virtual", "path"] = "virtual"
    fetch_key: KeySource | None = field(default=None, repr=False)
    """The identity of the API calls, for stores of the same cloud."""
    retries: int = 8
    """The most times that one request is sent again."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """A folder of a bucket, or an object in it, as a URL names it."""

    scheme: str
    bucket: str
    key: str
    """Without a slash at its ends; empty for the whole bucket."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.bucket}/{self.key}".rstrip("/")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the requests for one bucket go."""

    url: str
    """With the bucket in its host if that is how it is addressed."""
    is_virtual: bool
    """Whether the bucket is part of the host, not of the path."""
    region: str
    """The region that requests are signed for."""


def scheme_of(output: str) -> str | None:
    """The part before `://`; None for a local name."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", output)
    return None if match is None else match[1]


def split_url(url: str) -> Address:
    """Raises UsageError for a URL that names no bucket, or a key that not every store can hold."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    is_bucket = re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}", bucket) is not None
    if not is_bucket or max(map(len, bucket.split("."))) > MAX_LABEL_LENGTH:
        raise UsageError(
            f"'{shorten(mask_url(url))}' names no bucket", hint=f"write it as {scheme}://BUCKET/KEY"
        )
    key = key.removesuffix("/")
    segments = key.split("/") if key else []
    if {"", ".", ".."} & set(segments) or re.search(r"[\0-\x1f\x7f\ud800-\udfff]", key):
        raise UsageError(
            f"{quote(url)} is no name for an object",
            hint="write the key without //, . and .. between its slashes",
        )
    if len(key.encode()) > MAX_KEY_BYTES:
        raise UsageError(
            f"{quote(url)} is no name for an object: it is over {MAX_KEY_BYTES:,} bytes long",
            hint="give a shorter name",
        )
    return Address(scheme, bucket, key)


def place_bucket(base: str, bucket: str, *, by_path: bool, region: str) -> Endpoint:
    """The bucket's endpoint below the store's: in the host, unless it is addressed `by_path`."""
    scheme, _, host = base.rstrip("/").partition("://")
    if by_path or is_ip_address(host):
        return Endpoint(f"{scheme}://{host}", is_virtual=False, region=region)
    if not host.startswith(f"{bucket}."):
        host = f"{bucket}.{host}"
    return Endpoint(f"{scheme}://{host}", is_virtual=True, region=region)


def is_ip_address(host: str) -> bool:
    """Whether a host, with a port or without, can have no name in front."""
    bare = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    try:
        ip_address(bare)
    except ValueError:
        return False
    return True
