import random
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.listing.full import FullListing
from exporter.listing.interface import Listing, PageRequest
from exporter.listing.schedule import Schedule
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
COUNTS = [0, 1, 99, 100, 101, 250]
NEWEST_MS = 1_782_820_800_000

randoms = st.randoms(use_true_random=False)


class FakeService:
    """One gateway's list, newest first, as the service answers about it at this moment."""

    def __init__(self, count: int, *, gateway: Gateway = GATEWAY, max_on_page: int = 100) -> None:
        self.gateway = gateway
        self.ids = [f"{gateway.gateway_id}/{number}" for number in reversed(range(count))]
        self.requests: list[PageRequest] = []
        self._max_on_page = max_on_page
        self._next_number = count

    def answer(self, request: PageRequest) -> SessionPage:
        self.requests.append(request)
        size = min(request.page_size, self._max_on_page)
        # As the service does it: a size is capped before the page's place is computed.
        ids = self.ids[(request.page_num - 1) * size : request.page_num * size]
        return SessionPage(len(self.ids), [row_of(each) for each in ids], ids)

    def insert(self, place: int = 0) -> None:
        self.ids.insert(place, f"{self.gateway.gateway_id}/{self._next_number}")
        self._next_number += 1

    def delete(self, place: int) -> None:
        del self.ids[place]


def row_of(session_id: str) -> RawSession:
    """Of a session whose number tells when it was created."""
    return {"sessionId": session_id, "createTime": NEWEST_MS + int(session_id.split("/")[1])}


def ids_of(rows: Sequence[RawSession]) -> list[str]:
    return [row["sessionId"] for row in rows]


def list_all(listing: FullListing, service: FakeService) -> list[str]:
    """Drive a listing that asks one page at a time; the ids that left, in order."""
    ids: list[str] = []
    for page in answers(listing, service):
        del page
        ids += ids_of(listing.take_rows(10_000))
    return ids


def answers(listing: FullListing, service: FakeService) -> Iterator[PageRequest]:
    """Ask and answer one page at a time, yielding after each answer."""
    while (request := listing.next_request()) is not None:
        listing.accept(request, service.answer(request))
        yield request


def ask_for_two_after_the_end(
    listing: FullListing, service: FakeService
) -> tuple[PageRequest, PageRequest]:
    """Page 1 and the end are answered; the next two requests are not."""
    steps = answers(listing, service)
    next(steps)
    next(steps)
    second, third = listing.next_request(), listing.next_request()
    assert second is not None
    assert third is not None
    return second, third


def facts_of(listing: FullListing) -> ListingFacts:
    assert listing.facts is not None
    return listing.facts


def names_of(count: int) -> list[Gateway]:
    return [replace(GATEWAY, gateway_id=f"lc-{number}") for number in range(count)]


class Drive:
    """Runs a schedule with answers and takings in random order, measuring what it holds."""

    def __init__(
        self,
        services: Sequence[FakeService],
        *,
        page_size: int,
        window: int,
        chance: random.Random,
        max_in_flight: int = 1000,
    ) -> None:
        self._services = {service.gateway: service for service in services}
        self._schedule = Schedule(
            [FullListing(each, page_size=page_size) for each in self._services],
            page_size=page_size,
            window=window,
        )
        self._window = window
        self._chance = chance
        self._max_in_flight = max_in_flight
        self._in_flight: list[tuple[Listing, PageRequest]] = []
        self._listings: dict[Gateway, Listing] = {}
        self.rows: list[tuple[Gateway, str]] = []
        self.max_held_by_one = 0
        self.max_held_by_others = 0

    def run(self) -> list[ListingFacts]:
        while not self._schedule.finished:
            moved = self._ask()
            if self._chance.random() < 0.5:
                moved += self._take()
            moved += self._answer_one()
            if not moved:
                # Taking may go on to the next gateway, which then has something to ask.
                moved = self._take() + self._ask()
            assert moved or self._schedule.finished, "nothing can go on"
        assert not self._in_flight
        assert self._schedule.next_request() is None
        return self._schedule.facts

    def _ask(self) -> int:
        before = len(self._in_flight)
        while len(self._in_flight) < self._max_in_flight:
            found = self._schedule.next_request()
            if found is None:
                break
            self._in_flight.append(found)
            listing, _ = found
            self._listings[listing.gateway] = listing
            self._measure()
        return len(self._in_flight) - before

    def _answer_one(self) -> int:
        if not self._in_flight:
            return 0
        place = self._chance.randrange(len(self._in_flight))
        listing, request = self._in_flight.pop(place)
        listing.accept(request, self._services[request.gateway].answer(request))
        return 1

    def _take(self) -> int:
        found = self._schedule.take_rows()
        if found is None:
            return 0
        gateway, rows = found
        self.rows += [(gateway, each) for each in ids_of(rows)]
        return 1

    def _measure(self) -> None:
        concluded = {facts.gateway for facts in self._schedule.facts}
        held = [
            self._listings[gateway].held_count
            for gateway in self._services
            if gateway in self._listings and gateway not in concluded
        ]
        self.max_held_by_one = max(self.max_held_by_one, *held)
        self.max_held_by_others = max(self.max_held_by_others, sum(held[1:]))


