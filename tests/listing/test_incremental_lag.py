"""Incremental listings of lists that are shown late, by halves or by several replicas, and of
sessions that still change after their end.
"""

from dataclasses import dataclass

import pytest

from exporter.listing.bookmark import DAY_MS, Bookmark, Watch
from exporter.listing.incremental import IncrementalListing
from exporter.listing.interface import PageRequest
from exporter.model import ListingFacts, SessionPage
from tests.support.simulation import GATEWAY, NEWEST_MS, HeldList

SESSIONS = 1_000
NOW_MS = NEWEST_MS + 20_000 * SESSIONS
HOUR_MS = 3_600_000


@dataclass
class Run:
    ids: list[str]
    facts: ListingFacts
    bookmark: Bookmark


def run(
    held: HeldList,
    bookmark: Bookmark | None,
    *,
    now_ms: int = NOW_MS,
    settle_ms: int = 0,
    full_because: str = "",
) -> Run:
    listing = IncrementalListing(
        GATEWAY,
        bookmark,
        page_size=100,
        watch=Watch(now_ms=now_ms, settle_ms=settle_ms),
        full_because=full_because,
    )
    rows = held.read(listing)
    assert listing.facts is not None
    assert listing.bookmark is not None
    return Run([row["sessionId"] for row in rows], listing.facts, listing.bookmark)


class TwoReplicas(HeldList):
    """Answers in turn from the list as it is, and from one that lacks the newest sessions."""

    behind = 0
    turn = 0

    def answer(self, request: PageRequest) -> SessionPage:
        self.turn += 1
        rows = self.rows[self.behind if self.turn % 2 == 0 else 0 :]
        start = (request.page_num - 1) * request.page_size
        shown = rows[start : start + request.page_size]
        return SessionPage(len(rows), shown, [row["sessionId"] for row in shown])


class ShownLate(HeldList):
    """Counts all its sessions, and shows the newest of them only after a time."""

    hidden = 0
    shown_after_s = 2.0
    waited_s = 0.0

    def answer(self, request: PageRequest) -> SessionPage:
        self.waited_s += request.wait_s
        rows = self.rows[self.hidden if self.waited_s < self.shown_after_s else 0 :]
        start = (request.page_num - 1) * request.page_size
        shown = rows[start : start + request.page_size]
        return SessionPage(len(self.rows), shown, [row["sessionId"] for row in shown])


@pytest.mark.parametrize("behind", [1, 3, 10, 60])
@pytest.mark.parametrize("first_turn", [0, 1])
@pytest.mark.parametrize("came_count", [95, 100, 101, 199, 250])
def test_replica_that_lags_hides_no_new_session_at_a_page_boundary(
    behind: int, first_turn: int, came_count: int
) -> None:
    held = TwoReplicas(SESSIONS)
    bookmark = run(held, None).bookmark
    held.insert(came_count)
    held.behind, held.turn = behind, first_turn
    came = [row["sessionId"] for row in held.rows[:came_count]]
    in_both = came[behind:]

    second = run(held, bookmark)
    held.behind = 0
    third = run(held, second.bookmark)

    assert set(in_both) <= set(second.ids)
    assert set(came) <= {*second.ids, *third.ids}


def test_session_put_in_far_behind_is_noticed_by_the_total() -> None:
    held = HeldList(SESSIONS)
    bookmark = run(held, None).bookmark
    held.insert(1, place=700)

    second = run(held, bookmark)

    assert second.facts.full_because == "sessions came in the middle of the list"
    assert held.rows[700]["sessionId"] in second.ids


def test_session_put_in_far_behind_as_another_goes_is_noticed_by_a_full_listing_alone() -> None:
    held = HeldList(SESSIONS)
    bookmark = run(held, None).bookmark
    held.insert(1, place=700)
    del held.rows[900]

    second = run(held, bookmark)
    third = run(held, second.bookmark, full_because="it is due")

    assert (second.ids, second.facts.mode) == ([], "incremental")
    assert held.rows[700]["sessionId"] in third.ids
    assert third.facts.full_because == "it is due"


@pytest.mark.parametrize("hidden", [1, 3, 30, 150])
def test_sessions_that_are_counted_before_they_are_shown_are_waited_for(hidden: int) -> None:
    held = ShownLate(SESSIONS)
    bookmark = run(held, None).bookmark
    came_count = max(30, hidden)
    held.insert(came_count)
    held.hidden = hidden

    second = run(held, bookmark)

    assert sorted(second.ids) == sorted(row["sessionId"] for row in held.rows[:came_count])
    assert second.facts.mode == "incremental"
    assert second.facts.page_count <= 8


def end_session(held: HeldList, place: int, *, end_ms: int, cu_hours: float) -> None:
    held.rows[place] = held.rows[place] | {
        "state": "terminated",
        "endTime": end_ms,
        "cuHours": cu_hours,
    }


def test_ended_session_is_read_again_until_it_has_settled() -> None:
    held = HeldList(SESSIONS)
    for place in range(SESSIONS):
        end_session(held, place, end_ms=NOW_MS - DAY_MS, cu_hours=1.0)
    end_session(held, 5, end_ms=NOW_MS - 1_000, cu_hours=1.0)
    settling = held.rows[5]["sessionId"]
    first = run(held, None, settle_ms=HOUR_MS)
    end_session(held, 5, end_ms=NOW_MS - 1_000, cu_hours=2.0)

    second = run(held, first.bookmark, now_ms=NOW_MS + 600_000, settle_ms=HOUR_MS)
    third = run(held, second.bookmark, now_ms=NOW_MS + HOUR_MS, settle_ms=HOUR_MS)

    assert second.ids == [settling]
    assert [each.session_id for each in second.bookmark.unfinished] == [settling]
    assert third.ids == []
    assert third.bookmark.unfinished == ()


def test_version_that_settles_between_two_runs_leaves_once_more_at_the_end() -> None:
    held = HeldList(SESSIONS)
    end_session(held, 500, end_ms=NOW_MS - 1_000, cu_hours=1.0)
    first = run(held, None, settle_ms=HOUR_MS)
    end_session(held, 500, end_ms=NOW_MS - 1_000, cu_hours=2.0)

    second = run(held, first.bookmark, now_ms=NOW_MS + 2 * HOUR_MS, settle_ms=HOUR_MS)

    assert held.rows[500]["sessionId"] in second.ids


def test_session_in_an_unknown_state_is_final_after_a_day_without_a_change() -> None:
    held = HeldList(SESSIONS)
    held.set_state([500], "hibernating")
    bookmark = run(held, None).bookmark
    costs = []
    for hours in (1, 23, 24, 25):
        after = run(held, bookmark, now_ms=NOW_MS + hours * HOUR_MS)
        bookmark = after.bookmark
        costs.append((after.facts.page_count, len(bookmark.unfinished)))

    assert costs == [(2, 1), (2, 1), (2, 0), (1, 0)]
