"""Iceberg tables in a bucket of S3, and of OSS with its own addresses and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.errors import CredentialsError, DestinationError
from exporter.model import Gateway
from exporter.tables import iceberg
from exporter.tables.iceberg import IcebergTable
from exporter.tables.iceberg_orphans import build_write_id
from exporter.tables.interface import TableMode, TableRequest
from tests.support.object_server import READ_ONLY_KEY, WRONG_KEY, ObjectServer
from tests.support.tables import open_table_output

pytestmark = pytest.mark.campaign

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
OUTPUT = "iceberg://lake/ops.sessions"

Configure = Callable[..., None]


@pytest.fixture
def configure(
    object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Configure:
    def configure_one(warehouse: str, *, key: str = "a-key") -> None:
        is_oss = warehouse.startswith("oss://")
        properties = {
            "URI": f"sqlite:///{tmp_path}/catalog.db",
            "WAREHOUSE": warehouse,
            "S3__ENDPOINT": object_server.oss_url if is_oss else object_server.url,
            "S3__REGION": "us-east-1",
            "S3__ACCESS_KEY_ID": key,
            "S3__SECRET_ACCESS_KEY": "s3cret-value",
        }
        if is_oss:
            # No resolver knows the name of the bucket's own host.
            properties["S3__PROXY_URI"] = object_server.url
        monkeypatch.setenv("HOME", str(tmp_path))
        for name, value in properties.items():
            monkeypatch.setenv(f"PYICEBERG_CATALOG__LAKE__{name}", value)

    return configure_one


def export(table: IcebergTable, numbers: range, *, mode: TableMode, run_id: str) -> None:
    output = open_table_output(table, mode=mode, run_id=run_id)
    output.write(GATEWAY, [{"sessionId": f"livy-{n}", "state": run_id} for n in numbers])
    output.close()
    output.publish()


@pytest.mark.parametrize("scheme", ["s3", "oss"])
def test_table_in_a_bucket_is_made_upserted_and_tidied(
    scheme: str, configure: Configure, bucket: str, judge: Any
) -> None:
    configure(f"{scheme}://{bucket}/warehouse")
    table = iceberg.open_table(TableRequest(output=OUTPUT))
    export(table, range(10), mode="replace", run_id="run-1")
    export(table, range(5, 15), mode="upsert", run_id="run-2")
    left = f"warehouse/ops/sessions/data/00000-0-{build_write_id('run-3', 1)}.parquet"
    judge.put_object(Bucket=bucket, Key=left, Body=b"left")

    table.remove_leftovers("run-3", keep_s=86_400)
    kept = [each["Key"] for each in judge.list_objects_v2(Bucket=bucket)["Contents"]]
    table.remove_leftovers("run-3", keep_s=0)

    names = [each["Key"] for each in judge.list_objects_v2(Bucket=bucket)["Contents"]]
    assert [name for name in names if not name.endswith("/")] == [
        name for name in kept if name != left and not name.endswith("/")
    ]
    assert left in kept
    rows = table._prepare()._table.scan().to_arrow()
    assert sorted(rows["state"].to_pylist()) == ["run-1"] * 5 + ["run-2"] * 10
    table.close()


@pytest.mark.parametrize("scheme", ["s3", "oss"])
@pytest.mark.parametrize("key", [WRONG_KEY, READ_ONLY_KEY])
def test_key_that_may_not_write_is_refused_before_the_first_row(
    scheme: str, key: str, configure: Configure, bucket: str
) -> None:
    configure(f"{scheme}://{bucket}/warehouse", key=key)
    table = iceberg.open_table(TableRequest(output=OUTPUT))

    with pytest.raises(CredentialsError) as caught:
        export(table, range(1), mode="replace", run_id="run-1")

    assert "\n" not in str(caught.value)
    assert caught.value.hint is not None
    table.close()


def test_bucket_that_is_not_there_is_named(configure: Configure) -> None:
    configure("s3://nowhere-at-all/warehouse")
    table = iceberg.open_table(TableRequest(output=OUTPUT))

    with pytest.raises(DestinationError, match="nowhere-at-all") as caught:
        export(table, range(1), mode="replace", run_id="run-1")

    assert caught.value.hint is not None
    table.close()