@pytest.mark.parametrize("count", COUNTS)
def test_every_row_leaves_once_in_list_order_and_the_listing_is_quiescent(count: int) -> None:
    service = FakeService(count)
    listing = FullListing(GATEWAY, page_size=100)

    ids = list_all(listing, service)

    assert ids == service.ids
    assert listing.finished
    assert facts_of(listing) == ListingFacts(
        gateway=GATEWAY,
        session_count=count,
        total_count_first=count,
        total_count_last=count,
        inserted_count=0,
        deleted_count=0,
        overlap_count=0,
        page_count=len(service.requests),
        repair_page_count=0,
        proof="quiescent",
    )


@pytest.mark.parametrize(
    ("count", "page_nums"),
    [
        (0, [1, 1, 1]),  # an empty list is believed when answers repeat it
        (1, [1]),
        (99, [1]),
        (100, [1, 2, 1]),  # what the total tells may not be the end
        (101, [1, 2, 1]),
        (250, [1, 3, 2, 1]),
    ],
)
def test_list_of_one_page_takes_one_request_and_a_longer_one_a_sentinel_more(
    count: int, page_nums: list[int]
) -> None:
    service = FakeService(count)

    list_all(FullListing(GATEWAY, page_size=100), service)

    assert [request.page_num for request in service.requests] == page_nums
    assert [request.purpose == "sentinel" for request in service.requests] == [
        place == len(page_nums) - 1 and place > 0 and count > 0 for place in range(len(page_nums))
    ]


@pytest.mark.parametrize("count", [*COUNTS, 30, 31, 60])
def test_capped_page_size_is_noticed_and_asked_for_from_then_on(count: int) -> None:
    service = FakeService(count, max_on_page=30)
    listing = FullListing(GATEWAY, page_size=100)

    ids = list_all(listing, service)

    assert ids == service.ids
    assert facts_of(listing).proof == "quiescent"
    # Page 1 came short, and was asked for again to see whether that was a fault.
    assert all(request.page_size <= 30 for request in service.requests[2:] if count > 0)


def test_only_page_one_is_asked_for_before_the_total_is_known() -> None:
    listing = FullListing(GATEWAY, page_size=100)

    first = listing.next_request()

    assert first == PageRequest(GATEWAY, 1, 100, number=1, purpose="sweep")
    assert listing.next_request() is None
    assert listing.page_count is None


def test_sentinel_is_not_asked_before_all_pages_are_there() -> None:
    service = FakeService(250)
    listing = FullListing(GATEWAY, page_size=100)
    early: list[PageRequest | None] = []
    for _ in range(2):  # page 1, and the last one
        request = listing.next_request()
        assert request is not None
        early.append(listing.next_request())
        listing.accept(request, service.answer(request))
    second = listing.next_request()
    assert second is not None

    too_early = listing.next_request()
    listing.accept(second, service.answer(second))
    sentinel = listing.next_request()

    assert early == [None, None]
    assert too_early is None
    assert sentinel == PageRequest(GATEWAY, 1, 100, number=4, purpose="sentinel")
    assert listing.next_request() is None


