from collections.abc import Callable

import pytest

from exporter.listing.bookmark import Bookmark, Unfinished, is_final
from exporter.listing.bookmark_recorder import BookmarkRecorder
from exporter.listing.full import FullListing
from exporter.listing.incremental import IncrementalListing
from exporter.model import ListingFacts
from tests.support.simulation import GATEWAY, LATER, HeldList


def list_in_full(held: HeldList) -> Bookmark:
    listing = IncrementalListing(GATEWAY, None, page_size=100, watch=LATER)
    held.read(listing)
    assert listing.bookmark is not None
    return listing.bookmark


def go_on(held: HeldList, bookmark: Bookmark) -> tuple[list[str], ListingFacts, Bookmark | None]:
    """The ids that leave an incremental run."""
    listing = IncrementalListing(GATEWAY, bookmark, page_size=100, watch=LATER)
    rows = held.read(listing)
    assert listing.facts is not None
    assert listing.facts.page_count == listing.asked_count
    assert listing.facts.session_count == len(rows)
    assert listing.held_count == 0
    return [row["sessionId"] for row in rows], listing.facts, listing.bookmark


def ids_at(held: HeldList, places: range) -> list[str]:
    return [held.rows[place]["sessionId"] for place in places]


def test_nothing_new_costs_one_request() -> None:
    held = HeldList(2_000)

    ids, facts, bookmark = go_on(held, list_in_full(held))

    assert ids == []
    assert (facts.page_count, facts.proof, facts.mode) == (1, "quiescent", "incremental")
    assert bookmark == list_in_full(held)


