import hashlib
import hmac
import subprocess
import sys
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime

import aiohttp
import anyio
import orjson
import pytest
from yarl import URL

from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.server import Emulator, open_emulator
from exporter.emulator.signature import (
    ReceivedRequest,
    build_canonical_request,
    build_string_to_sign,
)
from exporter.emulator.stats import EmulatorStats
from exporter.errors import UsageError
from tests.support.patience import HANG_S

SESSIONS_PATH = "/api/v1/workspaces/w-emulated-1/livycompute/lc-emulated-1-1/session"
WORKSPACES_PATH = "/api/v1/workspaces"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
SMALL = Scenario(workspaces=build_workspaces(session_count=250))
NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)


class FakeClock:
    """Stands still until it is set."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


class FakeSleep:
    """Records the waits and returns at once."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def __call__(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)


class Gate:
    """A sleep that ends when `opened` is set; `crowded` is set once `crowd` requests sleep."""

    def __init__(self, crowd: int) -> None:
        self._missing = crowd
        self.crowded = anyio.Event()
        self.opened = anyio.Event()

    async def __call__(self, wait_s: float) -> None:
        self._missing -= 1
        if self._missing == 0:
            self.crowded.set()
        await self.opened.wait()


def sign(
    emulator: Emulator,
    path: str,
    *,
    action: str = "ListLivyComputeSessions",
    secret: str | None = None,
    nonce: str | None = None,
    at: datetime | None = None,
    token: str | None = None,
) -> dict[str, str]:
    raw_path, _, raw_query = path.partition("?")
    headers = {
        "host": emulator.endpoint.removeprefix("http://"),
        "x-acs-action": action,
        "x-acs-version": "2023-08-08",
        "x-acs-date": (at or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce or uuid.uuid4().hex,
        "x-acs-content-sha256": EMPTY_SHA256,
    }
    if token is not None:
        headers["x-acs-security-token"] = token
    request = ReceivedRequest(
        method="GET",
        raw_path=raw_path,
        raw_query=raw_query,
        headers=headers,
        body_sha256=EMPTY_SHA256,
    )
    text = build_string_to_sign(build_canonical_request(request, tuple(headers)))
    key = emulator.scenario.access_key_secret if secret is None else secret
    signature = hmac.digest(key.encode(), text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"ACS3-HMAC-SHA256 Credential={emulator.scenario.access_key_id},"
        f"SignedHeaders={';'.join(sorted(headers))},Signature={signature}"
    )
    return headers


async def ask(
    client: aiohttp.ClientSession, emulator: Emulator, path: str, headers: dict[str, str]
) -> tuple[int, dict[str, object]]:
    async with client.get(URL(emulator.endpoint + path, encoded=True), headers=headers) as answer:
        body = orjson.loads(await answer.read())
    assert isinstance(body, dict)
    return answer.status, body


async def test_pages_over_the_wire_hold_the_emulators_own_sessions() -> None:
    async with open_emulator(SMALL) as emulator, aiohttp.ClientSession() as client:
        rows: list[object] = []
        for page_num in (1, 2, 3):
            path = f"{SESSIONS_PATH}?pageNum={page_num}&pageSize=100&regionId=cn-hangzhou"
            status, body = await ask(client, emulator, path, sign(emulator, path))
            assert (status, body["totalCount"]) == (200, 250)
            assert isinstance(body["sessions"], list)
            rows += body["sessions"]

        assert rows == list(emulator.sessions("w-emulated-1", "lc-emulated-1-1"))


async def test_refusal_comes_in_the_services_envelope() -> None:
    async with open_emulator(SMALL) as emulator, aiohttp.ClientSession() as client:
        headers = sign(emulator, WORKSPACES_PATH, action="ListWorkspaces", secret="wrong")

        status, body = await ask(client, emulator, WORKSPACES_PATH, headers)

    assert status == 400
    assert set(body) == {
        "requestId",
        "code",
        "message",
        "httpStatusCode",
        "hostId",
        "recommend",
    }
    assert (body["code"], body["httpStatusCode"]) == ("SignatureDoesNotMatch", 400)
    assert SMALL.access_key_secret not in str(body)


async def test_refused_parameter_and_unknown_path_are_answers_too() -> None:
    async with open_emulator(SMALL) as emulator, aiohttp.ClientSession() as client:
        path = f"{SESSIONS_PATH}?pageSize=101"

        too_large = await ask(client, emulator, path, sign(emulator, path))
        unknown = await ask(client, emulator, "/api/v2", sign(emulator, "/api/v2"))

    assert (too_large[0], too_large[1]["code"]) == (400, "InvalidParameter")
    assert (unknown[0], unknown[1]["code"]) == (404, "InvalidAction.NotFound")


async def test_body_is_part_of_what_is_signed() -> None:
    async with open_emulator(SMALL) as emulator, aiohttp.ClientSession() as client:
        headers = sign(emulator, SESSIONS_PATH)
        async with client.get(
            emulator.endpoint + SESSIONS_PATH, headers=headers, data=b"x"
        ) as answer:
            body = orjson.loads(await answer.read())

    assert body["code"] == "SignatureDoesNotMatch"


async def test_clock_of_the_service_dates_answers_and_checks_requests() -> None:
    emulating = open_emulator(SMALL, now_s=NOW.timestamp)
    async with emulating as emulator, aiohttp.ClientSession() as client:
        stale = sign(emulator, SESSIONS_PATH, at=datetime(2026, 7, 1, 11, tzinfo=UTC))
        async with client.get(emulator.endpoint + SESSIONS_PATH, headers=stale) as answer:
            body = orjson.loads(await answer.read())
        path = SESSIONS_PATH
        status, _ = await ask(client, emulator, path, sign(emulator, path, at=NOW))

    assert parsedate_to_datetime(answer.headers["Date"]) == NOW
    assert body["code"] == "InvalidTimeStamp.Expired"
    assert status == 200


@pytest.mark.parametrize("clock_offset_s", [-3600.0, 3600.0])
async def test_clock_that_is_off_refuses_a_right_date_and_states_its_own(
    clock_offset_s: float,
) -> None:
    service_now = NOW + timedelta(seconds=clock_offset_s)
    scenario = replace(SMALL, clock_offset_s=clock_offset_s)
    emulating = open_emulator(scenario, now_s=NOW.timestamp)
    async with emulating as emulator, aiohttp.ClientSession() as client:
        right = sign(emulator, SESSIONS_PATH, at=NOW)
        async with client.get(emulator.endpoint + SESSIONS_PATH, headers=right) as answer:
            body = orjson.loads(await answer.read())
        stated = parsedate_to_datetime(answer.headers["Date"])
        path = SESSIONS_PATH
        status, _ = await ask(client, emulator, path, sign(emulator, path, at=stated))

    assert (answer.status, body["code"]) == (400, "InvalidTimeStamp.Expired")
    assert stated == service_now
    assert status == 200


async def test_expired_token_is_valid_again_after_a_reset() -> None:
    scenario = replace(
        SMALL, security_token="first", next_security_token="second", security_token_uses=2
    )
    async with open_emulator(scenario) as emulator, aiohttp.ClientSession() as client:

        async def ask_with(token: str) -> tuple[int, object]:
            headers = sign(emulator, SESSIONS_PATH, token=token)
            status, body = await ask(client, emulator, SESSIONS_PATH, headers)
            return status, body.get("code")

        before = [await ask_with(token) for token in ("first", "first", "first", "second")]
        emulator.reset()
        after = await ask_with("first")

    assert before == [
        (200, None),
        (200, None),
        (400, "InvalidSecurityToken.Expired"),
        (200, None),
    ]
    assert after == (200, None)


async def test_latency_and_seeded_jitter_are_waited_out_before_each_answer() -> None:
    scenario = replace(SMALL, latency_s=0.5, jitter_s=0.25)
    waits_by_run: list[list[float]] = []
    for _ in range(2):
        sleep = FakeSleep()
        async with (
            open_emulator(scenario, sleep=sleep) as emulator,
            aiohttp.ClientSession() as client,
        ):
            for _ in range(5):
                await ask(client, emulator, SESSIONS_PATH, sign(emulator, SESSIONS_PATH))
        waits_by_run.append(sleep.waits_s)

    first, second = waits_by_run
    assert first == second
    assert len(set(first)) == 5
    assert all(0.5 <= wait_s <= 0.75 for wait_s in first)


async def test_maximum_of_requests_in_flight_is_counted() -> None:
    gate = Gate(crowd=5)
    scenario = replace(SMALL, latency_s=1)
    async with (
        open_emulator(scenario, sleep=gate) as emulator,
        aiohttp.ClientSession() as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(5):
            headers = sign(emulator, SESSIONS_PATH)
            group.start_soon(ask, client, emulator, SESSIONS_PATH, headers)
        with anyio.fail_after(HANG_S):
            await gate.crowded.wait()
        during = emulator.stats()
        gate.opened.set()

    after = emulator.stats()
    assert (during.in_flight, during.most_in_flight, during.request_count) == (5, 5, 0)
    assert (after.in_flight, after.most_in_flight, after.ok_count) == (0, 5, 5)
    assert after.connection_count == 5


async def test_stats_have_calls_outcomes_connections_and_nonces() -> None:
    clock = FakeClock(NOW.timestamp())
    emulating = open_emulator(SMALL, now_s=clock)
    async with emulating as emulator, aiohttp.ClientSession() as client:
        headers = sign(emulator, WORKSPACES_PATH, action="ListWorkspaces", at=NOW)
        await ask(client, emulator, WORKSPACES_PATH, headers)
        clock.now_s += 2
        await ask(client, emulator, WORKSPACES_PATH, headers)
        await ask(client, emulator, SESSIONS_PATH, sign(emulator, SESSIONS_PATH, at=NOW))
        await ask(client, emulator, "/nowhere", {})

        stats = emulator.stats()

    assert stats == EmulatorStats(
        request_counts={
            "ListWorkspaces": {"ok": 1, "SignatureNonceUsed": 1},
            "ListLivyComputeSessions": {"ok": 1},
            "unknown": {"InvalidAction.NotFound": 1},
        },
        in_flight=0,
        most_in_flight=1,
        connection_count=1,
        nonce_count=2,
        first_request_s=NOW.timestamp(),
        last_request_s=NOW.timestamp() + 2,
    )
    assert (stats.request_count, stats.ok_count) == (4, 2)


async def test_stats_are_read_and_reset_over_the_wire_without_being_counted() -> None:
    async with open_emulator(SMALL) as emulator, aiohttp.ClientSession() as client:
        await ask(client, emulator, SESSIONS_PATH, sign(emulator, SESSIONS_PATH))
        async with client.get(emulator.endpoint + "/emulator/stats") as answer:
            before = EmulatorStats.from_json(await answer.read())
        async with client.post(emulator.endpoint + "/emulator/reset") as answer:
            assert answer.status == 200
        async with client.get(emulator.endpoint + "/emulator/stats") as answer:
            text = await answer.read()

    assert before.request_counts == {"ListLivyComputeSessions": {"ok": 1}}
    assert orjson.loads(text) == {
        "request_counts": {},
        "in_flight": 0,
        "most_in_flight": 0,
        "connection_count": 0,
        "nonce_count": 0,
        "fault_counts": {},
        "quota_seconds": [],
        "first_request_s": None,
        "last_request_s": None,
        "request_count": 0,
        "ok_count": 0,
        "granted_count": 0,
        "refused_count": 0,
    }


def test_stats_survive_their_way_over_the_wire() -> None:
    stats = EmulatorStats(
        request_counts={"ListWorkspaces": {"ok": 1, "reset": 1}},
        in_flight=0,
        most_in_flight=2,
        connection_count=2,
        nonce_count=2,
        fault_counts={"reset": 1},
        quota_seconds=[(0, 2, 0), (3, 0, 1)],
        first_request_s=1.5,
        last_request_s=4.5,
    )

    assert EmulatorStats.from_json(stats.to_json()) == stats


async def test_nonce_stays_used_over_a_reset() -> None:
    async with open_emulator(SMALL) as emulator, aiohttp.ClientSession() as client:
        headers = sign(emulator, SESSIONS_PATH)
        await ask(client, emulator, SESSIONS_PATH, headers)
        emulator.reset()

        _, body = await ask(client, emulator, SESSIONS_PATH, headers)

    assert body["code"] == "SignatureNonceUsed"
    assert emulator.stats().nonce_count == 0


async def test_closing_drops_what_is_in_flight() -> None:
    gate = Gate(crowd=1)
    with anyio.fail_after(HANG_S):
        async with (
            aiohttp.ClientSession() as client,
            anyio.create_task_group() as group,
            open_emulator(replace(SMALL, latency_s=1), sleep=gate) as emulator,
        ):
            headers = sign(emulator, SESSIONS_PATH)

            async def ask_in_vain() -> None:
                with pytest.raises(aiohttp.ClientConnectionError):
                    await ask(client, emulator, SESSIONS_PATH, headers)

            group.start_soon(ask_in_vain)
            await gate.crowded.wait()

    stats = emulator.stats()
    assert stats.in_flight == 0
    assert stats.request_counts == {"ListLivyComputeSessions": {"broken": 1}}


async def test_sessions_of_an_unknown_gateway_are_a_key_error() -> None:
    async with open_emulator(SMALL) as emulator:
        with pytest.raises(KeyError, match="lc-none"):
            emulator.sessions("w-emulated-1", "lc-none")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.1", "example.com", "::", ""])  # noqa: S104  # refused
async def test_only_loopback_is_listened_on(host: str) -> None:
    with pytest.raises(UsageError, match="does not listen on") as caught:
        async with open_emulator(SMALL, host=host):
            pass

    assert caught.value.hint is not None


async def test_localhost_is_the_ipv4_loopback() -> None:
    async with open_emulator(SMALL, host="localhost") as emulator:
        assert emulator.endpoint.startswith("http://127.0.0.1:")


async def test_port_in_use_is_refused_with_a_remedy() -> None:
    async with open_emulator(SMALL) as emulator:
        port = URL(emulator.endpoint).port or 0

        with pytest.raises(UsageError, match=f"port {port}: the port is in use") as caught:
            async with open_emulator(SMALL, port=port):
                pass

    assert caught.value.hint is not None


@pytest.mark.parametrize("port", [-1, 65_536])
async def test_port_that_cannot_exist_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=f"there is no port {port}"):
        async with open_emulator(SMALL, port=port):
            pass


async def test_shell_reads_the_identity_and_the_endpoint() -> None:
    async with open_emulator(replace(SMALL, security_token="it's")) as emulator:
        lines = emulator.shell_lines()

    shell = "\n".join([*lines, 'printf "%s\\n" "$ALIBABA_CLOUD_SECURITY_TOKEN"'])
    shown = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=True)  # noqa: ASYNC221  # short
    assert shown.stdout == "it's\n"
    assert any(line.startswith("export LIVY_EXPORTER_ENDPOINT=http://127.0.0.1:") for line in lines)


async def test_shell_forgets_a_token_when_the_scenario_has_none() -> None:
    async with open_emulator(SMALL) as emulator:
        assert "unset ALIBABA_CLOUD_SECURITY_TOKEN" in emulator.shell_lines()


def test_importing_the_emulator_imports_no_pyarrow() -> None:
    code = "import sys, exporter.emulator.server; sys.exit('pyarrow' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
