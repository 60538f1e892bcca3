"""What every output promises through the whole program: one suite, inherited once a target, and run
on a local disk, on S3 and on a store that behaves like OSS. The engine that fits reads.
"""

import json
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchTableError

from exporter.emulator.history import RawSession
from exporter.emulator.server import Emulator
from tests.dying import (
    CLOSED,
    DESCRIBED,
    INTENDED,
    LISTED,
    SHOWN,
    STATED,
    TOLD,
    Ended,
    Forks,
    Stage,
    forking,
)
from tests.integration.conftest import environ_for, serving
from tests.lake import (
    Account,
    Bucket,
    Disk,
    Key,
    Place,
    Row,
    is_hidden,
    is_lock,
    newest_first,
    odd_sessions,
    raw_row,
    read_ndjson,
    read_parquet,
    read_table,
    typed_row,
)
from tests.object_server import ObjectServer


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    with forking() as running:
        yield running


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Account, Emulator]]:
    account = Account()
    with serving(account.scenario) as emulator:
        yield account, emulator


@pytest.fixture
def account(served: tuple[Account, Emulator]) -> Account:
    account, _ = served
    account.put(newest_first(range(1, 121)), [], newest_first(range(5)))
    return account


@pytest.fixture(params=["local", "s3", "oss"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, object_server: ObjectServer, judge: Any
) -> Place:
    if request.param == "local":
        folder = tmp_path / "lake"
        folder.mkdir()
        return Disk(folder)
    bucket = request.getfixturevalue("bucket")
    return Bucket(request.param, bucket, object_server, judge, tmp_path / "fetched")


@dataclass(frozen=True)
class Seen:
    """What a reader finds."""

    newest: dict[Key, Row]
    """The last version of each session, without the time of its run."""
    row_count: int
    exported_at: set[int]
    """In milliseconds."""


class LakeContract:
    """Subclasses name the output, and read it as a user would."""

    name: ClassVar[str]
    """Below the place."""
    flags: ClassVar[tuple[str, ...]] = ()
    manifest: ClassVar[str]
    state: ClassVar[str | None]
    """None where runs cannot build on each other."""
    seen_when_shown: ClassVar[Literal["old", "new"]]
    """By who goes by the manifest where there is one, before it is written."""

    @pytest.fixture(autouse=True)
    def setting(
        self,
        place: Place,
        account: Account,
        served: tuple[Account, Emulator],
        forks: Forks,
        tmp_path: Path,
    ) -> None:
        self.place = place
        self.account = account
        self.forks = forks
        self.home = tmp_path / "home"
        self.home.mkdir()
        self.environ = {**environ_for(served[1], self.home), **place.environ, **self.more_environ()}

    def more_environ(self) -> Mapping[str, str]:
        return {}

    @property
    def output(self) -> str:
        return f"{self.place.url}{self.name}"

    def run(
        self,
        *flags: str,
        stage: Stage | None = None,
        number: signal.Signals = signal.SIGKILL,
    ) -> Ended:
        return self.forks.run(
            *("export", "--workspace", "all", "-q", "--output", self.output),
            *(*self.flags, *self.place.arguments, *flags),
            environ=self.environ,
            folder=self.home,
            stage=stage,
            number=number,
        )

    def export(self, *flags: str) -> dict[str, Any]:
        """A run that is well; its manifest."""
        ended = self.run(*flags)
        assert (ended.code, ended.stdout) == (0, ""), ended.stderr
        manifest = self.read_json(self.manifest)
        assert manifest is not None
        return manifest

    def read_json(self, name: str) -> dict[str, Any] | None:
        path = self.place.fetch(name)
        read: dict[str, Any] | None = None if path is None else json.loads(path.read_bytes())
        return read

    def read(self) -> list[Row]:
        """The rows that a reader finds; none where there is no output."""
        raise NotImplementedError

    def key_of(self, row: Row) -> Key:
        return (row["workspace_id"], row["compute_id"], row["session_id"])

    exported_at: ClassVar[str] = "exported_at"

    def expect(self, key: Key, session: RawSession) -> Row:
        return typed_row(key, session)

    def truth(self) -> dict[Key, Row]:
        return {key: self.expect(key, session) for key, session in self.account.sessions().items()}

    def see(self) -> Seen:
        rows = self.read()
        versions = Counter((self.key_of(row), row[self.exported_at]) for row in rows)
        assert all(count == 1 for count in versions.values())
        newest = {self.key_of(row): row for row in sorted(rows, key=itemgetter(self.exported_at))}
        times = {row.pop(self.exported_at) for row in rows}
        return Seen(newest, len(rows), times)

    def runs(self) -> list[str]:
        """The runs that the output itself knows to have written it, the last one last."""
        manifest = self.read_json(self.manifest)
        return [] if manifest is None else [manifest["run_id"]]

    @property
    def told(self) -> set[str | None]:
        return {self.manifest, self.state}

    def data_names(self) -> set[str]:
        """Of the files that a reader could take for data."""
        return {
            name for name in self.place.names() if not is_hidden(name) and name not in self.told
        }

    def assert_whole(self) -> None:
        """Output, manifest and state are of one run, and no other data are there."""
        manifest = self.read_json(self.manifest)
        assert manifest is not None
        assert self.runs()[-1] == manifest["run_id"]
        assert len(set(self.runs())) == len(self.runs())
        if self.state is not None:
            state = self.read_json(self.state)
            assert state is not None
            assert state["run_id"] == manifest["run_id"]
        self.assert_only_data()

    def assert_only_data(self) -> None:
        raise NotImplementedError

    def assert_nothing_left(self) -> None:
        """Of runs that did not come to their end."""
        hidden = {name for name in self.place.names() if is_hidden(name) and not is_lock(name)}
        assert hidden <= self.told

    def test_every_value_of_every_session_is_there(self) -> None:
        self.account.put(newest_first(range(1, 251)), odd_sessions(), newest_first(range(5)))

        manifest = self.export()

        seen, truth = self.see(), self.truth()
        assert seen.newest == truth
        assert seen.row_count == manifest["session_count"] == len(truth)
        assert len(seen.exported_at) == 1
        assert (manifest["status"], manifest["output"]) == ("complete", self.output)
        self.assert_whole()
        self.assert_nothing_left()

    def test_export_of_nothing_can_be_read(self) -> None:
        self.account.put()

        manifest = self.export()

        assert self.read() == []
        assert manifest["session_count"] == 0
        self.assert_whole()

    def test_second_export_replaces_the_first(self) -> None:
        self.export()
        self.account.put(newest_first(range(100, 130), state="error"), odd_sessions()[5:])

        self.export()

        seen, truth = self.see(), self.truth()
        assert seen.newest == truth
        assert seen.row_count == len(truth)
        self.assert_whole()
        self.assert_nothing_left()

    def test_run_that_is_cancelled_shows_nothing(self) -> None:
        first = self.run(stage=LISTED, number=signal.SIGTERM)
        seen_first, names_first = self.read(), self.data_names()
        self.export()
        before, names = self.see(), self.data_names()
        self.account.put(newest_first(range(10)))

        second = self.run(stage=LISTED, number=signal.SIGTERM)

        assert first.code == second.code == 128 + signal.SIGTERM
        assert (seen_first, names_first) == ([], set())
        assert (self.see(), self.data_names()) == (before, names)
        self.assert_whole()

    def is_new_seen_at(self, stage: Stage) -> bool:
        if stage == SHOWN:
            return self.seen_when_shown == "new"
        return stage in {DESCRIBED, STATED, TOLD}

    def replace_after_a_kill(self, stage: Stage) -> None:
        self.export()
        before = self.see()
        self.account.put(newest_first(range(100, 130), state="error"))
        truth = self.truth()

        killed = self.run(stage=stage)
        seen = self.see()
        self.place.end_leases()
        self.export()

        repaired = self.see()
        assert killed.code == -signal.SIGKILL
        assert seen.newest == (truth if self.is_new_seen_at(stage) else before.newest)
        assert repaired.newest == truth
        assert repaired.row_count == len(truth)
        self.assert_whole()
        self.assert_nothing_left()


class AddingContract(LakeContract):
    """Outputs that incremental runs add to."""

    def begin(self) -> None:
        """An incremental run; two sessions have not ended."""
        running = {"state": "running", "endTime": None}
        first = [*newest_first([119, 120], **running), *newest_first(range(1, 119))]
        self.account.put(first, [], newest_first(range(5)))
        self.export("--incremental")

    def change(self) -> int:
        """Now they have, and three more have come and gone; how many sessions are different."""
        before = self.truth()
        ended = newest_first([119, 120], state="error", endTime=9_999_999_999_999)
        first = [*newest_first([121, 122, 123]), *ended, *newest_first(range(1, 119))]
        self.account.put(first, [], newest_first(range(5)))
        return sum(before.get(key) != row for key, row in self.truth().items())

    def count_rows(self, begun: int, changed: int) -> int:
        """How many there are after one run that added what had changed."""
        raise NotImplementedError

    def test_incremental_run_adds_what_is_new_or_has_changed(self) -> None:
        self.begin()
        before = self.see()

        changed = self.change()
        self.export("--incremental")

        seen = self.see()
        assert changed == 5
        assert seen.newest == self.truth()
        assert seen.row_count == self.count_rows(before.row_count, changed)
        self.assert_whole()
        self.assert_nothing_left()

    def test_incremental_run_with_nothing_new_adds_nothing(self) -> None:
        self.export("--incremental")
        before, names = self.see(), self.data_names()

        manifest = self.export("--incremental")

        assert manifest["session_count"] == 0
        assert (self.see(), self.data_names()) == (before, names)

    @pytest.mark.parametrize(
        ("place", "stage"),
        [
            *(("local", each) for each in (LISTED, CLOSED, INTENDED)),
            *(("local", each) for each in (SHOWN, DESCRIBED, STATED, TOLD)),
            *(("s3", each) for each in (INTENDED, SHOWN, DESCRIBED, STATED)),
            *(("oss", each) for each in (INTENDED, SHOWN)),
        ],
        indirect=["place"],
        ids=str,
    )
    def test_incremental_run_that_is_killed_adds_once(self, stage: Stage) -> None:
        self.begin()
        before = self.see()
        changed = self.change()
        truth = self.truth()

        killed = self.run("--incremental", stage=stage)
        seen = self.see()
        self.place.end_leases()
        self.export("--incremental")
        self.export("--incremental")

        repaired = self.see()
        assert killed.code == -signal.SIGKILL
        assert seen.newest == (truth if self.is_new_seen_at(stage) else before.newest)
        assert repaired.newest == truth
        assert repaired.row_count == self.count_rows(before.row_count, changed)
        self.assert_nothing_left()

    @pytest.mark.parametrize(
        ("place", "stage"),
        [("local", SHOWN), ("local", TOLD), ("s3", SHOWN)],
        indirect=["place"],
        ids=str,
    )
    def test_run_that_is_killed_is_put_right_by_the_next(self, stage: Stage) -> None:
        self.replace_after_a_kill(stage)


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
            *(("local", each) for each in (LISTED, CLOSED, INTENDED, SHOWN, DESCRIBED, TOLD)),
            *(("s3", each) for each in (INTENDED, SHOWN, DESCRIBED)),
            ("oss", SHOWN),
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
    seen_when_shown = "old"

    def paths(self) -> list[Path]:
        """Of the parts that the manifest names."""
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


class TableContract(AddingContract):
    seen_when_shown = "new"
    folder: ClassVar[str]

    def assert_only_data(self) -> None:
        assert all(name.startswith(f"{self.folder}/") for name in self.data_names())

    def count_rows(self, begun: int, changed: int) -> int:
        return len(self.truth())


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

    def read(self) -> list[Row]:
        return read_parquet(self.path())


class TestNdjsonFile(Ndjson, FileContract):
    name = "sessions.ndjson.gz"
    manifest = "sessions.ndjson.gz.manifest.json"

    def read(self) -> list[Row]:
        return read_ndjson(self.path())


class TestParquetDataset(DatasetContract):
    def read(self) -> list[Row]:
        return read_parquet(self.paths())


class TestNdjsonDataset(Ndjson, DatasetContract):
    flags = ("--format", "ndjson")

    def read(self) -> list[Row]:
        return read_ndjson(self.paths())


class TestIceberg(TableContract):
    name = "ops.sessions"
    folder = "ops/sessions"
    manifest = "ops/sessions.manifest.json"
    state = "ops/sessions.state.json"

    @property
    def output(self) -> str:
        return "iceberg://lake/ops.sessions"

    def properties(self) -> dict[str, str]:
        url = self.place.url.rstrip("/")
        return {
            "uri": f"sqlite:///{self.home}/catalog.db",
            "warehouse": f"file://{url}" if url.startswith("/") else url,
            **self.place.iceberg,
        }

    def more_environ(self) -> Mapping[str, str]:
        return {
            "PYICEBERG_CATALOG__LAKE__" + name.upper().replace(".", "__").replace("-", "_"): value
            for name, value in self.properties().items()
        }

    def read(self) -> list[Row]:
        catalog = load_catalog("lake", **self.properties())
        try:
            return read_table(catalog.load_table("ops.sessions").scan().to_arrow())
        except NoSuchTableError:
            return []
        finally:
            catalog.close()

    def runs(self) -> list[str]:
        catalog = load_catalog("lake", **self.properties())
        try:
            return [
                run_id
                for each in catalog.load_table("ops.sessions").snapshots()
                if each.summary is not None
                and (run_id := each.summary.additional_properties.get("livy_exporter.run_id"))
            ]
        finally:
            catalog.close()
