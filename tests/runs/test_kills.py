"""Runs that are killed at random moments, one after the other, over moving lists.

Twenty-one of them are part of the campaign; `python -m pytest -m soak` kills 108.
"""

import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest

from exporter.destinations.destination import Destination
from exporter.destinations.resolve import resolve_destination
from exporter.emulator.churn import Churn, Flow
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.emulator.server import Emulator, open_emulator
from exporter.runs.intents import parse_intent
from exporter.runs.manifest_log import read_manifest
from exporter.runs.publish import Publisher
from exporter.runs.verify import verify
from exporter.stores.hashing import digest
from tests.support.forks import ForkedProgram
from tests.support.patience import HANG_S, AnswerClock
from tests.support.program import Program, environ_for

pytestmark = pytest.mark.campaign

GATEWAYS = ("lc-a", "lc-b")
CHURNS = (
    Churn(insertions=Flow(per_s=10), run_s=1.0),
    Churn(insertions=Flow(per_s=5), expiries=Flow(per_s=4), run_s=2.0),
)
SCENARIO = Scenario(
    seed=11,
    latency_s=0.01,
    jitter_s=0.02,
    workspaces=(
        EmulatedWorkspace(
            workspace_id="w-1",
            name="one",
            gateways=tuple(
                EmulatedGateway(gateway_id=name, name=name, session_count=400, churn=churn)
                for name, churn in zip(GATEWAYS, CHURNS, strict=True)
            ),
        ),
    ),
)
FLAGS = (
    "export",
    "--progress",
    "none",
    "--workspace",
    "all",
    "--page-size",
    "10",
    "--concurrency",
    "6",
)
KILLS_TO_A_FINISH = 4
MAX_TOO_LATE = 5
"""Runs in a row that may end before they are killed, as on a machine that just got faster."""
BETWEEN_S = 1.0
"""Time between two runs, by the clock of the lists."""

Row = dict[str, Any]
Key = tuple[str, str]


@dataclass
class Campaign:
    """One output, and the runs that write it."""

    program: Program
    emulator: Emulator
    clock: AnswerClock
    output: str
    flags: Sequence[str]
    chance: random.Random
    whole_s: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)
    finished_at: Counter[str] = field(default_factory=Counter)
    """Answers of each gateway until everything was exported."""

    @property
    def destination(self) -> Destination:
        return self._resolve(self.program.folder)

    def finish(self) -> None:
        """A run that may resume a killed one, and one over lists that stand still: the result is
        known exactly.
        """
        if self._run(codes={0, 4}) == 4:
            self.ends["unproven"] += 1
            # From the beginning, then; over lists that move on it might find no proof either.
            with self.clock.held():
                self._run()
        union, _ = self._read_union()
        for name in GATEWAYS:
            truth = self.emulator.truth("w-1", name, first_answer=self.finished_at[name] + 1)
            assert truth.lost(key[1] for key in union if key[0] == name) == frozenset()
        with self.clock.held():
            started_s = time.monotonic()
            self._run()
            self.whole_s = time.monotonic() - started_s
            self._assert_complete()
        for name in GATEWAYS:
            self.finished_at[name] = self.emulator.truth("w-1", name).answer_count

    def _run(self, codes: Container[int] = (0,)) -> int:
        self.clock.go_on(BETWEEN_S)
        ended = self.program.run(*FLAGS, *self.flags, "-o", self.output)
        assert ended.code in codes, ended.stderr
        if ended.code == 0:
            self._assert_tidy()
        return ended.code

    def kill(self) -> bool:
        """Start a run, kill it at a moment, check its leftovers; whether the kill came in time."""
        home = self.destination.sidecars
        assert home is not None
        intent = Path(home.store.path_of(home.intent))
        moment = self.chance.choice(["any", "any", "while it publishes", "after it published"])
        self.clock.go_on(BETWEEN_S)
        delay_s = self.chance.random() * (self.whole_s if moment == "any" else 0.008)
        with self.program.start(*FLAGS, *self.flags, "-o", self.output) as process:
            if moment != "any":
                watch(process, intent, is_there=True)
            if moment == "after it published":
                watch(process, intent, is_there=False)
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
            _, stderr = process.communicate(timeout=HANG_S)
        # So much comes and goes, between two runs too, that one may find no proof.
        end = {0: "too late", 4: "unproven", -signal.SIGKILL: moment}.get(process.wait())
        assert end is not None, stderr.decode()
        self.ends[end] += 1
        if end == "unproven":
            self.ends["unproven, resumed"] += b"taken over" in stderr
        self._assert_whole()
        self._assert_recoverable()
        return end != "too late"

    def _resolve(self, folder: Path) -> Destination:
        slash = "/" if self.output.endswith("/") else ""
        return resolve_destination(f"{folder / self.output}{slash}", chosen=None)

    def _assert_whole(self) -> None:
        """Check the files against the manifest, or the one that is about to replace it."""
        home = self.destination.sidecars
        assert home is not None
        manifest, intent = read_manifest(home.store, home.manifest), home.store.read(home.intent)
        if self.destination.kind == "dataset":
            for each in () if manifest is None else manifest.files:
                assert digest(self.destination.store, each.path) == each.sha256
            return
        named = [] if manifest is None else [manifest]
        if intent is not None and (meant := parse_intent(intent)) is not None:
            named.append(meant.manifest)
        if named and self.destination.store.size_of(self.destination.name) is not None:
            found = digest(self.destination.store, self.destination.name)
            assert found in [each.files[0].sha256 for each in named]

    def _assert_recoverable(self) -> None:
        """Data, manifest and state are of the same run once the next one has begun."""
        copy = self.program.folder.with_name("copy")
        shutil.copytree(self.program.folder, copy)
        destination = self._resolve(copy)
        home = destination.sidecars
        assert home is not None
        state_at = None if home.state is None else (home.store, home.state)
        Publisher(destination, home, state_at=state_at).recover()
        manifest = read_manifest(home.store, home.manifest)
        if manifest is not None:
            assert verify(destination).problems == ()
        if home.state is not None and (state := home.store.read(home.state)) is not None:
            assert manifest is not None
            assert json.loads(state)["run_id"] == manifest.run_id
        assert list(copy.rglob("*.partial")) == []
        shutil.rmtree(copy)

    def _assert_tidy(self) -> None:
        destination = self.destination
        home = destination.sidecars
        assert home is not None
        manifest = read_manifest(home.store, home.manifest)
        assert manifest is not None
        files = {"out.ndjson"} if destination.kind == "file" else set()
        files |= {each.path for each in manifest.files if destination.kind == "dataset"}
        own = {home.manifest} if home.state is None else {home.manifest, home.state}
        folder = Path(destination.store.url)
        found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
        assert found == files | own
        assert verify(destination).problems == ()

    def _assert_complete(self) -> None:
        union, row_count = self._read_union()
        adds = "--incremental" in self.flags
        listed: dict[Key, Row] = {
            (name, row["sessionId"]): row
            for name in GATEWAYS
            for row in self.emulator.sessions("w-1", name)
        }
        for key, row in listed.items():
            assert union[key].items() >= row.items()
        if adds:
            for gateway_id, session_id in union.keys() - listed.keys():
                assert session_id in self.emulator.truth("w-1", gateway_id).allowed
        else:
            assert union.keys() == listed.keys()
            assert row_count == len(union)

    def _read_union(self) -> tuple[dict[Key, Row], int]:
        """The newest version of each session, and how many rows there are."""
        destination = self.destination
        home = destination.sidecars
        assert home is not None
        manifest = read_manifest(home.store, home.manifest)
        assert manifest is not None
        names = [destination.name or each.path for each in manifest.files]
        rows: list[Row] = [
            json.loads(line)
            for name in names
            for line in (destination.store.read(name) or b"").splitlines()
        ]
        versions = {(r["computeId"], r["sessionId"], r["exportedAt"]) for r in rows}
        assert len(versions) == len(rows)
        rows.sort(key=lambda row: row["exportedAt"])
        return {(row["computeId"], row["sessionId"]): row for row in rows}, len(rows)


