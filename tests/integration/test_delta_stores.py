"""Delta tables in S3 and OSS, as a server speaks for them; deltalake reads."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from deltalake import DeltaTable as Reader

from exporter.errors import CredentialsError, DestinationError
from exporter.gateway import Gateway
from exporter.sinks import TableMode
from exporter.sinks.delta import DeltaTable
from exporter.sinks.delta_storage import DeltaStorage, open_delta_storage
from exporter.stores.addresses import StoreAccess
from tests.object_server import READ_ONLY_KEY, WRONG_KEY, ObjectServer

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
    """Both clients take the proxy, by which the hosts of buckets are found, from here."""
    for name, value in object_server.environ().items():
        monkeypatch.setenv(name, value)


def open_storage(
    scheme: str, bucket: str, server: ObjectServer, *, key: Key | None = None
) -> DeltaStorage:
    key = key or Key()
    environ: Mapping[str, str] = {
        "AWS_ACCESS_KEY_ID": key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": key.access_key_secret,
        "AWS_ENDPOINT_URL": server.url,
    }
    if scheme == "s3":
        access = StoreAccess(environ=environ, addressing="path", retries=1)
    else:
        access = StoreAccess(
            region_id="cn-hangzhou", endpoint=server.oss_url, fetch_key=lambda: key, retries=1
        )
    return open_delta_storage(f"{scheme}://{bucket}/lake/sessions/", access)


def open_table(storage: DeltaStorage, **options: Any) -> DeltaTable:
    return DeltaTable(f"{storage.store.url}/", storage=storage, **options)


def build_sessions(*numbers: int, state: str = "running") -> list[dict[str, Any]]:
    return [
        {"sessionId": f"livy-{n}", "state": state, "createTime": 1_768_213_240_123 + n * 3_600_000}
        for n in numbers
    ]


def export(
    table: DeltaTable, sessions: list[dict[str, Any]], *, mode: TableMode, run_id: str
) -> None:
    output = table.open_output(
        mode=mode, run_id=run_id, exporter_version="1.2.3", exported_at=datetime.now(UTC)
    )
    output.write(HOME, sessions)
    output.close()
    output.publish()
    output.discard()


def read(storage: DeltaStorage) -> list[tuple[str, str]]:
    options = dict(storage.read_options())
    rows = Reader(storage.uri, storage_options=options).to_pyarrow_table().to_pylist()
    return sorted((row["session_id"], row["state"]) for row in rows)


def test_table_is_replaced_and_upserted(
    scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    storage = open_storage(scheme, bucket, object_server)
    table = open_table(storage, partition_by=("dt", "state"))
    export(table, build_sessions(*range(30)), mode="replace", run_id="run-0")

    for number in range(1, 12):
        changed = build_sessions(number, 30 + number, state="an error/ü")
        export(table, changed, mode="upsert", run_id=f"run-{number}")

    expected = {f"livy-{n}": "running" for n in range(30)}
    expected |= {f"livy-{m}": "an error/ü" for n in range(1, 12) for m in (n, 30 + n)}
    assert read(storage) == sorted(expected.items())
    assert open_table(storage).has_committed("run-11")
    assert storage.store.size_of("_delta_log/_last_checkpoint") is not None
    table.remove_leftovers()
    assert read(storage) == sorted(expected.items())


def test_files_of_a_killed_run_are_removed(
    scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    storage = open_storage(scheme, bucket, object_server)
    table = open_table(storage)
    run_id = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    export(table, build_sessions(1), mode="replace", run_id=f"{run_id}-0a1b2c")
    before = sorted(file.name for file in storage.store.list_files())
    killed = table.open_output(
        mode="upsert",
        run_id=f"{run_id}-0a1b2d",
        exporter_version="1.2.3",
        exported_at=datetime.now(UTC),
    )
    killed.write(HOME, build_sessions(1, 2))
    killed.close()
    assert sorted(file.name for file in storage.store.list_files()) != before

    open_table(storage).remove_leftovers()

    assert sorted(file.name for file in storage.store.list_files()) == before


def test_commit_of_somebody_else_is_never_overwritten(
    scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    storage = open_storage(scheme, bucket, object_server)
    table = open_table(storage)
    export(table, build_sessions(1), mode="replace", run_id="run-1")
    output = table.open_output(
        mode="upsert", run_id="run-2", exporter_version="1.2.3", exported_at=datetime.now(UTC)
    )
    output.write(HOME, build_sessions(1, 2, state="error"))
    output.close()
    export(open_table(storage), build_sessions(3), mode="upsert", run_id="run-x")

    output.publish()

    assert read(storage) == [("livy-1", "error"), ("livy-2", "error"), ("livy-3", "running")]


def test_key_of_the_environment_is_not_mixed_in(
    scheme: str, object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", WRONG_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "until-0")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    storage = open_storage(scheme, bucket, object_server)

    export(open_table(storage), build_sessions(1), mode="replace", run_id="run-1")
    export(open_table(storage), build_sessions(2), mode="upsert", run_id="run-2")

    assert read(storage) == [("livy-1", "running"), ("livy-2", "running")]


@pytest.mark.parametrize("key_id", [WRONG_KEY, READ_ONLY_KEY])
def test_refusal_of_the_store_is_one_line(
    key_id: str, scheme: str, object_server: ObjectServer, bucket: str
) -> None:
    storage = open_storage(scheme, bucket, object_server, key=Key(key_id))

    with pytest.raises((CredentialsError, DestinationError)) as caught:
        export(open_table(storage), build_sessions(1), mode="replace", run_id="run-1")

    assert "\n" not in str(caught.value)
    assert "s3cret-value" not in str(caught.value)
    assert caught.value.hint is not None


def test_missing_bucket_is_named(scheme: str, object_server: ObjectServer) -> None:
    storage = open_storage(scheme, "no-such-bucket", object_server)

    with pytest.raises(DestinationError, match="there is no bucket 'no-such-bucket'"):
        open_table(storage)


def test_store_that_deltalake_cannot_reach_is_told_in_one_line(
    object_server: ObjectServer, bucket: str
) -> None:
    storage = open_storage("s3", bucket, object_server)
    export(open_table(storage), build_sessions(1), mode="replace", run_id="run-1")
    nowhere = {**storage.read_options(), "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}
    nowhere |= {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "max_retries": "0"}

    with pytest.raises(DestinationError, match=r"Generic S3 error: .*refused") as caught:
        DeltaTable("x", storage=DeltaStorage(storage.store, storage.uri, lambda: nowhere))

    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert caught.value.hint == "check the network and where the table is"
