"""The endpoint and the key of a bucket's requests, and their signature."""

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter.api.credentials import Credential
from exporter.destinations.access import build_store_access
from exporter.destinations.resolve import resolve_destination
from exporter.errors import CredentialsError, DestinationError, MissingExtraError, UsageError
from exporter.settings.settings import Settings
from exporter.stores import client
from exporter.stores.aws_identity import AwsKey, choose_aws_identity
from exporter.stores.error_map import ErrorMap
from exporter.stores.multipart import OpenUpload, build_request, parse_uploads
from exporter.stores.oss import choose_oss_endpoint
from exporter.stores.registry import open_store, parse_address
from exporter.stores.s3 import AWS_REGION, choose_s3_endpoint
from exporter.stores.url import Address, Endpoint, StoreAccess

KEY = AwsKey("AKIDEXAMPLE", "s3cret-value", "t0ken-value")
RUN_ID = "20260112T102400Z-0a1b2c"


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("s3://bucket/a/b.parquet", Address("s3", "bucket", "a/b.parquet")),
        ("oss://my-bucket/a/", Address("oss", "my-bucket", "a")),
        ("gs://bucket", Address("gs", "bucket", "")),
        ("gs://bucket/", Address("gs", "bucket", "")),
        ("s3://bucket/名前 %2F?#", Address("s3", "bucket", "名前 %2F?#")),
    ],
)
def test_address_is_read_from_the_url(url: str, address: Address) -> None:
    assert parse_address(url) == address


@pytest.mark.parametrize(
    "url",
    [
        "s3://",
        "s3:///key",
        "s3://Bucket/key",
        "s3://user:pass@bucket/key",
        "s3://bucket//key",
        "s3://bucket/a//b",
        "s3://bucket/a/../b",
        "s3://bucket/./b",
        "s3://bucket/a\nb",
        "s3://bucket/a\0b",
        "hdfs://node/key",
        "s3a://bucket/key",
    ],
)
def test_invalid_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_address(url)

    assert refused.value.hint is not None
    assert "pass" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("access", "region", "expected"),
    [
        (StoreAccess(), None, ("https://b.s3.us-east-1.amazonaws.com", True, AWS_REGION)),
        (StoreAccess(), "eu-west-1", ("https://b.s3.eu-west-1.amazonaws.com", True, "eu-west-1")),
        (
            StoreAccess(),
            "cn-north-1",
            ("https://b.s3.cn-north-1.amazonaws.com.cn", True, "cn-north-1"),
        ),
        (
            StoreAccess(addressing="path"),
            "eu-west-1",
            ("https://s3.eu-west-1.amazonaws.com", False, "eu-west-1"),
        ),
        (
            StoreAccess(environ={"AWS_ENDPOINT_URL": "http://minio:9000/"}),
            None,
            ("http://b.minio:9000", True, AWS_REGION),
        ),
        (
            StoreAccess(
                environ={"AWS_ENDPOINT_URL": "http://a", "AWS_ENDPOINT_URL_S3": "http://s3"}
            ),
            None,
            ("http://b.s3", True, AWS_REGION),
        ),
        (
            StoreAccess(endpoint="https://mine", environ={"AWS_ENDPOINT_URL": "http://a"}),
            None,
            ("https://b.mine", True, AWS_REGION),
        ),
        (
            StoreAccess(endpoint="http://127.0.0.1:9000"),
            None,
            ("http://127.0.0.1:9000", False, AWS_REGION),
        ),
        (StoreAccess(endpoint="https://[::1]:9"), None, ("https://[::1]:9", False, AWS_REGION)),
    ],
)
def test_s3_is_asked_by_the_aws_rules(
    access: StoreAccess, region: str | None, expected: tuple[str, bool, str]
) -> None:
    endpoint = choose_s3_endpoint("b", access, region=region)

    assert (endpoint.url, endpoint.is_virtual, endpoint.region) == expected


def test_bucket_with_a_dot_is_addressed_by_path_where_a_certificate_would_not_fit() -> None:
    endpoint = choose_s3_endpoint("my.bucket", StoreAccess(), region="eu-west-1")

    assert endpoint == Endpoint("https://s3.eu-west-1.amazonaws.com", False, "eu-west-1")


