"""The body of an answer, read no further than an answer may be long."""

from collections.abc import AsyncIterator
from typing import Final

import anyio

MAX_BYTES: Final = 64 << 20
"""Decoded. A hundred sessions take 60 KB, with large configurations some megabytes."""
LARGE_BYTES: Final = 8 << 20
"""Answers beyond are read one at a time, so that many large ones do not add up."""


class BodyTooLargeError(Exception):
    """Raised when a body is longer than it may be; the rest of it was not read."""


async def read_body(parts: AsyncIterator[bytes], *, turn: anyio.Lock) -> bytes:
    """The decoded body, which comes in parts. Raises BodyTooLargeError.

    `turn` is whose turn it is among the large ones. aiohttp receives and decompresses no further
    than its small buffer reaches while nobody reads, unless it is asked for the whole at once.
    """
    body = bytearray()
    async for part in parts:
        body += part
        if len(body) > LARGE_BYTES:
            break
    else:
        return bytes(body)
    async with turn:
        async for part in parts:
            body += part
            if len(body) > MAX_BYTES:
                raise BodyTooLargeError
        return bytes(body)
