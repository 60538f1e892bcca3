import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.api import calls
from exporter.api.calls import Call
from exporter.api.credentials import Credential
from exporter.api.signature import ALGORITHM, build_authorization, build_canonical_request, sign

DATA = Path(__file__).parents[1] / "data"
VECTORS: list[dict[str, Any]] = json.loads((DATA / "signature_vectors.json").read_text())["vectors"]
PLAIN_HEADERS = {
    "host",
    "x-acs-action",
    "x-acs-content-sha256",
    "x-acs-date",
    "x-acs-signature-nonce",
    "x-acs-version",
}
STS_HEADERS = PLAIN_HEADERS | {"x-acs-accesskey-id", "x-acs-security-token"}
OUR_VECTORS = [
    vector
    for vector in VECTORS
    if vector["method"] == "GET" and set(vector["headers_signed"]) in (PLAIN_HEADERS, STS_HEADERS)
]
"""Those that sign exactly the headers that we send."""

header_names = st.from_regex(r"[a-z][a-z0-9-]{0,15}", fullmatch=True)
header_values = st.text(
    st.characters(min_codepoint=32, max_codepoint=255, exclude_categories=["Cc"]), max_size=20
)
names = st.from_regex(r"[A-Za-z][A-Za-z0-9.]{0,10}", fullmatch=True)
segments = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
keys = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)


def name_of(vector: Mapping[str, Any]) -> str:
    return str(vector["name"])


def credential_of(vector: Mapping[str, Any]) -> Credential:
    return Credential(
        vector["access_key_id"], vector["access_key_secret"], vector["security_token"]
    )


def test_all_thirteen_vectors_are_here() -> None:
    assert len(VECTORS) == len({name_of(vector) for vector in VECTORS}) == 13


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_canonical_query_is_the_vectors(vector: dict[str, Any]) -> None:
    assert calls.build_canonical_query(vector["query_strings"]) == vector["canonical_query"]


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_canonical_request_and_string_to_sign_are_the_vectors(vector: dict[str, Any]) -> None:
    request, signed_names = build_canonical_request(
        method=vector["method"],
        path=vector["pathname"],
        query=vector["canonical_query"],
        headers=vector["headers_signed"],
        body_sha256=vector["headers_signed"]["x-acs-content-sha256"],
    )

    digest = hashlib.sha256(request.encode()).hexdigest()
    assert request == vector["canonical_request"]
    assert f"{ALGORITHM}\n{digest}" == vector["string_to_sign"]
    assert signed_names == vector["signed_headers"]


@pytest.mark.parametrize("vector", VECTORS, ids=name_of)
def test_authorization_is_the_vectors(vector: dict[str, Any]) -> None:
    authorization = build_authorization(
        method=vector["method"],
        path=vector["pathname"],
        query=vector["canonical_query"],
        headers=vector["headers_signed"],
        credential=credential_of(vector),
    )

    assert authorization == vector["authorization"]


@pytest.mark.parametrize("vector", OUR_VECTORS, ids=name_of)
def test_sign_gives_all_headers_of_the_vector_and_no_other(vector: dict[str, Any]) -> None:
    expected: dict[str, str] = vector["headers_signed"]
    call = Call(
        expected["x-acs-action"], vector["pathname"], vector["canonical_query"], "", lambda *_: None
    )

    signed_headers = sign(
        call,
        host=vector["host"],
        credential=credential_of(vector),
        signed_at=datetime.fromisoformat(expected["x-acs-date"]),
        nonce=expected["x-acs-signature-nonce"],
    )

    assert signed_headers == {**expected, "authorization": vector["authorization"]}


def test_vectors_that_sign_what_we_send_cover_tokens_ports_and_every_call() -> None:
    covered = {name_of(vector) for vector in OUR_VECTORS}

    assert covered >= {
        "plain_ak_minimal",
        "sts_minimal",
        "path_escape",
        "host_with_port",
        "list_workspaces",
        "list_livy_compute",
    }


@given(
    method=st.sampled_from(["GET", "POST"]),
    path=st.lists(segments, max_size=5),
    query=st.dictionaries(names, segments, max_size=5),
    headers=st.dictionaries(header_names, header_values, max_size=6),
    key_id=keys,
    secret=keys,
)
@pytest.mark.campaign
def test_authorization_equals_the_official_sdks(  # noqa: PLR0917 - Hypothesis draws them by name
    method: str,
    path: list[str],
    query: dict[str, str],
    headers: dict[str, str],
    key_id: str,
    secret: str,
) -> None:
    from alibabacloud_tea_openapi.utils import Utils
    from darabonba.request import DaraRequest

    body_sha256 = hashlib.sha256(b"").hexdigest()
    request = DaraRequest()
    request.method = method
    request.pathname = "".join(f"/{calls.encode(segment)}" for segment in path)
    request.query = query
    request.headers = {**headers, "x-acs-content-sha256": body_sha256}

    authorization = build_authorization(
        method=method,
        path=request.pathname,
        query=calls.build_canonical_query(query),
        headers=request.headers,
        credential=Credential(key_id, secret),
    )

    assert authorization == Utils.get_authorization(
        request, "ACS3-HMAC-SHA256", body_sha256, key_id, secret
    )
