"""Exports to S3 and OSS through the command line, and every refusal of a store."""

import io
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq
import pytest

from exporter.errors import LockHeldError
from exporter.locks.lock import hold_lock
from exporter.stores.aws_identity import AwsKey
from exporter.stores.registry import open_store
from exporter.stores.url import StoreAccess
from tests.support.forks import Ended
from tests.support.object_server import ELSEWHERE, IGNORING, READ_ONLY_KEY, WRONG_KEY, ObjectServer
from tests.support.program import Program

pytestmark = pytest.mark.campaign

EXPORT = ("export", "--workspace", "w-1", "--retries", "1", "-q")
SESSION_COUNT = 935


def s3_environ(server: ObjectServer, **changes: str) -> dict[str, str]:
    return {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "s3cret-value",
        "AWS_ENDPOINT_URL": server.url,
        **changes,
    }


def oss_environ(server: ObjectServer) -> dict[str, str]:
    return {**server.environ(), "LIVY_EXPORTER_STORAGE_ENDPOINT": server.oss_url}


def environ_of(scheme: str, server: ObjectServer) -> dict[str, str]:
    return s3_environ(server) if scheme == "s3" else oss_environ(server)


def read_object(judge: Any, bucket: str, key: str) -> bytes:
    content: bytes = judge.get_object(Bucket=bucket, Key=key)["Body"].read()
    return content