@pytest.mark.parametrize(
    ("access", "url"),
    [
        (StoreAccess(region_id="cn-hangzhou"), "https://b.s3.oss-cn-hangzhou.aliyuncs.com"),
        (
            StoreAccess(region_id="cn-hangzhou", network="vpc"),
            "https://b.s3.oss-cn-hangzhou-internal.aliyuncs.com",
        ),
        (StoreAccess(region_id="cn-hangzhou", endpoint="https://oss.mine"), "https://b.oss.mine"),
        (StoreAccess(region_id="cn-hangzhou", endpoint="https://b.mine"), "https://b.mine"),
        (
            StoreAccess(region_id="cn-hangzhou", environ={"AWS_ENDPOINT_URL": "https://aws"}),
            "https://b.s3.oss-cn-hangzhou.aliyuncs.com",
        ),
    ],
)
def test_oss_is_asked_at_the_region_with_the_bucket_in_the_host(
    access: StoreAccess, url: str
) -> None:
    assert choose_oss_endpoint("b", access) == Endpoint(url, True, "cn-hangzhou")


def test_oss_needs_a_region_and_an_identity() -> None:
    with pytest.raises(UsageError, match="no region"):
        choose_oss_endpoint("b", StoreAccess())
    with pytest.raises(CredentialsError, match="no identity"):
        open_store("oss://bucket/a", StoreAccess(region_id="cn-hangzhou"))


def test_access_to_stores_comes_from_the_settings() -> None:
    settings = Settings(
        network="vpc", storage_endpoint="https://mine/", storage_addressing="path", retries=3
    )
    environ = {"ALIBABA_CLOUD_ACCESS_KEY_ID": "id", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": "s3cret"}

    access = build_store_access(settings, region_id="cn-hangzhou", environ=environ)

    assert access.fetch_key is not None
    assert access.fetch_key().access_key_id == "id"
    assert (access.region_id, access.network, access.endpoint, access.addressing) == (
        "cn-hangzhou",
        "vpc",
        "https://mine",
        "path",
    )
    assert "s3cret" not in repr(access)


def test_half_a_key_is_an_error_only_when_it_is_needed() -> None:
    access = build_store_access(
        Settings(),
        region_id="cn-hangzhou",
        environ={"ALIBABA_CLOUD_ACCESS_KEY_ID": "id"},
    )

    assert access.fetch_key is not None
    with pytest.raises(CredentialsError):
        access.fetch_key()


def test_key_of_the_environment_has_precedence(tmp_path: Path) -> None:
    environ = {
        "AWS_ACCESS_KEY_ID": "id",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "AWS_SESSION_TOKEN": "token",
        "AWS_PROFILE": "other",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "HOME": str(tmp_path),
    }

    fetch_key, region = choose_aws_identity(environ)

    assert fetch_key is not None
    assert fetch_key() == AwsKey("id", "s3cret", "token")
    assert region == "eu-west-1"
    assert "s3cret" not in repr(fetch_key())


@pytest.mark.parametrize(
    "name", ["AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"]
)
def test_role_of_a_container_is_found_by_the_client(name: str, tmp_path: Path) -> None:
    fetch_key, region = choose_aws_identity(
        {name: "x", "AWS_REGION": "eu-west-1", "HOME": str(tmp_path)}
    )

    assert (fetch_key, region) == (None, "eu-west-1")


def test_profile_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "botocore.session", None)

    with pytest.raises(MissingExtraError) as refused:
        choose_aws_identity({"AWS_PROFILE": "lake"})

    assert refused.value.hint == "pip install 'livy-exporter[aws]'"


