import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import anyio
import anyio.lowlevel
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.events import Event, ListingFinished, ListingStarted, PageRead
from exporter.listing.fetch import fetch_sessions
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.listing.schedule import MAX_ROWS_AT_ONCE, MIN_WINDOW
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage
from tests.support.examples import scale_examples
from tests.support.patience import HANG_S

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")


class PageFailedError(Exception):
    pass


class FakeFetch:
    """Serves lists that hold still, and records what is asked."""

    def __init__(self, *counts: int) -> None:
        self.gateways = [replace(GATEWAY, gateway_id=f"lc-{n}") for n in range(len(counts))]
        self.requests: list[PageRequest] = []
        self.in_flight = 0
        self.max_in_flight = 0
        self._ids = {
            gateway: [f"{gateway}/{number}" for number in range(count)]
            for gateway, count in zip(self.gateways, counts, strict=True)
        }

    async def __call__(self, request: PageRequest) -> SessionPage:
        self.requests.append(request)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await self.wait(request)
        finally:
            self.in_flight -= 1
        ids = self._ids[request.gateway]
        start = (request.page_num - 1) * request.page_size
        found = ids[start : start + request.page_size]
        return SessionPage(len(ids), [{"sessionId": each} for each in found], found)

    async def wait(self, request: PageRequest) -> None:
        """Seconds that an answer takes; a subclass overrides it."""
        await anyio.lowlevel.checkpoint()

    def all_ids(self) -> list[tuple[Gateway, str]]:
        return [(gateway, each) for gateway, ids in self._ids.items() for each in ids]


class HeldFetch(FakeFetch):
    """Answers nothing until it is released; every release answers what is in flight then."""

    def __init__(self, *counts: int) -> None:
        super().__init__(*counts)
        self._released = anyio.Event()

    async def wait(self, request: PageRequest) -> None:
        await self._released.wait()

    def release(self) -> None:
        self._released.set()
        self._released = anyio.Event()


class FailingFetch(FakeFetch):
    """Fails at one page while all others of its time never end."""

    def __init__(self, *counts: int, page_num: int) -> None:
        super().__init__(*counts)
        self._page_num = page_num
        self.cancelled_count = 0

    async def wait(self, request: PageRequest) -> None:
        if request.page_num < self._page_num:
            return
        if request.page_num == self._page_num:
            await anyio.wait_all_tasks_blocked()
            raise PageFailedError
        try:
            await anyio.sleep_forever()
        finally:
            self.cancelled_count += 1


class FakeSink:
    """Takes rows at once and keeps their ids."""

    def __init__(self) -> None:
        self.ids: list[tuple[Gateway, str]] = []
        self.steps: list[int] = []

    async def __call__(self, gateway: Gateway, sessions: list[RawSession]) -> None:
        self.steps.append(len(sessions))
        self.ids += [(gateway, each["sessionId"]) for each in sessions]
        await self.wait()

    async def wait(self) -> None:
        await anyio.lowlevel.checkpoint()


class StuckSink(FakeSink):
    async def wait(self) -> None:
        await anyio.sleep_forever()


def ignore(event: Event) -> None:
    pass


async def fetch_all(
    fetch: FakeFetch,
    sink: FakeSink,
    *,
    page_size: int = 10,
    concurrency: int = 4,
    emit: Callable[[Event], None] = ignore,
) -> Sequence[ListingFacts]:
    return await fetch_sessions(
        [FullListing(gateway, page_size=page_size) for gateway in fetch.gateways],
        fetch_page=fetch,
        on_rows=sink,
        page_size=page_size,
        concurrency=concurrency,
        emit=emit,
    )


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 250, 5000])
@pytest.mark.parametrize("concurrency", [1, 2, 32])
async def test_every_session_is_handed_on_once_in_list_order(count: int, concurrency: int) -> None:
    fetch, sink = FakeFetch(count), FakeSink()

    facts = await fetch_all(fetch, sink, concurrency=concurrency)

    assert sink.ids == fetch.all_ids()
    assert [(each.session_count, each.proof) for each in facts] == [(count, "quiescent")]