def list_keys(judge: Any, bucket: str) -> list[str]:
    """The published objects, without the files of a lease beside them."""
    found = [each["Key"] for each in judge.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return [each for each in found if ".lock." not in each]


def assert_refused(ended: "Ended", *, code: int, says: str, hints: str) -> None:
    assert ended.code == code, ended.stderr
    error, hint = ended.stderr_lines
    assert error.startswith("error: ")
    assert says in error
    assert hint.startswith("hint: ")
    assert hints in hint
    assert "s3cret-value" not in ended.stderr
    assert "token" not in ended.stderr


@pytest.mark.parametrize("scheme", ["s3", "oss"])
def test_one_object_and_its_manifest_are_published(
    scheme: str, program: "Program", object_server: ObjectServer, bucket: str, judge: Any
) -> None:
    output = f"{scheme}://{bucket}/exports/sessions.parquet"

    for _ in range(2):
        ended = program.run(*EXPORT, "--output", output, environ=environ_of(scheme, object_server))
        assert ended.code == 0, ended.stderr

    table = pq.read_table(io.BytesIO(read_object(judge, bucket, "exports/sessions.parquet")))
    manifest = json.loads(read_object(judge, bucket, "exports/sessions.parquet.manifest.json"))
    assert table.num_rows == SESSION_COUNT
    assert manifest["output"] == output
    assert manifest["files"][0]["path"] == output
    assert list_keys(judge, bucket) == [
        "exports/sessions.parquet",
        "exports/sessions.parquet.manifest.json",
    ]


@pytest.mark.parametrize("scheme", ["s3", "oss"])
@pytest.mark.parametrize("folder", ["exports", "exports/", ""])
def test_name_without_a_suffix_is_a_dataset(
    *,
    scheme: str,
    folder: str,
    program: "Program",
    object_server: ObjectServer,
    bucket: str,
    judge: Any,
) -> None:
    output = f"{scheme}://{bucket}/{folder}"

    for _ in range(2):
        ended = program.run(*EXPORT, "--output", output, environ=environ_of(scheme, object_server))
        assert ended.code == 0, ended.stderr

    start = f"{folder.rstrip('/')}/" if folder else ""
    manifest = json.loads(read_object(judge, bucket, f"{start}_manifest.json"))
    parts = [each for each in list_keys(judge, bucket) if each.endswith(".parquet")]
    assert parts == [f"{start}{manifest['files'][0]['path']}"]
    assert pq.read_table(io.BytesIO(read_object(judge, bucket, parts[0]))).num_rows == SESSION_COUNT


@pytest.mark.parametrize("scheme", ["s3", "oss"])
@pytest.mark.parametrize("name", ["a/sessions.parquet", "a/sessions/"])
def test_store_that_ignores_conditions_is_refused_before_any_call(
    *, scheme: str, name: str, program: "Program", object_server: ObjectServer, judge: Any
) -> None:
    bucket = f"{IGNORING}{secrets.token_hex(4)}"
    judge.create_bucket(Bucket=bucket)

    ended = program.run(
        *EXPORT,
        "--output",
        f"{scheme}://{bucket}/{name}",
        environ=environ_of(scheme, object_server),
    )

    assert_refused(ended, code=2, says="ignores conditions", hints="without versioning")
    assert list_keys(judge, bucket) == []


def test_proof_of_conditions_costs_two_writes_once_and_then_one(
    program: "Program", object_server: ObjectServer, bucket: str, judge: Any
) -> None:
    sizes = []
    for _ in range(2):
        ended = program.run(
            *EXPORT, "--output", f"s3://{bucket}/a/", environ=s3_environ(object_server)
        )
        assert ended.code == 0, ended.stderr
        (probe,) = judge.list_objects_v2(Bucket=bucket, Prefix="a/_exporter/lock.probe")["Contents"]
        sizes.append((probe["Size"], probe["LastModified"]))

    assert sizes[0] == sizes[1]


def test_marker_of_a_folder_is_not_foreign(
    program: "Program", object_server: ObjectServer, bucket: str, judge: Any
) -> None:
    for key in ("exports/", "exports/dt=2026-01-12/"):
        judge.put_object(Bucket=bucket, Key=key, Body=b"")

    ended = program.run(
        *EXPORT, "--output", f"s3://{bucket}/exports", environ=s3_environ(object_server)
    )

    assert ended.code == 0, ended.stderr


def test_folder_that_holds_something_else_is_no_dataset(
    program: "Program", object_server: ObjectServer, bucket: str, judge: Any
) -> None:
    judge.put_object(Bucket=bucket, Key="exports/theirs.csv", Body=b"")

    ended = program.run(
        *EXPORT, "--output", f"s3://{bucket}/exports", environ=s3_environ(object_server)
    )

    assert_refused(ended, code=1, says="holds something else", hints="sessions.parquet")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_ended_run_publishes_nothing(
    *,
    number: signal.Signals,
    program: "Program",
    slow_emulator: Any,
    object_server: ObjectServer,
    bucket: str,
    judge: Any,
) -> None:
    from dataclasses import replace

    slow = replace(
        program,
        environ={
            **program.environ,
            **s3_environ(object_server),
            "LIVY_EXPORTER_ENDPOINT": slow_emulator.endpoint,
        },
    )

    with slow.start(*EXPORT, "--concurrency", "1", "--output", f"s3://{bucket}/a.parquet") as run:
        time.sleep(1.5)
        run.send_signal(number)
        run.communicate()

    assert "a.parquet" not in list_keys(judge, bucket)
    assert "Uploads" not in judge.list_multipart_uploads(Bucket=bucket)


@pytest.mark.parametrize(
    ("output", "changes", "code", "says", "hints"),
    [
        ("s3://nowhere-at-all/a.parquet", {}, 1, "there is no bucket 'nowhere-at-all'", "make"),
        (f"s3://{ELSEWHERE}/a.parquet", {}, 1, "is in another region", "set AWS_REGION"),
        ("s3://BUCKET/a.parquet", {"AWS_ACCESS_KEY_ID": WRONG_KEY}, 3, "refused", "AWS_ACCESS"),
        (
            "s3://BUCKET/a.parquet",
            {"AWS_ACCESS_KEY_ID": READ_ONLY_KEY},
            3,
            "no permission to write 's3://BUCKET/",
            "s3:PutObject",
        ),
        ("s3://BUCKET/a.parquet", {"AWS_SESSION_TOKEN": "until-1"}, 3, "ExpiredTok", "AWS_ACCESS"),
        (
            "s3://BUCKET/a.parquet",
            {"AWS_ENDPOINT_URL": "http://127.0.0.1:CLOSED"},
            1,
            "the store cannot be reached",
            "asked was http://127.0.0.1:",
        ),
        ("s3://BUCKET/a.parquet", {"AWS_PROFILE": "missing"}, 3, "(missing)", "AWS_PROFILE"),
        (
            "s3://BUCKET/a.parquet",
            {
                "AWS_ACCESS_KEY_ID": "",
                "AWS_SECRET_ACCESS_KEY": "",
                "AWS_EC2_METADATA_DISABLED": "true",
            },
            3,
            "no AWS credentials found",
            "set AWS_ACCESS_KEY_ID",
        ),
        ("s3://BUCKET/a.csv", {}, 2, "tells no format", ".parquet"),
        ("s3:///a.parquet", {}, 2, "names no bucket", "s3://BUCKET/KEY"),
        ("s3://BUCKET/a//b.parquet", {}, 2, "no name for an object", "//"),
        ("hdfs://node/a.parquet", {}, 2, "'hdfs://' is not supported", "s3://BUCKET/KEY"),
        ("az://bucket/a.parquet", {}, 2, "'az://' is not supported", "s3://BUCKET/KEY"),
    ],
)
def test_refusal_is_one_line_and_a_hint(
    *,
    output: str,
    changes: Mapping[str, str],
    code: int,
    says: str,
    hints: str,
    program: "Program",
    object_server: ObjectServer,
    bucket: str,
    judge: Any,
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = str(closed.getsockname()[1])
        environ = {
            **s3_environ(object_server),
            **{name: value.replace("CLOSED", port) for name, value in changes.items()},
        }
        if "AWS_PROFILE" in changes:
            environ |= {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}

        ended = program.run(*EXPORT, "--output", output.replace("BUCKET", bucket), environ=environ)

    assert_refused(ended, code=code, says=says.replace("BUCKET", bucket), hints=hints)
    assert list_keys(judge, bucket) == []


@pytest.mark.parametrize(
    ("output", "changes", "code", "says", "hints"),
    [
        ("oss://nowhere-at-all/a/", {}, 1, "there is no bucket 'nowhere-at-all'", "make"),
        (f"oss://{ELSEWHERE}/a/", {}, 1, "is in another region", "--storage-endpoint"),
        (
            "oss://BUCKET/a/",
            {"LIVY_EXPORTER_STORAGE_ADDRESSING": "path"},
            3,
            "SecondLevelDomainForbidden",
            "oss:PutObject",
        ),
        (
            "oss://BUCKET/a/",
            {"ALIBABA_CLOUD_ACCESS_KEY_ID": WRONG_KEY},
            3,
            "the key was refused (InvalidAccessKeyId)",
            "--profile",
        ),
        ("oss://BUCKET/a/", {"ALIBABA_CLOUD_ACCESS_KEY_SECRET": ""}, 3, "SECRET is not", "both"),
        ("oss://BUCKET/a/", {"LIVY_EXPORTER_STORAGE_ENDPOINT": "oss"}, 2, "no endpoint", "https"),
        (
            "oss://BUCKET/a/",
            {"LIVY_EXPORTER_STORAGE_ENDPOINT": "http://oss-cn-hangzhou.aliyuncs.com"},
            2,
            "in clear",
            "https",
        ),
    ],
)
def test_refusal_of_oss_is_one_line_and_a_hint(
    *,
    output: str,
    changes: Mapping[str, str],
    code: int,
    says: str,
    hints: str,
    program: "Program",
    object_server: ObjectServer,
    bucket: str,
) -> None:
    ended = program.run(
        *EXPORT,
        "--output",
        output.replace("BUCKET", bucket),
        environ={**oss_environ(object_server), **changes},
    )

    assert_refused(ended, code=code, says=says, hints=hints)


def test_profile_of_the_aws_files_is_used(
    program: "Program", object_server: ObjectServer, bucket: str, judge: Any
) -> None:
    from pathlib import Path

    folder = Path(program.environ["HOME"]) / ".aws"
    folder.mkdir()
    (folder / "credentials").write_text(
        "[lake]\naws_access_key_id = key\naws_secret_access_key = secret\n", encoding="utf-8"
    )

    ended = program.run(
        *EXPORT,
        "--output",
        f"s3://{bucket}/a.ndjson.gz",
        environ={"AWS_PROFILE": "lake", "AWS_ENDPOINT_URL": object_server.url},
    )

    assert ended.code == 0, ended.stderr
    assert list_keys(judge, bucket) == ["a.ndjson.gz", "a.ndjson.gz.manifest.json"]


def test_traceback_of_a_refusal_holds_no_secret(
    program: "Program", object_server: ObjectServer, bucket: str
) -> None:
    # The server repeats the token in its answer, as stores do.
    environ = s3_environ(
        object_server, AWS_ACCESS_KEY_ID=WRONG_KEY, AWS_SESSION_TOKEN="t0ken-value"
    )

    ended = program.run(
        "export", "--workspace", "w-1", "-vv", "--output", f"s3://{bucket}/a/", environ=environ
    )

    assert ended.code == 3
    assert "Traceback" in ended.stderr
    assert "t0ken-value" not in ended.stderr
    assert "s3cret-value" not in ended.stderr


def test_upload_of_a_killed_process_is_aborted_by_the_next(
    object_server: ObjectServer, bucket: str, judge: Any
) -> None:
    program = f"""
import time
from exporter.errors import LockHeldError
from exporter.locks.lock import hold_lock
from exporter.stores.url import StoreAccess
from exporter.stores.aws_identity import AwsKey
from exporter.stores.registry import open_store

access = StoreAccess(environ={s3_environ(object_server)!r})
staged = open_store("s3://{bucket}/exports", access).stage("a.parquet", run_id="r")
staged.write(bytes(20 << 20))
print("written", flush=True)
time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.kill()
    before = judge.list_multipart_uploads(Bucket=bucket)
    access = StoreAccess(environ=s3_environ(object_server))

    open_store(f"s3://{bucket}/exports", access).remove_leftovers(["a.parquet"])

    assert [each["Key"] for each in before["Uploads"]] == ["exports/a.parquet"]
    assert "Uploads" not in judge.list_multipart_uploads(Bucket=bucket)
    assert list_keys(judge, bucket) == []


@pytest.mark.parametrize("scheme", ["s3", "oss"])
async def test_output_in_a_store_is_locked(
    scheme: str, object_server: ObjectServer, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_server.environ().items():
        monkeypatch.setenv(name, value)
    access = StoreAccess(
        region_id="cn-hangzhou",
        endpoint=object_server.oss_url if scheme == "oss" else None,
        fetch_key=lambda: AwsKey("key", "secret"),
        environ=s3_environ(object_server),
    )
    url = f"{scheme}://{bucket}/exports"
    one, other = open_store(url, access), open_store(url, access)

    async with hold_lock(one, "_exporter/lock", output=url, run_id="r-1", wait_s=None):
        with pytest.raises(LockHeldError, match="r-1"):
            async with hold_lock(other, "_exporter/lock", output=url, run_id="r-2", wait_s=None):
                pass
    async with hold_lock(other, "_exporter/lock", output=url, run_id="r-2", wait_s=None):
        pass
