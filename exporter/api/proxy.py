"""Finds the proxy that the environment names; performs no I/O."""

import re
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from exporter.errors import UsageError

VARIABLES = ("https_proxy", "HTTPS_PROXY")
"""The first non-empty one counts."""


@dataclass(frozen=True, slots=True)
class Proxy:
    variable: str
    """The environment variable that names it."""
    url: str
    """Without user and password, so that it may be shown."""
    headers: Mapping[str, str] | None = field(default=None, repr=False)
    """Its Proxy-Authorization; None where it needs none."""


def find_proxy(endpoint: str, *, environ: Mapping[str, str]) -> Proxy | None:
    """The environment's proxy for an endpoint. Raises UsageError if it is malformed.

    It is looked up once: aiohttp's own lookup would take a thread for each request.
    """
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # not in typeshed

    parts = urlsplit(endpoint)
    bypass = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if parts.scheme == "http" or proxy_bypass_environment(parts.netloc, {"no": bypass}):
        return None
    variable = next((name for name in VARIABLES if environ.get(name)), None)
    return None if variable is None else parse_proxy(environ[variable], variable=variable)


def parse_proxy(text: str, *, variable: str) -> Proxy:
    """Raises UsageError without quoting the text, all of which may be a password."""
    scheme, found, rest = text.strip().partition("://")
    if not found and not re.match("https?:/", text, re.IGNORECASE):
        scheme, rest = "http", scheme
    user_part, at, place = rest.rpartition("@")
    host = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(?::([0-9]{1,5}))?/?", place)
    user, _, password = map(unquote, user_part.partition(":"))
    problem = None
    if scheme.lower() not in {"http", "https"}:
        problem = "it does not begin with http:// or https://"
    elif host is None:
        problem = "it has no host, or no valid port"
    elif host[2] is not None and not 1 <= int(host[2]) <= 65535:
        problem = "its port is not one of 1 to 65535"
    if problem is not None or host is None:
        raise UsageError(
            f"{variable} names no proxy: {problem}",
            hint="a proxy reads like http://HOST:PORT, with USER:PASSWORD@ in front of HOST if need"
            " be; NO_PROXY names hosts that need none",
        )
    port = "" if host[2] is None else f":{host[2]}"
    headers = None
    if at:
        # Sent as a header, because errors of aiohttp show URLs.
        token = b64encode(f"{user}:{password}".encode("utf-8", "surrogateescape")).decode()
        headers = {"Proxy-Authorization": f"Basic {token}"}
    return Proxy(variable, f"{scheme.lower()}://{host[1]}{port}", headers)