def test_rows_behind_a_gap_wait_for_it() -> None:
    service = FakeService(350)
    listing = FullListing(GATEWAY, page_size=100)
    second, third = ask_for_two_after_the_end(listing, service)

    listing.accept(third, service.answer(third))
    before = ids_of(listing.take_rows(1000))
    listing.accept(second, service.answer(second))
    after = ids_of(listing.take_rows(1000))
    list_all(listing, service)

    assert before == service.ids[:100]
    assert after == service.ids[100:300]


def test_rows_leave_in_whole_pages_of_about_as_many_as_asked_for() -> None:
    service = FakeService(250)
    listing = FullListing(GATEWAY, page_size=100)
    for _ in answers(listing, service):
        pass

    counts = [len(listing.take_rows(150)) for _ in range(3)]

    assert counts == [200, 50, 0]
    assert listing.finished


def test_row_that_comes_again_is_left_out_and_counted() -> None:
    service = FakeService(250)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    next(steps)

    service.insert()
    for _ in steps:
        pass
    ids = ids_of(listing.take_rows(1000))

    assert len(ids) == len(service.ids)
    assert set(ids) == set(service.ids)
    assert facts_of(listing).overlap_count == 1


@pytest.mark.parametrize("answered", [1, 2, 3])
def test_insertions_alone_are_counted_and_leave_the_listing_anchored(answered: int) -> None:
    service = FakeService(250)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    for _ in range(answered):
        next(steps)

    service.insert()
    for _ in steps:
        pass

    facts = facts_of(listing)
    assert facts.proof == "anchored"
    assert (facts.total_count_first, facts.total_count_last) == (250, 251)
    assert (facts.inserted_count, facts.deleted_count) == (1, 0)
    assert facts.repair_page_count == 0


@pytest.mark.parametrize("place", [0, 50, 150, 249])
@pytest.mark.parametrize("answered", [1, 2, 3])
def test_deletion_loses_nothing_that_is_still_there(answered: int, place: int) -> None:
    service = FakeService(250)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    for _ in range(answered):
        next(steps)

    service.delete(place)
    for _ in steps:
        pass

    facts = facts_of(listing)
    assert facts.proof in {"stitched", "recounted"}
    assert (facts.total_count_first, facts.total_count_last) == (250, 249)
    assert (facts.inserted_count, facts.deleted_count) == (0, 1)
    assert set(ids_of(listing.take_rows(1000))) >= set(service.ids)


def test_row_between_two_pages_that_a_deletion_hid_is_found_by_repair() -> None:
    service = FakeService(450)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    for _ in range(3):
        next(steps)
    hidden = service.ids[200]

    service.delete(50)
    next(steps)
    swept = ids_of(listing.take_rows(1000))
    for _ in steps:
        pass

    assert hidden not in swept
    assert hidden in ids_of(listing.take_rows(1000))
    assert facts_of(listing).proof == "stitched"
    assert facts_of(listing).repair_page_count > 0


def test_insertion_and_deletion_that_leave_the_total_are_counted_by_the_sentinel() -> None:
    service = FakeService(250)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    next(steps)

    service.insert()
    service.delete(250)
    for _ in steps:
        pass

    facts = facts_of(listing)
    assert facts.proof == "stitched"
    assert (facts.inserted_count, facts.deleted_count) == (1, 1)


def test_total_that_is_not_the_number_of_sessions_is_unproven() -> None:
    listing = FullListing(GATEWAY, page_size=100)
    service = FakeService(150)
    while (request := listing.next_request()) is not None:
        listing.accept(request, replace(service.answer(request), total_count=151))

    assert facts_of(listing).proof == "unproven"
    assert facts_of(listing).session_count == 150


@pytest.mark.parametrize("kept", [0, 1, 99])
def test_page_that_comes_short_once_is_completed_by_repair(kept: int) -> None:
    listing = FullListing(GATEWAY, page_size=100)
    service = FakeService(350)
    while (request := listing.next_request()) is not None:
        page = service.answer(request)
        if (request.page_num, request.purpose) == (2, "sweep"):
            page = SessionPage(350, page.sessions[:kept], page.session_ids[:kept])
        listing.accept(request, page)

    assert facts_of(listing).proof in {"quiescent", "anchored"}
    assert set(ids_of(listing.take_rows(1000))) == set(service.ids)


