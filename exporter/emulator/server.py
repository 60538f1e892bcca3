"""The emulator on a loopback socket: opened, asked what it saw, and closed."""

import errno
import os
import shlex
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import anyio
from aiohttp import web

from exporter.emulator.generated_list import RawSession
from exporter.emulator.moving_list import Truth
from exporter.emulator.scenario import Scenario
from exporter.emulator.service import Service
from exporter.emulator.stats import EmulatorStats
from exporter.emulator.wire import Listener, Sleep
from exporter.errors import UsageError


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
        """The scenario from its start again: counters, quota, faults, token and moving lists.

        Nonces stay known and the jitter goes on.
        """
        self.service.restart()

    def sessions(self, workspace_id: str, gateway_id: str) -> Iterator[RawSession]:
        """What a complete listing must deliver, in list order. KeyError for an unknown gateway."""
        session_list = self.service.catalog.session_list(workspace_id, gateway_id)
        if session_list is None:
            raise KeyError(gateway_id)
        return session_list.sessions()

    def truth(self, workspace_id: str, gateway_id: str, *, first_answer: int = 1) -> Truth:
        """What a listing owes that began with this answer. KeyError for an unknown gateway."""
        return self.service.catalog.truth(workspace_id, gateway_id, first_answer=first_answer)

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
    monotonic_s: Callable[[], float] = time.monotonic,
    sleep: Sleep = anyio.sleep,
) -> AsyncIterator[Emulator]:
    """Serves the scenario until the block ends, then drops what is still in flight.

    `port` 0 takes a free one. `now_s` is the machine's clock in seconds since the epoch, and
    `monotonic_s` one in seconds that never steps, for what depends on time passed: the quota and
    lists that move. `sleep` waits out latency, jitter and faults. Raises UsageError for a host that
    is not loopback, since the identity is public, and for a port that cannot be listened on.
    """
    address = _parse_loopback(host)
    service = Service(scenario, now_s=now_s, monotonic_s=monotonic_s, sleep=sleep)
    runner = web.ServerRunner(
        # No access log: it would cost as much as the answer.
        web.Server(service.respond, access_log=None),
        shutdown_timeout=0.05,
    )
    listener = Listener(runner, address=address, port=port)
    service.listener = listener
    await runner.setup()
    try:
        try:
            await listener.listen()
        except (OSError, OverflowError) as exc:
            raise _cannot_listen(address, port, exc) from exc
        literal = f"[{address}]" if ":" in address else address
        yield Emulator(f"http://{literal}:{listener.port}", service)
    finally:
        listener.end()
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
