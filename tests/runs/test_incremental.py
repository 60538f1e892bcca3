"""Runs that add to a dataset, one after the other: the newest version of each session counts.

The emulated lists move only between the runs, so that every expected row is known.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio.from_thread
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from exporter.emulator.churn import Churn, Flow, Order
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.emulator.server import Emulator, open_emulator
from exporter.runs.state import State, dump_state, read_state
from tests.support.forks import Ended
from tests.support.program import Program, environ_for

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
QUERY = re.search(
    r"^<!-- newest versions -->\n```sql\n(.*?)^```$", README, re.MULTILINE | re.DOTALL
)
PAGE_SIZE = 25
SESSIONS = 400
MOVING = Churn(insertions=Flow(per_s=1, even=True), expiries=Flow(per_s=0.2, even=True), run_s=30.0)
COLUMNS = {"state": "state", "cuHours": "cu_hours", "vcoreSeconds": "vcore_seconds"}

Versions = dict[tuple[str, str], tuple[Any, ...]]


def build_scenario(**changes: object) -> Scenario:
    gateways = tuple(
        EmulatedGateway(
            gateway_id=name,
            name=name,
            session_count=SESSIONS,
            churn=replace(MOVING, **changes),  # type: ignore[arg-type] # a field each
        )
        for name in ("lc-a", "lc-b")
    )
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one", gateways=gateways)
    return Scenario(seed=4, workspaces=(workspace,))


@dataclass
class Lake:
    """A dataset, and a service with a manual clock."""

    program: Program
    serve: Callable[[Scenario, Callable[[], float]], Emulator]
    emulator: Emulator
    now_s: float = 0.0
    read_count: int = 0

    def move(self, seconds: float = 20.0) -> None:
        self.now_s += seconds

    def restart(self, scenario: Scenario) -> None:
        """Replace the service by another one."""
        self.emulator = self.serve(scenario, lambda: self.now_s)
        self.program = replace(
            self.program,
            environ={**self.program.environ, "LIVY_EXPORTER_ENDPOINT": self.emulator.endpoint},
        )
        self.read_count = 0

    def export(self, *flags: str, gateway: str = "lc-a", adds: bool = True) -> Ended:
        return self.program.run(
            *("export", "--workspace", "w-1", "--gateway", gateway, "-o", "lake/"),
            *("--page-size", str(PAGE_SIZE), "--progress", "none"),
            *(["--incremental"] if adds else []),
            *flags,
        )

    def run(self, *flags: str, gateway: str = "lc-a", adds: bool = True) -> Ended:
        ended = self.export(*flags, gateway=gateway, adds=adds)
        assert ended.code == 0, ended.stderr
        return ended

    @property
    def folder(self) -> Path:
        return self.program.folder / "lake"

    @property
    def state_path(self) -> Path:
        return self.folder / "_exporter" / "state.json"

    @property
    def manifest(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / "_manifest.json").read_bytes())
        return content

    def parts(self) -> list[str]:
        return sorted(path.name for path in self.folder.glob("part-*"))

    def read_state(self) -> State:
        state = read_state(
            self.state_path.read_bytes(),
            output=str(self.folder),
            region_id="cn-hangzhou",
            gateways=(),
        )
        assert isinstance(state, State)
        return state

    def count_reads(self) -> int:
        """Pages of sessions requested since the last call."""
        total = sum(self.emulator.stats().request_counts["ListLivyComputeSessions"].values())
        count, self.read_count = total - self.read_count, total
        return count

    def newest(self) -> Versions:
        assert QUERY is not None
        query = QUERY[1].replace("/data/sessions", str(self.folder))
        columns = ", ".join(COLUMNS.values())
        with duckdb.connect() as connection:
            rows = connection.sql(
                f"SELECT compute_id, session_id, {columns} FROM ({query.rstrip().rstrip(';')})"  # noqa: S608 - our own
            ).fetchall()
        assert len({row[:2] for row in rows}) == len(rows)
        return {row[:2]: row[2:] for row in rows}

    def truth(self, *gateways: str) -> Versions:
        return {
            (name, row["sessionId"]): tuple(row.get(each) for each in COLUMNS)
            for name in gateways
            for row in self.emulator.sessions("w-1", name)
        }

    def assert_true(self, *gateways: str, verified: bool = True) -> None:
        """Sessions that left the list stay in the dataset."""
        newest = self.newest()
        for key, version in self.truth(*gateways or ("lc-a",)).items():
            assert newest[key] == version, key
        assert self.parts() == sorted(each["path"] for each in self.manifest["files"])
        if verified:
            assert self.program.run("verify", "lake/").code == 0


@pytest.fixture
def lake(tmp_path: Path) -> Iterator[Lake]:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    with ExitStack() as stack:
        portal = stack.enter_context(anyio.from_thread.start_blocking_portal())

        def serve(scenario: Scenario, now_s: Callable[[], float]) -> Emulator:
            opened = open_emulator(scenario, monotonic_s=now_s)
            return stack.enter_context(portal.wrap_async_context_manager(opened))

        emulator = serve(build_scenario(), lambda: made.now_s)
        made = Lake(Program(folder, environ_for(emulator, home)), serve, emulator)
        yield made


def test_second_run_adds_only_what_is_new_or_changed(lake: Lake) -> None:
    lake.run()
    first_count = lake.count_reads()
    lake.assert_true()
    for _ in range(3):
        before = lake.truth("lc-a")
        lake.move()

        lake.run()

        now = lake.truth("lc-a")
        changed = {key for key, version in now.items() if before.get(key) != version}
        assert lake.manifest["session_count"] == len(changed)
        assert lake.manifest["mode"] == "incremental"
        assert lake.count_reads() <= 6
        lake.assert_true()
    assert first_count >= SESSIONS // PAGE_SIZE
    assert len(lake.parts()) == 4


def test_run_with_nothing_new_adds_no_part(lake: Lake) -> None:
    lake.restart(build_scenario(run_s=None))
    lake.run()
    parts = lake.parts()
    lake.count_reads()

    lake.run()

    assert lake.parts() == parts
    assert lake.manifest["session_count"] == 0
    assert lake.count_reads() <= 3
    lake.assert_true()


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "newer version 9": lambda text: text.replace(b'"state_version":2', b'"state_version":9'),
    "is damaged": lambda text: text[: len(text) // 2],
    "not the one published last": lambda text: re.sub(
        rb'"run_id":"[^"]*"', b'"run_id":"20260101T000000Z-abcdef"', text
    ),
}


@pytest.mark.parametrize("says", [*DAMAGES, "there is no state"])
def test_state_that_cannot_be_gone_on_from_falls_back_to_a_full_listing(
    says: str, lake: Lake
) -> None:
    lake.run()
    lake.move()
    if says == "there is no state":
        lake.state_path.unlink()
    elif says == "not the one published last":
        lake.state_path.write_bytes(dump_state(replace(lake.read_state(), run_id="another")))
    else:
        lake.state_path.write_bytes(DAMAGES[says](lake.state_path.read_bytes()))

    ended = lake.run()
    lake.assert_true()
    lake.move()
    lake.count_reads()
    lake.run()

    assert "listing in full: " in ended.stderr
    assert says in ended.stderr
    assert len(lake.parts()) == 3
    assert lake.count_reads() <= 6
    lake.assert_true()


def test_dataset_whose_manifest_is_gone_is_left_alone(lake: Lake) -> None:
    lake.run()
    (lake.folder / "_manifest.json").unlink()
    before = lake.program.listing()

    ended = lake.export()

    assert ended.code == 1
    assert "has parts, and no manifest that names them" in ended.stderr
    assert "put lake/_manifest.json back" in ended.stderr
    assert lake.program.listing() == before


@pytest.mark.parametrize(
    ("changes", "flags", "says"),
    [
        ({"output": "/elsewhere"}, (), "belongs to another output"),
        ({"region_id": "cn-beijing"}, (), "belongs to another region"),
        ({}, ("--gateway", "lc-b"), "belongs to other gateways"),
    ],
)
def test_state_of_something_else_is_refused(
    changes: dict[str, Any], flags: tuple[str, ...], says: str, lake: Lake
) -> None:
    lake.run()
    lake.state_path.write_bytes(dump_state(replace(lake.read_state(), **changes)))
    before = lake.program.listing()

    ended = lake.export(gateway=flags[-1] if flags else "lc-a")

    assert ended.code == 2
    assert says in ended.stderr
    assert "hint: name another --state, or remove it" in ended.stderr
    assert lake.program.listing() == before


def test_list_is_read_in_full_when_the_last_full_listing_is_too_old(lake: Lake) -> None:
    lake.run()
    lake.count_reads()

    lake.run("--full-every", "7d")
    recent_count = lake.count_reads()
    state = lake.read_state()
    known = {
        gateway: replace(each, full_at_ms=each.full_at_ms - 8 * 86_400_000)
        for gateway, each in state.gateways.items()
    }
    lake.state_path.write_bytes(dump_state(replace(state, gateways=known)))
    lake.run("--full-every", "7d")
    (gateway,) = lake.manifest["gateways"]
    full_count = lake.count_reads()
    lake.run("--full-every", "7d")

    assert recent_count <= 3
    assert full_count >= SESSIONS // PAGE_SIZE
    assert gateway["full_because"] == "no full listing in the last 7 days"
    assert lake.count_reads() <= 3
    lake.assert_true()


@pytest.mark.parametrize(("settle", "is_read"), [("365d", True), ("0", False)])
def test_session_that_has_ended_is_read_again_while_it_settles(
    settle: str, *, is_read: bool, lake: Lake
) -> None:
    now = datetime.now(UTC)
    lake.restart(replace(build_scenario(settle_s=600.0), newest_created_at=now))
    lake.move(100.0)
    lake.run("--settle", settle)
    before = lake.truth("lc-a")
    lake.move(1_000.0)
    lake.run("--settle", settle)
    after, newest = lake.truth("lc-a"), lake.newest()
    changed = [
        key
        for key, version in before.items()
        if version[0] in {"terminated", "error"} and after.get(key, version) != version
    ]

    assert changed
    assert [newest[key] == after[key] for key in changed] == [is_read] * len(changed)


def test_gateway_that_is_added_later_is_listed_in_full_and_the_others_are_not(lake: Lake) -> None:
    lake.run()
    lake.count_reads()

    lake.run(gateway="lc-a,lc-b")
    lake.assert_true("lc-a", "lc-b")
    both_count = lake.count_reads()
    lake.move()
    lake.run(gateway="lc-b")
    narrow_count = lake.count_reads()
    lake.run(gateway="lc-a,lc-b")

    assert SESSIONS // PAGE_SIZE < both_count <= SESSIONS // PAGE_SIZE + 8
    assert narrow_count <= 6
    assert lake.count_reads() <= 12
    lake.assert_true("lc-a", "lc-b")


def test_page_size_may_change_between_runs(lake: Lake) -> None:
    for page_size in (25, 1, 7, 100):
        lake.run("--page-size", str(page_size))
        lake.assert_true(verified=False)
        lake.move()
    assert "incremental" in {each["mode"] for each in lake.manifest["gateways"]}


def test_full_export_replaces_what_was_added_and_the_next_run_builds_on_it(lake: Lake) -> None:
    lake.run()
    lake.move()
    lake.run()
    lake.move()

    lake.run(adds=False)
    replaced, truth_count = lake.newest(), len(lake.truth("lc-a"))
    full_parts = lake.parts()
    lake.count_reads()
    lake.move()
    lake.run()

    assert len(full_parts) == 1
    assert len(replaced) == truth_count
    assert lake.count_reads() <= 6
    lake.assert_true()


def test_full_export_of_a_span_leaves_nothing_to_go_on_from(lake: Lake) -> None:
    lake.run()

    lake.run("--since", "2026-06-30T10:00:00Z", adds=False)
    was_there = lake.state_path.exists()
    ended = lake.run()

    assert not was_there
    assert "listing in full: there is no state" in ended.stderr
    lake.assert_true()


@pytest.mark.parametrize("lost", [False, True], ids=["with its state", "without its state"])
def test_clock_that_was_set_back_keeps_the_newest_version_the_newest(
    *, lost: bool, lake: Lake
) -> None:
    lake.run()
    ahead = timedelta(days=1)
    for path in lake.folder.glob("part-*"):
        table = pq.read_table(path)
        later = pc.add(table["exported_at"], pa.scalar(ahead, pa.duration("ms")))
        pq.write_table(
            table.set_column(table.column_names.index("exported_at"), "exported_at", later), path
        )
    state = lake.read_state()
    lake.state_path.write_bytes(dump_state(replace(state, exported_at=state.exported_at + ahead)))
    manifest = lake.folder / "_manifest.json"
    finished_at = lake.manifest["finished_at"]
    later = re.sub(r"^\d{4}", "2099", finished_at)
    manifest.write_text(manifest.read_text().replace(finished_at, later))
    if lost:
        lake.state_path.unlink()
    lake.move()

    lake.run()

    lake.assert_true(verified=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"keep_count": 150, "insertions": Flow(per_s=30, even=True)},
        {"order": Order.OLDEST_FIRST},
        {"order": Order.UNORDERED},
    ],
    ids=["pruned", "oldest first", "unordered"],
)
def test_list_that_was_pruned_or_reordered_is_listed_in_full(
    changes: dict[str, object], lake: Lake
) -> None:
    lake.run()
    lake.move()
    lake.restart(build_scenario(**changes))
    if "keep_count" in changes:
        lake.run("--output", "warm.parquet", adds=False)
        lake.move(60)

    lake.run()

    (gateway,) = lake.manifest["gateways"]
    assert gateway["mode"] == "full"
    assert gateway["full_because"]
    lake.assert_true()


def test_unproven_gateway_that_is_published_keeps_what_was_known_of_it(lake: Lake) -> None:
    lake.run()
    known = lake.read_state().gateways
    lake.restart(build_scenario(tie_size=1_000))
    lake.move()

    refused = lake.export("--full-every", "1s")
    ended = lake.run("--full-every", "1s", "--allow-incomplete")
    kept = lake.read_state().gateways
    lake.restart(build_scenario())
    lake.run()

    assert refused.code == 4
    assert "INCOMPLETE" in ended.stderr
    assert kept == known
    lake.assert_true()


@pytest.mark.parametrize("output", ["one.parquet", "-"])
def test_incremental_run_to_what_cannot_be_added_to_is_refused(output: str, lake: Lake) -> None:
    ended = lake.program.run("export", "--workspace", "w-1", "--incremental", "-o", output)

    assert ended.code == 2
    assert f"an incremental run needs a folder or a table, not '{output}'" in ended.stderr
    assert "hint: name a folder" in ended.stderr
    assert lake.program.listing() == {}


def test_state_may_be_kept_elsewhere(lake: Lake) -> None:
    for _ in range(2):
        lake.run("--state", "mine.json")
        lake.move()
    lake.count_reads()
    lake.run("--state", "mine.json")

    assert lake.count_reads() <= 6
    assert not lake.state_path.exists()
    assert (lake.program.folder / "mine.json").exists()
    lake.assert_true()
