"""Sends answers, whole or broken, and listens for connections."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import anyio.lowlevel
from aiohttp import web

from exporter.emulator.answers import Answer
from exporter.emulator.faults import Fault, InjectedFault

Sleep = Callable[[float], Awaitable[None]]

SLOW_PARTS = 10
"""Number of parts that a slow body is sent in."""

GLANCE_S = 0.1
"""How often a hanging request looks for its client, and a closed listener for the end."""


def build_response(answer: Answer, *, date: str) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=_headers(answer, date))


async def send_faulty(
    request: web.BaseRequest, injected: InjectedFault, answer: Answer, *, date: str, sleep: Sleep
) -> web.StreamResponse:
    """Send an answer in the way of its fault, which has already changed the body.

    For REFUSED_CONNECTIONS the listener has to be closed afterwards.
    """
    whole = build_response(answer, date=date)
    match injected.fault:
        case Fault.RESET | Fault.REFUSED_CONNECTIONS:
            _drop(request, reset=True)
            return whole
        case Fault.CLOSED:
            _drop(request, reset=False)
            return whole
        case Fault.HANG:
            await _wait_for_client(request, injected.rule.hang_s, sleep=sleep)
            return whole
        case Fault.CUT_OFF | Fault.CUT_OFF_CHUNKED:
            stream = _build_stream(answer, date, chunked=injected.fault is Fault.CUT_OFF_CHUNKED)
            half = answer.body[: len(answer.body) // 2]
            return await _send_parts(request, stream, [half], wait_s=0, sleep=sleep, cut=True)
        case Fault.SLOW_BODY:
            stream = _build_stream(answer, date, chunked=False)
            size = len(answer.body) // SLOW_PARTS + 1
            parts = [answer.body[at : at + size] for at in range(0, len(answer.body), size)]
            wait_s = injected.rule.slow_s / max(1, len(parts))
            return await _send_parts(request, stream, parts, wait_s=wait_s, sleep=sleep, cut=False)
        case _:
            return whole


def _headers(answer: Answer, date: str) -> dict[str, str]:
    return {"Content-Type": answer.content_type, "Date": date, **answer.headers}


def _build_stream(answer: Answer, date: str, *, chunked: bool) -> web.StreamResponse:
    stream = web.StreamResponse(status=answer.status, headers=_headers(answer, date))
    if chunked:
        stream.enable_chunked_encoding()
    else:
        stream.content_length = len(answer.body)
    return stream


async def _send_parts(
    request: web.BaseRequest,
    stream: web.StreamResponse,
    parts: list[bytes],
    *,
    wait_s: float,
    sleep: Sleep,
    cut: bool,
) -> web.StreamResponse:
    """Send each part after a wait; `cut` closes the connection after the last one."""
    try:
        await stream.prepare(request)
        for part in parts:
            if wait_s > 0:
                await sleep(wait_s)
            await stream.write(part)
    except ConnectionError:  # the client did not wait for the end
        return stream
    if cut:
        _drop(request, reset=False)
    return stream


async def _wait_for_client(request: web.BaseRequest, wait_s: float, *, sleep: Sleep) -> None:
    """Wait, but only while the client does: an abandoned request is not in flight."""
    left_s = wait_s
    while left_s > 0 and request.transport is not None:
        await sleep(min(GLANCE_S, left_s))
        left_s -= GLANCE_S


def _drop(request: web.BaseRequest, *, reset: bool) -> None:
    """Close the connection after its pending bytes, or reset it at once."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection: socket.socket = transport.get_extra_info("socket")
    # Closing a socket with a linger time of 0 resets its connection.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Listener:
    """Accepts connections on one address, and can refuse them for a while."""

    def __init__(self, runner: web.ServerRunner, *, address: str, port: int) -> None:
        self._runner = runner
        self._address = address
        self.port = port
        """0 becomes the chosen port once it listens."""
        # None while connections are refused.
        self._site: web.TCPSite | None = None
        self._ended = False

    async def listen(self) -> None:
        site = web.TCPSite(self._runner, self._address, self.port)
        try:
            await site.start()
        except BaseException:
            await site.stop()
            raise
        self.port = site.port
        self._site = site

    async def refuse(self, wait_s: float, *, sleep: Sleep) -> None:
        """Refuse new connections for a while; returns at once if they are refused already.

        Open connections continue: an outage costs only the requests that were hit.
        """
        site, self._site = self._site, None
        if site is None:
            return
        await self._stop_accepting(site)
        await site.stop()
        left_s = wait_s
        while left_s > 0 and not self._ended:
            await sleep(min(GLANCE_S, left_s))
            left_s -= GLANCE_S
        while not self._ended:
            try:
                await self.listen()
            except OSError:  # another program has the port for the moment
                await sleep(GLANCE_S)
            else:
                return

    async def _stop_accepting(self, site: web.TCPSite) -> None:
        """Finish pending accepts: asyncio leaks a connection whose server closes meanwhile."""
        server = site._server  # noqa: SLF001 - aiohttp offers no other way to its sockets
        assert isinstance(server, asyncio.Server)  # noqa: S101 - the site was started
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()

    def end(self) -> None:
        """Do not listen again."""
        self._ended = True