@pytest.mark.campaign
def test_region_of_a_profile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config").write_text(
        "[profile lake]\nregion = eu-west-3\naws_access_key_id = id\n"
        "aws_secret_access_key = s3cret\n",
        encoding="utf-8",
    )
    environ = {"AWS_CONFIG_FILE": str(tmp_path / "config"), "AWS_PROFILE": "lake"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    fetch_key, region = choose_aws_identity(environ)

    assert fetch_key is not None
    assert fetch_key().access_key_id == "id"
    assert region == "eu-west-3"


@pytest.mark.campaign
def test_request_is_signed_as_aws_signs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    at = datetime(2026, 1, 12, 10, 24, tzinfo=UTC)
    query = {"uploads": "", "prefix": "exports/名前 +/a.parquet"}
    url = "https://bucket.s3.eu-west-1.amazonaws.com/a%20b/%E5%90%8D"

    ours = build_request("GET", url, query, key=KEY, region="eu-west-1", at=at)

    theirs = AWSRequest("GET", ours.full_url)
    theirs.context["timestamp"] = "20260112T102400Z"
    credentials = Credentials(KEY.access_key_id, KEY.access_key_secret, KEY.security_token)
    judge = S3SigV4Auth(credentials, "s3", "eu-west-1")
    theirs.headers["X-Amz-Security-Token"] = KEY.security_token
    theirs.headers["X-Amz-Content-SHA256"] = ours.get_header("X-amz-content-sha256")
    theirs.headers["X-Amz-Date"] = "20260112T102400Z"
    signature = judge.signature(
        judge.string_to_sign(theirs, judge.canonical_request(theirs)), theirs
    )
    authorization = ours.get_header("Authorization")
    assert authorization is not None
    assert authorization.endswith(f"Signature={signature}")


def test_uploads_are_read_page_by_page() -> None:
    answer = b"""<?xml version="1.0"?>
    <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
      <IsTruncated>true</IsTruncated><NextKeyMarker>b</NextKeyMarker>
      <NextUploadIdMarker>2</NextUploadIdMarker>
      <Upload><Key>a b&amp;</Key><UploadId>1</UploadId></Upload>
      <Upload><Key>b</Key><UploadId>2</UploadId></Upload>
    </ListMultipartUploadsResult>"""

    page = parse_uploads(answer)

    assert page.uploads == (OpenUpload("a b&", "1"), OpenUpload("b", "2"))
    assert page.next_markers == {"key-marker": "b", "upload-id-marker": "2"}
    assert parse_uploads(answer.replace(b"true", b"false")).next_markers is None


def test_unreachable_store_is_given_up() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        environ = {
            "AWS_ACCESS_KEY_ID": "id",
            "AWS_SECRET_ACCESS_KEY": "s3cret-value",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{closed.getsockname()[1]}",
        }
        store = open_store("s3://bucket/a", StoreAccess(environ=environ, retries=2))

        with pytest.raises(DestinationError, match="cannot be reached") as refused:
            store.read("x")

    assert "s3cret-value" not in str(refused.value)


def test_google_cloud_storage_is_opened_with_its_own_identity(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GOOGLE_SKIP_SIGNATURE", "true")

    store = open_store("gs://bucket/a", StoreAccess())

    assert store.path_of("b.parquet") == "gs://bucket/a/b.parquet"
    store.remove_leftovers()


@pytest.mark.parametrize(
    ("output", "kind", "name", "url"),
    [
        ("s3://bucket/a/b.parquet", "file", "b.parquet", "s3://bucket/a"),
        ("s3://bucket/b.jsonl.zst", "file", "b.jsonl.zst", "s3://bucket"),
    ],
)
def test_name_with_a_suffix_is_one_object(output: str, kind: str, name: str, url: str) -> None:
    environ: dict[str, Any] = {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "s3cret"}

    destination = resolve_destination(output, chosen=None, access=StoreAccess(environ=environ))

    assert (destination.kind, destination.name, destination.store.url) == (kind, name, url)


def test_key_that_cannot_be_renewed_stays_in_use_with_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "KEY_REUSE", timedelta(0))
    answers: list[Credential | CredentialsError] = [
        Credential("LTAI-1", "secret"),
        CredentialsError("the metadata server is away"),
        CredentialsError("the metadata server is away"),
        Credential("LTAI-2", "secret"),
    ]

    def fetch() -> Credential:
        answer = answers.pop(0)
        if isinstance(answer, CredentialsError):
            raise answer
        return answer

    errors = ErrorMap(bucket="bucket", no_identity="", no_permission="")
    callback = client.KeyCallback(fetch, errors)

    assert [callback()["access_key_id"] for _ in range(4)] == ["LTAI-1"] * 3 + ["LTAI-2"]
    assert errors.identity_error is None
    assert [each.getMessage() for each in caplog.records] == [
        "the store's key is used on: the metadata server is away"
    ]
