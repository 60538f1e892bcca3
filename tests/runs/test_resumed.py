"""Runs that resume a killed one: through the program, over a real connection."""

import json
import re
import signal
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exporter.emulator.churn import Churn, Flow
from exporter.emulator.faults import Fault, FaultRule
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.emulator.server import Emulator
from tests.support.examples import thin_out
from tests.support.patience import HANG_S, wait_until
from tests.support.program import Program, ProgramFor

SESSION_COUNT = 2000
PAGE_COUNT = 200
CONCURRENCY = 8
FLAGS = ("export", "--workspace", "w-1", "--page-size", "10", "--concurrency", str(CONCURRENCY))
SCENARIO = Scenario(
    seed=5,
    latency_s=0.06,
    workspaces=(
        EmulatedWorkspace(
            workspace_id="w-1",
            name="one",
            gateways=(EmulatedGateway(gateway_id="lc-1", name="one", session_count=SESSION_COUNT),),
        ),
    ),
)
JOURNALS = {"out.ndjson": ".out.ndjson.journal", "lake/": "lake/_exporter/journal"}


@dataclass
class Rig:
    """A program whose run is stopped about halfway."""

    program: "Program"
    emulator: Emulator

    @property
    def page_count(self) -> int:
        counts = self.emulator.stats().request_counts.get("ListLivyComputeSessions", {})
        return counts.get("ok", 0)

    def stop_at_half(
        self, *flags: str, number: signal.Signals = signal.SIGKILL
    ) -> tuple[int, int, str]:
        """The pages that were read until then, the exit code, and stderr."""
        count_before = self.page_count
        process = self.program.start(*FLAGS, *flags, "--progress", "none")
        wait_until(lambda: self.page_count >= count_before + PAGE_COUNT // 2, glance_s=0.005)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=HANG_S)
        return self.page_count - count_before, process.wait(), stderr.decode()

    def run(self, *flags: str) -> tuple[int, str]:
        """The pages that a whole run requests, and its stderr."""
        count_before = self.page_count
        ended = self.program.run(*FLAGS, *flags, "--progress", "none")
        assert ended.code == 0, ended.stderr
        return self.page_count - count_before, ended.stderr

    def read(self, path: str) -> list[dict[str, Any]]:
        files = [self.program.folder / path]
        if path.endswith("/"):
            files = sorted(self.program.folder.joinpath(path).glob("part-*"))
        rows = [json.loads(line) for file in files for line in file.read_bytes().splitlines()]
        return [{name: row[name] for name in row if name != "exportedAt"} for row in rows]

    def files(self) -> set[str]:
        return {name for name, content in self.program.listing().items() if content != b"folder"}


@pytest.fixture
def rig(program_for: "ProgramFor") -> Rig:
    return Rig(*program_for(SCENARIO))


def assert_gone_on_with(read_count: int, again_count: int) -> None:
    """At most 5 % of the pages read are requested again, besides those in flight."""
    rest_count = PAGE_COUNT + 1 - read_count
    assert again_count <= rest_count + 0.05 * read_count + 2 * CONCURRENCY
    assert again_count < PAGE_COUNT * 0.7


@pytest.mark.parametrize("output", thin_out(JOURNALS, 2))
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGKILL, -9),
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, 130, marks=pytest.mark.campaign),
    ],
)
def test_next_run_goes_on_where_a_stopped_one_was(
    output: str, number: signal.Signals, code: int, rig: Rig
) -> None:
    flags = ["-o", output, "--format", "ndjson"]
    rig.run("-o", "whole.ndjson")
    before = rig.files()

    read_count, ended, said = rig.stop_at_half(*flags, number=number)
    left = {name for name in rig.files() - before if not name.endswith((".partial", "lock"))}
    again_count, told = rig.run(*flags)

    assert ended == code
    assert left == {JOURNALS[output]}
    if number != signal.SIGKILL:
        assert re.search(
            r"^warning: \d+ pages read are kept: the next run goes on from there\n"
            r"interrupted: nothing was published$",
            said,
            re.MULTILINE,
        )
    assert re.search(r"^\d+ pages taken over from an earlier run$", told, re.MULTILINE)
    assert_gone_on_with(read_count, again_count)
    assert rig.read(output) == rig.read("whole.ndjson")
    assert [name for name in rig.files() if name.endswith(("journal", "lock", ".partial"))] == []
    assert rig.program.run("verify", output).code == 0


