"""Paimon tables through the whole program: their names, their catalogs' secrets, verifying them."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paimon_catalog import PaimonServer, put_file, serve
from tests.support.program import Program

pytestmark = pytest.mark.campaign

EXPORT = ("export", "--workspace", "all", "--output")
FOLDER = "warehouse/ops.db/sessions"
SECRET = "s3cret-value"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[PaimonServer, str]]:
    served = tmp_path / "served"
    server = PaimonServer(str(served), put_file(served), token=SECRET)
    with serve(server) as url:
        yield server, url


def write_config(program: Program, url: str) -> str:
    (program.folder / "livy.toml").write_text(
        f"""
        [paimon.lake]
        metastore = "rest"
        uri = "{url}"
        warehouse = "lake"
        "token.provider" = "bear"
        token = "{SECRET}"
        sidecars = "mine"
        """,
        encoding="utf-8",
    )
    return "livy.toml"


def test_folder_in_a_warehouse_is_a_table_and_stays_one(program: Program) -> None:
    first = program.run(*EXPORT, FOLDER, "--format", "paimon")
    again = program.run(*EXPORT, FOLDER, "--incremental")
    by_catalog = {"PAIMON_CATALOG__LAKE__WAREHOUSE": "warehouse"}
    third = program.run(*EXPORT, "paimon://lake/ops.sessions", "--incremental", environ=by_catalog)
    verified = program.run("verify", FOLDER)

    codes = [first.code, again.code, third.code, verified.code]
    assert codes == [0, 0, 0, 0], first.stderr + again.stderr + third.stderr + verified.stderr
    assert "distinct keys" in verified.stdout
    manifest = json.loads((program.folder / f"{FOLDER}.manifest.json").read_text())
    assert manifest["format"] == "paimon"
    assert manifest["output"] == "paimon://lake/ops.sessions"


def test_run_that_is_not_in_the_table_is_reported(program: Program) -> None:
    program.run(*EXPORT, FOLDER, "--format", "paimon")
    manifest = program.folder / f"{FOLDER}.manifest.json"
    text = manifest.read_text()
    run_id = json.loads(text)["run_id"]
    manifest.write_text(text.replace(run_id, "20200101T000000Z-000000"))

    verified = program.run("verify", FOLDER)

    assert verified.code == 1
    assert "has no commit of run 20200101T000000Z-000000" in verified.stderr


def test_table_of_a_server_has_its_sidecars_where_the_file_says(
    program: Program, server: tuple[PaimonServer, str]
) -> None:
    config = write_config(program, server[1])

    exported = program.run(*EXPORT, "paimon://lake/ops.sessions", "--config", config, "-vv")
    verified = program.run("verify", "paimon://lake/ops.sessions", "--config", config)

    assert (exported.code, verified.code) == (0, 0), exported.stderr + verified.stderr
    manifest = (program.folder / "mine" / "ops.db" / "sessions.manifest.json").read_text()
    assert json.loads(manifest)["status"] == "complete"
    assert server[0].tables.keys() == {("ops", "sessions")}
    assert SECRET not in exported.stderr + exported.stdout + manifest


def test_no_command_shows_the_secret_of_a_catalog(
    program: Program, server: tuple[PaimonServer, str]
) -> None:
    config = write_config(program, server[1])
    said = {"message": f"nobody knows {SECRET}", "code": 401}
    server[0].failing = (401, said)

    ended = [
        program.run(*EXPORT, "paimon://lake/ops.sessions", "--config", config, "-vv"),
        program.run(*EXPORT, "paimon://lake/ops.sessions", "--config", config, "--log-format=json"),
        program.run("verify", "paimon://lake/ops.sessions", "--config", config),
        program.run("config", "show", "--config", config),
    ]

    assert [each.code for each in ended] == [3, 3, 3, 0], ended[0].stderr
    assert not any(SECRET in each.stdout + each.stderr for each in ended)
    assert "nobody knows ***" in ended[0].stderr
    assert "[paimon.lake]" in ended[3].stdout
    assert '"token" = "***"' in ended[3].stdout
