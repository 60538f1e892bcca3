"""Incremental runs notice, prove and ask for the right things, one answer at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from exporter.emulator.churn import Churn, Flow, LateShow
from exporter.listing.bookmark import Bookmark, Watch
from exporter.listing.changes import CHANGED, EMPTY, LOST, REORDERED, SHORT
from exporter.listing.incremental import IncrementalListing
from exporter.listing.interface import PageRequest
from exporter.model import ListingFacts, RawSession, SessionPage
from tests.support.simulation import GATEWAY, LATER, NEWEST_MS, HeldList, Wire, build_list, drive

HOUR_S = 3600.0
Answer = Callable[[PageRequest], SessionPage]


def list_in_full(held: HeldList, *, watch: Watch = LATER, page_size: int = 100) -> Bookmark:
    listing = IncrementalListing(GATEWAY, None, page_size=page_size, watch=watch)
    held.read(listing)
    assert listing.bookmark is not None
    return listing.bookmark


def go_on(
    bookmark: Bookmark, answer: Answer, *, watch: Watch = LATER, page_size: int = 100
) -> tuple[list[RawSession], ListingFacts, Bookmark | None, list[PageRequest]]:
    listing = IncrementalListing(GATEWAY, bookmark, page_size=page_size, watch=watch)
    rows: list[RawSession] = []
    requests = []
    while (request := listing.next_request()) is not None:
        requests.append(request)
        listing.accept(request, answer(request))
        rows += listing.take_rows(10**9)
    assert listing.facts is not None
    return rows, listing.facts, listing.bookmark, requests


def build_page(held: HeldList, rows: Sequence[RawSession], **changes: Any) -> SessionPage:
    total_count = changes.get("total_count", len(held.rows))
    return SessionPage(total_count, list(rows), [row["sessionId"] for row in rows])


def ids_of(rows: Sequence[RawSession]) -> set[str]:
    return {row["sessionId"] for row in rows}


def new_in(held: HeldList, before: int) -> set[str]:
    return ids_of(held.rows) - {f"s-{number}" for number in range(before)}


# Answers need not be of the same list


@pytest.mark.parametrize("behind", [1, 7, 60])
@pytest.mark.parametrize("lags", [{2, 4, 6}, set(range(2, 99))], ids=["some", "all but the first"])
def test_new_session_at_a_page_boundary_is_read_although_a_later_answer_shows_an_older_list(
    lags: set[int], behind: int
) -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(250)
    held.expire(250)
    lagging = HeldList(0)
    lagging.rows = held.rows[behind:]

    def answer(request: PageRequest) -> SessionPage:
        page = (lagging if request.number in lags else held).answer(request)
        return replace(page, total_count=2_000)

    rows, facts, after, _ = go_on(bookmark, answer)

    assert ids_of(rows) >= new_in(held, 2_000)
    assert facts.proof != "unproven"
    assert after is not None


def test_head_that_is_kept_is_joined_to_the_pages_that_were_read() -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(30)

    def answer(request: PageRequest) -> SessionPage:
        # The total claims one more, so that page 1 is read again: a burst has come by then.
        if request.number == 1:
            page = held.answer(request)
            held.insert(150)
            return replace(page, total_count=page.total_count + 1)
        return held.answer(request)

    first, _, after, _ = go_on(bookmark, answer)
    assert after is not None
    second, _, _, _ = go_on(after, held.answer)

    assert ids_of(first) | ids_of(second) >= new_in(held, 2_000)


def test_slack_does_not_grow_for_ever() -> None:
    held = HeldList(2_000)
    bookmark = replace(list_in_full(held), slack=5)
    held.insert(3)
    del held.rows[1_000]

    _, facts, after, _ = go_on(bookmark, held.answer)

    assert facts.mode == "incremental"
    assert after is not None
    assert after.slack == 0


# Sessions that come elsewhere than at the head


@pytest.mark.parametrize("place", [0, 1, 50, 97])
def test_back_dated_session_among_the_known_ones_is_new(place: int) -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.rows.insert(place, {"sessionId": "late", "createTime": 5, "state": "terminated"})

    rows, facts, _, _ = go_on(bookmark, held.answer)

    assert ids_of(rows) == {"late"}
    assert facts.mode == "incremental"


def test_session_far_behind_the_head_is_noticed_by_the_total() -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(1, place=1_500)

    rows, facts, _, _ = go_on(bookmark, held.answer)

    assert ids_of(rows) == ids_of(held.rows)
    assert facts.full_because == CHANGED


def test_session_far_behind_the_head_is_noticed_although_more_expired() -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(1, place=1_500)
    held.expire(2)

    _, facts, _, _ = go_on(bookmark, held.answer)

    assert facts.full_because == CHANGED


def test_session_far_behind_the_head_is_not_noticed_while_as_many_expired() -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(1, place=1_500)
    held.expire(1)

    rows, facts, _, _ = go_on(bookmark, held.answer)

    assert (rows, facts.full_because) == ([], "")


def test_known_session_near_the_end_is_recognised_on_a_page_read_before() -> None:
    held = HeldList(150)
    bookmark = list_in_full(held)
    held.insert(60)
    held.expire(30)

    rows, facts, _, _ = go_on(bookmark, held.answer)

    assert ids_of(rows) == new_in(held, 150)
    assert facts.full_because == ""


def test_total_that_claims_more_is_asked_for_again_before_the_whole_list_is() -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(3)

    def answer(request: PageRequest) -> SessionPage:
        page = held.answer(request)
        return replace(page, total_count=page.total_count + 2) if request.number < 3 else page

    rows, facts, _, requests = go_on(bookmark, answer)

    assert ids_of(rows) == new_in(held, 2_000)
    assert facts.mode == "incremental"
    assert [each.wait_s for each in requests[:3]] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("total_count", [1_000, 1_500])
def test_capped_total_stops_no_search(total_count: int) -> None:
    held = HeldList(2_000)
    held.set_state([1_700], "running")

    def answer(request: PageRequest) -> SessionPage:
        return replace(held.answer(request), total_count=total_count)

    listing = IncrementalListing(GATEWAY, None, page_size=100, watch=LATER)
    while (request := listing.next_request()) is not None:
        listing.accept(request, answer(request))
        listing.take_rows(10**9)
    bookmark = listing.bookmark
    assert bookmark is not None
    held.insert(60)
    held.set_state([1_760], "error")

    rows, facts, _, _ = go_on(bookmark, answer)

    assert ids_of(rows) == {*new_in(held, 2_000), held.rows[1_760]["sessionId"]}
    assert (facts.mode, facts.page_count <= 3) == ("incremental", True)


# What a run does not cost any more


CHANGES = {
    "a deletion an hour": Churn(
        insertions=Flow(per_s=20 / HOUR_S), deletions=Flow(per_s=1 / HOUR_S, even=True)
    ),
    "a visibility lag of two seconds": Churn(
        insertions=Flow(per_s=0.2), late=LateShow(share=0.3, lag_s=2.0)
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_hourly_runs_over_ordinary_changes_are_never_full_ones(name: str) -> None:
    sessions = build_list(CHANGES[name], 3_000, seed=3, spacing_ms=5_000)
    bookmark: Bookmark | None = None
    union: dict[str, RawSession] = {}
    full_count, now_s = 0, 0.0
    for number in range(8):
        watch = Watch(now_ms=NEWEST_MS + round(now_s * 1000), settle_ms=0)
        listing = IncrementalListing(GATEWAY, bookmark, page_size=100, watch=watch)
        wire = Wire(sessions, latency_s=0.04, seed=number, now_s=now_s)
        union.update((row["sessionId"], row) for row in drive(listing, wire, in_flight=8))
        assert listing.facts is not None
        full_count += listing.facts.mode == "full"
        bookmark = listing.bookmark
        now_s = wire.now_s + HOUR_S

    assert full_count == 1
    assert not sessions.truth(sessions.answer_count).lost(union)


def test_burst_that_came_while_the_list_was_read_makes_no_full_run_of_the_next() -> None:
    burst = Flow(per_s=1_000, burst=150, limit=150, start_s=0.1)
    sessions = build_list(Churn(insertions=burst, run_s=3.0), 5_000, seed=1, spacing_ms=1_000)
    bookmark: Bookmark | None = None
    facts, union, now_s = [], set(), 0.0
    for number in range(3):
        watch = Watch(now_ms=NEWEST_MS + round(now_s * 1000), settle_ms=0)
        listing = IncrementalListing(GATEWAY, bookmark, page_size=100, watch=watch)
        wire = Wire(sessions, latency_s=0.04, seed=number, now_s=now_s)
        union |= {row["sessionId"] for row in drive(listing, wire, in_flight=8)}
        assert listing.facts is not None
        facts.append(listing.facts)
        bookmark, now_s = listing.bookmark, wire.now_s + 60.0

    assert [each.full_because for each in facts] == ["", "", ""]
    assert [each.mode for each in facts] == ["full", "incremental", "incremental"]
    assert not sessions.truth(sessions.answer_count).lost(union)


# What may change


def test_session_is_read_again_until_it_has_settled() -> None:
    settle_ms = 3_600_000
    ended_ms = LATER.now_ms - 60_000
    held = HeldList(2_000)
    held.rows[1_200] |= {"state": "terminated", "endTime": ended_ms, "cuHours": None}
    bookmark = list_in_full(held)
    held.rows[1_200] = held.rows[1_200] | {"cuHours": 2.5}

    soon, _, settling, _ = go_on(bookmark, held.answer)
    assert settling is not None
    later = Watch(now_ms=ended_ms + settle_ms, settle_ms=settle_ms)
    same, _, settled, _ = go_on(settling, held.answer, watch=later)
    assert settled is not None
    held.rows[1_200] = held.rows[1_200] | {"cuHours": 3.0}
    rest, facts, _, _ = go_on(settled, held.answer, watch=later)

    assert [row["cuHours"] for row in soon] == [2.5]
    assert same == []
    assert settled.unfinished == ()
    assert (rest, facts.page_count) == ([], 1)


def test_session_in_an_unknown_state_costs_nothing_once_it_stayed_the_same_for_a_day() -> None:
    day_ms = 24 * 3_600_000
    held = HeldList(2_000)
    held.set_state([1_200], "killed")
    bookmark = list_in_full(held)
    later = replace(LATER, now_ms=LATER.now_ms + day_ms)

    _, first, after, _ = go_on(bookmark, held.answer, watch=later)
    assert after is not None
    _, second, _, _ = go_on(after, held.answer, watch=later)

    assert (first.page_count, second.page_count) == (2, 1)


def test_requests_do_not_depend_on_the_clock() -> None:
    held = HeldList(2_000)
    held.set_state([5, 700, 1_800], "running")
    bookmark = list_in_full(held)
    held.insert(120)
    held.expire(40)
    watches = [LATER, replace(LATER, now_ms=1), Watch(now_ms=LATER.now_ms * 2, settle_ms=0)]

    asked = [go_on(bookmark, held.answer, watch=watch)[3] for watch in watches]

    assert asked[0] == asked[1] == asked[2]


def test_unfinished_session_without_a_create_time_is_found() -> None:
    held = HeldList(2_000)
    held.set_state([1_200], "running")
    del held.rows[1_200]["createTime"]
    bookmark = list_in_full(held)
    held.insert(40)
    held.set_state([1_240], "error")

    rows, facts, after, _ = go_on(bookmark, held.answer)

    assert held.rows[1_240]["sessionId"] in ids_of(rows)
    assert facts.mode == "incremental"
    assert after is not None
    assert len(after.unfinished) == 1


def test_session_that_may_change_is_lost_and_not_forgotten_where_nothing_shows_it_gone() -> None:
    held = HeldList(2_000)
    held.set_state([1_200], "running")
    del held.rows[1_200]["createTime"]
    bookmark = list_in_full(held)
    del held.rows[1_200]

    _, facts, _, _ = go_on(bookmark, held.answer)

    assert facts.full_because == LOST


def test_session_whose_create_time_is_text_is_found_by_it() -> None:
    held = HeldList(2_000)
    held.set_state([1_200], "running")
    held.rows[1_200]["createTime"] = str(held.rows[1_200]["createTime"])
    bookmark = list_in_full(held)
    del held.rows[100:700]

    _, facts, after, _ = go_on(bookmark, held.answer)

    assert facts.mode == "incremental"
    assert after is not None
    assert len(after.unfinished) == 1


# Answers that are evidence of nothing


def test_new_session_hidden_by_one_shown_twice_is_read() -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)
    held.insert(20)

    def answer(request: PageRequest) -> SessionPage:
        page = held.answer(request)
        if request.number > 1:
            return page
        return build_page(held, [*page.sessions[:5], page.sessions[4], *page.sessions[6:]])

    rows, facts, _, _ = go_on(bookmark, answer)

    assert ids_of(rows) == new_in(held, 2_000)
    assert len(rows) == 20
    assert facts.page_count == 2


def test_session_is_not_forgotten_because_one_answer_was_empty() -> None:
    held = HeldList(2_000)
    held.set_state([1_200], "running")
    bookmark = list_in_full(held)

    def answer(request: PageRequest) -> SessionPage:
        return SessionPage(0, [], []) if request.number == 2 else held.answer(request)

    _, facts, after, _ = go_on(bookmark, answer)

    assert facts.mode == "incremental"
    assert after is not None
    assert len(after.unfinished) == 1


def test_page_1_that_stays_short_of_what_its_total_claims_needs_a_full_listing() -> None:
    held = HeldList(2_000)
    bookmark = list_in_full(held)

    def answer(request: PageRequest) -> SessionPage:
        start = (request.page_num - 1) * min(request.page_size, 50)
        return build_page(held, held.rows[start : start + min(request.page_size, 50)])

    rows, facts, _, _ = go_on(bookmark, answer)

    assert facts.full_because == SHORT
    assert ids_of(rows) == ids_of(held.rows)


def test_list_that_shrank_to_nothing_is_asked_for_again_and_then_listed_in_full() -> None:
    held = HeldList(300)
    bookmark = list_in_full(held)
    held.rows.clear()

    rows, facts, after, requests = go_on(bookmark, held.answer)

    assert (rows, after) == ([], None)
    assert facts.full_because == EMPTY
    assert [each.wait_s for each in requests[:3]] == [0.0, 0.0, 0.5]


# Lists that are not newest first


def test_session_that_moved_in_front_of_known_ones_shows_another_order() -> None:
    held = HeldList(2_000)
    held.set_state([500], "running")
    bookmark = list_in_full(held)
    held.rows.insert(0, held.rows.pop(500) | {"state": "error"})

    rows, facts, _, _ = go_on(bookmark, held.answer)

    assert facts.full_because == REORDERED
    assert ids_of(rows) == ids_of(held.rows)


def test_list_with_its_newest_sessions_at_the_end_leaves_nothing_to_go_on_from() -> None:
    held = HeldList(2_000)
    held.rows = [*held.rows[100:], *held.rows[:100]]
    listing = IncrementalListing(GATEWAY, None, page_size=100, watch=LATER)

    held.read(listing)

    assert listing.facts is not None
    assert listing.bookmark is None


@pytest.mark.parametrize("page_sizes", [(100, 7, 100), (20, 100, 37), (3, 50, 10)])
def test_runs_may_ask_for_pages_of_any_size(page_sizes: tuple[int, ...]) -> None:
    held = HeldList(400)
    bookmark = list_in_full(held, page_size=page_sizes[0])
    for page_size in page_sizes[1:]:
        before = held.created_count
        held.insert(30)

        rows, facts, after, _ = go_on(bookmark, held.answer, page_size=page_size)

        assert ids_of(rows) == new_in(held, before)
        assert facts.mode == "incremental"
        assert after is not None
        bookmark = after
