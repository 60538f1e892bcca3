"""Requests under way in simulated time, and the trace of their answers."""

import heapq
import random
from collections.abc import Callable, Iterator
from itertools import count

from exporter.api.roa import SessionPage
from exporter.emulator.churning import ChurningSessions
from exporter.listing.facts import Listing, PageRequest
from exporter.records import RawSession

MAX_REQUESTS_PER_PAGE = 30
MAX_REQUESTS_BESIDES = 300


class EndlessError(Exception):
    """A listing asks without end."""


class StuckError(Exception):
    """A listing waits for answers although none is under way."""


FAULTS_OF_LISTINGS = (
    EndlessError,
    StuckError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""What a listing must not raise; told beside its seed instead of ending the campaign."""


def find_max_requests(page_count: int) -> int:
    return MAX_REQUESTS_PER_PAGE * page_count + MAX_REQUESTS_BESIDES


Trace = Callable[[float, PageRequest, SessionPage], None]
"""Called with the second of each answer."""


def no_trace(_now_s: float, _request: PageRequest, _page: SessionPage) -> None:
    pass


def print_trace(now_s: float, request: PageRequest, page: SessionPage) -> None:
    start = (request.page_num - 1) * request.page_size
    ids = page.session_ids
    ends = f"{tell_row(page.sessions[0])} … {tell_row(page.sessions[-1])}" if ids else "no row"
    print(
        f"{now_s:10.3f} #{request.number} {request.purpose} page {request.page_num} of"
        f" {request.page_size} (from {start}): total {page.total_count}, {len(ids)} rows, {ends}"
    )


def tell_row(row: RawSession) -> str:
    return f"{row['sessionId'][5:13]}@{row.get('createTime')}"


class CampaignWire:
    """Each request is answered at some instant between its sending and its return."""

    def __init__(
        self,
        sessions: ChurningSessions,
        *,
        latency_s: float,
        straggler_share: float,
        seed: int,
        now_s: float = 0.0,
        trace: Trace = no_trace,
    ) -> None:
        self._sessions = sessions
        self._latency_s = latency_s
        self._straggler_share = straggler_share
        self._chance = random.Random(seed)  # noqa: S311 - no secret
        self._events: list[tuple[float, int, PageRequest, SessionPage | None]] = []
        self._numbers = count()
        self._trace = trace
        self.in_flight = 0
        self.request_count = 0
        self.now_s = now_s

    def send(self, request: PageRequest) -> None:
        self.in_flight += 1
        self.request_count += 1
        self._push(request, None)

    def receive(self) -> tuple[PageRequest, SessionPage]:
        """The next answer to come back."""
        while True:
            self.now_s, _, request, page = heapq.heappop(self._events)
            if page is not None:
                self.in_flight -= 1
                return request, page
            total_count, sessions = self._sessions.list_rows(
                request.page_num, request.page_size, self.now_s
            )
            page = SessionPage(total_count, sessions, [row["sessionId"] for row in sessions])
            self._trace(self.now_s, request, page)
            self._push(request, page)

    def _push(self, request: PageRequest, page: SessionPage | None) -> None:
        # Half of the latency on each way, by chance between half and one and a half of that.
        travel_s = self._latency_s / 2 * self._chance.uniform(0.5, 1.5)
        if page is not None and self._chance.random() < self._straggler_share:
            travel_s *= 10
        if page is None:
            travel_s += request.wait_s
        heapq.heappush(self._events, (self.now_s + travel_s, next(self._numbers), request, page))


def drive(
    listing: Listing, wire: CampaignWire, *, in_flight: int, max_requests: int
) -> Iterator[RawSession]:
    """Everything that leaves a listing, from its first request to its facts."""
    while listing.facts is None:
        while wire.in_flight < in_flight and (request := listing.next_request()) is not None:
            wire.send(request)
        if wire.in_flight == 0:
            raise StuckError
        if wire.request_count > max_requests:
            raise EndlessError
        listing.accept(*wire.receive())
        yield from listing.take_rows(10**9)
    assert wire.in_flight == 0
