import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import aiohttp.abc
import anyio
import anyio.lowlevel
import orjson
import pytest
from aiohttp import web
from anyio.abc import SocketAttribute

from exporter.api import calls
from exporter.api.client import Client, open_client
from exporter.api.credentials import Credential, Identity
from exporter.api.pacer import Pacer
from exporter.api.proxy import find_proxy
from exporter.api.retry import FIRST_CONTACT_WAIT_S, MAX_SILENCE_S
from exporter.api.signature import build_authorization
from exporter.errors import (
    ApiError,
    AuthenticationError,
    BadAnswerError,
    ClockSkewError,
    CredentialsError,
    ExporterError,
    NetworkError,
    NonceUsedError,
    RefusedError,
    ServiceError,
    ThrottledError,
)
from exporter.events import Event, PaceLearnt, RequestEnded, RequestStarted, RetryScheduled
from exporter.model import Gateway, ListingQuery, RequestCounts, SessionPage

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
CALL = calls.list_sessions(GATEWAY, ListingQuery(page_size=100), page_num=3)
EMPTY_PAGE = SessionPage(0, [], [])
TOKEN = "CAIS" + "+/".join(str(1000 + number) for number in range(200)) + "=="
CREDENTIAL = Credential("LTAI-client", "EXAMPLEsecretKey0123456789abcde", TOKEN)
START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Received:
    """A request as received."""

    target: str
    headers: Mapping[str, str]
    connection: int
    """The number of its connection, from 1."""

    @property
    def nonce(self) -> str:
        return self.headers["x-acs-signature-nonce"]

    def signature_holds(self) -> bool:
        """Whether the received bytes are the signed ones."""
        path, _, query = self.target.partition("?")
        authorization = self.headers["authorization"]
        names = authorization.split("SignedHeaders=")[1].split(",")[0].split(";")
        return authorization == build_authorization(
            method="GET",
            path=path,
            query=query,
            headers={name: self.headers[name] for name in names},
            credential=CREDENTIAL,
        )


Behaviour = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def answer(body: object, *, status: int = 200, headers: Mapping[str, str] = {}) -> Behaviour:
    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return web.Response(status=status, body=raw, headers=headers)

    return respond


def refuse(code: str, *, status: int = 400, headers: Mapping[str, str] = {}) -> Behaviour:
    body = {"code": code, "message": "no", "requestId": "r-1"}
    return answer(body, status=status, headers=headers)


def raw_bytes(text: bytes) -> Behaviour:
    """Writes bytes, HTTP or not, and closes the connection."""

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(text)
        request.transport.close()
        return web.Response()

    return respond


async def stay_silent(request: web.BaseRequest) -> web.StreamResponse:
    await anyio.sleep(30)
    return web.Response()


good = answer({"totalCount": 0, "sessions": []})
hang_up = raw_bytes(b"")
throttle = refuse("Throttling.User", status=429)
busy = refuse("ServiceUnavailable", status=503)
page_of_a_proxy = answer(b"<html>Welcome</html>")


class ScriptedServer:
    """Records requests and answers them by its script, whose last line repeats."""

    def __init__(self, *script: Behaviour) -> None:
        self._script = list(script)
        self._connections: list[object] = []
        self.received: list[Received] = []
        self.arrived = anyio.Event()

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.transport not in self._connections:
            self._connections.append(request.transport)
        connection = self._connections.index(request.transport) + 1
        self.received.append(Received(request.raw_path, request.headers, connection))
        self.arrived.set()
        behaviour = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        return await behaviour(request)

    @property
    def connection_count(self) -> int:
        return len(self._connections)


