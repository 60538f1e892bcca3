import pytest

from exporter.emulator.signature import (
    Authorization,
    ReceivedRequest,
    build_canonical_request,
    build_string_to_sign,
    parse_authorization,
    signature_holds,
)

EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def receive(
    *, raw_path: str = "/", raw_query: str = "", headers: dict[str, str] | None = None
) -> ReceivedRequest:
    return ReceivedRequest(
        method="GET",
        raw_path=raw_path,
        raw_query=raw_query,
        headers={"host": "example"} if headers is None else headers,
        body_sha256=EMPTY_SHA256,
    )


def test_the_fixed_example_of_the_services_own_documentation_holds() -> None:
    headers = {
        "host": "ecs.cn-shanghai.aliyuncs.com",
        "x-acs-action": "RunInstances",
        "x-acs-content-sha256": EMPTY_SHA256,
        "x-acs-date": "2023-10-26T10:22:32Z",
        "x-acs-signature-nonce": "3156853299f313e23d1673dc12e1703d",
        "x-acs-version": "2014-05-26",
    }
    request = ReceivedRequest(
        method="POST",
        raw_path="/",
        raw_query=(
            "ImageId=win2019_1809_x64_dtc_zh-cn_40G_alibase_20230811.vhd&RegionId=cn-shanghai"
        ),
        headers=headers,
        body_sha256=EMPTY_SHA256,
    )

    string_to_sign = build_string_to_sign(build_canonical_request(request, tuple(headers)))

    assert string_to_sign.endswith(
        "7ea06492da5221eba5297e897ce16e55f964061054b7695beedaac1145b1e259"
    )
    signature = "06563a9e1b43f5dfe96b81484da74bceab24a1d853912eee15083a6f0f3283c0"
    assert signature_holds(signature, string_to_sign=string_to_sign, secret="YourAccessKeySecret")
    assert not signature_holds(signature, string_to_sign=string_to_sign, secret="another")


@pytest.mark.parametrize(
    "wire",
    ["v=a%20b%2A%2F%3A%40~%2B", "v=a+b*/:@~%2B", "v=a%20b*/:%40%7e%2b", "v=a%20b%2a/%3a@~%2B"],
)
def test_query_is_signed_in_canonical_encoding_however_it_was_sent(wire: str) -> None:
    canonical = build_canonical_request(receive(raw_query=wire), ("host",))

    assert canonical.split("\n")[2] == "v=a%20b%2A%2F%3A%40~%2B"


def test_query_is_sorted_and_keeps_empty_values() -> None:
    canonical = build_canonical_request(receive(raw_query="b=2&c=&a=1"), ("host",))

    assert canonical.split("\n")[2] == "a=1&b=2&c="


@pytest.mark.parametrize("wire", ["/a%2Ab%2Fc%3A~/s", "/a*b%2Fc:~/s", "/a%2ab%2fc%3a%7E/s"])
def test_path_segments_are_signed_in_canonical_encoding_however_they_were_sent(wire: str) -> None:
    canonical = build_canonical_request(receive(raw_path=wire), ("host",))

    assert canonical.split("\n")[1] == "/a%2Ab%2Fc%3A~/s"


def test_headers_are_sorted_and_trimmed_and_a_missing_one_is_empty() -> None:
    request = receive(headers={"x-acs-b": " two ", "host": "h:1"})

    canonical = build_canonical_request(request, ("x-acs-b", "x-acs-a", "host"))

    assert canonical.split("\n")[3:] == [
        "host:h:1",
        "x-acs-a:",
        "x-acs-b:two",
        "",
        "host;x-acs-a;x-acs-b",
        EMPTY_SHA256,
    ]


@pytest.mark.parametrize("separator", [",", ", "])
def test_authorization_is_parsed_with_and_without_spaces(separator: str) -> None:
    parts = ("Credential=key", "SignedHeaders=host;X-Acs-Date", f"Signature={'0' * 64}")

    authorization = parse_authorization(f"ACS3-HMAC-SHA256 {separator.join(parts)}")

    assert authorization == Authorization("key", ("host", "x-acs-date"), "0" * 64)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ACS3-HMAC-SHA256",
        "ACS3-HMAC-SHA256 Credential=key,Signature=" + "0" * 64,
        "ACS3-HMAC-SHA256 Credential=key,SignedHeaders=host,Signature=short",
        "Basic dXNlcjpwYXNz",
    ],
)
def test_anything_else_is_no_authorization(text: str) -> None:
    assert parse_authorization(text) is None
