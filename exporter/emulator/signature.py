"""Verifies ACS3-HMAC-SHA256 signatures, as the service does; performs no I/O.

Written from the public description and on purpose without the client's code, so that a mistake in
one is not repeated in the other:
https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature
"""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, quote, unquote

ALGORITHM = "ACS3-HMAC-SHA256"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    method: str
    raw_path: str
    """As received, without the query."""
    raw_query: str
    headers: Mapping[str, str]
    """Lower-case names; the values of a repeated header are joined with commas."""
    body_sha256: str
    """Lower-case hex."""

    def query(self) -> list[tuple[str, str]]:
        """Decoded; a `+` is a space, as the official SDK's sync client writes it."""
        return parse_qsl(self.raw_query, keep_blank_values=True)


@dataclass(frozen=True, slots=True)
class Authorization:
    access_key_id: str
    signed_headers: tuple[str, ...]
    """Lower-case, in the client's order."""
    signature: str


_AUTHORIZATION = re.compile(
    rf"{ALGORITHM}\s+Credential=([^,\s]+)\s*,\s*SignedHeaders=([^,\s]+)\s*,\s*Signature=([0-9a-f]{{64}})"
)


def parse_authorization(text: str) -> Authorization | None:
    """None if the text is no Authorization of this algorithm."""
    match = _AUTHORIZATION.fullmatch(text.strip())
    if match is None:
        return None
    access_key_id, signed_headers, signature = match.groups()
    return Authorization(access_key_id, tuple(signed_headers.lower().split(";")), signature)


def build_canonical_request(request: ReceivedRequest, signed_headers: tuple[str, ...]) -> str:
    """The text that both sides sign, with values decoded and encoded again.

    So a client may sign characters encoded and send them plain (`*` in a path, `/` or `+` in a
    query), which the service accepts in the query. A signed header that is missing counts as empty.
    """
    names = sorted(set(signed_headers))
    # Clients sign path segments encoded once; a decoded "/" can only come from "%2F".
    path = "/".join(_encode(unquote(segment)) for segment in request.raw_path.split("/"))
    query = "&".join(f"{_encode(name)}={_encode(value)}" for name, value in sorted(request.query()))
    headers = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in names)
    return "\n".join(
        (request.method, path or "/", query, headers, ";".join(names), request.body_sha256)
    )


def build_string_to_sign(canonical_request: str) -> str:
    return f"{ALGORITHM}\n{hashlib.sha256(canonical_request.encode()).hexdigest()}"


def signature_holds(signature: str, *, string_to_sign: str, secret: str) -> bool:
    expected = hmac.new(secret.encode(), string_to_sign.encode(), hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, expected)


def _encode(text: str) -> str:
    """RFC 3986: the unreserved characters stay, all else becomes upper-case `%XX` of its UTF-8."""
    return quote(text, safe="-_.~")
