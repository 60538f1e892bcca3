"""Delta tables in S3 and OSS, both emulated by one server; deltalake reads."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pyarrow as pa
import pytest
from deltalake import DeltaTable as Reader

from exporter.errors import CredentialsError, DestinationError
from exporter.model import Gateway
from exporter.stores.url import StoreAccess
from exporter.tables.delta import DeltaLakeTable
from exporter.tables.delta_folder import DeltaFolder, open_folder
from exporter.tables.interface import Commit, TableMode
from exporter.tables.output import TableOutput
from tests.support.object_server import READ_ONLY_KEY, WRONG_KEY, ObjectServer
from tests.support.tables import open_table_output, publish_sessions

pytestmark = pytest.mark.campaign

HOME = Gateway("cn-hangzhou", "w-1", "lc-1")


@dataclass(frozen=True)
class Key:
    access_key_id: str = "key"
    access_key_secret: str = "s3cret-value"
    security_token: str | None = None


@pytest.fixture(params=["s3", "oss"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def environ(object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both clients find the hosts of buckets by a proxy, which they take from the environment."""
    for name, value in object_server.environ().items():
        monkeypatch.setenv(name, value)


def open_place(
    scheme: str, bucket: str, server: ObjectServer, *, key: Key | None = None
) -> DeltaFolder:
    key = key or Key()
    environ: Mapping[str, str] = {
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.access_key_secret,
        "AWS_ENDPOINT_URL": server.url,
        **({} if key.security_token is None else {"AWS_SESSION_TOKEN": key.security_token}),
    }
    if scheme == "s3":
        access = StoreAccess(environ=environ, addressing="path", retries=1)
    else:
        access = StoreAccess(
            region_id="cn-hangzhou", endpoint=server.oss_url, fetch_key=lambda: key, retries=1
        )
    return open_folder(f"{scheme}://{bucket}/lake/sessions/", access)


def open_table(folder: DeltaFolder, *, partition_by: tuple[str, ...] = ()) -> DeltaLakeTable:
    table = DeltaLakeTable(f"{folder.store.url}/", folder, partition_by=partition_by)
    table.find_commit("")  # looks whether it can be read
    return table


def build_sessions(*numbers: int, state: str = "running") -> list[dict[str, Any]]:
    return [
        {"sessionId": f"livy-{n}", "state": state, "createTime": 1_768_213_240_123 + n * 3_600_000}
        for n in numbers
    ]


def export(
    table: DeltaLakeTable, sessions: list[dict[str, Any]], *, mode: TableMode, run_id: str
) -> None:
    output = open_table_output(table, mode=mode, run_id=run_id)
    publish_sessions(output, sessions, gateway=HOME)


def read(folder: DeltaFolder) -> list[tuple[str, str]]:
    options = dict(folder.build_options())
    rows = pa.table(Reader(folder.uri, storage_options=options).scan()).to_pylist()
    return sorted((row["session_id"], row["state"]) for row in rows)