@pytest.mark.parametrize("kept", [0, 1, 99])
def test_first_page_that_comes_short_once_does_not_set_the_page_size(kept: int) -> None:
    listing = FullListing(GATEWAY, page_size=100)
    service = FakeService(350)
    while (request := listing.next_request()) is not None:
        page = service.answer(request)
        if request.number == 1:
            page = SessionPage(350, page.sessions[:kept], page.session_ids[:kept])
        listing.accept(request, page)

    assert len(service.requests) <= 7
    assert facts_of(listing).proof in {"quiescent", "anchored"}
    assert set(ids_of(listing.take_rows(1000))) == set(service.ids)


def test_page_that_is_always_empty_ends_unproven_and_is_not_asked_for_ever() -> None:
    listing = FullListing(GATEWAY, page_size=100)
    service = FakeService(1000)
    while (request := listing.next_request()) is not None:
        page = service.answer(request)
        if service.ids[450] in page.session_ids:
            page = SessionPage(1000, [], [])
        listing.accept(request, page)

    facts = facts_of(listing)
    assert facts.proof == "unproven"
    assert facts.missing == "1 place in the list could not be joined"
    assert facts.page_count <= 4 * 10 + 1


def test_empty_first_page_of_a_list_that_is_not_empty_is_unproven() -> None:
    listing = FullListing(GATEWAY, page_size=100)
    while (request := listing.next_request()) is not None:
        listing.accept(request, SessionPage(50, [], []))

    assert facts_of(listing).proof == "unproven"


def test_list_that_was_empty_at_first_is_not_said_to_have_held_still() -> None:
    service = FakeService(0)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    next(steps)
    service.insert()

    for _ in steps:
        pass

    assert facts_of(listing).proof == "stitched"
    assert ids_of(listing.take_rows(10)) == service.ids


def test_page_with_one_session_twice_is_unproven() -> None:
    listing = FullListing(GATEWAY, page_size=100)
    request = listing.next_request()
    assert request is not None

    while request is not None:
        listing.accept(request, SessionPage(2, [row_of("a/1"), row_of("a/1")], ["a/1", "a/1"]))
        request = listing.next_request()

    assert ids_of(listing.take_rows(10)) == ["a/1"]
    assert facts_of(listing).proof == "unproven"


def test_list_that_grows_past_its_size_while_it_is_read_is_complete() -> None:
    service = FakeService(200)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    next(steps)
    first_ids = set(service.ids)

    for _ in range(450):
        service.insert()
    for _ in steps:
        pass

    assert set(ids_of(listing.take_rows(1000))) >= first_ids
    assert facts_of(listing).proof == "anchored"
    assert facts_of(listing).inserted_count == 450


def test_list_that_grows_from_nothing_owes_nothing() -> None:
    service = FakeService(0)
    listing = FullListing(GATEWAY, page_size=100)

    list_all(listing, service)
    for _ in range(150):
        service.insert()

    assert facts_of(listing).proof == "quiescent"
    assert listing.next_request() is None


@pytest.mark.parametrize("answered", [1, 2, 3])
def test_list_that_shrinks_to_nothing_is_complete(answered: int) -> None:
    service = FakeService(350)
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    for _ in range(answered):
        next(steps)

    service.ids.clear()
    for _ in steps:
        pass

    assert facts_of(listing).proof == "stitched"
    assert facts_of(listing).deleted_count == 350


def test_session_that_is_shown_late_does_not_stand_for_one_that_was_lost() -> None:
    service = FakeService(400)
    # Created before the newest one, but not yet shown.
    late = service.ids.pop(1)
    listing = FullListing(GATEWAY, page_size=100)
    second, third = ask_for_two_after_the_end(listing, service)

    listing.accept(third, service.answer(third))
    service.ids.insert(1, late)
    listing.accept(second, service.answer(second))
    for _ in answers(listing, service):
        pass

    assert set(ids_of(listing.take_rows(1000))) >= set(service.ids) - {late}
    assert facts_of(listing).proof == "stitched"


