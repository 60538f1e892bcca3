"""A table is verified by its log and its keys, through the whole program."""

from pathlib import Path

import pytest
from pyiceberg.catalog import load_catalog

from tests.support.program import Program

pytestmark = pytest.mark.campaign

TABLE = "iceberg://lake/ops.sessions"


@pytest.fixture
def lake(tmp_path: Path) -> dict[str, str]:
    return {
        "PYICEBERG_CATALOG__LAKE__URI": f"sqlite:///{tmp_path}/catalog.db",
        "PYICEBERG_CATALOG__LAKE__WAREHOUSE": f"file://{tmp_path}/warehouse",
    }


def test_table_is_as_its_manifest_says(program: Program, lake: dict[str, str]) -> None:
    exported = program.run("export", "--workspace", "all", "--output", TABLE, environ=lake)
    verified = program.run("verify", TABLE, environ=lake)

    assert (exported.code, verified.code) == (0, 0), exported.stderr + verified.stderr
    assert "distinct keys" in verified.stdout


def test_run_that_is_not_in_the_table_is_told(
    program: Program, lake: dict[str, str], tmp_path: Path
) -> None:
    program.run("export", "--workspace", "all", "--output", TABLE, environ=lake)
    manifest = tmp_path / "warehouse" / "ops" / "sessions.manifest.json"
    text = manifest.read_text()
    run_id = text.split('"run_id": "')[1][:23]
    manifest.write_text(text.replace(run_id, "20200101T000000Z-000000"))

    verified = program.run("verify", TABLE, environ=lake)

    assert verified.code == 1
    assert "has no commit of run 20200101T000000Z-000000" in verified.stderr


def test_key_that_is_there_twice_is_told(program: Program, lake: dict[str, str]) -> None:
    program.run("export", "--workspace", "all", "--output", TABLE, environ=lake)
    catalog = load_catalog(
        "lake",
        uri=lake["PYICEBERG_CATALOG__LAKE__URI"],
        warehouse=lake["PYICEBERG_CATALOG__LAKE__WAREHOUSE"],
    )
    table = catalog.load_table("ops.sessions")
    rows = table.scan().to_arrow()
    table.append(rows.slice(0, 3))
    catalog.close()

    verified = program.run("verify", TABLE, environ=lake)

    assert verified.code == 1
    assert "3 rows whose key is there twice" in verified.stderr
