"""Reads the body of an answer, up to a limit on its size."""

from collections.abc import AsyncIterator
from typing import Final

import anyio

MAX_BYTES: Final = 64 << 20
"""Longest decoded body. A hundred sessions take 60 KB, or some megabytes with large settings."""
LARGE_BYTES: Final = 8 << 20
"""Bodies beyond this are read one at a time, so that several of them do not add up in memory."""


class BodyTooLargeError(Exception):
    """Raised when a body is longer than `MAX_BYTES`; the rest of it was not read."""


async def read_body(chunks: AsyncIterator[bytes], *, large_lock: anyio.Lock) -> bytes:
    """The decoded body. Raises BodyTooLargeError.

    Whoever holds `large_lock` reads a large body. Those who wait for it take no memory: aiohttp
    receives and decompresses only as far as its small buffer reaches while nobody reads.
    """
    body = bytearray()
    async for chunk in chunks:
        body += chunk
        if len(body) > LARGE_BYTES:
            break
    else:
        return bytes(body)
    async with large_lock:
        async for chunk in chunks:
            body += chunk
            if len(body) > MAX_BYTES:
                raise BodyTooLargeError
        return bytes(body)