def test_table_is_replaced_and_upserted(
    scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    folder = open_place(scheme, bucket, object_server)
    table = open_table(folder, partition_by=("dt", "state"))
    export(table, build_sessions(*range(30)), mode="replace", run_id="run-0")

    for number in range(1, 12):
        changed = build_sessions(number, 30 + number, state="an error/ü")
        export(table, changed, mode="upsert", run_id=f"run-{number}")

    expected = {f"livy-{n}": "running" for n in range(30)}
    expected |= {f"livy-{m}": "an error/ü" for n in range(1, 12) for m in (n, 30 + n)}
    assert read(folder) == sorted(expected.items())
    assert open_table(folder).find_commit("run-11") is not None
    table.compact(Commit(run_id="run-11", exporter_version="1"))
    assert read(folder) == sorted(expected.items())


@pytest.mark.parametrize("signature", ["aGVsbG8=", "a/b/c/d/e=", "a/b/c/d/e/f="])
def test_server_takes_a_signature_of_oss_for_no_service(
    signature: str, object_server: ObjectServer, bucket: str
) -> None:
    request = Request(  # noqa: S310 - http, by the server
        f"{object_server.oss_url.replace('localhost', f'{bucket}.localhost')}/none",
        headers={"Authorization": f"OSS key:{signature}", "x-amz-content-sha256": "0" * 64},
    )

    with pytest.raises(HTTPError) as caught:
        urlopen(request)  # noqa: S310 - http, by the server

    assert caught.value.code == 404
    caught.value.close()


def test_commit_of_somebody_else_is_never_overwritten(
    scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    folder = open_place(scheme, bucket, object_server)
    table = open_table(folder)
    export(table, build_sessions(1), mode="replace", run_id="run-1")
    output = open_table_output(table, mode="upsert", run_id="run-2")
    output.write(HOME, build_sessions(1, 2, state="error"))
    output.close()
    export(open_table(folder), build_sessions(3), mode="upsert", run_id="run-x")

    output.publish()

    assert read(folder) == [("livy-1", "error"), ("livy-2", "error"), ("livy-3", "running")]


def test_writers_that_publish_at_once_lose_nothing(
    scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    folder = open_place(scheme, bucket, object_server)
    export(open_table(folder), build_sessions(0), mode="replace", run_id="first")
    outputs = [
        open_table_output(open_table(folder), mode="upsert", run_id=f"run-{number}")
        for number in range(3)
    ]
    for number, output in enumerate(outputs, start=1):
        output.write(HOME, build_sessions(number))
        output.close()

    with ThreadPoolExecutor() as threads:
        list(threads.map(TableOutput.publish, outputs))

    assert read(folder) == [(f"livy-{number}", "running") for number in range(4)]


def test_key_is_asked_for_each_time_that_the_table_is_opened(
    scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    good = open_place(scheme, bucket, object_server)
    ended = open_place(scheme, bucket, object_server, key=Key(security_token="until-0"))
    current = [good]

    def build_options() -> Mapping[str, str]:
        return current[0].build_options()

    folder = replace(good, build_options=build_options)
    table = open_table(folder)
    export(table, build_sessions(1), mode="replace", run_id="run-1")

    current[0] = ended
    with pytest.raises(DestinationError, match="cannot use the table"):
        export(table, build_sessions(2), mode="upsert", run_id="run-2")
    current[0] = good
    export(table, build_sessions(3), mode="upsert", run_id="run-3")

    assert read(folder) == [("livy-1", "running"), ("livy-3", "running")]


def test_key_of_the_environment_is_not_mixed_in(
    scheme: str, object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", WRONG_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "until-0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    folder = open_place(scheme, bucket, object_server)

    export(open_table(folder), build_sessions(1), mode="replace", run_id="run-1")
    export(open_table(folder), build_sessions(2), mode="upsert", run_id="run-2")

    assert read(folder) == [("livy-1", "running"), ("livy-2", "running")]


@pytest.mark.parametrize("key_id", [WRONG_KEY, READ_ONLY_KEY])
def test_refusal_of_the_store_is_one_line(
    key_id: str, scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    folder = open_place(scheme, bucket, object_server, key=Key(key_id))

    with pytest.raises((CredentialsError, DestinationError)) as caught:
        export(open_table(folder), build_sessions(1), mode="replace", run_id="run-1")

    assert "\n" not in str(caught.value)
    assert "s3cret-value" not in str(caught.value)
    assert caught.value.hint is not None


def test_missing_bucket_is_named(scheme: str, object_server: ObjectServer) -> None:
    folder = open_place(scheme, "no-such-bucket", object_server)

    with pytest.raises(DestinationError, match="there is no bucket 'no-such-bucket'"):
        open_table(folder)


def test_store_that_deltalake_cannot_reach_is_reported_in_one_line(
    object_server: ObjectServer, bucket: str
) -> None:
    folder = open_place("s3", bucket, object_server)
    export(open_table(folder), build_sessions(1), mode="replace", run_id="run-1")
    nowhere = {**folder.build_options(), "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    nowhere |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "max_retries": "0"}

    with pytest.raises(DestinationError, match=r"Generic S3 error: .*refused") as caught:
        open_table(DeltaFolder(folder.store, folder.uri, lambda: nowhere))

    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint == "check the network and where the table is"
