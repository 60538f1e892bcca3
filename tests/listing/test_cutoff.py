import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.emulator.churn import Churn, Flow, Order, PageFault
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.model import SessionPage, TimeRange
from tests.listing.test_full_machine import BENIGN, CHURNS, COUNTS
from tests.support.examples import scale_examples
from tests.support.simulation import GATEWAY, NEWEST_MS, Outcome, build_list, read_in_full

SPACING_MS = 60_000
NEWER_THAN_ALL = TimeRange(NEWEST_MS + 10**10)


def newest(count: int) -> TimeRange:
    """About so many of a list at its first answer."""
    return TimeRange(NEWEST_MS - count * SPACING_MS)


def read(
    churn: Churn,
    time_range: TimeRange,
    *,
    session_count: int = 20_000,
    seed: int = 1,
    in_flight: int = 16,
) -> Outcome:
    return read_in_full(
        build_list(churn, session_count, seed=seed),
        in_flight=in_flight,
        latency_s=0.04,
        seed=seed,
        time_range=time_range,
    )


@settings(max_examples=scale_examples(120), deadline=None)
@given(
    churn=CHURNS,
    session_count=COUNTS,
    wanted=st.sampled_from([-5, 0, 1, 5, 20, 50, 100, 300]),
    without_newest=st.sampled_from([None, None, 0, 3, 30]),
    page_size=st.sampled_from([2, 5, 10, 10, 20]),
    in_flight=st.sampled_from([1, 2, 4, 16]),
    seed=st.integers(0, 2**32),
)
def test_all_of_the_span_is_in_a_proven_listing_once(  # noqa: PLR0917 - drawn by name
    churn: Churn,
    session_count: int,
    wanted: int,
    without_newest: int | None,
    page_size: int,
    in_flight: int,
    seed: int,
) -> None:
    until_ms = None if without_newest is None else NEWEST_MS - without_newest * SPACING_MS
    outcome = read_in_full(
        build_list(churn, session_count, seed=seed),
        in_flight=in_flight,
        latency_s=0.04,
        seed=seed,
        page_size=page_size,
        time_range=TimeRange(newest(wanted).since_ms, until_ms),
    )

    assert outcome.facts is not None
    assert outcome.doubled_count == outcome.foreign_count == 0
    if outcome.facts.proof != "unproven":
        assert outcome.lost_count == 0
    assert outcome.facts.session_count == outcome.seen.total()


@pytest.mark.parametrize("name", BENIGN)
def test_part_of_a_list_that_moves_at_a_natural_rate_is_proven(name: str) -> None:
    for seed in range(3):
        outcome = read(BENIGN[name], newest(500), session_count=2_000, seed=seed)

        assert outcome.facts is not None
        assert outcome.facts.proof != "unproven"
        assert outcome.lost_count == outcome.doubled_count == outcome.foreign_count == 0


@pytest.mark.parametrize(
    ("churn", "max_requests"),
    [
        (Churn(), 16),
        (Churn(insertions=Flow(per_s=10)), 17),
        (Churn(insertions=Flow(per_s=10), expiries=Flow(per_s=10)), 17),
        (Churn(insertions=Flow(per_s=10), deletions=Flow(per_s=5)), 18),
        (Churn(tie_size=9), 18),
        (Churn(page_faults=(PageFault(missing_count=1, rate=0.05),)), 20),
    ],
    ids=["quiet", "insertions", "retention", "deletions", "ties", "short pages"],
)
def test_newest_ten_pages_take_a_few_requests_more(churn: Churn, max_requests: int) -> None:
    outcome = read(churn, newest(1_000))

    assert outcome.facts is not None
    assert outcome.facts.proof == "stitched"
    assert outcome.facts.session_count == pytest.approx(1_000, abs=20)
    assert outcome.request_count <= max_requests


@pytest.mark.parametrize("in_flight", [1, 4, 16, 64])
def test_list_is_not_read_far_beyond_the_cutoff(in_flight: int) -> None:
    outcome = read(Churn(), newest(1_000), in_flight=in_flight)

    assert outcome.request_count <= 17


