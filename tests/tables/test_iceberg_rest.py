"""Iceberg tables of a REST catalog, which makes tables in two steps and asks for a token."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from exporter.errors import CredentialsError
from exporter.model import Gateway
from exporter.tables import iceberg
from exporter.tables.iceberg import IcebergTable
from exporter.tables.interface import TableMode, TableRequest
from tests.support.rest_catalog import serve
from tests.support.tables import open_table_output

pytestmark = pytest.mark.campaign

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
OUTPUT = "iceberg://dlf/ops.sessions"


@pytest.fixture
def catalog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlCatalog]:
    catalog = SqlCatalog(
        "behind", uri=f"sqlite:///{tmp_path}/catalog.db", warehouse=f"file://{tmp_path}/warehouse"
    )
    with serve(catalog, token="t-1") as url:
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("PYICEBERG_CATALOG__DLF__TYPE", "rest")
        monkeypatch.setenv("PYICEBERG_CATALOG__DLF__URI", url)
        monkeypatch.setenv("PYICEBERG_CATALOG__DLF__TOKEN", "t-1")
        yield catalog
    catalog.close()


def export(
    table: IcebergTable, state: str, numbers: range, *, mode: TableMode, run_id: str
) -> None:
    output = open_table_output(table, mode=mode, run_id=run_id)
    sessions = [{"sessionId": f"livy-{n}", "state": state} for n in numbers]
    output.write(GATEWAY, sessions)
    output.close()
    output.publish()


def test_table_of_a_rest_catalog_is_made_and_upserted(catalog: SqlCatalog) -> None:
    table = iceberg.open_table(TableRequest(output=OUTPUT, partition_by=("state",)))

    export(table, "running", range(4), mode="replace", run_id="run-1")
    export(table, "error", range(3, 5), mode="upsert", run_id="run-2")

    rows = catalog.load_table("ops.sessions").scan().to_arrow().sort_by("session_id")
    assert rows["state"].to_pylist() == ["running", "running", "running", "error", "error"]
    assert table.find_commit("run-2") is not None
    assert catalog.load_table("ops.sessions").location() == table.location
    table.close()


def test_two_that_make_the_same_table_do_not_lose_rows(catalog: SqlCatalog) -> None:
    first, second = (
        iceberg.open_table(TableRequest(output=OUTPUT)),
        iceberg.open_table(TableRequest(output=OUTPUT)),
    )
    output = open_table_output(first, mode="upsert", run_id="run-1")
    output.write(GATEWAY, [{"sessionId": "livy-1"}])
    output.close()
    export(second, "running", range(2, 4), mode="upsert", run_id="run-2")

    output.publish()

    assert catalog.load_table("ops.sessions").scan().count() == 3
    first.close()
    second.close()


def test_catalog_that_refuses_the_token_is_a_matter_of_credentials(
    catalog: SqlCatalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYICEBERG_CATALOG__DLF__TOKEN", "t-2")

    with pytest.raises(CredentialsError, match="who are you") as caught:
        iceberg.open_table(TableRequest(output=OUTPUT))

    assert caught.value.exit_code == 3
