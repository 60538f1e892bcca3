"""Fetches pages until every gateway's listing is concluded, with bounded memory.

A fixed number of workers send the requests of `Schedule`, which is plain code; one task writes the
rows in order.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence

import anyio
import anyio.to_thread

from exporter.api.calls import read_session_page
from exporter.events import Event, ListingFinished, ListingStarted, PageRead
from exporter.listing.interface import Listing, PageRequest
from exporter.listing.order import read_times
from exporter.listing.replay import NO_ANSWER_LOG, AnswerLog, Replay
from exporter.listing.schedule import MIN_WINDOW, Schedule
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage

FetchPage = Callable[[PageRequest], Awaitable[SessionPage]]
OnRows = Callable[[Gateway, list[RawSession]], Awaitable[None]]
View = Callable[[PageRequest, SessionPage], SessionPage]


class WaitQueue:
    """Idle tasks, woken one at a time, first come first served."""

    def __init__(self) -> None:
        self._events: deque[anyio.Event] = deque()

    async def wait(self) -> None:
        event = anyio.Event()
        self._events.append(event)
        try:
            await event.wait()
        except BaseException:
            # A task that was woken and cancelled at once passes the wake-up on.
            if event in self._events:
                self._events.remove(event)
            else:
                self.wake_one()
            raise

    def wake_one(self) -> None:
        if self._events:
            self._events.popleft().set()

    def wake_all(self) -> None:
        while self._events:
            self.wake_one()


async def fetch_sessions(
    listings: Sequence[Listing],
    *,
    fetch_page: FetchPage,
    on_rows: OnRows,
    page_size: int,
    concurrency: int,
    emit: Callable[[Event], None],
    view: View = lambda _, page: page,
    journal: AnswerLog = NO_ANSWER_LOG,
    sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
) -> list[ListingFacts]:
    """Drive every listing to its end and pass its rows on in list order; returns the facts of each
    gateway, in order.

    `on_rows` is awaited before the next rows; while it is slow, no more pages than the window are
    fetched. `view` converts each answer for its listing. The recorded answers of `journal` are
    replayed first, into new listings, and not asked for again. Raises ReplayError when they do not
    fit, and the errors of `fetch_page` and `on_rows`, the latter in an ExceptionGroup unless it was
    about recorded rows.
    """
    schedule = Schedule(listings, page_size=page_size, window=max(MIN_WINDOW, 2 * concurrency))
    workers, writers = WaitQueue(), WaitQueue()

    async def work() -> None:
        while not schedule.finished:
            found = schedule.next_request()
            if found is None:
                await workers.wait()
                continue
            # There may be more requests: each worker that finds one wakes the next worker.
            workers.wake_one()
            listing, request = found
            if request.wait_s > 0:
                await sleep(request.wait_s)
            page = await fetch_page(request)
            await journal.make_room()
            page = view(request, page)
            journal.record(listing, request, page)
            accept(listing, request, page, emit=emit)
            writers.wake_one()
            await journal.flush_if_due()

    async def write() -> None:
        while not schedule.finished:
            found = schedule.take_rows()
            if found is not None:
                await on_rows(*found)
                workers.wake_one()
            elif not schedule.finished:
                workers.wake_one()
                await writers.wait()
        workers.wake_all()

    await replay(journal, listings, schedule, on_rows=on_rows, emit=emit, view=view)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        for _ in range(concurrency):
            tasks.start_soon(work)
    return schedule.facts


async def replay(
    journal: AnswerLog,
    listings: Sequence[Listing],
    schedule: Schedule,
    *,
    on_rows: OnRows,
    emit: Callable[[Event], None],
    view: View,
) -> None:
    """Give the recorded answers to their listings, and pass rows on as soon as they are ready.

    So no more rows are held than in the run that recorded them.
    """
    if not journal.has_recorded:
        return
    replayed = Replay(listings)
    recorded = iter(journal.read_recorded())
    while (answers := await anyio.to_thread.run_sync(next, recorded, None)) is not None:
        for answer in answers:
            listing = replayed.advance(answer)
            page = view(answer.request, read_session_page(answer.body))
            accept(listing, answer.request, page, emit=emit, resumed=True)
            while (found := schedule.take_rows()) is not None:
                await on_rows(*found)
    schedule.send_first(replayed.unanswered)


def accept(
    listing: Listing,
    request: PageRequest,
    page: SessionPage,
    *,
    emit: Callable[[Event], None],
    resumed: bool = False,
) -> None:
    is_first, was_incremental = listing.page_count is None, listing.is_incremental
    row_count, newest_ms = len(page.sessions), find_newest_ms(page.sessions)
    listing.accept(request, page)
    is_incremental = listing.is_incremental
    if is_first or is_incremental != was_incremental:
        page_count = listing.page_count or 1
        emit(ListingStarted(listing.gateway, page.total_count, page_count, is_incremental))
    emit(PageRead(listing.gateway, request.page_num, row_count, resumed, newest_ms))
    if listing.facts is not None:
        emit(ListingFinished(listing.facts))


def find_newest_ms(sessions: Sequence[RawSession]) -> int | None:
    """The latest create time among sessions; None when none of them has one."""
    return max([time for time in read_times(sessions) if time is not None], default=None)
