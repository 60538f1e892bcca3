"""A run that is stopped at any step, outlives its lease and wakes up does not damage the output of
the run that published meanwhile.
"""

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.runs.manifest_log import ManifestLog
from exporter.runs.publish import Publisher
from exporter.sinks.file import FileOutput
from exporter.stores.objects import ObjectStore
from tests.support.forks import CLOSED, HALF_SHOWN, INTENDED, TOLD, Stage
from tests.support.object_server import ObjectServer
from tests.support.program import environ_for, serving
from tests.support.stopped import Case, Outcome, run_cases

pytestmark = pytest.mark.campaign

SESSION_COUNT = 120
SCENARIO = Scenario(
    seed=5,
    workspaces=(
        EmulatedWorkspace(
            workspace_id="w-1",
            name="one",
            gateways=(EmulatedGateway(gateway_id="lc-a", name="one", session_count=SESSION_COUNT),),
        ),
    ),
)
EXPORT = ("export", "--workspace", "w-1", "--progress", "none", "--wait", "2m")

INTENDING = Stage("about to write the intent", (ObjectStore.replace,), Publisher.publish)
SENDING_PART = Stage("sending a part", (ObjectStore._put,), ObjectStore.stage, count=2)
COMMITTING = Stage("about to commit", (ManifestLog.commit,))
SENDING_COMMIT = Stage("sending the commit", (ObjectStore.create,), ManifestLog.commit)
COMMITTED = Stage("committed", (ManifestLog.list_numbers,), ManifestLog.commit)
SENDING_COPY = Stage("sending the copy", (ObjectStore.replace_version,), ManifestLog.write_copy)
SENDING_STATE = Stage("sending the state", (ObjectStore.replace_version,), Publisher._put)
REMOVING = Stage("removing superseded parts", (ObjectStore.remove,), Publisher._complete)
REMOVING_INTENT = Stage("removing the intent", (ObjectStore.remove,), Publisher._complete, count=2)
SHOWING = Stage("about to show the object", (FileOutput.publish,))
SENDING_OBJECT = Stage("sending the object", (ObjectStore.replace_version,), ObjectStore.stage)
SENDING_MANIFEST = Stage("sending the manifest", (ObjectStore.replace_version,), Publisher._put)
REMOVING_OBJECT_INTENT = Stage("removing the intent", (ObjectStore.remove,), Publisher._complete)

Judge = Callable[[Any, str, str], tuple[str, int]]


def read_dataset(client: Any, bucket: str, key: str) -> tuple[str, int]:
    """The run of the dataset, and its row count; every part is as the manifest says."""
    manifest = json.loads(read(client, bucket, f"{key}_manifest.json"))
    state = json.loads(read(client, bucket, f"{key}_exporter/state.json"))
    assert state["run_id"] == manifest["run_id"]
    row_count = 0
    for each in manifest["files"]:
        content = read(client, bucket, f"{key}{each['path']}")
        assert hashlib.sha256(content).hexdigest() == each["sha256"]
        row_count += pq.read_metadata(io.BytesIO(content)).num_rows
    return manifest["run_id"], row_count


def read_object(client: Any, bucket: str, key: str) -> tuple[str, int]:
    manifest = json.loads(read(client, bucket, f"{key}.manifest.json"))
    content = read(client, bucket, key)
    assert hashlib.sha256(content).hexdigest() == manifest["files"][0]["sha256"]
    return manifest["run_id"], pq.read_metadata(io.BytesIO(content)).num_rows


def read(client: Any, bucket: str, key: str) -> bytes:
    content: bytes = client.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


@dataclass(frozen=True)
class Kind:
    """A kind of output: its flags, the stages to stop a run at, and its reader."""

    suffix: str
    flags: tuple[str, ...]
    before: tuple[Stage, ...]
    """The stage of its commit."""
    after: tuple[Stage, ...]
    read: Judge

    def build_cases(self, bucket: str) -> list[Case]:
        stages = [*((each, False) for each in self.before), *((each, True) for each in self.after)]
        return [
            Case(stage, f"s3://{bucket}/{number}{self.suffix}", self.flags, is_committed)
            for number, (stage, is_committed) in enumerate(stages)
        ]


KINDS = {
    "dataset": Kind(
        suffix="/sessions/",
        flags=("--partition-by", "state"),
        before=(CLOSED, INTENDING, INTENDED, HALF_SHOWN, SENDING_PART),
        # From the last part on, who takes over ends the publish before it begins its own.
        after=(
            COMMITTING,
            SENDING_COMMIT,
            COMMITTED,
            SENDING_COPY,
            SENDING_STATE,
            REMOVING,
            REMOVING_INTENT,
            TOLD,
        ),
        read=read_dataset,
    ),
    "object": Kind(
        suffix="/sessions.parquet",
        flags=(),
        before=(CLOSED, INTENDING, SHOWING, SENDING_OBJECT),
        after=(SENDING_MANIFEST, REMOVING_OBJECT_INTENT, TOLD),
        read=read_object,
    ),
}
"""To test a table too, add its flags, stages and reader."""


@pytest.mark.parametrize("name", KINDS)
def test_woken_run_takes_nothing_from_who_published_meanwhile(
    name: str, object_server: ObjectServer, bucket: str, judge: Any, tmp_path: Path
) -> None:
    kind = KINDS[name]
    cases = kind.build_cases(bucket)
    with serving(SCENARIO) as emulator:
        environ = {
            **environ_for(emulator, tmp_path),
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": object_server.url,
        }
        baselines = [replace(case, stage=None) for case in cases]
        for outcome in run_cases(baselines, environ=environ, folder=tmp_path, arguments=EXPORT):
            assert outcome.second_code == 0, outcome.second_stderr
        outcomes = run_cases(cases, environ=environ, folder=tmp_path, arguments=EXPORT)

    for case, outcome in zip(cases, outcomes, strict=True):
        assert_other_is_whole(case, outcome, kind.read(judge, *case.output[5:].split("/", 1)))


def assert_other_is_whole(case: Case, outcome: Outcome, found: tuple[str, int]) -> None:
    said = f"{case}: {outcome}"
    run_id, row_count = found
    assert outcome.was_stopped, said
    assert outcome.second_code == 0, said
    assert row_count == SESSION_COUNT, said
    assert run_id == outcome.second_run_id, said
    assert outcome.first_code == (0 if case.is_committed else 5), said
