"""Makes requests wait for the pacer, first come, first served."""

import math
from collections.abc import Callable

import anyio

from exporter.api.pacer import Pacer
from exporter.api.quota_edges import Ticket


class Limiter:
    """Admits requests as a Pacer allows.

    The first in the queue waits for the time that the pacer names or for the end of a request; the
    others wait for their place.
    """

    def __init__(self, pacer: Pacer, *, now_s: Callable[[], float]) -> None:
        self.pacer = pacer
        self._now_s = now_s
        self._queue = anyio.Lock()
        self._changed = anyio.Event()

    async def enter(self) -> Ticket:
        """Wait until a request may be sent, and count it as in flight."""
        if not self._queue.locked() and self.pacer.wait_s(self._now_s()) <= 0:
            return self.pacer.send(self._now_s())
        async with self._queue:
            while (wait_s := self.pacer.wait_s(self._now_s())) > 0:
                self._changed = anyio.Event()
                # Without a time to wait for, a timer would cost for nothing.
                with anyio.move_on_after(None if wait_s == math.inf else wait_s):
                    await self._changed.wait()
            return self.pacer.send(self._now_s())

    def leave(self, ticket: Ticket, *, throttled: bool, retry_after_s: float | None) -> None:
        """Count a request as ended, whatever its outcome."""
        self.pacer.end(self._now_s(), ticket, throttled=throttled, retry_after_s=retry_after_s)
        self._changed.set()
