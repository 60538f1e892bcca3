"""The order in which requests wait for a pacer whose decisions the test scripts."""

import math
import random
import time
from typing import cast

import anyio
import anyio.lowlevel
import pytest
from anyio import wait_all_tasks_blocked

from exporter.api.limiter import Limiter
from exporter.api.pacer import Pacer
from exporter.api.quota_edges import Ticket
from tests.support.patience import HANG_S


class ScriptedPacer:
    """Admits up to `limit` requests, none before `opens_s`, and records them."""

    def __init__(self, *, limit: int = 1_000, opens_s: float = -math.inf, gap_s: float = 0) -> None:
        self.limit = limit
        self.opens_s = opens_s
        self.gap_s = gap_s
        self.sent: list[float] = []
        self.ended: list[tuple[bool, float | None]] = []
        self.max_in_flight = 0

    @property
    def in_flight(self) -> int:
        return len(self.sent) - len(self.ended)

    def wait_s(self, now_s: float) -> float:
        return math.inf if self.in_flight >= self.limit else max(0.0, self.opens_s - now_s)

    def send(self, now_s: float) -> Ticket:
        assert self.wait_s(now_s) <= 0
        self.sent.append(now_s)
        self.opens_s = now_s + self.gap_s
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        return TICKET

    def end(
        self, now_s: float, ticket: Ticket, *, throttled: bool, retry_after_s: float | None
    ) -> None:
        assert ticket is TICKET
        self.ended.append((throttled, retry_after_s))


TICKET = Pacer(max_in_flight=1, max_rps=None).send(0.0)


def build_limiter(pacer: ScriptedPacer) -> Limiter:
    return Limiter(cast("Pacer", pacer), now_s=time.monotonic)


def leave(limiter: Limiter) -> None:
    limiter.leave(TICKET, throttled=False, retry_after_s=None)


async def test_request_passes_an_build_limiter_without_giving_way() -> None:
    limiter = build_limiter(ScriptedPacer())

    with anyio.CancelScope() as scope:
        scope.cancel()  # any pause would end it
        ticket = await limiter.enter()

    assert ticket is TICKET
    assert not scope.cancelled_caught


async def test_requests_pass_in_the_order_of_their_arrival() -> None:
    pacer = ScriptedPacer(limit=1)
    limiter = build_limiter(pacer)
    passed: list[int] = []

    async def ask(number: int) -> None:
        await limiter.enter()
        passed.append(number)
        await anyio.lowlevel.checkpoint()
        leave(limiter)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(ask, number)
            await anyio.lowlevel.checkpoint()

    assert passed == list(range(20))


async def test_newcomer_does_not_overtake_who_waits() -> None:
    pacer = ScriptedPacer(limit=0)
    limiter = build_limiter(pacer)
    passed: list[str] = []

    async def ask(name: str) -> None:
        await limiter.enter()
        passed.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask, "first")
        tasks.start_soon(ask, "second")
        await wait_all_tasks_blocked()
        pacer.limit = 3
        # The limiter is open, but the two that wait have not been woken.
        tasks.start_soon(ask, "newcomer")
        await wait_all_tasks_blocked()
        assert passed == []
        pacer.sent.append(0.0)
        leave(limiter)

    assert passed == ["first", "second", "newcomer"]


async def test_waiting_request_passes_when_its_time_has_come() -> None:
    pacer = ScriptedPacer(opens_s=time.monotonic() + 0.03)
    opens_s = pacer.opens_s
    limiter = build_limiter(pacer)

    with anyio.fail_after(HANG_S):
        await limiter.enter()

    assert pacer.sent[0] >= opens_s


async def test_waiting_request_passes_when_another_one_ends() -> None:
    pacer = ScriptedPacer(limit=1)
    limiter = build_limiter(pacer)
    await limiter.enter()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.enter)
        await wait_all_tasks_blocked()
        waiting = len(pacer.sent)
        leave(limiter)

    assert waiting == 1
    assert len(pacer.sent) == 2


async def test_end_of_a_request_that_moves_the_time_away_lets_nobody_through_early() -> None:
    """A throttled answer does so."""
    started_s = time.monotonic()
    pacer = ScriptedPacer(opens_s=started_s + 60)
    limiter = build_limiter(pacer)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(limiter.enter)
        await wait_all_tasks_blocked()
        pacer.opens_s = started_s + 0.05
        pacer.sent.append(0.0)
        limiter.leave(TICKET, throttled=True, retry_after_s=0.05)

    assert pacer.sent[-1] >= started_s + 0.05
    assert pacer.ended == [(True, 0.05)]


@pytest.mark.parametrize("limit", [1, 3, 8])
async def test_never_more_are_in_flight_than_the_pacer_allows(limit: int) -> None:
    pacer = ScriptedPacer(limit=limit)
    limiter = build_limiter(pacer)
    order = random.Random(limit)  # noqa: S311 - the same order each time

    async def ask() -> None:
        await limiter.enter()
        for _ in range(order.randrange(5)):
            await anyio.lowlevel.checkpoint()
        leave(limiter)

    async with anyio.create_task_group() as tasks:
        for _ in range(200):
            tasks.start_soon(ask)

    assert pacer.max_in_flight == limit
    assert len(pacer.sent) == len(pacer.ended) == 200


async def test_limit_that_sinks_while_requests_wait_holds_at_once() -> None:
    pacer = ScriptedPacer(limit=4)
    limiter = build_limiter(pacer)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(limiter.enter)
        await wait_all_tasks_blocked()
        pacer.limit = 2
        seen = []
        for _ in range(4):
            leave(limiter)
            await wait_all_tasks_blocked()
            seen.append(pacer.in_flight)
        tasks.cancel_scope.cancel()

    assert seen == [3, 2, 2, 2]


async def test_requests_are_no_closer_together_than_the_pacer_allows() -> None:
    pacer = ScriptedPacer(gap_s=0.005)
    limiter = build_limiter(pacer)

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(limiter.enter)

    gaps_s = [later - earlier for earlier, later in zip(pacer.sent, pacer.sent[1:], strict=False)]
    assert min(gaps_s) >= 0.005 * 0.999


@pytest.mark.parametrize("cancelled", [0, 1, 2], ids=["first", "middle", "last"])
async def test_cancelled_request_leaves_the_gate_to_the_others(cancelled: int) -> None:
    pacer = ScriptedPacer(limit=0)
    limiter = build_limiter(pacer)
    scopes = [anyio.CancelScope() for _ in range(3)]
    passed: list[int] = []

    async def ask(number: int) -> None:
        with scopes[number]:
            await limiter.enter()
            passed.append(number)

    with anyio.fail_after(HANG_S):
        async with anyio.create_task_group() as tasks:
            for number in range(3):
                tasks.start_soon(ask, number)
                await wait_all_tasks_blocked()
            scopes[cancelled].cancel()
            await wait_all_tasks_blocked()
            pacer.limit = 3
            pacer.sent.append(0.0)
            leave(limiter)

    assert passed == [number for number in range(3) if number != cancelled]
    assert pacer.in_flight == 2


async def test_request_cancelled_as_it_is_let_through_is_counted_once_or_not_at_all() -> None:
    pacer = ScriptedPacer(limit=1)
    limiter = build_limiter(pacer)
    await limiter.enter()

    async def ask() -> None:
        await limiter.enter()
        try:
            await anyio.sleep_forever()
        finally:
            leave(limiter)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        await wait_all_tasks_blocked()
        leave(limiter)
        tasks.cancel_scope.cancel()

    assert pacer.in_flight == 0
    with anyio.fail_after(HANG_S):
        await limiter.enter()
