"""A table as a run's output, over a table in memory that may conflict, fail or lose its answer."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pytest

from exporter.errors import DestinationError
from exporter.records.schema import SCHEMA
from exporter.tables.interface import Commit, CommitConflict, Table, TableMode
from exporter.tables.output import MAX_COMMITS, TableOutput, compact
from exporter.tables.spool import SpilledRows
from tests.support.tables import EXPORTED_AT, publish_sessions, raw_sessions

COMMIT = Commit(run_id="run-1", exporter_version="1.2.3")


@dataclass
class MemoryTable:
    """Remembers what was committed; `answers` come in the place of the first commits."""

    answers: list[Callable[[], None]] = field(default_factory=list)
    commits: list[tuple[str, TableMode, list[str]]] = field(default_factory=list)
    proven: list[str] = field(default_factory=list)
    location = "memory"

    def find_commit(self, run_id: str) -> str | None:
        return next((run for run, _, _ in self.commits if run == run_id), None)

    def prove_writable(self, run_id: str) -> None:
        self.proven.append(run_id)

    def commit_rows(self, rows: SpilledRows, commit: Commit, *, mode: TableMode) -> None:
        if self.answers:
            self.answers.pop(0)()
        table = rows.open_reader(SCHEMA).read_all()
        self.commits.append((commit.run_id, mode, table["session_id"].to_pylist()))

    def compact(self, commit: Commit) -> None:
        raise OSError("no room at https://me:hunter2@store")

    def read_columns(self, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        yield from ()

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        pass


def conflict() -> None:
    raise CommitConflict("somebody else has committed")


def fail() -> None:
    raise DestinationError("the store is gone")


def open_output(
    table: Table, *, mode: TableMode = "replace", sleep: Callable[[float], None] = lambda _: None
) -> TableOutput:
    return TableOutput(
        table, output="t", mode=mode, commit=COMMIT, exported_at=EXPORTED_AT, sleep=sleep
    )


def test_rows_wait_for_one_commit() -> None:
    table = MemoryTable()
    output = open_output(table)

    facts = publish_sessions(output, raw_sessions(1, 2))

    assert table.proven == ["run-1"]
    assert facts.session_count == 2
    assert table.commits == [("run-1", "replace", ["livy-1", "livy-2"])]


def test_upsert_commits_the_last_row_of_a_session() -> None:
    table = MemoryTable()

    publish_sessions(open_output(table, mode="upsert"), raw_sessions(1, 2, 1))

    assert table.commits == [("run-1", "upsert", ["livy-2", "livy-1"])]


@pytest.mark.parametrize(("mode", "count"), [("replace", 1), ("upsert", 0)])
def test_only_a_run_that_replaces_commits_nothing_read(mode: TableMode, count: int) -> None:
    table = MemoryTable()

    publish_sessions(open_output(table, mode=mode), [])

    assert len(table.commits) == count


def test_conflict_is_answered_by_another_commit_after_a_longer_pause_each_time() -> None:
    pauses: list[float] = []
    table = MemoryTable([conflict] * (MAX_COMMITS - 1))

    publish_sessions(open_output(table, sleep=pauses.append), raw_sessions(1))

    assert table.commits == [("run-1", "replace", ["livy-1"])]
    assert pauses == [0.1, 0.2, 0.4, 0.8]


def test_conflicts_without_end_are_an_error() -> None:
    table = MemoryTable([conflict] * MAX_COMMITS)

    with pytest.raises(DestinationError, match="others changed it 5 times"):
        publish_sessions(open_output(table), raw_sessions(1))

    assert table.commits == []


def test_failed_commit_is_an_error() -> None:
    with pytest.raises(DestinationError, match="the store is gone"):
        publish_sessions(open_output(MemoryTable([fail])), raw_sessions(1))


def test_commit_whose_answer_is_lost_is_made() -> None:
    table = MemoryTable()

    def lose_answer() -> None:
        table.commits.append(("run-1", "replace", ["livy-1"]))
        fail()

    table.answers.append(lose_answer)

    publish_sessions(open_output(table), raw_sessions(1))

    assert len(table.commits) == 1


def test_files_that_cannot_be_merged_cost_no_run(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "exporter"):
        compact(MemoryTable(), COMMIT, output="t")

    assert "did not merge the small files of 't'" in caplog.text
    assert "hunter2" not in caplog.messages[0]
