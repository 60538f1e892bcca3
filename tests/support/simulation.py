"""Readers of a churning list in simulated time, with requests in flight; performs no I/O."""

import heapq
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count
from math import inf

import anyio.lowlevel
import orjson

from exporter.api.calls import read_session_page
from exporter.emulator.churn import Churn
from exporter.emulator.generated_list import PageCache
from exporter.emulator.moving_list import MovingSessions, Truth
from exporter.listing.bookmark import Watch, is_final
from exporter.listing.full import FullListing
from exporter.listing.interface import Listing, PageRequest
from exporter.model import ALL_TIME, Gateway, ListingFacts, RawSession, SessionPage, TimeRange

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
NEWEST_MS = 1_782_820_800_000
LATER = Watch(now_ms=NEWEST_MS + 10 * 24 * 3_600_000, settle_ms=3_600_000)
"""A time by which every session of a list has settled."""


def build_list(
    churn: Churn, session_count: int, *, seed: int, spacing_ms: int = 60_000
) -> MovingSessions:
    return MovingSessions(
        GATEWAY,
        churn,
        seed=seed,
        session_count=session_count,
        newest_created_ms=NEWEST_MS,
        spacing_ms=spacing_ms,
        cache=PageCache(10**9),
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """The sessions that a reader delivered, against those it owed."""

    seen: Counter[str]
    truth: Truth
    request_count: int
    elapsed_s: float
    facts: ListingFacts | None

    @property
    def lost_count(self) -> int:
        return len(self.truth.lost(self.seen))

    @property
    def doubled_count(self) -> int:
        return sum(times - 1 for times in self.seen.values())

    @property
    def foreign_count(self) -> int:
        return len(self.truth.foreign(self.seen))


class Wire:
    """Requests in flight: each is answered at some instant between its sending and its return."""

    def __init__(
        self, sessions: MovingSessions, *, latency_s: float, seed: int, now_s: float = 0.0
    ) -> None:
        self._sessions = sessions
        self._latency_s = latency_s
        self._chance = random.Random(seed)  # noqa: S311 - an interleaving is no secret
        self._events: list[tuple[float, int, PageRequest, SessionPage | None]] = []
        self._numbers = count()
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
            self._push(request, self._answer(request))

    def _answer(self, request: PageRequest) -> SessionPage:
        answer = self._sessions.page(request.page_num, request.page_size, self.now_s)
        sessions = orjson.loads(answer.rows) or []
        return SessionPage(
            answer.total_count, sessions, [session["sessionId"] for session in sessions]
        )

    def _push(self, request: PageRequest, page: SessionPage | None) -> None:
        at_s = self.now_s + self._draw_travel_s(page)
        if page is None:
            at_s += request.wait_s
        heapq.heappush(self._events, (at_s, next(self._numbers), request, page))

    def _draw_travel_s(self, page: SessionPage | None) -> float:
        """Of a request, or of its answer: half of the latency on each way, by chance between half
        and one and a half of that.
        """
        return self._latency_s / 2 * self._chance.uniform(0.5, 1.5)


def read_in_full(
    sessions: MovingSessions,
    *,
    in_flight: int,
    latency_s: float,
    seed: int,
    page_size: int = 100,
    time_range: TimeRange = ALL_TIME,
) -> Outcome:
    listing = FullListing(GATEWAY, page_size=page_size, time_range=time_range)
    wire = Wire(sessions, latency_s=latency_s, seed=seed)
    seen: Counter[str] = Counter()
    for session in drive(listing, wire, in_flight=in_flight):
        assert not time_range.has_bounds or time_range.includes(session["createTime"])
        seen[session["sessionId"]] += 1
    truth = narrow(sessions, time_range) if time_range.has_bounds else sessions.truth()
    return Outcome(seen, truth, wire.request_count, wire.now_s, listing.facts)


def narrow(sessions: MovingSessions, time_range: TimeRange) -> Truth:
    """The truth of which only the sessions created in the time_range are owed."""
    truth = sessions.truth()
    # What is owed is still in the list.
    wanted = {
        each["sessionId"] for each in sessions.sessions() if time_range.includes(each["createTime"])
    }
    return replace(truth, owed=truth.owed & wanted)


class EndlessError(Exception):
    """A listing asks without end."""


class StuckError(Exception):
    """A listing waits for answers although none is under way."""


def drive(
    listing: Listing, wire: Wire, *, in_flight: int, max_requests: float = inf
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


def read_naively(
    sessions: MovingSessions,
    *,
    in_flight: int,
    latency_s: float,
    seed: int,
    page_size: int = 100,
) -> Outcome:
    """Read page 1, then every other page of its total once."""
    wire = Wire(sessions, latency_s=latency_s, seed=seed)
    seen: Counter[str] = Counter()
    wire.send(PageRequest(GATEWAY, 1, page_size, 1, "sweep"))
    left: Iterator[int] = iter(())
    while wire.in_flight > 0:
        request, page = wire.receive()
        seen.update(page.session_ids)
        if request.page_num == 1:
            left = iter(range(2, -(-page.total_count // page_size) + 1))
        while wire.in_flight < in_flight and (page_num := next(left, None)) is not None:
            wire.send(PageRequest(GATEWAY, page_num, page_size, page_num, "sweep"))
    return Outcome(seen, sessions.truth(), wire.request_count, wire.now_s, None)


class ChurningFetch:
    """Answers of lists that move, to requests of an event loop: each one takes a chance number of
    turns there and back.
    """

    def __init__(
        self, lists: Mapping[Gateway, MovingSessions], *, latency_s: float, seed: int
    ) -> None:
        self.lists = lists
        self._turn_s = latency_s / 100
        self._chance = random.Random(seed)  # noqa: S311 - an interleaving is no secret
        self.now_s = 0.0
        self.requests: list[PageRequest] = []

    async def __call__(self, request: PageRequest) -> SessionPage:
        self.requests.append(request)
        await self._travel()
        sessions = self.lists[request.gateway]
        answer = sessions.page(request.page_num, request.page_size, self.now_s)
        await self._travel()
        return read_session_page(
            b'{"totalCount":%d,"sessions":%b}' % (answer.total_count, answer.rows)
        )

    async def _travel(self) -> None:
        for _ in range(self._chance.randint(0, 10)):
            await anyio.lowlevel.checkpoint()
            # All that are under way take turns, and time passes with each of these.
            self.now_s += self._turn_s


class HeldList:
    """A list that is newest first and moves only on demand; answers one page at a time."""

    def __init__(self, session_count: int) -> None:
        self.rows: list[RawSession] = []
        self.created_count = 0
        self.insert(session_count)

    def insert(self, count: int, *, place: int = 0, state: str = "terminated") -> None:
        for _ in range(count):
            number = self.created_count
            self.created_count += 1
            newer = self.rows[place - 1]["createTime"] if place > 0 else NEWEST_MS + number * 10_000
            row = {"sessionId": f"s-{number}", "createTime": newer, "state": state}
            self.rows.insert(place, row)

    def expire(self, count: int) -> None:
        del self.rows[len(self.rows) - count :]

    def set_state(self, places: Iterable[int], state: str) -> None:
        for place in places:
            changed = self.rows[place] | {"state": state}
            if is_final(changed):
                changed["endTime"] = changed.get("createTime")
            self.rows[place] = changed

    def answer(self, request: PageRequest) -> SessionPage:
        start = (request.page_num - 1) * request.page_size
        rows = self.rows[start : start + request.page_size]
        return SessionPage(len(self.rows), list(rows), [row["sessionId"] for row in rows])

    def read(self, listing: Listing) -> list[RawSession]:
        """All that leaves a listing which asks one page at a time."""
        rows: list[RawSession] = []
        while (request := listing.next_request()) is not None:
            listing.accept(request, self.answer(request))
            rows += listing.take_rows(10**9)
        return rows