async def test_gateways_are_handed_on_one_after_the_other_in_the_order_given() -> None:
    fetch, sink = FakeFetch(25, 0, 300, 1, 10), FakeSink()

    facts = await fetch_all(fetch, sink)

    assert sink.ids == fetch.all_ids()
    assert [each.gateway for each in facts] == fetch.gateways


async def test_no_gateway_is_no_request_and_no_outcome() -> None:
    fetch, sink = FakeFetch(), FakeSink()

    assert await fetch_all(fetch, sink) == []
    assert fetch.requests == []
    assert sink.steps == []


async def test_small_pages_are_handed_on_in_large_steps() -> None:
    fetch, sink = FakeFetch(10 * MAX_ROWS_AT_ONCE), FakeSink()

    await fetch_all(fetch, sink, page_size=100)

    assert len(sink.steps) <= 12
    assert max(sink.steps) <= MAX_ROWS_AT_ONCE + 100


@pytest.mark.parametrize("concurrency", [1, 2, 7, 20])
async def test_in_flight_is_exactly_the_concurrency_while_there_are_pages(concurrency: int) -> None:
    fetch, sink = HeldFetch(10 * (1 + 5 * concurrency) + 5), FakeSink()
    seen = []

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await fetch_all(fetch, sink, concurrency=concurrency)
            tasks.cancel_scope.cancel()

        tasks.start_soon(run)
        while True:
            await anyio.wait_all_tasks_blocked()
            seen.append(fetch.in_flight)
            fetch.release()

    # Page 1 alone, the end alone where the list is short, full rounds, the head and the end again.
    assert (seen[0], seen[-1]) == (1, min(2, concurrency))
    assert seen.count(concurrency) >= 5
    assert fetch.max_in_flight == concurrency


async def test_in_flight_is_shared_by_all_gateways() -> None:
    fetch, sink = HeldFetch(*[200] * 3), FakeSink()
    seen = []

    async with anyio.create_task_group() as tasks:

        async def run() -> None:
            await fetch_all(fetch, sink, concurrency=8)
            tasks.cancel_scope.cancel()

        tasks.start_soon(run)
        while True:
            await anyio.wait_all_tasks_blocked()
            seen.append(fetch.in_flight)
            fetch.release()

    assert seen[0] == 3  # each gateway's page 1
    assert seen[1] == 3  # and its end
    assert seen[2] == 8
    assert max(seen) == fetch.max_in_flight == 8
    # 60 pages and three sentinels: no round was wasted while one gateway's sentinel was out.
    assert len(seen) <= 1 + -(-60 // 8) + 2


async def test_slow_consumer_bounds_the_pages_that_are_held() -> None:
    fetch, sink = FakeFetch(100_000), StuckSink()
    max_pages = MIN_WINDOW + MAX_ROWS_AT_ONCE // 10

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch_all, fetch, sink)
        await anyio.wait_all_tasks_blocked()
        asked_count = len(fetch.requests)
        in_flight = fetch.in_flight
        tasks.cancel_scope.cancel()

    assert MIN_WINDOW <= asked_count <= max_pages
    assert in_flight == 0


async def test_slow_consumer_bounds_the_pages_of_many_gateways() -> None:
    fetch, sink = FakeFetch(*[1000] * 40), StuckSink()
    max_pages = 2 * MIN_WINDOW + MAX_ROWS_AT_ONCE // 10 + 40

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch_all, fetch, sink)
        await anyio.wait_all_tasks_blocked()
        asked_count = len(fetch.requests)
        tasks.cancel_scope.cancel()

    assert asked_count <= max_pages


async def test_reading_goes_on_when_the_consumer_does() -> None:
    gate = anyio.Event()

    class GatedSink(FakeSink):
        async def wait(self) -> None:
            await gate.wait()

    fetch, sink = FakeFetch(5000, 5000), GatedSink()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch_all, fetch, sink)
        await anyio.wait_all_tasks_blocked()
        stopped_at = len(fetch.requests)
        gate.set()

    assert stopped_at < 1000
    assert sink.ids == fetch.all_ids()


