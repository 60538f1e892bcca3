"""Runs to an object store over moving lists, killed at random moments, one after the other.

Some of them are part of the campaign; `pytest -m soak` kills a hundred.
"""

import hashlib
import json
import random
import signal
import time
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio.from_thread
import pytest

from exporter.emulator.server import Emulator, open_emulator
from tests.runs.test_kills import FLAGS, GATEWAYS, KILLS_TO_A_FINISH, SCENARIO
from tests.support.forks import ForkedProgram, Run
from tests.support.object_server import ObjectServer
from tests.support.patience import HANG_S, AnswerClock
from tests.support.program import environ_for

pytestmark = pytest.mark.campaign

LEASE_S = 3.0
"""Lease of a dead holder: with one of a minute, a hundred kills would take hours."""

Row = dict[str, Any]


@dataclass
class Campaign:
    """One dataset in a bucket, and the runs that write it."""

    emulator: Emulator
    clock: AnswerClock
    judge: Any
    bucket: str
    environ: Mapping[str, str]
    folder: Path
    flags: Sequence[str]
    chance: random.Random
    whole_s: float = 2.0
    ends: Counter[str] = field(default_factory=Counter)

    def start(self) -> ForkedProgram:
        flags = ["--wait", "1m", "--keep-leftovers", "0s", "--partition-by", "state", *self.flags]
        output = ["--format", "ndjson", "-o", f"s3://{self.bucket}/set/"]
        arguments = (*FLAGS, *flags, *output)
        return ForkedProgram(Run(arguments, self.environ, self.folder, lease_s=LEASE_S))

    def run(self, codes: Container[int]) -> None:
        with self.start() as process:
            _, stderr = process.communicate(timeout=2 * HANG_S)
        assert process.returncode in codes, stderr.decode()
        self.ends["unproven"] += process.returncode == 4

    def kill(self) -> None:
        """Start a run, kill it at a moment, and check what readers see."""
        moment = self.chance.choice(["any", "while it publishes", "after it published"])
        delay_s = self.chance.random() * (self.whole_s if moment == "any" else 0.15)
        with self.start() as process:
            if moment == "any":
                self._watch(process, "set/_exporter/lock.", is_there=True)
            else:
                self._watch(process, "set/_exporter/publishing.", is_there=True)
            if moment == "after it published":
                self._watch(process, "set/_exporter/publishing.", is_there=False)
            time.sleep(delay_s)
            process.send_signal(signal.SIGKILL)
            _, stderr = process.communicate(timeout=HANG_S)
        end = {0: "too late", 4: "unproven", -signal.SIGKILL: moment}.get(process.wait())
        assert end is not None, stderr.decode()
        self.ends[end] += 1
        self._read_rows()

    def finish(self) -> None:
        """A run over lists that stand still, whose result is known exactly."""
        self.run(codes={0, 4})  # so much comes and goes that there may be no proof
        with self.clock.held():
            started_s = time.monotonic()
            self.run(codes={0})
            self.whole_s = time.monotonic() - started_s
            self._assert_complete()
        self._assert_tidy()

    def _watch(self, process: ForkedProgram, prefix: str, *, is_there: bool) -> None:
        until_s = time.monotonic() + HANG_S
        while (self._list(prefix) != []) != is_there and process.poll() is None:
            assert time.monotonic() < until_s
            time.sleep(0.01)

    def _list(self, prefix: str) -> list[str]:
        found = self.judge.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
        return [each["Key"] for each in found.get("Contents", [])]

    def _read(self, key: str) -> bytes:
        content: bytes = self.judge.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    def _read_manifest(self) -> Row:
        if "set/_manifest.json" not in self._list("set/_manifest.json"):
            return {"files": []}
        manifest: Row = json.loads(self._read("set/_manifest.json"))
        return manifest

    def _read_rows(self) -> list[Row]:
        """Every part is as the manifest says."""
        rows: list[Row] = []
        for each in self._read_manifest()["files"]:
            content = self._read(f"set/{each['path']}")
            assert hashlib.sha256(content).hexdigest() == each["sha256"]
            rows += [json.loads(line) for line in content.splitlines()]
        versions = {(row["computeId"], row["sessionId"], row["exportedAt"]) for row in rows}
        assert len(versions) == len(rows)
        return rows

    def _assert_complete(self) -> None:
        rows = sorted(self._read_rows(), key=lambda row: str(row["exportedAt"]))
        union = {(row["computeId"], row["sessionId"]): row for row in rows}
        listed = {
            (name, row["sessionId"]): row
            for name in GATEWAYS
            for row in self.emulator.sessions("w-1", name)
        }
        for key, row in listed.items():
            assert union[key].items() >= row.items()
        if "--incremental" not in self.flags:
            assert union.keys() == listed.keys()
            assert len(rows) == len(union)

    def _assert_tidy(self) -> None:
        """Readers by file name see the same rows as readers by manifest."""
        named = {f"set/{each['path']}" for each in self._read_manifest()["files"]}
        assert {key for key in self._list("set/") if key.endswith(".ndjson")} == named
        assert self._list("set/_exporter/publishing.") == []
        assert "Uploads" not in self.judge.list_multipart_uploads(Bucket=self.bucket)


def run_campaign(
    tmp_path: Path,
    server: ObjectServer,
    judge: Any,
    bucket: str,
    *,
    flags: Sequence[str],
    kill_count: int,
    seed: int,
) -> Campaign:
    clock = AnswerClock()
    with (
        anyio.from_thread.start_blocking_portal() as portal,
        portal.wrap_async_context_manager(
            open_emulator(replace(SCENARIO, seed=seed), monotonic_s=clock)
        ) as emulator,
    ):
        environ = {
            **environ_for(emulator, tmp_path),
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": server.url,
        }
        chance = random.Random(seed)  # noqa: S311 - the same moments each time
        campaign = Campaign(emulator, clock, judge, bucket, environ, tmp_path, flags, chance)
        for number in range(kill_count):
            campaign.kill()
            if number % KILLS_TO_A_FINISH == KILLS_TO_A_FINISH - 1:
                campaign.finish()
        campaign.finish()
    return campaign


@pytest.mark.parametrize("flags", [(), ("--incremental",)])
def test_killed_run_to_a_store_takes_nothing_that_is_published(
    flags: Sequence[str], tmp_path: Path, object_server: ObjectServer, judge: Any, bucket: str
) -> None:
    campaign = run_campaign(
        tmp_path, object_server, judge, bucket, flags=flags, kill_count=3, seed=1
    )

    assert campaign.ends["too late"] < 3


@pytest.mark.soak
@pytest.mark.parametrize("seed", [2, 3])
@pytest.mark.parametrize("flags", [(), ("--incremental",)])
def test_hundred_kills_of_runs_to_a_store(
    *,
    flags: Sequence[str],
    seed: int,
    tmp_path: Path,
    object_server: ObjectServer,
    judge: Any,
    bucket: str,
) -> None:
    campaign = run_campaign(
        tmp_path, object_server, judge, bucket, flags=flags, kill_count=25, seed=seed
    )

    print(flags, seed, dict(campaign.ends), f"a run takes {campaign.whole_s:.2f}s")
