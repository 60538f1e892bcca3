"""Files and datasets through the whole program, on every store; DuckDB reads."""

from pathlib import Path
from typing import ClassVar

import pytest

from exporter.emulator.generated_list import RawSession
from tests.support.forks import CLOSED, DESCRIBED, HALF_SHOWN, INTENDED, LISTED, SHOWN, TOLD, Stage
from tests.support.lake import Disk, Key, Row, param_place, raw_row, read_ndjson, read_parquet
from tests.support.lake_contract import AddingContract, LakeContract


class FileContract(LakeContract):
    state = None
    seen_when_shown = "new"

    def path(self) -> list[Path]:
        path = self.place.fetch(self.name)
        return [] if path is None else [path]

    def assert_only_data(self) -> None:
        assert self.data_names() == {self.name}

    @pytest.mark.parametrize(
        ("place", "stage"),
        [
            *(param_place("local", each) for each in (LISTED, CLOSED, INTENDED)),
            *(param_place("local", each) for each in (SHOWN, DESCRIBED, TOLD)),
            *(param_place("s3", each) for each in (INTENDED, SHOWN, DESCRIBED)),
            param_place("oss", SHOWN),
        ],
        indirect=["place"],
        ids=str,
    )
    def test_run_that_is_killed_is_put_right_by_the_next(self, stage: Stage) -> None:
        self.replace_after_a_kill(stage)


class DatasetContract(AddingContract):
    name = "sessions/"
    manifest = "sessions/_manifest.json"
    state = "sessions/_exporter/state.json"
    lock = "sessions/_exporter/lock"
    seen_when_shown = "old"
    adds_many: ClassVar[bool] = False
    """Whether a run adds more than one part."""

    def is_new_seen_at(self, stage: Stage, *, adds: bool = False) -> bool:
        at_once = isinstance(self.place, Disk) and (not adds or self.adds_many)
        return (at_once and stage == SHOWN) or super().is_new_seen_at(stage, adds=adds)

    def paths(self) -> list[Path]:
        """Paths of the parts that the manifest names."""
        manifest = self.read_json(self.manifest)
        files = [] if manifest is None else manifest["files"]
        found = [self.place.fetch(f"{self.name}{each['path']}") for each in files]
        return [path for path in found if path is not None]

    def assert_only_data(self) -> None:
        manifest = self.read_json(self.manifest)
        assert manifest is not None
        assert self.data_names() == {f"{self.name}{each['path']}" for each in manifest["files"]}

    def count_rows(self, begun: int, changed: int) -> int:
        return begun + changed


class PartitionedContract(DatasetContract):
    @pytest.mark.parametrize("place", [param_place("s3"), param_place("oss")], indirect=True)
    def test_run_that_is_killed_when_it_has_shown_one_part_of_many_is_undone(self) -> None:
        self.replace_after_a_kill(HALF_SHOWN)


class Ndjson:
    """Records as they were received."""

    def key_of(self, row: Row) -> Key:
        return (row["workspaceId"], row.get("computeId") or "lc-odd", row["sessionId"])

    exported_at = "exportedAt"

    def expect(self, key: Key, session: RawSession) -> Row:
        return raw_row(key, session)


class TestParquetFile(FileContract):
    name = "sessions.parquet"
    manifest = "sessions.parquet.manifest.json"
    lock = ".sessions.parquet.lock"

    def read(self) -> list[Row]:
        return read_parquet(self.path())


@pytest.mark.campaign
class TestNdjsonFile(Ndjson, FileContract):
    name = "sessions.ndjson.gz"
    manifest = "sessions.ndjson.gz.manifest.json"
    lock = ".sessions.ndjson.gz.lock"

    def read(self) -> list[Row]:
        return read_ndjson(self.path())


@pytest.mark.campaign
class TestParquetDataset(DatasetContract):
    def read(self) -> list[Row]:
        return read_parquet(self.paths())


@pytest.mark.campaign
class TestNdjsonDataset(Ndjson, DatasetContract):
    flags = ("--format", "ndjson")

    def read(self) -> list[Row]:
        return read_ndjson(self.paths())


@pytest.mark.campaign
class TestPartitionedParquet(PartitionedContract):
    flags = ("--partition-by", "dt,compute_id")

    def read(self) -> list[Row]:
        return read_parquet(self.paths(), hive=True)


class TestPartitionedNdjson(Ndjson, PartitionedContract):
    flags = ("--format", "ndjson", "--partition-by", "state")
    adds_many = True

    def read(self) -> list[Row]:
        return read_ndjson(self.paths())
