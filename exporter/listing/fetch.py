"""Drives pages through the client until every gateway's listing is concluded; ordered and bounded.

One task decides what is asked next, a fixed number of workers ask, one task hands the rows on. What is decided stands
in `Schedule`, which is plain.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from exporter.api.roa import SessionPage
from exporter.events import Event, ListingFinished, ListingStarted, PageRead
from exporter.gateway import Gateway
from exporter.listing.coverage import Coverage, ListingFacts, PageRequest
from exporter.records import RawSession

FetchPage = Callable[[PageRequest], Awaitable[SessionPage]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Sessions of one gateway, in list order, none of them handed on before."""

    gateway: Gateway
    sessions: list[RawSession]


class Schedule:
    """What to ask next over all gateways, and which rows may leave; performs no I/O.

    Gateways are listed in the order given: a later one is asked only while no earlier one has anything to ask, and its
    rows wait until the earlier ones are through. At most `window` pages are held for the gateway at the head and
    as many for all others, whatever the number of gateways and sessions.
    """

    def __init__(self, gateways: Sequence[Gateway], *, page_size: int, window: int) -> None:
        self._listings = [Coverage(gateway, page_size=page_size) for gateway in gateways]
        self._head = 0
        self._started = 0
        self._window = window
        self.facts: list[ListingFacts] = []

    @property
    def finished(self) -> bool:
        return self._head == len(self._listings)

    def next_request(self) -> tuple[Coverage, PageRequest] | None:
        """The next page to ask for; None until an answer comes or rows are taken."""
        held = 0
        for place in range(self._head, min(self._started + 1, len(self._listings))):
            listing = self._listings[place]
            held += 0 if place == self._head else listing.held_count
            room = listing.held_count < self._window if place == self._head else held < self._window
            request = listing.next_request() if room else None
            if request is not None:
                self._started = max(self._started, place + 1)
                return listing, request
        return None

    def take_rows(self) -> Rows | None:
        """The next rows of the output; None until an answer comes."""
        while self._head < len(self._listings):
            listing = self._listings[self._head]
            sessions = listing.take_rows()
            if sessions is not None:
                return Rows(listing.gateway, sessions)
            if listing.facts is None:
                return None
            self.facts.append(listing.facts)
            self._head += 1
        return None


class Signal:
    """Wakes one waiting task; a call while it is awake is not lost."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
        self._event = anyio.Event()


async def fetch_sessions(
    gateways: Sequence[Gateway],
    *,
    fetch_page: FetchPage,
    rows: MemoryObjectSendStream[Rows],
    page_size: int,
    concurrency: int,
    emit: Callable[[Event], None],
) -> list[ListingFacts]:
    """List every gateway, sending rows in order, and return one outcome a gateway, in order.

    Closes `rows` at the end. Raises what `fetch_page` raises, in an ExceptionGroup.
    """
    schedule = Schedule(gateways, page_size=page_size, window=2 * concurrency)
    requests_in, requests_out = anyio.create_memory_object_stream[tuple[Coverage, PageRequest]]()
    to_ask, to_hand_on = Signal(), Signal()

    async def ask() -> None:
        async with requests_in:
            while not schedule.finished:
                found = schedule.next_request()
                if found is None:
                    await to_ask.wait()
                else:
                    await requests_in.send(found)

    async def work(
        requests: MemoryObjectReceiveStream[tuple[Coverage, PageRequest]],
    ) -> None:
        async with requests:
            async for listing, request in requests:
                page = await fetch_page(request)
                accept(listing, request, page, emit=emit)
                to_ask.set()
                to_hand_on.set()

    async def hand_on() -> None:
        async with rows:
            while not schedule.finished:
                found = schedule.take_rows()
                if found is not None:
                    await rows.send(found)
                    to_ask.set()
                elif not schedule.finished:
                    await to_hand_on.wait()
        to_ask.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ask)
        tasks.start_soon(hand_on)
        for _ in range(concurrency):
            tasks.start_soon(work, requests_out.clone())
        requests_out.close()
    return schedule.facts


def accept(
    listing: Coverage, request: PageRequest, page: SessionPage, *, emit: Callable[[Event], None]
) -> None:
    is_first = listing.page_count is None
    listing.accept(request, page)
    if is_first:
        emit(ListingStarted(listing.gateway, page.total_count, listing.page_count or 1))
    emit(PageRead(listing.gateway, request.page_num, len(page.sessions)))
    facts = listing.facts
    if facts is not None:
        emit(ListingFinished(listing.gateway, facts.session_count, facts.proof))
