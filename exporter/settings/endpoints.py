"""Endpoints of the service and of object stores: built and checked; performs no I/O."""

import re

from exporter.errors import UsageError, mask_url, quote, shorten

MAX_REGION_LENGTH = 50
"""So that it fits in a host's label."""
MAX_HOST_LENGTH = 253
MAX_LABEL_LENGTH = 63
BASE_PATTERN = r"(https?)://(\[[0-9a-f:.]+\]|[\w.-]+)(?::([0-9]{1,5}))?"
"""Scheme, host and port."""


def build_endpoint(*, region: str, network: str) -> str:
    """The service's public or VPC endpoint in a region, by the official SDK's rule."""
    suffix = "-vpc" if network == "vpc" else ""
    return f"https://emr-serverless-spark{suffix}.{region}.aliyuncs.com"


def check_region(region: str) -> str:
    """The region as given. Raises UsageError by its form alone: a new region needs no release."""
    is_fit = re.fullmatch(r"[a-z]{2,}(-[a-z0-9]+)+", region) is not None
    if not is_fit or len(region) > MAX_REGION_LENGTH:
        raise UsageError(
            f"{quote(region)} is no region id", hint="a region id reads like cn-hangzhou"
        )
    return region


def check_endpoint(url: str) -> str:
    """The endpoint without a trailing slash.

    Raises UsageError unless it is https://HOST[:PORT], or http:// to a loopback address: requests
    carry signatures and STS tokens that must not travel in clear. The error shows no password.
    """
    match = re.fullmatch(f"{BASE_PATTERN}/?", url, re.ASCII | re.IGNORECASE)
    if match is None:
        raise UsageError(
            f"'{shorten(mask_url(url))}' is no endpoint",
            hint="an endpoint reads like https://HOST:PORT",
        )
    scheme, host = match[1].lower(), match[2].lower()
    default_port = {"http": 80, "https": 443}[scheme]
    port = int(match[3] or default_port)
    if not 1 <= port <= 65535:
        raise UsageError(f"'{shorten(url)}' has no valid port", hint="ports are 1 to 65535")
    if not is_host(host):
        raise UsageError(
            f"'{shorten(host)}' is no host",
            hint=f"between its dots a host has 1 to {MAX_LABEL_LENGTH} characters, and"
            f" {MAX_HOST_LENGTH} in all",
        )
    if scheme == "http" and not is_loopback(host.strip("[]")):
        raise UsageError(
            f"http:// to {host} would send signed requests in clear",
            hint="use https://; http:// is for loopback addresses",
        )
    # HTTP clients leave the default port out of the Host header, which is signed.
    return f"{scheme}://{host}" if port == default_port else f"{scheme}://{host}:{port}"


def require_url(url: str, *, source: str) -> None:
    """Raises UsageError for a URL that no client can use as an object store's endpoint.

    It may have a path, and be `http://` to anywhere; `source` names the setting.
    """
    match = re.fullmatch(f"{BASE_PATTERN}(/[!-~]*)?", url, re.ASCII | re.IGNORECASE)
    is_fit = match is not None and is_host(match[2]) and 1 <= int(match[3] or 443) <= 65535
    if not is_fit or re.search(r"[?#@]", url) is not None:
        raise UsageError(
            f"{source} is '{shorten(mask_url(url))}', which is no endpoint",
            hint="an endpoint reads like https://HOST:PORT",
        )


def is_host(host: str) -> bool:
    """An IPv6 address in brackets, or a name whose length DNS allows."""
    import ipaddress

    if host.startswith("["):
        try:
            return ipaddress.ip_address(host.strip("[]")).version == 6
        except ValueError:
            return False
    labels = host.removesuffix(".").split(".")
    return len(host) <= MAX_HOST_LENGTH and all(
        1 <= len(label) <= MAX_LABEL_LENGTH for label in labels
    )


def is_loopback(host: str) -> bool:
    import ipaddress

    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