@asynccontextmanager
async def serve(server: ScriptedServer, *, port: int = 0) -> AsyncIterator[str]:
    """Serves until the block ends, at the yielded endpoint."""
    runner = web.ServerRunner(web.Server(server.respond, access_log=None), shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


class FakeSleep:
    """Skips waits; its clock is the true one plus the skipped time."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def __call__(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        await anyio.lowlevel.checkpoint()

    def now_s(self) -> float:
        return anyio.current_time() + sum(self.waits_s)


class TickingClock:
    """A clock that advances a second with each reading."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> datetime:
        self.count += 1
        return START + timedelta(seconds=self.count)


@dataclass(frozen=True, slots=True)
class Rig:
    client: Client
    sleep: FakeSleep
    events: list[Event]

    @property
    def counts(self) -> RequestCounts:
        return self.client.counts


def identify() -> Identity:
    return Identity(lambda: CREDENTIAL, now_s=anyio.current_time)


@asynccontextmanager
async def open_rig(
    endpoint: str,
    *,
    retries: int = 8,
    patience_s: float = 600,
    timeout_s: float = 60,
    concurrency: int = 4,
    jitter: float = 0.5,
    identity: Identity | None = None,
) -> AsyncIterator[Rig]:
    """A client as in a real run, whose waits are recorded and skipped."""
    sleep, events = FakeSleep(), list[Event]()
    async with open_client(
        endpoint=endpoint,
        identity=identify(),
        concurrency=concurrency,
        max_rps=None,
        retries=retries,
        patience_s=600,
        timeout_s=timeout_s,
        user_agent="livy-exporter/test",
        environ={},
        emit=events.append,
    ) as opened:
        client = Client(
            opened._session,
            endpoint=endpoint,
            identity=identity or identify(),
            pacer=Pacer(max_in_flight=concurrency, max_rps=None),
            retries=retries,
            patience_s=patience_s,
            timeout_s=timeout_s,
            emit=events.append,
            now_s=sleep.now_s,
            utc_now=TickingClock(),
            sleep=sleep,
            jitter=lambda: jitter,
        )
        yield Rig(client, sleep, events)


async def send_refused(rig: Rig) -> ExporterError:
    with pytest.raises(ExporterError) as caught:
        await rig.client.send(CALL)
    return caught.value


async def closed_port() -> int:
    """A loopback port without a listener."""
    async with await anyio.create_tcp_listener(local_host="127.0.0.1") as listener:
        port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - no Django
    assert isinstance(port, int)
    return port


async def test_value_comes_back_and_the_request_carries_what_the_service_wants() -> None:
    server = ScriptedServer(answer({"totalCount": 1, "sessions": [{"sessionId": "a"}]}))

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        page = await rig.client.send(CALL)

    assert page == SessionPage(1, [{"sessionId": "a"}], ["a"])
    [request] = server.received
    assert request.target == f"{CALL.path}?{CALL.query}"
    assert request.headers["host"] == endpoint.removeprefix("http://")
    assert request.headers["x-acs-action"] == "ListLivyComputeSessions"
    assert request.headers["x-acs-date"] == "2026-01-02T03:04:06Z"
    assert request.headers["x-acs-security-token"] == TOKEN
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"] == "livy-exporter/test"
    assert "content-type" not in request.headers
    assert request.signature_holds()


@pytest.mark.parametrize(
    "odd_id", ["a*b", "a/b", "a b", "lc-é中:1", "50%", "a+b", "a?b#c", "..", "~._-", "%2F", "[1]"]
)
async def test_bytes_on_the_wire_are_the_ones_that_were_signed(odd_id: str) -> None:
    server = ScriptedServer(good)
    call = calls.list_sessions(
        Gateway(odd_id, odd_id, odd_id), ListingQuery(page_size=1), page_num=1
    )

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(call)

    [request] = server.received
    assert request.target == f"{call.path}?{call.query}"
    assert request.signature_holds()


async def test_every_attempt_is_signed_anew() -> None:
    server = ScriptedServer(throttle, refuse("SignatureNonceUsed"), answer(b"", status=502), good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)

    assert len({request.nonce for request in server.received}) == 4
    dates = [request.headers["x-acs-date"] for request in server.received]
    assert dates == sorted(set(dates))
    assert all(request.signature_holds() for request in server.received)


async def test_request_that_aiohttp_repeats_by_itself_is_signed_anew() -> None:
    """aiohttp repeats a GET whose kept-alive connection is gone."""
    server = ScriptedServer(good, hang_up, good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        page = await rig.client.send(CALL)

    assert page == EMPTY_PAGE
    assert [request.connection for request in server.received] == [1, 1, 2]
    assert len({request.nonce for request in server.received}) == 3
    assert len({request.headers["x-acs-date"] for request in server.received}) == 3
    assert all(request.signature_holds() for request in server.received)
    assert not any(isinstance(event, RetryScheduled) for event in rig.events)


async def test_sent_is_the_sum_of_the_outcomes_also_when_aiohttp_repeats_a_request() -> None:
    server = ScriptedServer(good, hang_up, good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        await rig.client.send(CALL)

    counts = rig.counts
    assert counts.sent == counts.ok + counts.throttled + counts.failed


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirect_is_refused_and_no_credential_follows_it(status: int) -> None:
    elsewhere = ScriptedServer(good)

    async with serve(elsewhere) as other_endpoint:
        server = ScriptedServer(
            answer(b"moved", status=status, headers={"location": f"{other_endpoint}/"})
        )
        async with serve(server) as endpoint, open_rig(endpoint) as rig:
            error = await send_refused(rig)

    assert type(error) is RefusedError
    assert f"HTTP {status}" in str(error)
    assert len(server.received) == 1
    assert elsewhere.received == []


@pytest.mark.parametrize(
    ("refusal", "outcome"),
    [
        pytest.param(refuse("Throttling.User", status=429), "throttled", id="throttled 429"),
        pytest.param(refuse("Throttling", status=400), "throttled", id="throttled 400"),
        pytest.param(refuse("Throttling.Api", status=503), "throttled", id="throttled 503"),
        pytest.param(refuse("Throttling.User", status=200), "throttled", id="throttled 200"),
        pytest.param(refuse("ServiceUnavailable", status=503), "failed", id="unavailable"),
        pytest.param(refuse("SystemBusy", status=400), "failed", id="busy"),
        pytest.param(answer(b"<html>", status=502), "failed", id="page of a proxy"),
        pytest.param(refuse("SignatureNonceUsed"), "failed", id="nonce"),
    ],
)
async def test_trouble_of_the_service_is_asked_again_until_the_value_comes(
    refusal: Behaviour, outcome: str
) -> None:
    server = ScriptedServer(refusal, refusal, good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        page = await rig.client.send(CALL)

    assert page == EMPTY_PAGE
    assert len(server.received) == 3
    assert rig.counts == RequestCounts(
        sent=3,
        ok=1,
        retried=2,
        throttled=2 if outcome == "throttled" else 0,
        failed=2 if outcome == "failed" else 0,
    )


@pytest.mark.parametrize("retries", [0, 1, 3])
@pytest.mark.parametrize(
    ("trouble", "kind"),
    [
        pytest.param(answer(b"", status=503), ServiceError, id="unavailable"),
        pytest.param(refuse("SignatureNonceUsed"), NonceUsedError, id="nonce"),
    ],
)
async def test_attempts_are_bounded_and_the_last_error_is_reported(
    trouble: Behaviour, kind: type[ApiError], retries: int
) -> None:
    server = ScriptedServer(trouble)

    async with serve(server) as endpoint, open_rig(endpoint, retries=retries) as rig:
        error = await send_refused(rig)

    assert type(error) is kind
    assert len(server.received) == 1 + retries
    assert len(rig.sleep.waits_s) == rig.counts.retried == retries


async def test_waits_grow_from_attempt_to_attempt() -> None:
    server = ScriptedServer(good, busy)

    async with serve(server) as endpoint, open_rig(endpoint, jitter=1.0) as rig:
        await rig.client.send(CALL)
        await send_refused(rig)

    assert rig.sleep.waits_s == [0.5, 1, 2, 4, 8, 16, 20, 20]


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"x-acs-retry-after": "700"}, 0.7),
        ({"x-ratelimit-user": "Limit:1,Remain:0,TimeLeft:1500,Reset:1234"}, 1.5),
        ({"Retry-After": "3"}, 3.0),
        ({}, 0.0),
    ],
)
async def test_wait_that_the_service_asks_for_is_kept(
    headers: dict[str, str], wait_s: float
) -> None:
    server = ScriptedServer(refuse("Throttling.User", headers=headers), good)

    async with serve(server) as endpoint, open_rig(endpoint, jitter=0.0) as rig:
        await rig.client.send(CALL)

    assert rig.sleep.waits_s == [wait_s]


