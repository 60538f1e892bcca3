"""Exports to Delta tables through the whole program."""

import json
from pathlib import Path

import pytest
from deltalake import DeltaTable as Reader

from tests.support.object_server import ObjectServer
from tests.support.program import Program

pytestmark = pytest.mark.campaign

EXPORT = ("export", "--workspace", "w-1", "--format", "delta", "-q")


def test_export_replaces_a_table_and_an_increment_adds_to_it(
    program: "Program", tmp_path: Path
) -> None:
    folder = tmp_path / "sessions"

    for more in ((), (), ("--incremental",)):
        ended = program.run(*EXPORT, *more, "--output", f"{folder}/")
        assert ended.code == 0, ended.stderr

    manifest = json.loads((tmp_path / "sessions.manifest.json").read_text())
    table = Reader(folder).to_pyarrow_table()
    assert manifest["format"] == "delta"
    assert table.num_rows == len(set(table["session_id"].to_pylist())) == 935
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {"_delta_log"}


@pytest.mark.parametrize("scheme", ["s3", "oss"])
def test_table_is_written_to_a_bucket(
    scheme: str, program: "Program", object_server: ObjectServer, bucket: str
) -> None:
    environ = (
        {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "s3cret-value",
            "AWS_ENDPOINT_URL": object_server.url,
        }
        if scheme == "s3"
        else {
            **object_server.environ(),
            "LIVY_EXPORTER_STORAGE_ENDPOINT": object_server.oss_url,
        }
    )

    for _ in range(2):
        output = f"{scheme}://{bucket}/lake/sessions/"
        ended = program.run(*EXPORT, "--output", output, environ=environ)
        assert ended.code == 0, ended.stderr


def test_bucket_itself_is_no_table(program: "Program", bucket: str) -> None:
    ended = program.run(*EXPORT, "--output", f"s3://{bucket}/")

    assert ended.code == 2
    assert "leaves no room beside the table" in ended.stderr
