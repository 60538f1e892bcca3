"""Partitioned datasets by the whole program: replaced, added to, refused."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.support.forks import Ended
from tests.support.object_server import ObjectServer
from tests.support.program import Program

SESSION_COUNT = 936
EXPORT = ("export", "--workspace", "all", "--output", "set/")


def run(program: "Program", *arguments: str, code: int = 0) -> "Ended":
    ended = program.run(*EXPORT, *arguments)
    assert ended.code == code, ended.stderr
    return ended


def read_manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / "_manifest.json").read_bytes())
    return manifest


def parts_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("part-*")}


def count_rows(folder: Path) -> dict[str, int]:
    """Distinct sessions by the queue in the path."""
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT queue, count(DISTINCT (workspace_id, compute_id, session_id))"
            " FROM read_parquet(?, hive_partitioning = true) GROUP BY ALL",
            [f"{folder}/**/*.parquet"],
        ).fetchall()
    return dict(rows)


def test_full_export_replaces_partitions_and_leaves_no_empty_folder(program: "Program") -> None:
    folder = program.folder / "set"
    run(program, "--partition-by", "dt,queue")
    first = read_manifest(folder)
    counts = count_rows(folder)

    run(program, "--partition-by", "queue")
    second = read_manifest(folder)

    assert (first["partition_by"], second["partition_by"]) == (["dt", "queue"], ["queue"])
    assert sum(counts.values()) == SESSION_COUNT
    assert count_rows(folder) == counts
    assert parts_of(folder) == {file["path"] for file in second["files"]}
    assert not list(folder.glob("dt=*"))
    assert program.run("verify", "set/").code == 0


def test_incremental_run_adds_parts_into_the_partitions(program: "Program") -> None:
    folder = program.folder / "set"
    run(program, "--partition-by", "queue", "--incremental")
    first = parts_of(folder)
    counts = count_rows(folder)

    run(program, "--partition-by", "queue", "--incremental")

    assert parts_of(folder) >= first
    assert parts_of(folder) == {file["path"] for file in read_manifest(folder)["files"]}
    assert count_rows(folder) == counts
    assert program.run("verify", "set/").code == 0


@pytest.mark.parametrize(
    ("before", "after", "says", "hint"),
    [
        (("--partition-by", "dt"), (), "by dt, not without", "(--partition-by dt)"),
        ((), ("--partition-by", "dt"), "without partitions, not partitioned by dt", "(none)"),
        (
            ("--partition-by", "dt,queue"),
            ("--partition-by", "queue,dt"),
            "by dt, queue, not partitioned by queue, dt",
            "(--partition-by dt,queue)",
        ),
    ],
)
def test_incremental_run_by_other_columns_is_refused(
    before: tuple[str, ...], after: tuple[str, ...], says: str, hint: str, program: "Program"
) -> None:
    run(program, *before)
    listing = program.listing()

    error, remedy = run(program, *after, "--incremental", code=2).stderr_lines

    assert says in error
    assert hint in remedy
    assert program.listing() == listing


@pytest.mark.parametrize("output", ["out.parquet", "-"])
def test_partitions_of_what_is_no_folder_are_refused(output: str, program: "Program") -> None:
    ended = program.run(*EXPORT[:3], "--output", output, "--partition-by", "dt")

    assert ended.code == 2
    assert ended.stderr_lines[0] == f"error: partitions need a folder, not '{output}'"
    assert program.listing() == {}


def test_unknown_column_is_refused_with_those_there_are(program: "Program") -> None:
    _, hint = run(program, "--partition-by", "colour", code=2).stderr_lines

    assert hint == "hint: known: dt, region_id, workspace_id, compute_id, state, queue"


@pytest.mark.parametrize("scheme", ["s3", "oss"])
def test_partitions_in_a_store_are_those_of_a_folder(
    scheme: str, program: "Program", object_server: ObjectServer, bucket: str, judge: Any
) -> None:
    run(program, "--partition-by", "dt,queue")
    local = read_manifest(program.folder / "set")
    identity = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "s3cret-value",
        "AWS_ENDPOINT_URL": object_server.url,
    }
    if scheme == "oss":
        identity = {
            "LIVY_EXPORTER_STORAGE_ENDPOINT": object_server.oss_url,
            **object_server.environ(),
        }

    ended = program.run(
        *EXPORT[:3],
        "-o",
        f"{scheme}://{bucket}/set/",
        "--partition-by",
        "dt,queue",
        environ=identity,
    )

    assert ended.code == 0, ended.stderr
    manifest = json.loads(judge.get_object(Bucket=bucket, Key="set/_manifest.json")["Body"].read())
    assert folders(manifest) == folders(local)


def folders(manifest: dict[str, Any]) -> Counter[str]:
    return Counter(file["path"].rpartition("/")[0] for file in manifest["files"])