def test_run_that_starts_afresh_asks_for_all(rig: Rig) -> None:
    rig.stop_at_half("-o", "out.ndjson")

    again_count, told = rig.run("-o", "out.ndjson", "--no-resume")

    assert "starting afresh: a fresh start is asked for" in told
    assert again_count > PAGE_COUNT
    assert ".out.ndjson.journal" not in rig.files()


def test_journal_that_is_too_old_is_dropped(rig: Rig) -> None:
    rig.stop_at_half("-o", "out.ndjson")
    time.sleep(1.1)

    again_count, told = rig.run("-o", "out.ndjson", "--resume-within", "1s")

    assert "starting afresh: it is older than" in told
    assert again_count > PAGE_COUNT


def test_journal_may_be_kept_elsewhere(rig: Rig) -> None:
    flags = ("-o", "out.ndjson", "--spool", "spool")

    read_count, _, _ = rig.stop_at_half(*flags)
    left = rig.files()
    again_count, _ = rig.run(*flags)

    assert any(re.fullmatch(r"spool/[0-9a-f]{32}\.journal", name) for name in left)
    assert ".out.ndjson.journal" not in left
    assert_gone_on_with(read_count, again_count)
    assert rig.files() == {"out.ndjson", "out.ndjson.manifest.json"}


def test_run_that_was_out_of_time_is_gone_on_with(program_for: "ProgramFor") -> None:
    # The first run waits for answers that do not come, until its time is over.
    hanging = FaultRule(
        kinds=(Fault.HANG,), rate=1.0, from_request=60, until_request=59 + CONCURRENCY, hang_s=3600
    )
    rig = Rig(*program_for(replace(SCENARIO, faults=(hanging,))))
    late = rig.program.run(*FLAGS, "-o", "out.ndjson", "--deadline", "6s", "--timeout", "1m")
    read_count = rig.page_count

    again_count, _ = rig.run("-o", "out.ndjson")

    assert late.code == 1
    assert "pages read are kept" in late.stderr
    assert again_count <= PAGE_COUNT + 1 - read_count * 0.95 + 2 * CONCURRENCY


def test_journal_of_what_was_published_meanwhile_is_not_gone_on_with(rig: Rig) -> None:
    rig.stop_at_half("-o", "out.ndjson")
    journal = rig.program.folder / ".out.ndjson.journal"
    kept = journal.read_bytes()
    rig.run("-o", "out.ndjson")
    journal.write_bytes(kept)  # as by a kill right after the publish

    again_count, told = rig.run("-o", "out.ndjson")

    assert "starting afresh: it is of a run with another predecessor" in told
    assert again_count > PAGE_COUNT


def test_duration_counts_back_from_the_start_of_the_run_that_is_gone_on_with(rig: Rig) -> None:
    flags = ("-o", "out.ndjson", "--since", "3650d")
    rig.stop_at_half(*flags)
    stopped_at = datetime.now(UTC)
    time.sleep(0.1)

    rig.run(*flags)

    manifest = json.loads((rig.program.folder / "out.ndjson.manifest.json").read_bytes())
    assert datetime.fromisoformat(manifest["since"]) + timedelta(days=3650) < stopped_at


def test_run_without_a_proof_leaves_nothing_to_go_on_from(program_for: "ProgramFor") -> None:
    churn = Churn(tie_size=10**6, deletions=Flow(per_s=100))
    gateway = EmulatedGateway(gateway_id="lc-1", name="one", session_count=3000, churn=churn)
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,))
    program, _ = program_for(
        Scenario(seed=3, latency_s=0.02, jitter_s=0.02, workspaces=(workspace,))
    )

    ended = program.run("export", "--workspace", "w-1", "-o", "out.ndjson", "-q")

    assert ended.code == 4
    assert program.listing() == {}
