"""Writers of tables that are killed at random moments of their publish, one after the other.

A few of each format are part of the campaign; `python -m pytest -m soak` kills a hundred of each.
"""

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from exporter.model import TableFormat
from exporter.tables.interface import Commit, Table, TableMode
from tests.support.object_server import ObjectServer
from tests.support.patience import HANG_S, wait_until
from tests.support.table_writer import MERGED, PUBLISHED, PUBLISHING, open_output, open_table

pytestmark = pytest.mark.campaign

ROOT = Path(__file__).parents[2]
KILLS_TO_A_TABLE = 25
FIRST_NUMBER = 100_000
"""All numbers have as many digits, so files of successive runs have separate ranges of keys."""
MAX_ROWS = 2_000
MAX_TRIES = 12
"""Runs that may end before one is killed: each is killed within half the time of the last."""
MODES: list[TableMode] = ["replace", "upsert"]

PLACES = [
    ("delta", "local"),
    ("delta", "s3"),
    ("iceberg", "local"),
    ("iceberg", "s3"),
    ("paimon", "local"),
]


@dataclass(frozen=True)
class Place:
    """Where tables of one format are made."""

    table_format: TableFormat
    store: str
    prefix: str
    """The output without the name of its table."""
    settle: Callable[[], None]
    """Waits until the store has finished the requests of killed writers."""


@dataclass(frozen=True)
class Run:
    run_id: str
    mode: TableMode
    state: str
    rows: range

    @property
    def states(self) -> dict[str, str]:
        return {f"livy-{each}": self.state for each in self.rows}