@pytest.mark.parametrize("time_range", [NEWER_THAN_ALL, newest(30)])
def test_span_within_the_first_page_takes_a_look_at_the_end_and_one_at_the_head(
    time_range: TimeRange,
) -> None:
    outcome = read(Churn(), time_range)

    assert outcome.request_count <= 4
    assert outcome.facts is not None
    assert outcome.facts.proof == "stitched"


@pytest.mark.parametrize(
    ("churn", "proof", "most_more"),
    # What repairs take more or less is chance: the two do not meet the same insertions.
    [(Churn(), "quiescent", 1), (Churn(insertions=Flow(per_s=10)), "anchored", 6)],
    ids=["quiet", "insertions"],
)
def test_span_that_holds_all_costs_one_look_at_the_end(
    churn: Churn, proof: str, most_more: int
) -> None:
    whole, since = (
        read(churn, time_range, session_count=5_000) for time_range in (TimeRange(), newest(10_000))
    )

    assert since.facts is not None
    assert since.facts.proof == proof
    assert since.facts.session_count >= 5_000
    assert since.request_count <= whole.request_count + most_more


@pytest.mark.parametrize("order", [Order.OLDEST_FIRST, Order.UNORDERED])
def test_list_that_is_not_newest_first_is_read_in_full(order: Order) -> None:
    outcome = read(Churn(order=order), newest(100), session_count=1_000)

    assert outcome.request_count > 10
    assert outcome.facts is not None
    assert outcome.facts.proof in {"stitched", "recounted"}
    assert outcome.facts.session_count == pytest.approx(100, abs=3)
    assert outcome.lost_count == 0


def test_list_with_many_rows_out_of_order_is_read_in_full() -> None:
    """Two sessions in each ten swap their places, by three places."""
    times = [NEWEST_MS - place * SPACING_MS for place in range(3_000)]
    for place in range(0, 3_000, 10):
        times[place], times[place + 3] = times[place + 3], times[place]
    listing = FullListing(GATEWAY, page_size=100, time_range=newest(1_000))

    ids, requests = serve(listing, times)

    assert sorted(ids) == sorted(
        str(place) for place, time in enumerate(times) if newest(1_000).includes(time)
    )
    assert listing.facts is not None
    assert listing.facts.proof != "unproven"
    assert len(requests) >= 30


def test_session_without_a_create_time_is_kept() -> None:
    times: list[int | None] = [NEWEST_MS - place * SPACING_MS for place in range(1_500)]
    times[20] = None
    listing = FullListing(GATEWAY, page_size=100, time_range=newest(120))

    ids, requests = serve(listing, times)

    assert ids == [str(place) for place in range(121)]
    assert listing.facts is not None
    assert listing.facts.proof == "stitched"
    assert len(requests) <= 7


def test_page_count_is_an_estimate_for_the_time_range() -> None:
    listing = FullListing(GATEWAY, page_size=100, time_range=newest(1_000))
    times = [NEWEST_MS - place * SPACING_MS for place in range(20_000)]

    request = listing.next_request()
    assert request is not None
    listing.accept(request, answer(request, times))

    assert listing.page_count == 11


def serve(
    listing: FullListing, times: list[int | None] | list[int]
) -> tuple[list[str], list[PageRequest]]:
    """Answer from a list that holds still; the ids that left, and what was asked."""
    ids: list[str] = []
    requests = []
    while (request := listing.next_request()) is not None:
        requests.append(request)
        listing.accept(request, answer(request, times))
        ids += [row["sessionId"] for row in listing.take_rows(10**9)]
    return ids, requests


def answer(request: PageRequest, times: list[int | None] | list[int]) -> SessionPage:
    start = (request.page_num - 1) * request.page_size
    places = range(len(times))[start : start + request.page_size]
    ids = [str(place) for place in places]
    rows = [{"sessionId": str(place), "createTime": times[place]} for place in places]
    return SessionPage(len(times), rows, ids)