@pytest.mark.parametrize("kept", [0, 1, 99])
def test_sentinel_that_always_comes_short_is_no_sign_that_nothing_moved(kept: int) -> None:
    service = FakeService(350)
    listing = FullListing(GATEWAY, page_size=100)
    is_swept = False
    while (request := listing.next_request()) is not None:
        page = service.answer(request)
        is_swept |= request.purpose == "sentinel"
        if is_swept and request.page_num == 1:
            page = SessionPage(350, page.sessions[:kept], page.session_ids[:kept])
        listing.accept(request, page)

    assert facts_of(listing).proof != "quiescent"


def test_oldest_first_list_is_read_to_its_new_end() -> None:
    service = FakeService(350)
    service.ids.reverse()
    listing = FullListing(GATEWAY, page_size=100)
    steps = answers(listing, service)
    next(steps)
    next(steps)

    service.delete(0)
    service.insert(len(service.ids))
    for _ in steps:
        pass

    assert set(ids_of(listing.take_rows(1000))) >= set(service.ids[:-1])
    assert facts_of(listing).proof == "stitched"


def test_list_in_no_order_is_read_in_windows_that_share_rows() -> None:
    service = FakeService(350)
    random.Random(1).shuffle(service.ids)  # noqa: S311 - no secret
    listing = FullListing(GATEWAY, page_size=100)

    ids = list_all(listing, service)

    assert set(ids) == set(service.ids)
    assert len(ids) == len(service.ids)
    assert facts_of(listing).proof == "stitched"
    assert len(service.requests) <= 8


