"""Keeps what asyncio does to a task away from what must not be left half done."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def run_in_own_task(function: Callable[[], Awaitable[T]]) -> T:
    """What the function returns or raises, awaited in a task of its own, to its end.

    asyncio cancels a task at Ctrl-C and at its timeouts, and no shield of anyio's holds that off: a
    thread that publishes would go on while its task had ended, and with it the lock. The own task
    is only ever cancelled by anyio, which waits for such threads. Where it ended well in spite of
    that, its value is returned: what is published is told.
    """
    values: list[T] = []
    failures: list[BaseException] = []

    async def run() -> None:
        try:
            values.append(await function())
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001 - raised below, not as a group of one
            failures.append(exc)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
    except anyio.get_cancelled_exc_class():
        if not values and not failures:
            raise
    if failures:
        raise failures[0]
    return values[0]