@pytest.mark.parametrize("retries", [0, 2])
async def test_throttled_request_is_asked_again_beyond_the_retries_and_waits_for_its_turn(
    retries: int,
) -> None:
    server = ScriptedServer(good, *[throttle] * 5, good)

    async with serve(server) as endpoint, open_rig(endpoint, jitter=1.0, retries=retries) as rig:
        await rig.client.send(CALL)
        await rig.client.send(CALL)

    assert rig.sleep.waits_s == [0] * 5
    assert rig.counts.retried == 5


async def test_failures_between_throttled_answers_are_counted_by_themselves() -> None:
    server = ScriptedServer(good, throttle, busy, throttle, busy, throttle, busy, good)

    async with serve(server) as endpoint, open_rig(endpoint, jitter=1.0, retries=2) as rig:
        await rig.client.send(CALL)
        error = await send_refused(rig)

    assert isinstance(error, ServiceError)
    assert str(error).endswith(" (after 6 attempts)")
    assert rig.sleep.waits_s == [0, 0.5, 0, 1, 0]


async def test_patience_ends_the_run_with_what_the_service_asks_for(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = ScriptedServer(good, refuse("Throttling.User", headers={"Retry-After": "7200"}))

    async with serve(server) as endpoint, open_rig(endpoint, patience_s=0.2, retries=0) as rig:
        await rig.client.send(CALL)
        error = await send_refused(rig)

    assert isinstance(error, ThrottledError)
    assert re.search(
        r"the quota is used up by others for 0\.\d+s, the service asks to wait 2 hours\)$",
        str(error),
    )
    assert error.hint == "run when fewer others use the account's quota, or raise --patience"
    assert sum(rig.sleep.waits_s) <= 0.4
    [warning] = [record.getMessage() for record in caplog.records]
    assert "the service asks to wait 2 hours, longer than --patience 0.2s" in warning


async def test_used_nonce_is_replaced_without_a_wait() -> None:
    server = ScriptedServer(refuse("SignatureNonceUsed"), good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)

    assert rig.sleep.waits_s == [0.0]


@pytest.mark.parametrize(
    ("code", "status", "exit_code"),
    [
        ("SignatureDoesNotMatch", 400, 3),
        ("InvalidAccessKeyId.NotFound", 404, 3),
        ("InvalidSecurityToken.Malformed", 400, 3),
        ("Forbidden.RAM", 403, 3),
        ("CCAI.TenantPermission.NoAuth", 429, 3),
        ("InvalidLivyCompute.NotFound", 404, 2),
        ("InvalidAction.NotFound", 404, 1),
        ("InvalidParameter", 400, 1),
    ],
)
async def test_refusal_that_would_come_again_is_reported_at_once(
    code: str, status: int, exit_code: int
) -> None:
    server = ScriptedServer(refuse(code, status=status))

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        error = await send_refused(rig)

    assert isinstance(error, ApiError)
    assert (error.code, error.exit_code) == (code, exit_code)
    assert len(server.received) == 1
    assert rig.sleep.waits_s == []
    assert rig.counts == RequestCounts(sent=1, failed=1)


def serve_late(*behaviours: Behaviour, ahead: timedelta) -> ScriptedServer:
    """Refuses the dates of requests and states its own, then follows its script."""
    date = format_datetime(START + ahead, usegmt=True)
    return ScriptedServer(refuse("InvalidTimeStamp.Expired", headers={"Date": date}), *behaviours)


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
async def test_clock_that_is_off_is_corrected_from_the_answer_that_says_so(hours: int) -> None:
    server = serve_late(good, ahead=timedelta(hours=hours))

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        await rig.client.send(CALL)

    wrong, *right = [
        datetime.fromisoformat(request.headers["x-acs-date"]) - START for request in server.received
    ]
    assert abs(wrong) < timedelta(minutes=1)
    assert [abs(each - timedelta(hours=hours)) < timedelta(minutes=1) for each in right] == [
        True
    ] * 2
    assert all(request.signature_holds() for request in server.received)
    assert rig.sleep.waits_s == []
    assert rig.counts == RequestCounts(sent=3, ok=2, failed=1, retried=1)


async def test_clock_that_is_corrected_and_still_refused_is_reported() -> None:
    still = refuse("InvalidTimeStamp.Expired", headers={"Date": "Fri, 02 Jan 2026 05:00:00 GMT"})

    async with serve(ScriptedServer(still)) as endpoint, open_rig(endpoint) as rig:
        error = await send_refused(rig)

    assert type(error) is ClockSkewError
    assert error.hint is not None
    assert "clock" in error.hint
    assert rig.counts == RequestCounts(sent=2, failed=2, retried=1)


@pytest.mark.parametrize("date", ["nonsense", "", "Fri, 99 Jan 2026 99:00:00 GMT"])
async def test_clock_is_not_corrected_from_nonsense(date: str) -> None:
    server = ScriptedServer(refuse("InvalidTimeStamp.Expired", headers={"Date": date}))

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        error = await send_refused(rig)

    assert type(error) is ClockSkewError
    assert (error.exit_code, rig.counts) == (1, RequestCounts(sent=1, failed=1))


async def test_refused_connection_at_first_contact_is_reported_after_one_more_try() -> None:
    endpoint = f"http://127.0.0.1:{await closed_port()}"

    async with open_rig(endpoint) as rig:
        error = await send_refused(rig)

    assert isinstance(error, NetworkError)
    assert error.unreachable
    assert endpoint.removeprefix("http://") in str(error)
    assert error.hint is not None
    assert "--endpoint" in error.hint
    assert rig.sleep.waits_s == [FIRST_CONTACT_WAIT_S]
    assert rig.sleep.waits_s[0] < 0.5
    assert rig.counts == RequestCounts(sent=2, failed=2, retried=1)


async def test_no_retry_asked_for_is_none_at_first_contact_either() -> None:
    async with open_rig(f"http://127.0.0.1:{await closed_port()}", retries=0) as rig:
        await send_refused(rig)

    assert rig.sleep.waits_s == []


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(page_of_a_proxy, id="html"),
        pytest.param(answer(b""), id="empty"),
        pytest.param(answer({"hello": "world"}), id="other JSON"),
        pytest.param(answer(b'{"totalCount":3,"sess'), id="cut off"),
    ],
)
async def test_unreadable_answer_at_first_contact_is_reported_after_one_more_try(
    garbage: Behaviour,
) -> None:
    server = ScriptedServer(garbage)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        error = await send_refused(rig)

    assert type(error) is BadAnswerError
    assert len(server.received) == 2
    assert rig.sleep.waits_s == [FIRST_CONTACT_WAIT_S]


