"""Outputs in one another's folders, on a disk and in a store."""

from pathlib import Path
from typing import Any

import pytest

from exporter.destinations.neighbours import require_apart
from exporter.destinations.resolve import resolve_destination
from exporter.errors import UsageError
from exporter.stores.url import StoreAccess
from tests.support.object_server import READ_ONLY_KEY, ObjectServer

MANIFEST = b'{"manifest_version": 1}'


def resolve(output: str, access: StoreAccess | None = None) -> None:
    require_apart(resolve_destination(output, chosen=None, access=access))


@pytest.fixture
def access(object_server: ObjectServer) -> StoreAccess:
    environ = {
        "AWS_ACCESS_KEY_ID": READ_ONLY_KEY,
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": object_server.url,
    }
    return StoreAccess(environ=environ, retries=1)


MARKS = ["_manifest.json", "_exporter/lock", "_delta_log/00000000000000000000.json"]


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize(
    "inner", ["outer/a/b/", "outer/a/", "outer/x.parquet", "outer/a/x.parquet"]
)
def test_output_in_the_folder_of_another_is_refused(inner: str, mark: str, tmp_path: Path) -> None:
    path = tmp_path / "outer" / mark
    path.parent.mkdir(parents=True)
    path.write_bytes(MANIFEST)
    (tmp_path / "outer" / "a").mkdir()

    with pytest.raises(UsageError, match=r"is in the folder of another output, '.*/outer'"):
        resolve(f"{tmp_path}/{inner}")

    resolve(f"{tmp_path}/beside/")


@pytest.mark.parametrize("mark", MARKS)
@pytest.mark.parametrize("has_manifest", [True, False])
def test_output_around_another_is_refused(*, has_manifest: bool, mark: str, tmp_path: Path) -> None:
    path = tmp_path / "outer" / "a" / "inner" / mark
    path.parent.mkdir(parents=True)
    path.write_bytes(MANIFEST)
    if has_manifest:
        (tmp_path / "outer" / "_manifest.json").write_bytes(MANIFEST)

    with pytest.raises(UsageError, match=r"holds another output, '.*/outer/a/inner'"):
        resolve(f"{tmp_path}/outer/")


def test_manifest_of_another_tool_is_no_output_of_ours(tmp_path: Path) -> None:
    (tmp_path / "_manifest.json").write_bytes(b'{"files": []}')

    resolve(f"{tmp_path}/sessions/")
    resolve(f"{tmp_path}/sessions.parquet")


def test_dataset_goes_on_in_its_own_folder(tmp_path: Path) -> None:
    for name in ("_manifest.json", "_exporter/state.json", "_manifests/00000001.json"):
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_bytes(MANIFEST)

    resolve(f"{tmp_path}/set/")


@pytest.mark.parametrize("mark", MARKS)
def test_outputs_of_a_store_are_kept_apart(
    mark: str, bucket: str, judge: Any, access: StoreAccess
) -> None:
    judge.put_object(Bucket=bucket, Key=f"outer/{mark}", Body=MANIFEST)
    judge.put_object(Bucket=bucket, Key="_manifest.json", Body=b'{"files": []}')

    for inner in ("outer/a/b", "outer/x.parquet"):
        with pytest.raises(UsageError, match=r"is in the folder of another output, '.*/outer'"):
            resolve(f"s3://{bucket}/{inner}", access)
    resolve(f"s3://{bucket}/outer2/", access)
    judge.put_object(Bucket=bucket, Key="_manifest.json", Body=MANIFEST)
    with pytest.raises(UsageError, match=r"holds another output, '.*/outer'"):
        resolve(f"s3://{bucket}", access)