def watch(process: ForkedProgram, path: Path, *, is_there: bool) -> None:
    """Wait until the file exists, or is gone; or the process has ended."""
    until_s = time.monotonic() + HANG_S
    while path.exists() != is_there and process.poll() is None:
        assert time.monotonic() < until_s
        time.sleep(0.0005)


def run_campaign(tmp_path: Path, mode: str, *, kill_count: int, seed: int) -> Campaign:
    folder, home = tmp_path / "work", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    clock = AnswerClock()
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            open_emulator(replace(SCENARIO, seed=seed), monotonic_s=clock)
        ) as emulator,
    ):
        campaign = Campaign(
            Program(folder, environ_for(emulator, home)),
            emulator,
            clock,
            output="out.ndjson" if mode == "file" else "out/",
            flags={
                "file": (),
                "dataset": ("--format", "ndjson"),
                "incremental": ("--format", "ndjson", "--incremental"),
            }[mode],
            chance=random.Random(seed),  # noqa: S311 - the same moments each time
        )
        campaign.whole_s = 2.0
        for number in range(kill_count):
            for _ in range(MAX_TOO_LATE):
                if campaign.kill():
                    break
            if number % KILLS_TO_A_FINISH == KILLS_TO_A_FINISH - 1:
                campaign.finish()
        campaign.finish()
    return campaign


@pytest.mark.parametrize("mode", ["file", "dataset", "incremental"])
def test_run_killed_at_any_moment_leaves_what_the_next_one_puts_right(
    mode: str, tmp_path: Path
) -> None:
    campaign = run_campaign(tmp_path, mode, kill_count=7, seed=1)

    killed_count = sum(campaign.ends.values()) - campaign.ends["too late"]
    assert killed_count >= 7
    assert campaign.ends["unproven"] < 2


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3, 4])
@pytest.mark.parametrize("mode", ["file", "dataset", "incremental"])
def test_hundred_kills(mode: str, seed: int, tmp_path: Path) -> None:
    campaign = run_campaign(tmp_path, mode, kill_count=12, seed=seed)

    assert campaign.ends["unproven"] < 3
    print(mode, seed, dict(campaign.ends), f"a run takes {campaign.whole_s:.2f}s")
