"""Protects work that must not be left half done from asyncio's own cancellation."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

T = TypeVar("T")


async def run_in_own_task(function: Callable[[], Awaitable[T]]) -> T:
    """Await the function in a task of its own, to its end; returns its value or raises its error.

    asyncio cancels a task at Ctrl-C and at its timeouts, and no shield of anyio stops that: a
    publishing thread would go on after its task had ended and released the lock. Only anyio cancels
    the new task, and anyio waits for such threads. If the function succeeds although it was
    cancelled, its value is returned, so that the caller learns of the publish.
    """
    values: list[T] = []
    errors: list[BaseException] = []

    async def run() -> None:
        try:
            values.append(await function())
        except anyio.get_cancelled_exc_class():
            raise
        except BaseException as exc:  # noqa: BLE001 - raised below, not as a group of one
            errors.append(exc)

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
    except anyio.get_cancelled_exc_class():
        if not values and not errors:
            raise
    if errors:
        raise errors[0]
    return values[0]