@pytest.mark.parametrize("text", [b"SSH-2.0-OpenSSH_9.2\r\n", b"\x15\x03\x01\x00\x02\x02P"])
async def test_answer_that_is_no_http_at_first_contact_is_reported_after_one_more_try(
    text: bytes,
) -> None:
    server = ScriptedServer(raw_bytes(text))

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await send_refused(rig)

    assert rig.sleep.waits_s == [FIRST_CONTACT_WAIT_S]


async def test_unreadable_answer_after_a_good_one_is_weather() -> None:
    server = ScriptedServer(good, page_of_a_proxy, answer(b""), answer(b'{"total'), good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        page = await rig.client.send(CALL)

    assert page == EMPTY_PAGE
    assert len(server.received) == 5
    assert rig.counts == RequestCounts(sent=5, ok=2, failed=3, retried=3)


async def test_refusal_in_the_services_own_words_counts_as_contact() -> None:
    server = ScriptedServer(throttle, page_of_a_proxy, page_of_a_proxy, good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        page = await rig.client.send(CALL)

    assert page == EMPTY_PAGE


async def test_refused_connection_after_a_good_answer_is_weather() -> None:
    port = await closed_port()

    async with open_rig(f"http://127.0.0.1:{port}", retries=3) as rig:
        async with serve(ScriptedServer(good), port=port):
            await rig.client.send(CALL)
        error = await send_refused(rig)

    assert isinstance(error, NetworkError)
    assert error.unreachable
    assert rig.sleep.waits_s == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(
            raw_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), id="body cut off"
        ),
        pytest.param(
            raw_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
            id="broken chunk",
        ),
        pytest.param(
            raw_bytes(
                b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nxxxxx"
            ),
            id="broken gzip",
        ),
        pytest.param(raw_bytes(b"SSH-2.0-OpenSSH_9.2\r\n"), id="no HTTP"),
    ],
)
async def test_answer_that_breaks_off_is_asked_for_again(trouble: Behaviour) -> None:
    server = ScriptedServer(good, trouble, good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        page = await rig.client.send(CALL)

    assert page == EMPTY_PAGE
    [retry] = [event for event in rig.events if isinstance(event, RetryScheduled)]
    assert retry.error.startswith("page 3 of w-1/lc-1: the answer of 127.0.0.1:")
    assert len(retry.error.splitlines()) == 1


@pytest.mark.parametrize("hangs_up", [hang_up, raw_bytes(b"HTTP/1.1 200 OK\r\nContent-")])
async def test_connection_that_is_gone_twice_is_asked_for_again(hangs_up: Behaviour) -> None:
    server = ScriptedServer(good, hangs_up, hangs_up, good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        page = await rig.client.send(CALL)

    assert page == EMPTY_PAGE
    assert len({request.nonce for request in server.received}) == 4
    assert rig.counts.retried == 1


async def test_compressed_answer_is_read() -> None:
    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        response = web.Response(body=b'{"totalCount":0,"sessions":[]}')
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with serve(ScriptedServer(respond)) as endpoint, open_rig(endpoint) as rig:
        assert await rig.client.send(CALL) == EMPTY_PAGE


async def test_pause_in_which_nobody_asked_is_no_silence_of_the_service() -> None:
    server = ScriptedServer(good, busy, good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        await rig.sleep(10 * MAX_SILENCE_S)
        page = await rig.client.send(CALL)

    assert page == EMPTY_PAGE
    assert len(server.received) == 3


async def test_timeout_is_reported_with_its_seconds() -> None:
    async with (
        serve(ScriptedServer(stay_silent)) as endpoint,
        open_rig(endpoint, timeout_s=0.1, retries=1) as rig,
    ):
        error = await send_refused(rig)

    assert isinstance(error, NetworkError)
    assert "no answer from 127.0.0.1" in str(error)
    assert "within 0.1s" in str(error)
    assert error.hint is not None
    assert "--timeout" in error.hint
    assert rig.counts.retried == 1


async def test_endpoint_without_tls_is_reported_as_unreachable() -> None:
    async with (
        serve(ScriptedServer(good)) as endpoint,
        open_rig(endpoint.replace("http://", "https://")) as rig,
    ):
        error = await send_refused(rig)

    assert isinstance(error, NetworkError)
    assert error.unreachable
    assert "certificate" in str(error)
    assert isinstance(error.__cause__, aiohttp.ClientConnectorSSLError)
    assert isinstance(error.__cause__.os_error, ssl.SSLError)


async def test_unknown_host_is_reported_with_its_name_after_one_more_try() -> None:
    class NoResolver(aiohttp.abc.AbstractResolver):
        async def resolve(
            self, host: str, port: int = 0, family: object = None
        ) -> list[aiohttp.abc.ResolveResult]:
            raise OSError(None, "no such name")

        async def close(self) -> None:
            pass

    sleep = FakeSleep()
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=NoResolver())
    ) as session:
        client = Client(
            session,
            endpoint="http://service.invalid",
            identity=identify(),
            pacer=Pacer(max_in_flight=4, max_rps=None),
            retries=8,
            patience_s=600,
            timeout_s=60,
            emit=lambda event: None,
            now_s=sleep.now_s,
            utc_now=TickingClock(),
            sleep=sleep,
            jitter=lambda: 0.0,
        )
        with pytest.raises(NetworkError, match=r"unknown host service\.invalid") as caught:
            await client.send(CALL)

    assert caught.value.unreachable
    assert sleep.waits_s == [FIRST_CONTACT_WAIT_S]


async def test_connection_is_reused_from_call_to_call() -> None:
    server = ScriptedServer(good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        for _ in range(20):
            await rig.client.send(CALL)

    assert len(server.received) == 20
    assert server.connection_count == 1


async def test_connection_is_reused_after_a_refusal_and_an_unreadable_answer() -> None:
    server = ScriptedServer(good, throttle, page_of_a_proxy, refuse("X", status=500), good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        await rig.client.send(CALL)

    assert len(server.received) == 5
    assert server.connection_count == 1


async def test_no_more_connections_are_opened_than_the_concurrency() -> None:
    server = ScriptedServer(good)

    async with (
        serve(server) as endpoint,
        open_rig(endpoint, concurrency=3) as rig,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(30):
            tasks.start_soon(rig.client.send, CALL)

    assert len(server.received) == 30
    assert server.connection_count <= 3
    assert len({request.nonce for request in server.received}) == 30


async def test_cookie_of_the_service_is_not_kept() -> None:
    server = ScriptedServer(
        answer({"totalCount": 0, "sessions": []}, headers={"Set-Cookie": "a=b; Path=/"})
    )

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)
        await rig.client.send(CALL)

    assert not any("cookie" in request.headers for request in server.received)


async def test_events_tell_every_attempt_and_retry() -> None:
    server = ScriptedServer(refuse("Throttling.User", headers={"x-acs-retry-after": "700"}), good)

    async with serve(server) as endpoint, open_rig(endpoint, jitter=0.0) as rig:
        await rig.client.send(CALL)

    started, throttled, retry, started_again, ended = [
        event for event in rig.events if not isinstance(event, PaceLearnt)
    ]
    assert started == started_again == RequestStarted(1)
    assert isinstance(throttled, RequestEnded)
    assert (throttled.outcome, throttled.in_flight) == ("throttled", 0)
    assert retry == RetryScheduled(
        "page 3 of w-1/lc-1",
        1,
        0.7,
        "page 3 of w-1/lc-1: HTTP 400, Throttling.User, no (request r-1)",
        GATEWAY,
    )
    assert isinstance(ended, RequestEnded)
    assert (ended.outcome, ended.in_flight) == ("ok", 0)
    assert ended.elapsed_s >= 0


async def test_in_flight_counts_all_requests_of_the_client() -> None:
    server = ScriptedServer(good)

    async with (
        serve(server) as endpoint,
        open_rig(endpoint, concurrency=3) as rig,
        anyio.create_task_group() as tasks,
    ):
        for _ in range(3):
            tasks.start_soon(rig.client.send, CALL)

    started = [event.in_flight for event in rig.events if isinstance(event, RequestStarted)]
    ended = [event.in_flight for event in rig.events if isinstance(event, RequestEnded)]
    assert started == [1, 2, 3]
    assert sorted(ended) == [0, 1, 2]


async def test_cancelled_request_is_no_longer_in_flight_and_the_client_goes_on() -> None:
    server = ScriptedServer(stay_silent, good)

    async with serve(server) as endpoint, open_rig(endpoint, concurrency=1) as rig:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(rig.client.send, CALL)
            await server.arrived.wait()
            tasks.cancel_scope.cancel()
        last = rig.events[-1]
        page = await rig.client.send(CALL)

    assert isinstance(last, RequestEnded)
    assert last.in_flight == 0
    assert page == EMPTY_PAGE
    # The half-used connection does not serve the next request.
    assert [request.connection for request in server.received] == [1, 2]


async def test_cancelled_wait_before_a_retry_ends_at_once() -> None:
    server = ScriptedServer(throttle)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        with anyio.CancelScope() as scope:
            rig.client._sleep = cancelling(scope)
            await rig.client.send(CALL)

    assert scope.cancelled_caught
    assert len(server.received) == 1


def cancelling(scope: anyio.CancelScope) -> Callable[[float], Awaitable[None]]:
    async def sleep(wait_s: float) -> None:
        scope.cancel()
        await anyio.sleep_forever()

    return sleep


async def test_missing_credentials_send_nothing() -> None:
    def fail() -> Credential:
        raise CredentialsError("no credentials found")

    server = ScriptedServer(good)

    async with (
        serve(server) as endpoint,
        open_rig(endpoint, identity=Identity(fail, now_s=anyio.current_time)) as rig,
    ):
        error = await send_refused(rig)

    assert isinstance(error, CredentialsError)
    assert server.received == []
    assert rig.counts == RequestCounts()
    assert rig.events == []


@pytest.mark.parametrize(
    "echo",
    [
        pytest.param(
            answer({"code": "X", "message": f"token {TOKEN} is bad"}, status=400), id="message"
        ),
        pytest.param(
            answer(
                {"code": "SignatureDoesNotMatch", "message": f"CanonicalRequest: {TOKEN}"},
                status=400,
            ),
            id="canonical request",
        ),
        pytest.param(answer({"code": TOKEN, "message": "no"}, status=400), id="code"),
        pytest.param(
            answer({"code": "X", "message": "no", "requestId": TOKEN}, status=400), id="request id"
        ),
        pytest.param(
            answer({"code": "X", "message": CREDENTIAL.access_key_secret}, status=400), id="secret"
        ),
        pytest.param(answer(TOKEN.encode()), id="body"),
        pytest.param(answer({"totalCount": TOKEN, "sessions": []}), id="total"),
        pytest.param(
            answer({"code": TOKEN, "success": False, "totalCount": 0, "sessions": []}),
            id="code with a status of success",
        ),
    ],
)
async def test_no_error_or_event_shows_the_secret_or_the_token(echo: Behaviour) -> None:
    server = ScriptedServer(echo)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        error = await send_refused(rig)

    assert isinstance(error, ApiError)
    for shown in (str(error), repr(error), error.hint or "", repr(rig.events)):
        assert TOKEN[:20] not in shown
        assert CREDENTIAL.access_key_secret not in shown


async def test_wrong_secret_is_an_authentication_error_with_a_hint() -> None:
    server = ScriptedServer(refuse("SignatureDoesNotMatch"))

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        error = await send_refused(rig)

    assert isinstance(error, AuthenticationError)
    assert error.hint is not None
    assert "secret" in error.hint


@pytest.mark.parametrize(
    ("endpoint", "environ", "proxy"),
    [
        ("https://h.example", {}, None),
        ("https://h.example", {"https_proxy": "http://p:1"}, "http://p:1"),
        ("https://h.example", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        (
            "https://h.example",
            {"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:1"},
            "http://low:1",
        ),
        ("https://h.example", {"https_proxy": "", "HTTPS_PROXY": ""}, None),
        ("https://h.example", {"http_proxy": "http://p:1"}, None),
        ("https://h.example", {"https_proxy": "http://p:1", "no_proxy": "h.example"}, None),
        ("https://h.example", {"https_proxy": "http://p:1", "NO_PROXY": ".example"}, None),
        ("https://h.example:8443", {"https_proxy": "http://p:1", "no_proxy": "h.example"}, None),
        ("https://h.example", {"https_proxy": "http://p:1", "no_proxy": "*"}, None),
        ("https://h.example", {"https_proxy": "http://p:1", "no_proxy": "a.b, .c"}, "http://p:1"),
        ("http://127.0.0.1:1", {"http_proxy": "http://p:1", "https_proxy": "http://p:1"}, None),
    ],
)
def test_proxy_is_the_environments_for_https_unless_it_is_passed_by(
    endpoint: str, environ: dict[str, str], proxy: str | None
) -> None:
    found = find_proxy(endpoint, environ=environ)

    assert (None if found is None else found.url) == proxy


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"])
async def test_no_proxy_stands_between_us_and_the_loopback(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, f"http://127.0.0.1:{await closed_port()}")
    server = ScriptedServer(good)

    async with serve(server) as endpoint, open_rig(endpoint) as rig:
        await rig.client.send(CALL)

    assert len(server.received) == 1
