"""Answers on the wire, whole and broken, and the socket that connections come in by."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import anyio.lowlevel
from aiohttp import web

from exporter.emulator.answers import Answer
from exporter.emulator.faults import Fault, Strike

Sleep = Callable[[float], Awaitable[None]]

SLOW_PARTS = 10
"""Into how many parts a slow body is cut."""

GLANCE_S = 0.1
"""How often a hanging request, or a closed listener, looks whether anybody still waits for it."""


def build_response(answer: Answer, *, date: str) -> web.Response:
    return web.Response(status=answer.status, body=answer.body, headers=_headers(answer, date))


async def send_struck(
    request: web.BaseRequest, strike: Strike, answer: Answer, *, date: str, sleep: Sleep
) -> web.StreamResponse:
    """An answer, spoiled already, in the way that its fault is delivered.

    Once it is sent, REFUSED_CONNECTIONS is still the listener's to do.
    """
    whole = build_response(answer, date=date)
    match strike.fault:
        case Fault.RESET | Fault.REFUSED_CONNECTIONS:
            _drop(request, reset=True)
            return whole
        case Fault.CLOSED:
            _drop(request, reset=False)
            return whole
        case Fault.HANG:
            await _wait_for_client(request, strike.rule.hang_s, sleep=sleep)
            return whole
        case Fault.CUT_OFF | Fault.CUT_OFF_CHUNKED:
            stream = _build_stream(answer, date, chunked=strike.fault is Fault.CUT_OFF_CHUNKED)
            half = answer.body[: len(answer.body) // 2]
            return await _send_parts(request, stream, [half], wait_s=0, sleep=sleep, cut=True)
        case Fault.SLOW_BODY:
            stream = _build_stream(answer, date, chunked=False)
            size = len(answer.body) // SLOW_PARTS + 1
            parts = [answer.body[at : at + size] for at in range(0, len(answer.body), size)]
            wait_s = strike.rule.slow_s / max(1, len(parts))
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
    """Waits before each part; afterwards a cut answer's connection is closed."""
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
    """Ends early when the client is gone: a request that nobody waits for is not in flight."""
    left_s = wait_s
    while left_s > 0 and request.transport is not None:
        await sleep(min(GLANCE_S, left_s))
        left_s -= GLANCE_S


def _drop(request: web.BaseRequest, *, reset: bool) -> None:
    """Close the connection after what was written to it, or reset it at once."""
    transport = request.transport
    if transport is None:
        return
    if not reset:
        transport.close()
        return
    connection: socket.socket = transport.get_extra_info("socket")
    # Closing a socket that does not linger resets its connection.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class Listener:
    """One address that connections are accepted on, and for a while may not be."""

    def __init__(self, runner: web.ServerRunner, *, address: str, port: int) -> None:
        self._runner = runner
        self._address = address
        self.port = port
        """0 becomes the port that was taken, once it listens."""
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
        """Accept nothing for a while; at once done when that is so already.

        Connections that stand go on: an outage costs the requests that were struck and no others.
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
            except OSError:  # somebody else's for the moment
                await sleep(GLANCE_S)
            else:
                return

    async def _stop_accepting(self, site: web.TCPSite) -> None:
        """Let those through who are being accepted: asyncio leaks a connection whose server was
        closed in between.
        """
        server = site._server  # noqa: SLF001 - aiohttp offers no other way to its sockets
        assert isinstance(server, asyncio.Server)  # noqa: S101 - the site was started
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        await anyio.lowlevel.checkpoint()
        await anyio.lowlevel.checkpoint()

    def end(self) -> None:
        """Whoever waits to listen again need not."""
        self._ended = True
