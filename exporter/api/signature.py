"""Signs a request by ACS3-HMAC-SHA256, version 3 of the signature; performs no I/O.

https://www.alibabacloud.com/help/en/sdk/product-overview/v3-request-structure-and-signature
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from exporter.api.calls import API_VERSION, Call
from exporter.api.credentials import Credential
from exporter.times import format_second

ALGORITHM = "ACS3-HMAC-SHA256"
EMPTY_BODY_SHA256 = hashlib.sha256(b"").hexdigest()


def sign(
    call: Call[Any], *, host: str, credential: Credential, signed_at: datetime, nonce: str
) -> dict[str, str]:
    """All headers of one attempt.

    `host` is the Host header verbatim, with its port; `signed_at` is UTC by the service's clock;
    `nonce` must never have been sent before.
    """
    headers = {
        "host": host,
        "x-acs-action": call.action,
        "x-acs-content-sha256": EMPTY_BODY_SHA256,
        "x-acs-date": format_second(signed_at),
        "x-acs-signature-nonce": nonce,
        "x-acs-version": API_VERSION,
    }
    if credential.security_token is not None:
        headers["x-acs-accesskey-id"] = credential.access_key_id
        headers["x-acs-security-token"] = credential.security_token
    headers["authorization"] = build_authorization(
        method="GET", path=call.path, query=call.query, headers=headers, credential=credential
    )
    return headers


def build_authorization(
    *, method: str, path: str, query: str, headers: Mapping[str, str], credential: Credential
) -> str:
    """The Authorization header; `headers` must hold `x-acs-content-sha256`."""
    request, names = build_canonical_request(
        method=method,
        path=path,
        query=query,
        headers=headers,
        body_sha256=headers["x-acs-content-sha256"],
    )
    digest = hashlib.sha256(request.encode()).hexdigest()
    signature = hmac.new(
        credential.access_key_secret.encode(), f"{ALGORITHM}\n{digest}".encode(), hashlib.sha256
    ).hexdigest()
    return (
        f"{ALGORITHM} Credential={credential.access_key_id},"
        f"SignedHeaders={names},Signature={signature}"
    )


def build_canonical_request(
    *, method: str, path: str, query: str, headers: Mapping[str, str], body_sha256: str
) -> tuple[str, str]:
    """The canonical request, and the names of the signed headers: those of `headers`."""
    lowered = sorted((name.lower(), value.strip()) for name, value in headers.items())
    block = "".join(f"{name}:{value}\n" for name, value in lowered)
    names = ";".join(name for name, _ in lowered)
    return f"{method}\n{path or '/'}\n{query}\n{block}\n{names}\n{body_sha256}", names
