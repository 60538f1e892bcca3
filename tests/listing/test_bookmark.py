from typing import Any

import pytest

from exporter.listing.bookmark import (
    DAY_MS,
    TOLERANCE_MS,
    Bookmark,
    Watch,
    cut_head,
    explain_full_listing,
    is_newest_first,
)

NOW_MS = 1_782_820_800_000
HOUR_MS = 3_600_000
WATCH = Watch(now_ms=NOW_MS, settle_ms=HOUR_MS)


def watches(since_ms: int = NOW_MS, **fields: Any) -> bool:
    """Whether a session is watched, alone and among others."""
    session = {"sessionId": "a", "createTime": NOW_MS - 30 * DAY_MS, **fields}
    watched = WATCH.watches(session, since_ms=since_ms)
    if since_ms == NOW_MS:
        done = {"sessionId": "b", "state": "terminated", "endTime": 1}
        assert WATCH.find([done, session, done]) == ([1] if watched else [])
        assert WATCH.find([session]) == ([0] if watched else [])
    return watched


@pytest.mark.parametrize("end_ms", [NOW_MS - HOUR_MS + 1, NOW_MS - 1, NOW_MS, NOW_MS + DAY_MS])
@pytest.mark.parametrize("form", [int, str])
def test_session_that_ended_not_long_ago_is_watched(end_ms: int, form: type) -> None:
    assert watches(state="terminated", endTime=form(end_ms))


@pytest.mark.parametrize("form", [int, str])
def test_session_that_ended_longer_ago_than_it_settles_is_not_watched(form: type) -> None:
    assert not watches(state="Terminated", endTime=form(NOW_MS - HOUR_MS))


def test_no_session_that_has_ended_is_watched_where_it_settles_at_once() -> None:
    watch = Watch(now_ms=NOW_MS, settle_ms=0)

    assert watch.find([{"state": "error", "endTime": NOW_MS}]) == []


def test_end_time_in_the_future_is_not_waited_for() -> None:
    assert not watches(state="error", endTime=NOW_MS + DAY_MS, since_ms=NOW_MS - HOUR_MS)


@pytest.mark.parametrize("end", [None, 0, "", "soon", True])
def test_session_without_end_time_settles_from_when_it_was_first_seen_ended(end: object) -> None:
    recent: dict[str, Any] = {
        "state": "error",
        "createTime": NOW_MS - HOUR_MS,
        "endTime": end,
    }

    assert watches(**recent)
    assert not watches(**recent, since_ms=NOW_MS - HOUR_MS)


def test_session_without_end_time_that_is_old_when_first_seen_is_not_watched() -> None:
    session = {"state": "error", "createTime": NOW_MS - DAY_MS}

    assert WATCH.find([session]) == []
    # It was seen before it ended.
    assert WATCH.watches(session, since_ms=NOW_MS)


@pytest.mark.parametrize("state", ["starting", "RUNNING", "terminating"])
def test_session_that_runs_is_watched_for_ever(state: str) -> None:
    assert watches(state=state, since_ms=1)


@pytest.mark.parametrize("state", ["killed", "", None, 7])
def test_session_in_an_unknown_state_is_watched_until_it_stays_the_same_for_a_day(
    state: object,
) -> None:
    assert watches(state=state, since_ms=NOW_MS - DAY_MS + 1)
    assert not watches(state=state, since_ms=NOW_MS - DAY_MS)
    assert not watches(state=state, endTime=NOW_MS - DAY_MS)


@pytest.mark.parametrize(
    "times",
    [
        [],
        [5],
        [9, 9, 5, 5, 1],
        [
            *range(400_000, 300_000, -2_000),
            302_000 + TOLERANCE_MS,
            *range(298_000, 200_000, -2_000),
        ],
        [*range(900, 600, -10), 3, *range(590, 300, -10)],
    ],
    ids=["none", "one", "ties", "within the tolerance", "one old among many"],
)
def test_new_sessions_stand_at_the_head_of_a_list_that_is_nearly_newest_first(
    times: list[int],
) -> None:
    assert is_newest_first(times)


@pytest.mark.parametrize(
    "times",
    [
        [1, 2, 3],
        [900_000, 500_000, 800_000, 400_000],
        [*range(900, 600, -10), 10**9, *range(590, 300, -10)],
    ],
    ids=["oldest first", "by another time", "a new one in the middle"],
)
def test_new_sessions_may_come_anywhere_where_newer_ones_stand_behind_older_ones(
    times: list[int],
) -> None:
    assert not is_newest_first(times)


@pytest.mark.parametrize(
    ("times", "is_whole", "count"),
    [
        ([9, 8, 7], False, 2),
        ([9, 8, 7], True, 3),
        ([9, 8, 8, 8], False, 1),
        ([9, 8, None, 7, None, 7], False, 2),
        ([9, None, 8, 7, None], False, 3),
        ([8, 8, 8], False, 3),
        ([None, None], False, 2),
        ([None, 8, 8], False, 3),
    ],
)
def test_head_ends_before_a_tie_that_may_go_on_behind_it(
    times: list[int | None], is_whole: bool, count: int
) -> None:
    ids = [f"s-{number}" for number in range(len(times))]

    assert cut_head(ids, times, is_whole=is_whole) == count


def test_head_has_a_hundred_sessions_at_most() -> None:
    times = list(range(500, 0, -1))

    assert cut_head([str(each) for each in times], times, is_whole=True) == 99


@pytest.mark.parametrize(
    ("age_ms", "why"),
    [
        (0, ""),
        (7 * DAY_MS - 1, ""),
        (7 * DAY_MS, "no full listing in the last 7 days"),
        (-1, "no full listing in the last 7 days"),
        (NOW_MS, "no full listing in the last 7 days"),
    ],
    ids=["now", "recent", "old", "the clock was set back", "never"],
)
def test_full_listing_is_due_when_the_last_one_is_older(age_ms: int, why: str) -> None:
    bookmark = Bookmark(
        total_count=1,
        expired_count=0,
        head=("a",),
        head_oldest_ms=1,
        anchors=(),
        unfinished=(),
        full_at_ms=NOW_MS - age_ms,
    )

    assert explain_full_listing(bookmark, now_ms=NOW_MS, every_s=7 * 86_400) == why
