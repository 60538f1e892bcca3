import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from anyio.abc import SocketAttribute, SocketStream

from exporter.api import credentials
from exporter.api.credentials import (
    REUSE_S,
    Credential,
    Identity,
    chain_has_a_source,
    metadata_server_answers,
    open_identity,
    read_environment_credential,
    read_profile_region,
)
from exporter.errors import CredentialsError
from tests.support.patience import HANG_S

SECRET = "EXAMPLEsecretKey0123456789abcde"
TOKEN = "CAIS" + "+/".join(str(1000 + number) for number in range(100)) + "=="
KEY_ENVIRON = {
    "ALIBABA_CLOUD_ACCESS_KEY_ID": "LTAI-environment",
    "ALIBABA_CLOUD_ACCESS_KEY_SECRET": SECRET,
}
PROFILES = {
    "current": "plain",
    "profiles": [
        {
            "name": "plain",
            "mode": "AK",
            "access_key_id": "LTAI-plain",
            "access_key_secret": SECRET,
            "region_id": "cn-beijing",
        },
        {
            "name": "temporary",
            "mode": "StsToken",
            "access_key_id": "STS-temporary",
            "access_key_secret": SECRET,
            "sts_token": TOKEN,
            "region_id": "cn-shanghai",
        },
        {"name": "keyless", "mode": "AK", "region_id": ""},
        {
            "name": "torn",
            "mode": "AK",
            "access_key_id": "LTAI-torn",
            "access_key_secret": f"{SECRET}\r\n",
            "region_id": 7,
        },
        {"name": "unknown mode", "mode": "Telepathy"},
    ],
}

PROBE = """
import json, os, sys, time
import anyio

connects = []
sys.addaudithook(lambda event, args: connects.append(event) if event == "socket.connect" else None)

from exporter.api.credentials import open_identity
from exporter.errors import CredentialsError

async def main():
    started_s = time.process_time()
    found = {}
    try:
        identity = open_identity(
            profile=json.loads(sys.argv[1]), environ=os.environ, now_s=anyio.current_time
        )
        credential = await identity.get()
        found["credential"] = [
            credential.access_key_id, credential.access_key_secret, credential.security_token
        ]
    except CredentialsError as error:
        found |= {"error": str(error), "hint": error.hint, "exit_code": error.exit_code}
    found["used_s"] = time.process_time() - started_s
    found["connect_count"] = len(connects)
    found["library_loaded"] = "alibabacloud_credentials" in sys.modules
    print(json.dumps(found))

anyio.run(main)
"""
"""Run in a process of its own: the library reads HOME and the environment when it is imported."""


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class FakeFetch:
    """Returns a new generation of a key with each call, and counts them."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Credential:
        self.count += 1
        return Credential(f"key-{self.count}", SECRET)


class SlowFetch(FakeFetch):
    """Blocks its thread until it is released."""

    def __init__(self) -> None:
        super().__init__()
        self.entered = threading.Event()
        self.released = threading.Event()

    def __call__(self) -> Credential:
        self.entered.set()
        self.released.wait(10)
        return super().__call__()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with the profiles above."""
    write_profiles(tmp_path, json.dumps(PROFILES))
    return tmp_path


def write_profiles(home: Path, text: str) -> None:
    (home / ".aliyun").mkdir()
    (home / ".aliyun" / "config.json").write_text(text)


