"""Runs the emulator on a loopback socket."""

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
        return self.service.counter.stats()

    def reset(self) -> None:
        """Restart the scenario: counters, quota, faults, token and moving lists.

        Nonces stay known and the jitter continues.
        """
        self.service.restart()

    def sessions(self, workspace_id: str, gateway_id: str) -> Iterator[RawSession]:
        """The sessions of a complete listing, in list order. Raises KeyError."""
        return self.service.catalog.session_list(workspace_id, gateway_id).sessions()

    def truth(self, workspace_id: str, gateway_id: str, *, first_answer: int = 1) -> Truth:
        """The truth about a listing that began with `first_answer`. Raises KeyError."""
        return self.service.catalog.truth(workspace_id, gateway_id, first_answer=first_answer)

    def shell_lines(self) -> list[str]:
        """Commands that point livy-exporter here from a POSIX shell, with the emulated identity."""
        scenario = self.scenario
        exports = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": scenario.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": scenario.access_key_secret,
            "ALIBABA_CLOUD_SECURITY_TOKEN": scenario.security_token,
            "LIVY_EXPORTER_ENDPOINT": self.endpoint,
            "LIVY_EXPORTER_REGION": scenario.region_id,
        }
        # A token left in the shell would belong to another identity.
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
    """Serve the scenario until the block ends, then drop the requests in flight.

    `port` 0 takes a free one. `now_s` is the machine's clock in seconds since 1970, `monotonic_s`
    the clock of the quota and of moving lists; `sleep` waits for latency, jitter and faults. Raises
    UsageError for a host that is not loopback, as the identity is public, and for an unusable port.
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
        # Short: idle connections close at once, busy ones within the timeout above.
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


def _parse_loopback(host: str) -> str:
    """The address to listen on; `localhost` may have two, of which it is IPv4."""
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
    # asyncio replaces the text of the error but keeps its number.
    reason = "the port is in use" if exc.errno == errno.EADDRINUSE else os.strerror(exc.errno or 0)
    return UsageError(f"cannot listen on {address} port {port}: {reason}", hint=hint)
