"""Endless and very large answers are read only up to a limit."""

import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import anyio
import anyio.lowlevel
import pytest
from aiohttp import web

from exporter.api import calls
from exporter.api.body import LARGE_BYTES, MAX_BYTES, BodyTooLargeError, read_body
from exporter.api.client import Client, open_client
from exporter.api.credentials import Credential, Identity
from exporter.errors import BadAnswerError
from exporter.model import Gateway, ListingQuery

CALL = calls.list_sessions(
    Gateway("cn-hangzhou", "w-1", "lc-1"), ListingQuery(page_size=100), page_num=1
)
START = b'{"totalCount":0,"sessions":[],"padding":"'
SPACES = b" " * (1 << 20)


@dataclass
class Endless:
    """Answers with a start, a repeated mebibyte, and an end."""

    encoding: str = ""
    mebibytes: int = 250
    end: bytes = b'"}'
    sent_bytes: int = 0
    """Bytes sent, over all requests."""

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        if self.encoding:
            response.headers["Content-Encoding"] = self.encoding
        response.enable_chunked_encoding()
        await response.prepare(request)
        wbits = {"gzip": 31, "deflate": 15, "": 0}[self.encoding]
        packer = zlib.compressobj(9, wbits=wbits) if wbits else None
        with suppress(ConnectionError):
            for part in (START, *[SPACES] * self.mebibytes, self.end):
                packed = part if packer is None else packer.compress(part)
                if packed:
                    await response.write(packed)
                self.sent_bytes += len(packed)
            if packer is not None:
                await response.write(packer.flush())
        return response


@asynccontextmanager
async def serve(server: Endless) -> AsyncIterator[str]:
    runner = web.ServerRunner(web.Server(server.respond, access_log=None), shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def open_once(endpoint: str) -> AsyncIterator[Client]:
    """A client that asks once."""
    async with open_client(
        endpoint=endpoint,
        identity=Identity(lambda: Credential("LTAI", "secret"), now_s=anyio.current_time),
        concurrency=4,
        max_rps=None,
        retries=0,
        patience_s=600,
        timeout_s=60,
        user_agent="test",
        environ={},
        emit=lambda _: None,
    ) as client:
        yield client


@pytest.mark.parametrize("encoding", ["", "gzip", "deflate"])
async def test_answer_that_does_not_end_is_given_up_at_the_limit(encoding: str) -> None:
    server = Endless(encoding)

    async with serve(server) as endpoint, open_once(endpoint) as client:
        with pytest.raises(BadAnswerError, match="an answer of more than 64 MiB") as caught:
            await client.send(CALL)

    assert caught.value.hint is not None
    assert "--page-size" in caught.value.hint
    # When the reader stops, only the kernel's and two small buffers are in transit.
    assert server.sent_bytes < MAX_BYTES + (16 << 20)


async def test_bomb_is_not_decompressed_further_than_it_is_read() -> None:
    """Most of a compressed body, received whole in some hundred kilobytes, stays compressed."""
    server = Endless("gzip")
    read_bytes = 0

    async def count(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        nonlocal read_bytes
        async for part in parts:
            read_bytes += len(part)
            assert len(part) < 4 << 20
            yield part

    async with (
        serve(server) as endpoint,
        aiohttp.ClientSession() as session,
        session.get(f"{endpoint}/") as response,
    ):
        with pytest.raises(BodyTooLargeError):
            await read_body(count(response.content.iter_any()), large_lock=anyio.Lock())

    assert MAX_BYTES < read_bytes < MAX_BYTES + (4 << 20)


@pytest.mark.parametrize("mebibytes", [1, 7, 9, 63])
async def test_large_answer_below_the_limit_is_read_whole(mebibytes: int) -> None:
    async with (
        serve(Endless("gzip", mebibytes)) as endpoint,
        open_once(endpoint) as client,
    ):
        page = await client.send(CALL)

    assert page.total_count == 0
    assert len(page.body) == len(START) + (mebibytes << 20) + 2


async def test_large_answers_are_read_one_after_the_other() -> None:
    reading = 0
    max_reading = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal reading, max_reading
        yield bytes(LARGE_BYTES + 1)
        reading += 1
        max_reading = max(max_reading, reading)
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
            yield b"x"
        reading -= 1

    large_lock = anyio.Lock()
    async with anyio.create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(lambda: read_body(chunks(), large_lock=large_lock))

    assert max_reading == 1
