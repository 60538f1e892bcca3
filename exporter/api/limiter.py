"""Where requests wait for the pacer: in order of arrival, woken by time or by an ended request."""

import math
from collections.abc import Callable

import anyio

from exporter.api.pacer import Pacer, Ticket


class Limiter:
    """Lets requests through as a Pacer allows; one waits for it, the others wait for that one."""

    def __init__(self, pacer: Pacer, *, now_s: Callable[[], float]) -> None:
        self.pacer = pacer
        self._now_s = now_s
        self._queue = anyio.Lock()
        self._changed = anyio.Event()

    async def enter(self) -> Ticket:
        """Wait until a request may be sent; it counts as in flight from then on."""
        if not self._queue.locked() and self.pacer.wait_s(self._now_s()) <= 0:
            return self.pacer.send(self._now_s())
        async with self._queue:
            while (wait_s := self.pacer.wait_s(self._now_s())) > 0:
                self._changed = anyio.Event()
                # Where only an ended request can help, there is no timer to pay for.
                with anyio.move_on_after(None if wait_s == math.inf else wait_s):
                    await self._changed.wait()
            return self.pacer.send(self._now_s())

    def leave(self, ticket: Ticket, *, throttled: bool, retry_after_s: float | None) -> None:
        """The request ended, however it ended."""
        self.pacer.end(self._now_s(), ticket, throttled=throttled, retry_after_s=retry_after_s)
        self._changed.set()