def probe(home: Path, *, profile: str | None, **environ: str) -> tuple[dict[str, Any], str]:
    """The result of a new process, and its stderr."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, json.dumps(profile)],
        env={
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
            **environ,
        },
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=True,
    )
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found, done.stderr


def test_key_of_the_environment_is_read() -> None:
    assert read_environment_credential(KEY_ENVIRON) == Credential("LTAI-environment", SECRET)


def test_token_of_the_environment_belongs_to_its_key() -> None:
    environ = {**KEY_ENVIRON, "ALIBABA_CLOUD_SECURITY_TOKEN": TOKEN}

    assert read_environment_credential(environ) == Credential("LTAI-environment", SECRET, TOKEN)


def test_empty_token_is_no_token() -> None:
    environ = {**KEY_ENVIRON, "ALIBABA_CLOUD_SECURITY_TOKEN": ""}

    assert read_environment_credential(environ) == Credential("LTAI-environment", SECRET, None)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"ALIBABA_CLOUD_ACCESS_KEY_ID": "", "ALIBABA_CLOUD_ACCESS_KEY_SECRET": ""},
        {"ALIBABA_CLOUD_SECURITY_TOKEN": TOKEN},
    ],
)
def test_environment_without_a_key_gives_none(environ: dict[str, str]) -> None:
    assert read_environment_credential(environ) is None


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "ALIBABA_CLOUD_ACCESS_KEY_SECRET"),
        ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "ALIBABA_CLOUD_ACCESS_KEY_ID"),
    ],
)
@pytest.mark.parametrize("is_set", [False, True], ids=["absent", "empty"])
def test_half_a_key_is_refused_at_once_and_not_passed_over(
    given: str, missing: str, is_set: bool
) -> None:
    environ = {given: SECRET, missing: ""} if is_set else {given: SECRET}

    with pytest.raises(CredentialsError) as caught:
        open_identity(profile=None, environ=environ, now_s=FakeClock())

    assert str(caught.value) == f"{given} is set and {missing} is not"
    assert caught.value.hint is not None
    assert caught.value.exit_code == 3
    assert SECRET not in repr(caught.value)


@pytest.mark.parametrize("end", ["\n", "\r", " ", "\u00a0", "\x00"])
@pytest.mark.parametrize(
    "name",
    [
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        "ALIBABA_CLOUD_SECURITY_TOKEN",
    ],
)
def test_key_that_no_header_can_carry_is_refused_without_showing_it(name: str, end: str) -> None:
    environ = {**KEY_ENVIRON, "ALIBABA_CLOUD_SECURITY_TOKEN": TOKEN}

    with pytest.raises(CredentialsError) as caught:
        read_environment_credential({**environ, name: environ[name] + end})

    assert "in the environment" in str(caught.value)
    assert environ[name] not in str(caught.value)
    assert caught.value.hint is not None


async def test_environment_wins_where_no_profile_is_named(home: Path) -> None:
    environ = {**KEY_ENVIRON, "HOME": str(home)}

    credential = await open_identity(profile=None, environ=environ, now_s=FakeClock()).get()

    assert credential.access_key_id == "LTAI-environment"


def test_named_profile_wins_over_the_environment(home: Path) -> None:
    found, _ = probe(home, profile="temporary", **KEY_ENVIRON)

    assert found["credential"] == ["STS-temporary", SECRET, TOKEN]


def test_profile_with_a_plain_key_is_read_without_network(home: Path) -> None:
    found, stderr = probe(home, profile="plain")

    assert found["credential"] == ["LTAI-plain", SECRET, None]
    assert found["connect_count"] == 0
    assert stderr == ""


def test_current_profile_is_found_where_nothing_is_named(home: Path) -> None:
    found, stderr = probe(home, profile=None)

    assert found["credential"] == ["LTAI-plain", SECRET, None]
    assert found["connect_count"] == 0
    assert stderr == ""


def test_profile_that_the_environment_names_is_found(home: Path) -> None:
    found, _ = probe(home, profile=None, ALIBABA_CLOUD_PROFILE="temporary")

    assert found["credential"] == ["STS-temporary", SECRET, TOKEN]


@pytest.mark.parametrize("profile", ["prod", "keyless", "unknown mode", "torn"])
def test_profile_that_cannot_be_read_is_refused_at_once_with_a_hint(
    home: Path, profile: str
) -> None:
    found, stderr = probe(home, profile=profile)

    assert found["exit_code"] == 3
    assert f"profile '{profile}'" in found["error"]
    assert not found["error"].endswith(".")
    assert found["hint"] is not None
    assert SECRET not in found["error"] + found["hint"] + stderr
    assert found["connect_count"] == 0
    assert found["used_s"] < 1
    assert stderr == ""


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"profiles": 5}', '{"profiles": [5]}'])
def test_profile_of_a_missing_or_broken_file_is_refused(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        write_profiles(tmp_path, text)

    found, stderr = probe(tmp_path, profile="prod")

    assert found["exit_code"] == 3
    assert found["error"].startswith("no credentials from profile 'prod': ")
    assert "--profile prod" in found["hint"]
    assert stderr == ""


def test_missing_profile_is_not_replaced_by_another_identity(home: Path) -> None:
    found, _ = probe(home, profile="prod", **KEY_ENVIRON)

    assert found["exit_code"] == 3


def test_no_credentials_is_reported_at_once_without_the_library_and_without_network(
    tmp_path: Path,
) -> None:
    found, stderr = probe(tmp_path, profile=None)

    assert found["exit_code"] == 3
    assert found["error"] == "no credentials found"
    assert "ALIBABA_CLOUD_ACCESS_KEY_ID" in found["hint"]
    assert "--profile" in found["hint"]
    assert not found["library_loaded"]
    assert found["connect_count"] == 0
    assert found["used_s"] < 1
    assert stderr == ""


def test_file_without_a_usable_profile_is_no_identity(tmp_path: Path) -> None:
    write_profiles(tmp_path, '{"current": "prod", "profiles": []}')

    found, stderr = probe(tmp_path, profile=None)

    assert found["exit_code"] == 3
    assert found["connect_count"] == 0
    assert stderr == ""


@pytest.mark.parametrize(
    "relative", [".aliyun/config.json", ".alibabacloud/credentials.ini", "elsewhere.ini"]
)
def test_chain_has_a_source_in_any_file_of_the_library(tmp_path: Path, relative: str) -> None:
    path = tmp_path / relative
    path.parent.mkdir(exist_ok=True)
    path.touch()
    environ = {
        "HOME": str(tmp_path),
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
        **({"ALIBABA_CLOUD_CREDENTIALS_FILE": str(path)} if path.parent == tmp_path else {}),
    }

    assert chain_has_a_source(environ)


@pytest.mark.parametrize("name", ["ALIBABA_CLOUD_OIDC_TOKEN_FILE", "ALIBABA_CLOUD_CREDENTIALS_URI"])
def test_chain_has_a_source_in_a_role_of_the_environment(tmp_path: Path, name: str) -> None:
    environ = {"HOME": str(tmp_path), "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "TRUE"}

    assert not chain_has_a_source(environ)
    assert chain_has_a_source({**environ, name: "value"})


async def test_chain_has_a_source_where_the_metadata_server_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(connection: SocketStream) -> None:
        async with connection:
            await connection.receive()
            await connection.send(b"HTTP/1.0 404 Not Found\r\n\r\n")

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1") as listener,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(listener.serve, answer)
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django here
        monkeypatch.setattr(credentials, "METADATA_SERVER", ("127.0.0.1", port))

        answers = await anyio.to_thread.run_sync(metadata_server_answers)
        has_source = await anyio.to_thread.run_sync(chain_has_a_source, {"HOME": str(tmp_path)})
        tasks.cancel_scope.cancel()

    assert answers
    assert has_source
    assert not await anyio.to_thread.run_sync(metadata_server_answers)


@pytest.mark.parametrize("show", [repr, str, "{!r}".format, "{}".format])
def test_secret_and_token_are_never_shown(show: Callable[[object], str]) -> None:
    credential = Credential("LTAI-shown", SECRET, TOKEN)
    identity = Identity(lambda: credential, now_s=FakeClock())

    shown = show(credential) + show(identity) + show([credential]) + show({"key": credential})

    assert "LTAI-shown" in shown
    assert SECRET not in shown
    assert TOKEN[:12] not in shown


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"secret {SECRET}, token {TOKEN}.", "secret ***, token ***."),
        (f"{SECRET}{SECRET}", "******"),
        (f"token cut off: {TOKEN[:200]}…", "token cut off: ***…"),
        (f"secret cut off: {SECRET[:20]}", "secret cut off: ***"),
        (f"another token: {TOKEN[:20]}xyz", "another token: ***xyz"),
        ("nothing to see", "nothing to see"),
        ("", ""),
    ],
)
def test_mask_hides_the_secret_and_the_token_whole_or_cut_off(text: str, masked: str) -> None:
    assert Credential("LTAI", SECRET, TOKEN).mask(text) == masked


def test_mask_without_a_token_hides_the_secret_only() -> None:
    assert Credential("LTAI", SECRET).mask(f"{SECRET} {TOKEN}") == f"*** {TOKEN}"


async def test_many_tasks_share_one_fetch() -> None:
    fetch = SlowFetch()
    identity = Identity(fetch, now_s=FakeClock())
    seen: list[Credential] = []

    async def get() -> None:
        seen.append(await identity.get())

    async with anyio.create_task_group() as tasks:
        for _ in range(50):
            tasks.start_soon(get)
        await anyio.to_thread.run_sync(fetch.entered.wait)
        fetch.released.set()

    assert fetch.count == 1
    assert [credential.access_key_id for credential in seen] == ["key-1"] * 50


async def test_credential_is_fetched_only_when_first_needed() -> None:
    fetch = FakeFetch()

    identity = Identity(fetch, now_s=FakeClock())

    assert fetch.count == 0
    assert (await identity.get()).access_key_id == "key-1"


async def test_credential_is_fetched_anew_when_it_has_aged() -> None:
    clock, fetch = FakeClock(), FakeFetch()
    identity = Identity(fetch, now_s=clock)

    first = await identity.get()
    clock.now_s += REUSE_S - 0.001
    still = await identity.get()
    clock.now_s += 0.001
    second = await identity.get()
    clock.now_s += REUSE_S - 0.001
    still_second = await identity.get()

    assert first is still
    assert second is still_second
    assert (first.access_key_id, second.access_key_id) == ("key-1", "key-2")


async def test_refused_credential_is_fetched_anew_and_differs() -> None:
    fetch = FakeFetch()
    identity = Identity(fetch, now_s=FakeClock())
    refused = await identity.get()

    changed = await identity.renew(refused)

    assert changed
    assert (await identity.get()).access_key_id == "key-2"


async def test_credential_that_another_task_renewed_is_not_fetched_again() -> None:
    fetch = FakeFetch()
    identity = Identity(fetch, now_s=FakeClock())
    refused = await identity.get()

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(identity.renew, refused)

    assert fetch.count == 2


async def test_renewing_tells_when_the_provider_has_nothing_better() -> None:
    same = Credential("LTAI", SECRET)
    identity = Identity(lambda: same, now_s=FakeClock())

    assert not await identity.renew(await identity.get())


async def test_failed_fetch_is_reported_to_the_caller_and_tried_anew_by_the_next() -> None:
    fetch = FakeFetch()

    def fail_first() -> Credential:
        credential = fetch()
        if fetch.count == 1:
            raise CredentialsError("no credentials found")
        return credential

    identity = Identity(fail_first, now_s=FakeClock())

    with pytest.raises(CredentialsError):
        await identity.get()

    assert (await identity.get()).access_key_id == "key-2"


def failing_after(count: int, message: str = "the metadata server is away") -> Callable[[], Any]:
    """Returns one credential a number of times, then fails."""
    fetch = FakeFetch()

    def fetch_or_fail() -> Credential:
        credential = fetch()
        if fetch.count > count:
            raise CredentialsError(message)
        return credential

    return fetch_or_fail


async def test_credential_is_kept_while_it_cannot_be_renewed_and_that_is_reported_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    identity = Identity(failing_after(1, f"no token for {SECRET}"), now_s=clock)
    first = await identity.get()

    kept = []
    for _ in range(3):
        clock.now_s += REUSE_S
        kept.append(await identity.get())

    assert kept == [first] * 3
    [record] = caplog.records
    assert "no token for" in record.getMessage()
    assert SECRET not in record.getMessage()


async def test_provider_in_trouble_is_not_asked_for_each_request() -> None:
    clock, fetch = FakeClock(), FakeFetch()

    def fail_later() -> Credential:
        credential = fetch()
        if fetch.count > 1:
            raise CredentialsError("away")
        return credential

    identity = Identity(fail_later, now_s=clock)
    await identity.get()
    clock.now_s += REUSE_S
    for _ in range(10):
        await identity.get()

    assert fetch.count == 2


async def test_renewal_that_works_again_brings_the_new_credential(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, fetch = FakeClock(), FakeFetch()

    def fail_every_other_time() -> Credential:
        credential = fetch()
        if fetch.count % 2 == 0:
            raise CredentialsError("away")
        return credential

    identity = Identity(fail_every_other_time, now_s=clock)
    seen = []
    for _ in range(4):
        seen.append((await identity.get()).access_key_id)
        clock.now_s += REUSE_S

    assert seen == ["key-1", "key-1", "key-3", "key-3"]
    assert len(caplog.records) == 2


async def test_refused_credential_is_not_kept() -> None:
    identity = Identity(failing_after(1), now_s=FakeClock())
    refused = await identity.get()

    with pytest.raises(CredentialsError, match="metadata server is away"):
        await identity.renew(refused)


async def test_cancelled_fetch_neither_blocks_nor_spoils_the_next() -> None:
    fetch = SlowFetch()
    identity = Identity(fetch, now_s=FakeClock())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(identity.get)
        await anyio.to_thread.run_sync(fetch.entered.wait)
        tasks.cancel_scope.cancel()
    fetch.released.set()

    assert (await identity.get()).access_key_secret == SECRET


@pytest.mark.parametrize(
    ("profile", "environ", "region"),
    [
        (None, {}, "cn-beijing"),
        ("temporary", {}, "cn-shanghai"),
        (None, {"ALIBABA_CLOUD_PROFILE": "temporary"}, "cn-shanghai"),
        ("plain", {"ALIBABA_CLOUD_PROFILE": "temporary"}, "cn-beijing"),
        ("keyless", {}, None),
        ("torn", {}, None),
        ("unknown mode", {}, None),
        ("prod", {}, None),
    ],
)
def test_region_is_the_named_profiles_then_the_environments_then_the_current_ones(
    home: Path, profile: str | None, environ: dict[str, str], region: str | None
) -> None:
    found = read_profile_region(profile=profile, environ={"HOME": str(home), **environ})

    assert found == region


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "{",
        "[]",
        "5",
        "null",
        "{}",
        '{"profiles": 5}',
        '{"profiles": {}}',
        '{"profiles": [5]}',
    ],
)
def test_no_region_is_read_from_a_missing_or_broken_file(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        write_profiles(tmp_path, text)

    assert read_profile_region(profile="plain", environ={"HOME": str(tmp_path)}) is None


@pytest.mark.parametrize("name", ["n" * 300, "\udcff", "n/" * 3000])
@pytest.mark.parametrize("variable", ["HOME", "ALIBABA_CLOUD_CREDENTIALS_FILE"])
def test_folder_that_cannot_be_is_one_without_credentials(name: str, variable: str) -> None:
    environ = {
        "HOME": "/nowhere",
        "ALIBABA_CLOUD_ECS_METADATA_DISABLED": "true",
        variable: f"/{name}",
    }

    assert not chain_has_a_source(environ)
    assert read_profile_region(profile=None, environ=environ) is None


def test_pipe_in_the_place_of_the_profiles_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / ".aliyun").mkdir()
    os.mkfifo(tmp_path / ".aliyun" / "config.json")

    assert read_profile_region(profile=None, environ={"HOME": str(tmp_path)}) is None