@dataclass
class Campaign:
    """The tables of one place, one after the other, and the runs that write them."""

    place: Place
    chance: random.Random
    publish_s: float = 0.0
    """Duration of the last publish that was not killed."""
    merge_s: float = 0.0
    """Duration of its compaction, even if there was nothing to merge."""
    output: str = ""
    model: dict[str, str] = field(default_factory=dict)
    next_number: int = FIRST_NUMBER
    run_count: int = 0
    ends: Counter[str] = field(default_factory=Counter)

    def begin_table(self, name: str) -> None:
        self.output = f"{self.place.prefix}{name}"
        self.model = {}
        self.next_number = FIRST_NUMBER

    def finish(self) -> None:
        """A run that is not killed, on top of the remains of killed ones."""
        run = self._choose_run()
        with self._start(run) as process:
            started_s = time.monotonic()
            assert read_line(process) == PUBLISHED
            published_s = time.monotonic()
            assert read_line(process) == MERGED
            self.publish_s = published_s - started_s
            self.merge_s = time.monotonic() - published_s
            process.communicate(timeout=HANG_S)
        assert process.returncode == 0
        assert self._look(run)

    def kill_one(self) -> None:
        tries = (self.kill(part=0.5**number) for number in range(MAX_TRIES))
        assert any(tries)

    def kill(self, *, part: float) -> bool:
        """Start a run, kill it within this first part of it, and check the table.

        False if the run had ended before.
        """
        run = self._choose_run()
        moment = self.chance.choice([PUBLISHING, PUBLISHING, PUBLISHING, PUBLISHED])
        whole_s = self.publish_s if moment == PUBLISHING else self.merge_s
        delay_s = self.chance.random() * whole_s * part
        with self._start(run) as process:
            if moment == PUBLISHED:
                assert read_line(process) == PUBLISHED
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
            said, _ = process.communicate(timeout=HANG_S)
        assert process.returncode in {0, -signal.SIGKILL}
        self.place.settle()
        is_committed = self._look(run)
        if MERGED in said.split():
            end = "too late"
        elif moment == PUBLISHED or PUBLISHED in said.split():
            end = "published"
        else:
            end = "committed" if is_committed else "not committed"
        assert is_committed or end == "not committed"
        self.ends[end] += 1
        return end != "too late"

    def _choose_run(self) -> Run:
        """Most runs add sessions; some change existing ones, some replace all."""
        self.run_count += 1
        [mode] = self.chance.choices(MODES, weights=[1, 5])
        first = self.next_number
        end = first + self.chance.randrange(1, MAX_ROWS)
        if self.chance.random() < 0.4:
            first = self.chance.randrange(FIRST_NUMBER, first + 1)
            end = first + self.chance.randrange(1, MAX_ROWS)
        self.next_number = max(self.next_number, end)
        number = f"{self.run_count:03}"
        return Run(f"run-{number}", mode, f"state-{number}", range(first, end))

    def _start(self, run: Run) -> "subprocess.Popen[str]":
        """A writer that has begun to publish."""
        process = subprocess.Popen(
            [
                *(
                    sys.executable,
                    "-m",
                    "tests.support.table_writer",
                    self.place.table_format,
                    self.output,
                ),
                *(run.mode, run.run_id, run.state, str(run.rows.start), str(run.rows.stop)),
            ],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert read_line(process) == PUBLISHING
        return process

    def _look(self, run: Run) -> bool:
        """Check that the next run finds all rows of this one or none, as the table's log says."""
        with open_table(self.place.table_format, self.output) as table:
            commit = table.find_commit(run.run_id)
            if commit is not None:
                self.model = run.states if run.mode == "replace" else self.model | run.states
            assert read_states(table) == self.model
            if commit is None:
                table.remove_leftovers(run.run_id, keep_s=0.0)
            else:
                self._publish_again(table, run)
                assert table.find_commit(run.run_id) == commit
            assert read_states(table) == self.model
            return commit is not None

    def _publish_again(self, table: Table, run: Run) -> None:
        """Publish with other rows: the same rows could be written twice unnoticed."""
        output = open_output(
            table,
            mode=run.mode,
            commit=Commit(run_id=run.run_id, exporter_version="1"),
            rows=range(run.rows.start, run.rows.stop + 1),
            state="again",
        )
        output.publish()
        output.discard()


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def read_states(table: Table) -> dict[str, str]:
    rows = [row for each in table.read_columns(["session_id", "state"]) for row in each.to_pylist()]
    states = {row["session_id"]: row["state"] for row in rows}
    assert len(states) == len(rows)
    return states


def run_campaign(place: Place, *, kill_count: int, seed: int) -> Campaign:
    campaign = Campaign(place, random.Random(seed))  # noqa: S311 - the same moments each time
    campaign.begin_table("measured")
    campaign.finish()
    for number in range(kill_count):
        if number % KILLS_TO_A_TABLE == 0:
            campaign.begin_table(f"sessions_{number}")
        campaign.kill_one()
        if number % KILLS_TO_A_TABLE == KILLS_TO_A_TABLE - 1:
            campaign.finish()
    campaign.finish()
    return campaign


@pytest.fixture(params=PLACES, ids="-".join)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    table_format, store = request.param
    root, environ = f"{tmp_path}/warehouse", {"HOME": str(tmp_path)}
    Path(root, "ops.db").mkdir(parents=True)
    settle: Callable[[], None] = lambda: None  # noqa: E731 - a disk does what it was asked at once
    if store == "s3":
        server: ObjectServer = request.getfixturevalue("object_server")
        root = f"s3://{request.getfixturevalue('bucket')}/warehouse"
        environ |= {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "s3cret-value",
            "PYICEBERG_CATALOG__LAKE__S3__ENDPOINT": server.url,
            "PYICEBERG_CATALOG__LAKE__S3__REGION": "us-east-1",
            "PYICEBERG_CATALOG__LAKE__S3__ACCESS_KEY_ID": "key",
            "PYICEBERG_CATALOG__LAKE__S3__SECRET_ACCESS_KEY": "s3cret-value",
        }
        settle = lambda: wait_until(lambda: server.count_in_flight() == 0)  # noqa: E731
    prefix = f"{root}/ops.db/"
    if table_format == "iceberg":
        environ["PYICEBERG_CATALOG__LAKE__URI"] = f"sqlite:///{tmp_path}/catalog.db"
        environ["PYICEBERG_CATALOG__LAKE__WAREHOUSE"] = root if store == "s3" else f"file://{root}"
        prefix = "iceberg://lake/ops."
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    return Place(table_format, store, prefix, settle)


def test_killed_writer_of_a_table_has_committed_all_or_nothing(place: Place) -> None:
    kill_count = 3 if place.store == "s3" else 4

    campaign = run_campaign(place, kill_count=kill_count, seed=1)

    assert campaign.ends.total() - campaign.ends["too late"] == kill_count


@pytest.mark.soak
def test_hundred_killed_writers_of_tables(place: Place) -> None:
    campaign = run_campaign(place, kill_count=100, seed=2)

    took = f"a publish takes {campaign.publish_s:.3f}s"
    print(place.table_format, place.store, dict(campaign.ends), took)
    assert campaign.ends.total() - campaign.ends["too late"] == 100
    assert campaign.ends["not committed"] > 0
    assert campaign.ends["committed"] + campaign.ends["published"] > 0