def test_list_in_no_order_that_moves_is_proven_while_rows_keep_their_order() -> None:
    service = FakeService(350)
    random.Random(1).shuffle(service.ids)  # noqa: S311 - no secret
    listing = FullListing(GATEWAY, page_size=100)
    for _ in answers(listing, service):
        service.delete(len(service.ids) // 2)

    assert facts_of(listing).proof == "stitched"
    assert set(ids_of(listing.take_rows(1000))) >= set(service.ids)


def test_list_whose_order_is_drawn_anew_for_each_answer_is_unproven() -> None:
    service = FakeService(350)
    chance = random.Random(1)  # noqa: S311 - no secret
    listing = FullListing(GATEWAY, page_size=100)
    for _ in answers(listing, service):
        chance.shuffle(service.ids)

    assert facts_of(listing).proof == "unproven"
    assert facts_of(listing).missing == "the list changes its order, and two sweeps differ"


def test_sessions_without_create_time_are_proven_by_shared_rows() -> None:
    def read(*, moving: bool) -> ListingFacts:
        service = FakeService(350)
        listing = FullListing(GATEWAY, page_size=100)
        while (request := listing.next_request()) is not None:
            page = service.answer(request)
            for row in page.sessions:
                row["createTime"] = None
            listing.accept(request, page)
            if moving:
                service.delete(10)
        return facts_of(listing)

    assert read(moving=False).proof == "quiescent"
    assert read(moving=True).proof == "stitched"


@settings(deadline=None)
@given(count=st.integers(0, 60), page_size=st.integers(1, 12), chance=randoms)
def test_quiescent_is_never_said_of_a_listing_that_lost_a_session(
    count: int, page_size: int, chance: random.Random
) -> None:
    """Sessions are created at the head and deleted anywhere, between any two answers."""
    service = FakeService(count)
    listing = FullListing(GATEWAY, page_size=page_size)
    first_ids = list(service.ids)
    busy = chance.random() / 2
    in_flight: list[PageRequest] = []
    while listing.facts is None:
        while (request := listing.next_request()) is not None:
            in_flight.append(request)
        request = in_flight.pop(chance.randrange(len(in_flight)))
        if listing.page_count is not None and chance.random() < busy:
            if chance.random() < 0.5 or not service.ids:
                service.insert()
            else:
                service.delete(chance.randrange(len(service.ids)))
        listing.accept(request, service.answer(request))

    ids = ids_of(listing.take_rows(10_000))
    assert len(ids) == len(set(ids)) == facts_of(listing).session_count
    if facts_of(listing).proof == "quiescent":
        assert ids == first_ids


@settings(deadline=None)
@given(
    counts=st.lists(st.sampled_from([0, 1, 2, 9, 10, 11, 35, 100]), max_size=5),
    page_size=st.sampled_from([1, 7, 10, 100]),
    max_on_page=st.sampled_from([1, 5, 100]),
    window=st.integers(1, 40),
    max_in_flight=st.integers(1, 20),
    chance=randoms,
)
def test_rows_leave_in_order_whatever_the_order_of_answers(  # noqa: PLR0917 - drawn by name
    counts: list[int],
    page_size: int,
    max_on_page: int,
    window: int,
    max_in_flight: int,
    chance: random.Random,
) -> None:
    services = [
        FakeService(count, gateway=gateway, max_on_page=max_on_page)
        for count, gateway in zip(counts, names_of(len(counts)), strict=True)
    ]
    drive = Drive(
        services,
        page_size=page_size,
        window=window,
        chance=chance,
        max_in_flight=max_in_flight,
    )

    facts = drive.run()

    assert drive.rows == [(service.gateway, each) for service in services for each in service.ids]
    assert [each.gateway for each in facts] == [service.gateway for service in services]
    assert [each.session_count for each in facts] == counts
    assert {each.proof for each in facts} <= {"quiescent"}
    assert drive.max_held_by_one <= window


@settings(deadline=None)
@given(window=st.integers(1, 20), gateway_count=st.integers(3, 6), chance=randoms)
def test_window_of_all_later_gateways_together_holds(
    window: int, gateway_count: int, chance: random.Random
) -> None:
    services = [FakeService(60, gateway=gateway) for gateway in names_of(gateway_count)]
    drive = Drive(services, page_size=1, window=window, chance=chance)

    drive.run()

    assert drive.max_held_by_others <= window


@pytest.mark.parametrize("window", [1, 2, 8])
def test_no_more_than_the_window_is_asked_for_while_nothing_is_taken(window: int) -> None:
    service = FakeService(250)
    schedule = Schedule([FullListing(GATEWAY, page_size=10)], page_size=10, window=window)

    while (found := schedule.next_request()) is not None:
        listing, request = found
        listing.accept(request, service.answer(request))

    # One more: the end of the list is read early, and its rows wait for their turn.
    assert len(service.requests) == window + (window > 1)


def test_later_gateway_is_asked_only_while_earlier_ones_have_nothing_to_ask() -> None:
    first, second = names_of(2)
    schedule = Schedule(
        [FullListing(each, page_size=10) for each in (first, second)], page_size=10, window=8
    )
    asked = [schedule.next_request(), schedule.next_request(), schedule.next_request()]
    assert asked[0] is not None
    listing, request = asked[0]

    listing.accept(request, FakeService(35, gateway=first).answer(request))
    end = schedule.next_request()
    assert end is not None
    listing.accept(end[1], FakeService(35, gateway=first).answer(end[1]))
    later = [schedule.next_request() for _ in range(3)]

    assert [found and found[1].gateway for found in asked] == [first, second, None]
    assert (end[1].gateway, end[1].page_num) == (first, 4)
    assert [found and (found[1].gateway, found[1].page_num) for found in later] == [
        (first, 2),
        (first, 3),
        None,
    ]


def test_no_gateway_at_all_is_finished() -> None:
    schedule = Schedule([], page_size=100, window=8)

    assert schedule.finished
    assert schedule.next_request() is None
    assert schedule.take_rows() is None
    assert schedule.facts == []


def test_page_larger_than_asked_for_that_is_the_whole_list_ends_it() -> None:
    service = FakeService(150, max_on_page=150)
    listing = FullListing(GATEWAY, page_size=100)
    request = listing.next_request()
    assert request is not None

    listing.accept(request, service.answer(replace(request, page_size=150)))

    assert listing.next_request() is None


@pytest.mark.parametrize("in_order", [True, False])
def test_listing_costs_at_most_48_bytes_a_session(*, in_order: bool) -> None:
    service = FakeService(30_000)
    if not in_order:
        random.Random(1).shuffle(service.ids)  # noqa: S311 - no secret
    listing = FullListing(GATEWAY, page_size=100)

    tracemalloc.start()
    for request in answers(listing, service):
        del request
        listing.take_rows(10_000)
        service.requests.clear()
    size_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert facts_of(listing).proof == ("quiescent" if in_order else "stitched")
    assert size_bytes < 48 * 30_000