def ids_before(count: int) -> list[str]:
    """Of the sessions that were created first."""
    return [f"s-{number}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 50, 89, 90, 99, 100, 101, 189, 250, 1_000])
def test_new_sessions_cost_their_pages(count: int) -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(count)

    ids, facts, _ = go_on(held, bookmark)

    assert ids == ids_at(held, range(count))
    assert facts.mode == "incremental"
    # Pages share rows with their neighbours, which shows that nothing is between them.
    assert facts.page_count <= -(-count // 90) + 1


@pytest.mark.parametrize("count", [1, 50, 150, 1_000, 1_900])
def test_retention_that_takes_as_many_as_come_costs_at_most_three_more(count: int) -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(count)
    held.expire(count)

    ids, facts, after = go_on(held, bookmark)

    assert ids == ids_at(held, range(count))
    assert facts.mode == "incremental"
    assert facts.page_count <= -(-count // 90) + 3
    assert after is not None
    assert after.expired_count == count


def test_session_that_ended_is_read_where_it_is_by_now() -> None:
    held = HeldList(3_000)
    held.set_state([450, 1_250, 2_250], "running")
    bookmark = list_in_full(held)
    held.insert(75)
    changed = [place + 75 for place in (450, 1_250)]
    held.set_state(changed, "TERMINATED")

    ids, facts, after = go_on(held, bookmark)

    assert ids == ids_at(held, range(75)) + [held.rows[place]["sessionId"] for place in changed]
    assert facts.page_count == 1 + 3
    assert after is not None
    assert [each.session_id for each in after.unfinished] == [held.rows[2_325]["sessionId"]]


def test_session_that_is_as_it_was_does_not_leave_again() -> None:
    held = HeldList(500)
    held.set_state([0, 7, 300], "running")
    bookmark = list_in_full(held)

    ids, facts, _ = go_on(held, bookmark)

    assert ids == []
    assert facts.page_count == 2


def test_session_in_a_state_nobody_has_heard_of_is_looked_at_again() -> None:
    held = HeldList(50)
    held.set_state([3], "hibernating")
    bookmark = list_in_full(held)
    held.set_state([3], "error")

    ids, _, after = go_on(held, bookmark)

    assert ids == [held.rows[3]["sessionId"]]
    assert after is not None
    assert after.unfinished == ()


def test_unfinished_session_that_expired_is_not_looked_for() -> None:
    held = HeldList(2_000)
    held.set_state([1_990], "running")
    bookmark = list_in_full(held)
    held.expire(50)

    ids, facts, after = go_on(held, bookmark)

    assert (ids, facts.mode, facts.page_count) == ([], "incremental", 2)
    assert after is not None
    assert after.unfinished == ()


@pytest.mark.parametrize("place", [1, 5, 60])
def test_session_shown_late_behind_known_ones_is_new(place: int) -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(1, place=place)

    ids, facts, _ = go_on(held, bookmark)

    assert ids == [held.rows[place]["sessionId"]]
    assert facts.mode == "incremental"


def reorder(held: HeldList) -> None:
    held.rows.reverse()


def delete_at_head(held: HeldList) -> None:
    del held.rows[20 + 5]


def delete_beyond_page(held: HeldList) -> None:
    held.insert(75)
    del held.rows[20 + 75 + 5]


def delete_in_the_middle(held: HeldList) -> None:
    del held.rows[1_000]


def delete_all_over(held: HeldList) -> None:
    del held.rows[100::150]


def clean_up_in_the_middle(held: HeldList) -> None:
    del held.rows[300:1_000]


def prune_head(held: HeldList) -> None:
    del held.rows[:150]


def put_in_behind(held: HeldList) -> None:
    held.insert(1, place=1_000)


def begin_anew(held: HeldList) -> None:
    held.rows.clear()
    held.insert(300)


@pytest.mark.parametrize(
    "change",
    [
        reorder,
        prune_head,
        put_in_behind,
        begin_anew,
    ],
)
def test_list_that_does_not_go_on_where_it_was_is_listed_in_full(
    change: Callable[[HeldList], None],
) -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(20)
    change(held)

    ids, facts, _ = go_on(held, bookmark)

    assert sorted(ids) == sorted(row["sessionId"] for row in held.rows)
    assert facts.mode == "full"
    assert facts.full_because != ""
    assert facts.proof != "unproven"


@pytest.mark.parametrize(
    "change",
    [
        delete_at_head,
        delete_beyond_page,
        delete_in_the_middle,
        delete_all_over,
        clean_up_in_the_middle,
    ],
)
def test_deletion_costs_a_search_and_no_full_listing(change: Callable[[HeldList], None]) -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(20)
    change(held)
    new = {row["sessionId"] for row in held.rows} - set(ids_before(2_000))

    ids, facts, after = go_on(held, bookmark)

    assert set(ids) == new
    assert facts.mode == "incremental"
    assert facts.page_count <= 6
    assert after is not None
    assert go_on(held, after)[1].page_count == 1


def test_gateway_without_bookmark_is_listed_in_full_without_a_reason() -> None:
    held = HeldList(300)

    listing = IncrementalListing(GATEWAY, None, page_size=100, watch=LATER)
    rows = held.read(listing)

    assert rows == held.rows
    assert listing.facts is not None
    assert (listing.facts.mode, listing.facts.full_because) == ("full", "")


def test_recorder_beside_a_full_listing_leaves_the_same_bookmark() -> None:
    held = HeldList(1_234)
    held.set_state([700], "running")
    recorder, listing = BookmarkRecorder(LATER), FullListing(GATEWAY, page_size=100)
    while (request := listing.next_request()) is not None:
        page = held.answer(request)
        recorder.note(request, page)
        listing.accept(request, page)
    assert listing.facts is not None

    bookmark = recorder.to_bookmark(listing.facts)

    assert bookmark == list_in_full(held)
    assert bookmark is not None
    assert bookmark.unfinished == (
        Unfinished(
            1_234 - 1 - 700,
            held.rows[700]["sessionId"],
            held.rows[700]["createTime"],
            bookmark.unfinished[0].digest,
            LATER.now_ms,
        ),
    )


@pytest.mark.parametrize("session_count", [20, 1_000])
def test_list_that_is_oldest_first_leaves_nothing_to_go_on_from(session_count: int) -> None:
    held = HeldList(session_count)
    held.rows.reverse()
    listing = IncrementalListing(GATEWAY, None, page_size=100, watch=LATER)

    held.read(listing)

    assert listing.facts is not None
    assert listing.bookmark is None


def test_anchors_stay_few_and_reach_over_the_whole_list() -> None:
    bookmark = list_in_full(HeldList(60_000))

    assert 100 <= len(bookmark.anchors) <= 256
    assert bookmark.anchors[0].serial < 300
    assert bookmark.anchors[-1].serial > 59_000


@pytest.mark.parametrize("state", ["terminated", "ERROR", "Terminated"])
def test_final_states_are_these_in_any_case(state: str) -> None:
    assert is_final({"state": state})


@pytest.mark.parametrize("state", ["running", "terminating", "", None, 7, [], {}])
def test_any_other_state_may_change(state: object) -> None:
    assert not is_final({"state": state})
