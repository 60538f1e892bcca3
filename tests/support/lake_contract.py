"""The contract of every output through the whole program: a suite to inherit, once a target.

They hold on a local disk, on S3 and on a store that behaves like OSS; the engine that fits reads.
"""

import json
import signal
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from exporter.emulator.generated_list import RawSession
from exporter.emulator.server import Emulator
from tests.support.forks import (
    CLOSED,
    DESCRIBED,
    INTENDED,
    LISTED,
    SHOWN,
    STATED,
    TOLD,
    Ended,
    Stage,
    run_forked,
)
from tests.support.lake import (
    Account,
    Key,
    Place,
    Row,
    is_hidden,
    newest_first,
    odd_sessions,
    param_place,
    typed_row,
)
from tests.support.program import environ_for


@dataclass(frozen=True)
class Seen:
    """The rows that a reader finds."""

    newest: dict[Key, Row]
    """The last version of each session, without the time of its run."""
    row_count: int
    exported_at: set[int]
    """In milliseconds."""


class LakeContract:
    """Subclasses name the output, and read it as a user would."""

    name: ClassVar[str]
    """The output's name in the place."""
    flags: ClassVar[tuple[str, ...]] = ()
    manifest: ClassVar[str]
    state: ClassVar[str | None]
    """None where runs cannot build on each other."""
    lock: ClassVar[str]
    """The name of the lock file, or the prefix of the leases' names."""
    seen_when_shown: ClassVar[Literal["old", "new"]]
    """What readers see before the manifest is written; datasets are read by their manifest."""

    @pytest.fixture(autouse=True)
    def setting(
        self,
        place: Place,
        account: Account,
        served: tuple[Account, Emulator],
        tmp_path: Path,
    ) -> None:
        self.place = place
        self.account = account
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
        return run_forked(
            *("export", "--workspace", "all", "-q", "--output", self.output),
            *("--keep-leftovers", "0s"),  # a killed run is not asleep
            *(*self.flags, *self.place.arguments, *flags),
            environ=self.environ,
            folder=self.home,
            stage=stage,
            number=number,
        )

    def export(self, *flags: str) -> dict[str, Any]:
        """Run and succeed; the manifest."""
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
        """The runs that wrote the output, as it says itself, the newest last."""
        manifest = self.read_json(self.manifest)
        return [] if manifest is None else [manifest["run_id"]]

    @property
    def record_names(self) -> set[str | None]:
        return {self.manifest, self.state}

    def data_names(self) -> set[str]:
        """Names of the files that a reader could take for data."""
        return {
            name
            for name in self.place.names()
            if not is_hidden(name) and name not in self.record_names
        }

    def assert_whole(self) -> None:
        """Output, manifest and state are of one run, and there is no other data."""
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
        """No file is left of runs that were killed."""
        hidden = {name for name in self.place.names() if is_hidden(name)} - self.record_names
        locks = (f"{self.lock}.0", f"{self.lock}.probe")
        left = {name for name in hidden if "/_manifests/" not in name} - {self.lock}
        assert [name for name in left if not name.startswith(locks)] == []

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
        others = newest_first(range(3))
        self.account.put(newest_first(range(100, 130), state="error"), odd_sessions()[5:], others)

        self.export()

        seen, truth = self.see(), self.truth()
        assert seen.newest == truth
        assert seen.row_count == len(truth)
        self.assert_whole()
        self.assert_nothing_left()

    def test_full_export_that_finds_nothing_takes_nothing_away_unless_that_is_meant(self) -> None:
        self.export()
        before = self.see()
        self.account.put()

        ended = self.run()

        error, hint = ended.stderr.splitlines()
        assert ended.code == 4
        assert error.startswith("error: no session was found of w-1/")
        assert "--allow-empty" in hint
        assert self.see() == before
        self.assert_whole()
        self.assert_nothing_left()

        self.export("--allow-empty")

        assert self.read() == []
        self.assert_whole()

    def test_full_export_that_finds_nothing_of_one_gateway_names_it(self) -> None:
        self.export()
        before = self.see()
        self.account.put(newest_first(range(100, 130)), odd_sessions()[5:])

        ended = self.run()

        assert ended.code == 4
        assert "no session was found of w-2/lc-1, and " in ended.stderr
        assert self.see() == before

        self.export("--allow-empty")

        assert self.see().newest == self.truth()

    def test_run_that_is_cancelled_shows_nothing(self) -> None:
        first = self.run(stage=LISTED, number=signal.SIGTERM)
        seen_first, names_first = self.read(), self.data_names()
        self.export()
        before, names = self.see(), self.data_names()
        self.account.put(newest_first(range(10)), [], newest_first(range(3)))

        second = self.run(stage=LISTED, number=signal.SIGTERM)

        assert first.code == second.code == 128 + signal.SIGTERM
        assert (seen_first, names_first) == ([], set())
        assert (self.see(), self.data_names()) == (before, names)
        self.assert_whole()

    def is_new_seen_at(self, stage: Stage, *, adds: bool = False) -> bool:
        """Whether readers see the rows of a run killed at a stage; `adds` if it did not replace."""
        if stage == SHOWN:
            return self.seen_when_shown == "new"
        return stage in {DESCRIBED, STATED, TOLD}

    def replace_after_a_kill(self, stage: Stage) -> None:
        self.export()
        before = self.see()
        others = newest_first(range(3))
        self.account.put(newest_first(range(100, 130), queue="other"), [], others)
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
        """Start with an incremental run; two sessions have not ended."""
        running = {"state": "running", "endTime": None}
        first = [*newest_first([119, 120], **running), *newest_first(range(1, 119))]
        self.account.put(first, [], newest_first(range(5)))
        self.export("--incremental")

    def change(self) -> int:
        """End the two sessions and add three more; the number of changed sessions."""
        before = self.truth()
        ended = newest_first([119, 120], state="error", endTime=9_999_999_999_999)
        first = [*newest_first([121, 122, 123]), *ended, *newest_first(range(1, 119))]
        self.account.put(first, [], newest_first(range(5)))
        return sum(before.get(key) != row for key, row in self.truth().items())

    def count_rows(self, begun: int, changed: int) -> int:
        """The number of rows after a run that added the changed sessions."""
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

    def test_incremental_run_that_finds_nothing_takes_nothing_and_goes_on_later(self) -> None:
        self.begin()
        before = self.see()
        lists = [list(each.sessions()) for each in self.account.lists.values()]
        self.account.put()

        self.export("--incremental")

        assert self.see() == before

        self.account.put(*lists)
        manifest = self.export("--incremental")

        assert manifest["session_count"] == 0, "it goes on from what it knew before"
        assert self.see() == before

    def test_incremental_run_with_nothing_new_adds_nothing(self) -> None:
        self.export("--incremental")
        before, names = self.see(), self.data_names()

        manifest = self.export("--incremental")

        assert manifest["session_count"] == 0
        assert (self.see(), self.data_names()) == (before, names)

    @pytest.mark.parametrize(
        ("place", "stage"),
        [
            *(param_place("local", each) for each in (LISTED, CLOSED, INTENDED)),
            *(param_place("local", each) for each in (SHOWN, DESCRIBED, STATED, TOLD)),
            *(param_place("s3", each) for each in (INTENDED, SHOWN, DESCRIBED, STATED)),
            *(param_place("oss", each) for each in (INTENDED, SHOWN)),
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
        assert seen.newest == (truth if self.is_new_seen_at(stage, adds=True) else before.newest)
        assert repaired.newest == truth
        assert repaired.row_count == self.count_rows(before.row_count, changed)
        self.assert_nothing_left()

    @pytest.mark.parametrize(
        ("place", "stage"),
        [param_place("local", SHOWN), param_place("local", TOLD), param_place("s3", SHOWN)],
        indirect=["place"],
        ids=str,
    )
    def test_run_that_is_killed_is_put_right_by_the_next(self, stage: Stage) -> None:
        self.replace_after_a_kill(stage)