@pytest.mark.parametrize("page_num", [1, 2, 17])
async def test_failing_page_cancels_all_others_and_is_raised(page_num: int) -> None:
    fetch, sink = FailingFetch(1000, page_num=page_num), FakeSink()

    with pytest.RaisesGroup(PageFailedError):
        await fetch_all(fetch, sink)

    assert fetch.in_flight == 0
    assert fetch.cancelled_count == (0 if page_num == 1 else 3)


async def test_rows_before_a_failing_page_are_not_taken_for_the_whole() -> None:
    fetch, sink = FailingFetch(1000, page_num=50), FakeSink()
    events: list[Event] = []

    with pytest.RaisesGroup(PageFailedError):
        await fetch_all(fetch, sink, emit=events.append)

    assert not any(isinstance(event, ListingFinished) for event in events)


async def test_failing_consumer_cancels_all_requests_and_is_raised() -> None:
    class FullDiskError(Exception):
        pass

    class FailingSink(FakeSink):
        async def wait(self) -> None:
            raise FullDiskError

    fetch = FakeFetch(50_000)

    with pytest.RaisesGroup(FullDiskError):
        await fetch_all(fetch, FailingSink())

    assert fetch.in_flight == 0
    assert len(fetch.requests) < 500


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
async def test_cancelling_in_the_middle_leaves_no_request_in_flight(rounds: int) -> None:
    fetch, sink = HeldFetch(1000, 1000), FakeSink()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(fetch_all, fetch, sink)
        for _ in range(rounds):
            await anyio.wait_all_tasks_blocked()
            fetch.release()
        tasks.cancel_scope.cancel()

    assert fetch.in_flight == 0
    asked_count = len(fetch.requests)
    await anyio.wait_all_tasks_blocked()
    assert len(fetch.requests) == asked_count
    assert sink.ids == fetch.all_ids()[: len(sink.ids)]


async def test_events_report_each_listings_start_pages_and_end() -> None:
    fetch, sink = FakeFetch(25, 5), FakeSink()
    first, second = fetch.gateways
    events: list[Event] = []

    await fetch_all(fetch, sink, concurrency=1, emit=events.append)

    of_first = [event for event in events if getattr(event, "gateway", None) == first]
    assert of_first[:5] == [
        ListingStarted(first, 25, 3),
        PageRead(first, 1, 10),
        PageRead(first, 3, 5),
        PageRead(first, 2, 10),
        PageRead(first, 1, 10),
    ]
    assert isinstance(of_first[-1], ListingFinished)
    assert (of_first[-1].facts.session_count, of_first[-1].facts.proof) == (25, "quiescent")
    *of_second, last = [event for event in events if getattr(event, "gateway", None) == second]
    assert of_second == [ListingStarted(second, 5, 1), PageRead(second, 1, 5)]
    assert isinstance(last, ListingFinished)
    assert (last.facts.session_count, last.facts.proof) == (5, "quiescent")


@settings(max_examples=scale_examples(60), deadline=None)
@given(
    counts=st.lists(st.sampled_from([0, 1, 10, 11, 95, 800]), max_size=6),
    concurrency=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_no_interleaving_of_answers_and_consumer_stalls_or_loses_a_row(
    counts: list[int], concurrency: int, seed: int
) -> None:
    chance = random.Random(seed)  # noqa: S311 - an interleaving is no secret

    async def dawdle() -> None:
        for _ in range(chance.choice([0, 0, 1, 2, 10, 40])):
            await anyio.lowlevel.checkpoint()

    class DawdlingFetch(FakeFetch):
        async def wait(self, request: PageRequest) -> None:
            await dawdle()

    class DawdlingSink(FakeSink):
        async def wait(self) -> None:
            await dawdle()

    fetch, sink = DawdlingFetch(*counts), DawdlingSink()

    async def run() -> Sequence[ListingFacts]:
        with anyio.fail_after(HANG_S):
            return await fetch_all(fetch, sink, concurrency=concurrency)

    facts = anyio.run(run)

    assert sink.ids == fetch.all_ids()
    assert [each.session_count for each in facts] == counts
    assert fetch.max_in_flight <= concurrency
