"""The emulator on a loopback socket: each request is counted, delayed, checked and answered."""

import errno
import hashlib
import os
import random
import shlex
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from ipaddress import ip_address

import anyio
from aiohttp import web

from exporter.emulator.admission import Admission
from exporter.emulator.calls import Catalog, Route, parse_path
from exporter.emulator.history import RawSession
from exporter.emulator.refusal import RequestRefusedError, build_refusal_body
from exporter.emulator.scenario import Scenario
from exporter.emulator.signature import ReceivedRequest
from exporter.emulator.stats import EmulatorStats, Tally
from exporter.errors import UsageError

STATS_PATH = "/emulator/stats"
"""GET, unsigned: EmulatorStats as JSON."""
RESET_PATH = "/emulator/reset"
"""POST, unsigned: counters back to zero."""

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class Service:
    """One scenario being played; a handler for aiohttp's low-level server, which costs least."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        now_s: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.scenario = scenario
        self.catalog = Catalog(scenario)
        self.tally = Tally()
        self._admission = Admission(scenario)
        self._now_s = now_s
        self._sleep = sleep
        self._random = random.Random(scenario.seed)  # noqa: S311  # jitter is no secret
        self._answer_count = 0

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        raw_path, _, raw_query = request.raw_path.partition("?")
        if (request.method, raw_path) == ("GET", STATS_PATH):
            return self._json(200, self.tally.stats().to_json())
        if (request.method, raw_path) == ("POST", RESET_PATH):
            self.tally.reset()
            return self._json(200, b"{}")

        route = parse_path(raw_path)
        call = "unknown" if route is None else route.call.value
        outcome = "broken"
        self.tally.request_started(request.transport)
        try:
            received = await _receive(request, raw_path=raw_path, raw_query=raw_query)
            await self._wait()
            status, outcome, body = self._answer(received, route)
        finally:
            self.tally.request_ended(call, outcome)
        return self._json(status, body)

    async def _wait(self) -> None:
        # Drawn even when there is no jitter: a request's share of the seed stays its own.
        wait_s = self.scenario.latency_s + self.scenario.jitter_s * self._random.random()
        if wait_s > 0:
            await self._sleep(wait_s)

    def _answer(self, received: ReceivedRequest, route: Route | None) -> tuple[int, str, bytes]:
        """Status, outcome and body."""
        self._answer_count += 1
        request_id = f"00000000-0000-4000-8000-{self._answer_count:012X}"
        try:
            known_route = self._admission.admit(received, route, now_s=self._now_s())
            self.tally.request_admitted()
            query = dict(received.query())
            return 200, "ok", self.catalog.build_answer(known_route, query, request_id=request_id)
        except RequestRefusedError as refusal:
            body = build_refusal_body(
                refusal, request_id=request_id, host=received.headers.get("host", "")
            )
            return refusal.status, refusal.code, body

    def _json(self, status: int, body: bytes) -> web.Response:
        return web.Response(
            status=status,
            body=body,
            headers={
                "Content-Type": "application/json;charset=utf-8",
                "Date": formatdate(self._now_s(), usegmt=True),
            },
        )


async def _receive(request: web.BaseRequest, *, raw_path: str, raw_query: str) -> ReceivedRequest:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    body_sha256 = _EMPTY_SHA256
    if request.can_read_body:
        body_sha256 = hashlib.sha256(await request.read()).hexdigest()
    return ReceivedRequest(
        method=request.method,
        raw_path=raw_path,
        raw_query=raw_query,
        headers=headers,
        body_sha256=body_sha256,
    )


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running emulator."""

    endpoint: str
    """`http://127.0.0.1:PORT`, as `--endpoint` takes it."""
    service: Service = field(repr=False)

    @property
    def scenario(self) -> Scenario:
        return self.service.scenario

    def stats(self) -> EmulatorStats:
        return self.service.tally.stats()

    def reset(self) -> None:
        """Counters back to zero. Nonces stay known and the jitter goes on."""
        self.service.tally.reset()

    def sessions(self, workspace_id: str, gateway_id: str) -> Iterator[RawSession]:
        """What a complete listing must deliver, in list order. KeyError for an unknown gateway."""
        session_list = self.service.catalog.session_list(workspace_id, gateway_id)
        if session_list is None:
            raise KeyError(gateway_id)
        return session_list.sessions()

    def shell_lines(self) -> list[str]:
        """What a POSIX shell runs to point livy-exporter here, with the made-up identity."""
        scenario = self.scenario
        exports = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": scenario.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": scenario.access_key_secret,
            "ALIBABA_CLOUD_SECURITY_TOKEN": scenario.security_token,
            "LIVY_EXPORTER_ENDPOINT": self.endpoint,
            "LIVY_EXPORTER_REGION": scenario.region_id,
        }
        # A token left over in the shell would make each request one of another identity.
        return [
            f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}"
            for name, value in exports.items()
        ]


@asynccontextmanager
async def open_emulator(
    scenario: Scenario,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    now_s: Callable[[], float] = time.time,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> AsyncIterator[Emulator]:
    """Serves the scenario until the block ends, then drops what is still in flight.

    `port` 0 takes a free one. `now_s` is the service's clock in seconds since the epoch, `sleep`
    waits out latency and jitter. Raises UsageError for a host that is not loopback, since the
    identity is public, and for a port that cannot be listened on.
    """
    address = _parse_loopback(host)
    service = Service(scenario, now_s=now_s, sleep=sleep)
    runner = web.ServerRunner(
        # No access log: it would cost as much as the answer.
        web.Server(service.respond, access_log=None),
        shutdown_timeout=0.05,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, address, port)
        try:
            await site.start()
        except (OSError, OverflowError) as exc:
            raise _cannot_listen(address, port, exc) from exc
        bound_port = runner.addresses[0][1]
        literal = f"[{address}]" if ":" in address else address
        yield Emulator(f"http://{literal}:{bound_port}", service)
    finally:
        # Short: idle connections are closed at once and those at work get the timeout above.
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def serve_forever(
    scenario: Scenario,
    *,
    port: int,
    announce: Callable[[str], None],
    host: str = "127.0.0.1",
) -> None:
    """Announces, line by line, how to reach the emulator, then serves until cancelled."""
    async with open_emulator(scenario, host=host, port=port) as emulator:
        for line in emulator.shell_lines():
            announce(line)
        await anyio.sleep_forever()


def _parse_loopback(host: str) -> str:
    """The address to listen on; one of them, where `localhost` may mean two."""
    literal = "127.0.0.1" if host == "localhost" else host
    try:
        if ip_address(literal).is_loopback:
            return literal
    except ValueError:
        pass
    raise UsageError(
        f"the emulator does not listen on '{host}'",
        hint="use a loopback address, such as 127.0.0.1",
    )


def _cannot_listen(address: str, port: int, exc: OSError | OverflowError) -> UsageError:
    hint = "choose a port from 1024 to 65535 that is free, or 0 for any free one"
    if not isinstance(exc, OSError):
        return UsageError(f"there is no port {port}", hint=hint)
    # asyncio rewrites the text of the error and keeps its number.
    reason = "the port is in use" if exc.errno == errno.EADDRINUSE else os.strerror(exc.errno or 0)
    return UsageError(f"cannot listen on {address} port {port}: {reason}", hint=hint)
