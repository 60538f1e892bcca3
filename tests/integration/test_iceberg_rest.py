"""Iceberg tables of a REST catalog, which makes tables in two steps and asks for a token."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from pyiceberg.catalog.sql import SqlCatalog

from exporter.errors import CredentialsError
from exporter.gateway import Gateway
from exporter.sinks import TableMode
from exporter.sinks.iceberg import IcebergTable
from tests.rest_catalog import serve

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
    output = table.open_output(
        mode=mode, run_id=run_id, exporter_version="1", exported_at=datetime.now(UTC)
    )
    sessions = [{"sessionId": f"livy-{n}", "state": state} for n in numbers]
    output.write(GATEWAY, sessions)
    output.close()
    output.publish()


def test_table_of_a_rest_catalog_is_made_and_upserted(catalog: SqlCatalog) -> None:
    table = IcebergTable(OUTPUT, partition_by=("state",))

    export(table, "running", range(4), mode="replace", run_id="run-1")
    export(table, "error", range(3, 5), mode="upsert", run_id="run-2")

    rows = catalog.load_table("ops.sessions").scan().to_arrow().sort_by("session_id")
    assert rows["state"].to_pylist() == ["running", "running", "running", "error", "error"]
    assert table.has_committed("run-2")
    assert catalog.load_table("ops.sessions").location() == table.location
    table.close()


def test_two_that_make_the_same_table_do_not_lose_rows(catalog: SqlCatalog) -> None:
    first, second = IcebergTable(OUTPUT), IcebergTable(OUTPUT)
    output = first.open_output(
        mode="upsert", run_id="run-1", exporter_version="1", exported_at=datetime.now(UTC)
    )
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
        IcebergTable(OUTPUT)

    assert caught.value.exit_code == 3
