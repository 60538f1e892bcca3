import pytest

from exporter.listing.known import (
    DAY_MS,
    MAX_HEAD_ROWS,
    Watch,
    cut_head,
    is_newest_first,
)
from exporter.records import RawSession

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
WATCH = Watch(now_ms=NOW_MS, settle_ms=HOUR_MS)


def session(state: object, *, end_ms: object = None) -> RawSession:
    return {"sessionId": "s", "state": state, "endTime": end_ms}


@pytest.mark.parametrize("state", ["running", "STARTING", "terminating"])
def test_active_session_may_change_however_long_it_stays_as_it_is(state: str) -> None:
    assert WATCH.watches(session(state), since_ms=NOW_MS - 400 * DAY_MS)


@pytest.mark.parametrize("state", ["terminated", "Error"])
def test_ended_session_may_change_until_it_has_settled(state: str) -> None:
    assert WATCH.watches(session(state, end_ms=NOW_MS - HOUR_MS + 1), since_ms=0)
    assert not WATCH.watches(session(state, end_ms=NOW_MS - HOUR_MS), since_ms=NOW_MS)


@pytest.mark.parametrize("end_ms", [None, 0, -1, "soon", True])
def test_ended_session_without_an_end_settles_from_when_it_was_seen(end_ms: object) -> None:
    ended = session("terminated", end_ms=end_ms)

    assert WATCH.watches(ended, since_ms=NOW_MS - HOUR_MS + 1)
    assert not WATCH.watches(ended, since_ms=NOW_MS - HOUR_MS)


@pytest.mark.parametrize("state", ["hibernating", "", None, 7, []])
def test_session_in_an_unknown_state_is_final_after_a_day_without_a_change(state: object) -> None:
    assert WATCH.watches(session(state), since_ms=NOW_MS - DAY_MS + 1)
    assert not WATCH.watches(session(state), since_ms=NOW_MS - DAY_MS)


def test_sessions_that_may_change_are_found_among_those_that_may_not() -> None:
    page = [
        session("terminated", end_ms=NOW_MS - DAY_MS),
        session("running"),
        session("terminated", end_ms=NOW_MS - 1),
        session("Terminated", end_ms=NOW_MS - DAY_MS),
        session("unheard of"),
    ]

    assert WATCH.find(page) == [1, 2, 4]
    assert WATCH.find(page[:1]) == []
    assert Watch(now_ms=NOW_MS, settle_ms=0).find(page) == [1, 4]


@pytest.mark.parametrize(
    "times",
    [
        [],
        [5],
        [9, 9, 9],
        [300_000, 200_000, 100_000],
        # Newer by less than a minute than the one in front.
        [300_000, 240_001, 300_000, *range(230_000, 0, -10_000)],
        # One that bears an old time.
        [*range(400_000, 300_000, -10_000), 5, *range(300_000, 0, -10_000)],
    ],
)
def test_list_whose_times_fall_is_newest_first(times: list[int]) -> None:
    assert is_newest_first(times)


@pytest.mark.parametrize(
    "times",
    [
        [100_000, 200_000, 300_000],
        [*range(400_000, 300_000, -10_000), 900_000, *range(300_000, 0, -10_000)],
    ],
)
def test_list_with_newer_sessions_behind_older_ones_is_not(times: list[int]) -> None:
    assert not is_newest_first(times)


@pytest.mark.parametrize(
    ("times", "total_count", "kept"),
    [
        ([4, 3, 2, 1], 4, 4),
        ([4, 3, 2, 1], 9, 3),
        ([4, 3, 1, 1], 9, 2),
        ([4, 3, 1, 1], 4, 4),
        ([1, 1, 1, 1], 9, 4),
        ([4, 3, 2, None], 9, 3),
    ],
)
def test_head_ends_before_a_time_that_the_next_session_may_share(
    times: list[int | None], total_count: int, kept: int
) -> None:
    ids = [f"s-{at}" for at in range(len(times))]

    assert cut_head(ids, times, total_count=total_count) == kept


def test_head_is_never_longer_than_its_most() -> None:
    ids = [f"s-{at}" for at in range(500)]

    count = cut_head(ids, list(range(500, 0, -1)), total_count=500)

    assert count == MAX_HEAD_ROWS - 1
