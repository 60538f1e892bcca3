"""The order of a moving list, its changes and its replicas."""

import itertools
from collections import Counter
from typing import Any

import orjson
import pytest

from exporter.emulator.churn import (
    Backdating,
    Churn,
    Cleanup,
    Flow,
    LateShow,
    Order,
    OrderBy,
    Place,
    TimeForm,
    Timeless,
)
from exporter.emulator.generated_list import PageCache
from exporter.emulator.moving_list import MovingSessions
from exporter.errors import UsageError
from exporter.model import Gateway

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
NEWEST_MS = 1_782_820_800_000
START_S = 5_000.0

Row = dict[str, Any]


def churn_list(
    churn: Churn, session_count: int = 500, *, spacing_ms: int = 1_000, brief: bool = False
) -> MovingSessions:
    return MovingSessions(
        GATEWAY,
        churn,
        seed=7,
        session_count=session_count,
        newest_created_ms=NEWEST_MS,
        spacing_ms=spacing_ms,
        cache=PageCache(10**7),
        brief=brief,
    )


def read_rows(sessions: MovingSessions, after_s: float = 0.0) -> list[Row]:
    rows = orjson.loads(sessions.page(1, 10**6, START_S + after_s).rows)
    assert isinstance(rows, list)
    return rows


def read_ids(sessions: MovingSessions, after_s: float = 0.0) -> list[str]:
    return sessions.list_ids(1, 10**6, START_S + after_s)[1]


# Order


@pytest.mark.parametrize("order", [Order.NEWEST_FIRST, Order.OLDEST_FIRST])
@pytest.mark.parametrize("running_last", [False, True])
def test_list_by_end_time_has_running_sessions_at_one_end(
    order: Order, *, running_last: bool
) -> None:
    churn = Churn(
        order=order, order_by=OrderBy.END, running_last=running_last, run_s=20, max_run_s=200
    )
    sessions = churn_list(churn)

    running_first = running_last != (order is Order.NEWEST_FIRST)
    for after_s in (0.0, 50.0, 120.0):
        rows = read_rows(sessions, after_s)
        runs = [row["state"] == "running" for row in rows]
        ended = [row["endTime"] for row in rows if row["state"] != "running"]
        assert runs == sorted(runs, reverse=running_first)
        assert any(runs)
        assert ended == sorted(ended, reverse=order is Order.NEWEST_FIRST)
        created = [row["createTime"] for row in rows if row["state"] != "running"]
        assert created != sorted(created, reverse=order is Order.NEWEST_FIRST)
    assert all(row["state"] != "running" for row in read_rows(sessions, 1_000.0))


def test_session_that_ends_moves_to_the_head_of_a_list_by_update_time() -> None:
    sessions = churn_list(Churn(order_by=OrderBy.UPDATE, run_s=10, max_run_s=100), 200)
    before = {row["sessionId"]: row["state"] for row in read_rows(sessions)}

    rows = read_rows(sessions, 30.0)

    ended = [row for row in rows if before[row["sessionId"]] == "running" != row["state"]]
    assert len(ended) > 5
    assert rows[: len(ended)] == ended
    assert sessions.truth().owed == sessions.truth().allowed == frozenset(before)


def test_touched_session_moves_to_the_head_and_stays_what_it_is() -> None:
    churn = Churn(
        order_by=OrderBy.UPDATE, run_s=0, touches=Flow(per_s=1, limit=3, even=True), total_lag_s=0
    )
    sessions = churn_list(churn, 100)
    before = read_rows(sessions)

    after = read_rows(sessions, 60.0)

    moved = [row for place, row in enumerate(after[:3]) if row != before[place]]
    assert 1 <= len(moved) <= 3
    assert [row for row in after if row not in moved] == [row for row in before if row not in moved]
    assert sessions.truth().deleted_count == sessions.truth().inserted_count == 0


def test_create_time_may_follow_the_updates_that_the_list_is_ordered_by() -> None:
    churn = Churn(
        order_by=OrderBy.UPDATE, tells_order_time=True, run_s=5, touches=Flow(per_s=1, even=True)
    )
    sessions = churn_list(churn, 100)
    before = {row["sessionId"]: row["createTime"] for row in read_rows(sessions)}

    rows = read_rows(sessions, 20.0)

    times = [row["createTime"] for row in rows]
    moved = {row["sessionId"] for row in rows if row["createTime"] != before[row["sessionId"]]}
    assert times == sorted(times, reverse=True)
    assert 10 <= len(moved) <= 26
    assert {row["sessionId"] for row in rows[: len(moved)]} == moved


def test_parts_of_a_list_are_each_in_order_and_grow_in_the_middle() -> None:
    sessions = churn_list(Churn(shards=3, insertions=Flow(per_s=10, limit=60, even=True)), 300)
    before = read_ids(sessions)

    rows = read_rows(sessions, 10.0)

    times = [row["createTime"] for row in rows]
    assert sum(former < later for former, later in itertools.pairwise(times)) == 2
    new = {place for place, row in enumerate(rows) if row["sessionId"] not in before}
    assert len(new) == 60
    assert len([place for place in new if place - 1 not in new]) == 3


def test_ties_of_a_list_by_create_time_stay_together_where_bursts_share_an_instant() -> None:
    churn = Churn(tie_size=4, insertions=Flow(per_s=10, burst=40, limit=80, even=True))
    sessions = churn_list(churn, 100)
    read_ids(sessions)

    answers = [read_rows(sessions, 10.0) for _ in range(4)]

    for rows in answers:
        times = [row["createTime"] for row in rows]
        assert times == sorted(times, reverse=True)
    assert len({tuple(row["sessionId"] for row in rows) for rows in answers}) == 4
    assert len({frozenset(row["sessionId"] for row in rows) for rows in answers}) == 1


# Times


def test_backdated_sessions_come_where_their_time_is_or_at_the_head() -> None:
    flow = Flow(per_s=10, limit=50, even=True)
    places = {}
    for in_place in (True, False):
        backdating = Backdating(share=1.0, by_s=400.0, in_place=in_place)
        sessions = churn_list(Churn(insertions=flow, backdating=backdating))
        before = set(read_ids(sessions))
        rows = read_rows(sessions, 10.0)
        times = [row["createTime"] for row in rows]
        places[in_place] = [n for n, row in enumerate(rows) if row["sessionId"] not in before]
        assert (times == sorted(times, reverse=True)) is in_place
        assert all(time <= NEWEST_MS + 10_000 for time in times)

    assert places[False] == list(range(50))
    assert max(places[True]) > 200


def test_times_ahead_are_later_than_the_insertion() -> None:
    backdating = Backdating(share=0.5, by_s=-8 * 3600, in_place=False)
    rows = read_rows(churn_list(Churn(backdating=backdating)))

    ahead = [row for row in rows if row["createTime"] > NEWEST_MS]
    assert 150 < len(ahead) < 350


@pytest.mark.parametrize("brief", [True, False])
@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (TimeForm.MISSING, {"nothing"}),
        (TimeForm.NULL, {"NoneType"}),
        (TimeForm.ZERO, {"int"}),
        (TimeForm.TEXT, {"str"}),
        (TimeForm.MIXED, {"nothing", "NoneType", "int", "str"}),
    ],
)
def test_share_of_the_sessions_states_its_time_in_another_form(
    form: TimeForm, expected: set[str], *, brief: bool
) -> None:
    sessions = churn_list(Churn(timeless=Timeless(share=0.2, form=form)), brief=brief)
    plain = {row["sessionId"]: row["createTime"] for row in read_rows(churn_list(Churn()))}

    rows = read_rows(sessions)

    odd = [row for row in rows if row.get("createTime") != plain[row["sessionId"]]]
    kinds = {type(row["createTime"]).__name__ if "createTime" in row else "nothing" for row in odd}
    assert 60 < len(odd) < 140
    assert kinds == expected
    assert all(
        int(row["createTime"]) == plain[row["sessionId"]]
        for row in odd
        if isinstance(row.get("createTime"), str)
    )
    assert read_rows(sessions) == rows


def test_coarse_times_are_equal_for_neighbours_whose_order_stays() -> None:
    sessions = churn_list(Churn(time_step_ms=60_000), spacing_ms=1_000)
    plain = read_ids(churn_list(Churn(), spacing_ms=1_000))

    rows = read_rows(sessions)

    assert [row["sessionId"] for row in rows] == plain == read_ids(sessions)
    assert {row["createTime"] % 60_000 for row in rows} == {0}
    assert 8 <= len({row["createTime"] for row in rows}) <= 10


def test_sessions_shown_late_come_behind_those_created_since() -> None:
    churn = Churn(
        insertions=Flow(per_s=10, limit=100, even=True), late=LateShow(share=0.3, lag_s=2.0)
    )
    sessions = churn_list(churn, 10)
    read_ids(sessions)

    early, whole = read_rows(sessions, 5.0), read_rows(sessions, 60.0)

    times = [row["createTime"] for row in whole]
    shown = {row["sessionId"] for row in early}
    hidden = [
        row
        for row in whole
        if row["createTime"] <= NEWEST_MS + 5_000 and row["sessionId"] not in shown
    ]
    assert times == sorted(times, reverse=True)
    assert len(whole) == 110
    assert 2 <= len(hidden) <= 15
    assert all(row["createTime"] > NEWEST_MS + 3_000 for row in hidden)


# Cleanups


@pytest.mark.parametrize("place", Place)
def test_cleanup_removes_many_sessions_at_one_instant(place: Place) -> None:
    churn = Churn(cleanups=(Cleanup(at_s=5.0, count=200, place=place),))
    sessions = churn_list(churn)
    before = read_ids(sessions)

    still, after = read_ids(sessions, 4.9), read_ids(sessions, 5.0)

    assert still == before
    assert len(after) == 300
    removed = [position for position, each in enumerate(before) if each not in set(after)]
    expected = {
        Place.HEAD: list(range(200)),
        Place.MIDDLE: list(range(150, 350)),
        Place.END: list(range(300, 500)),
    }
    assert removed == expected.get(place, removed)
    assert sessions.truth().deleted_count == 200


def test_repeated_cleanup_removes_what_is_left() -> None:
    sessions = churn_list(Churn(cleanups=(Cleanup(at_s=1.0, count=200, every_s=10.0),)))
    read_ids(sessions)

    assert [len(read_ids(sessions, after_s)) for after_s in (0.5, 1, 11, 21, 31)] == [
        500,
        300,
        100,
        0,
        0,
    ]


@pytest.mark.parametrize("form", [{"keep_count": 100}, {"keep_age_s": 300.0}])
def test_retention_removes_the_oldest_by_claimed_create_time(form: dict[str, Any]) -> None:
    backdating = Backdating(share=0.2, by_s=600.0, in_place=False)
    churn = Churn(backdating=backdating, insertions=Flow(per_s=5), **form)
    sessions = churn_list(churn, 200)
    before = read_rows(sessions)

    after = {row["sessionId"] for row in read_rows(sessions, 60.0)}

    removed = [row["createTime"] for row in before if row["sessionId"] not in after]
    kept = [row["createTime"] for row in before if row["sessionId"] in after]
    assert len(removed) > 1
    assert max(removed) < min(kept, default=NEWEST_MS * 2)


# Replicas


def test_each_answer_is_of_one_replica_and_owes_what_both_ends_agree_on() -> None:
    churn = Churn(replicas=(0.0, 3.0), insertions=Flow(per_s=10, even=True))
    sessions = churn_list(churn, 100)
    read_ids(sessions)

    answers = [sessions.list_ids(1, 10**6, START_S + 10) for _ in range(40)]

    assert {(total, len(ids)) for total, ids in answers} == {(200, 200), (170, 170)}
    for first, (total, ids) in enumerate(answers, start=2):
        assert sessions.truth(first).owed == frozenset(ids)
        assert len(sessions.truth(first).allowed) in {170, 200}
        assert total == len(ids)


def test_total_may_be_of_another_replica_than_the_rows() -> None:
    churn = Churn(
        replicas=(0.0, 3.0), total_of_any_replica=True, insertions=Flow(per_s=10, even=True)
    )
    sessions = churn_list(churn, 100)
    read_ids(sessions)

    answers = [sessions.list_ids(1, 10**6, START_S + 10) for _ in range(60)]

    pairs = Counter((total, len(ids)) for total, ids in answers)
    assert set(pairs) == set(itertools.product((200, 170), repeat=2))


def test_rows_of_a_lagging_replica_are_the_former_ones() -> None:
    churn = Churn(replicas=(3.0,), run_s=10.0, insertions=Flow(per_s=1, limit=1, even=True))
    sessions = churn_list(churn, 0)
    read_ids(sessions)

    states = [[row["state"] for row in read_rows(sessions, after_s)] for after_s in (3, 12, 14)]

    assert states == [[], ["running"], states[2]]
    assert states[2][0] in {"terminated", "error"}


def test_page_is_answered_from_a_cache_and_owes_what_the_list_held() -> None:
    churn = Churn(page_cache_s=5.0, insertions=Flow(per_s=1, even=True))
    sessions = churn_list(churn, 100)
    early = sessions.list_ids(2, 10, START_S)

    cached = sessions.list_ids(2, 10, START_S + 4)
    other = sessions.list_ids(1, 20, START_S + 4)
    fresh = sessions.list_ids(2, 10, START_S + 5)

    assert cached == early
    assert other[0] == 104
    assert fresh[0] == 105
    assert fresh[1] != early[1]
    # From the time the row was cached, not from the time of its answer.
    assert len(sessions.truth(2, 2).allowed) == 104
    assert len(sessions.truth(2, 2).owed) == 100


def test_session_settles_after_its_end() -> None:
    churn = Churn(run_s=10.0, settle_s=60.0, insertions=Flow(per_s=1, limit=2, even=True))
    sessions = churn_list(churn, 0)
    read_ids(sessions)

    early, late, later = (read_rows(sessions, after_s) for after_s in (30.0, 100.0, 1_000.0))

    assert {row["state"] for row in early} <= {"terminated", "error"}
    assert [row["cuHours"] for row in early] < [row["cuHours"] for row in late]
    assert sum(not row.get("endTime") for row in early) == 1
    assert late == later


def test_odd_states_are_final_for_their_share() -> None:
    rows = read_rows(churn_list(Churn(run_s=1.0, odd_states=0.3)))

    assert 100 < sum(row["state"] == "killed" for row in rows) < 200


def test_brief_rows_are_of_the_same_sessions_in_the_same_order() -> None:
    churn = Churn(run_s=30.0, max_run_s=90.0, insertions=Flow(per_s=5), deletions=Flow(per_s=5))
    whole, brief = churn_list(churn), churn_list(churn, brief=True)

    for after_s in (0.0, 20.0, 60.0):
        total_count, rows = brief.list_rows(1, 10**6, START_S + after_s)
        expected = read_rows(whole, after_s)
        assert total_count == len(expected)
        for row, full in zip(rows, expected, strict=True):
            assert row["sessionId"] == full["sessionId"]
            assert row["createTime"] == full["createTime"]
            assert row.get("endTime") == full.get("endTime")
            assert (row["state"] == "running") is (full["state"] == "running")


def test_owed_rows_are_those_that_no_longer_change() -> None:
    churn = Churn(run_s=20.0, insertions=Flow(per_s=1, even=True), deletions=Flow(per_s=0.5))
    sessions = churn_list(churn, 100, brief=True)
    sessions.list_rows(1, 10, START_S)
    sessions.list_rows(1, 10, START_S + 30)
    sessions.list_rows(1, 10, START_S + 40)

    owed = sessions.owed_rows(2)

    final = {row["sessionId"]: row for row in sessions.sessions()}
    assert set(owed) <= sessions.truth(2).owed
    assert {row["state"] for row in owed.values()} == {"terminated"}
    assert owed == {session_id: final[session_id] for session_id in owed}
    assert len(sessions.truth(2).owed) - len(owed) in range(10, 21)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"order_by": OrderBy.END}, "order_by is end"),
        ({"touches": Flow(per_s=1)}, "touches move nothing"),
        ({"tells_order_time": True}, "tells_order_time of what is in order"),
        ({"run_s": 5.0, "max_run_s": 1.0}, "max_run_s is 1"),
        ({"replicas": (0.0, -1.0)}, "replicas lag by -1"),
        ({"page_sizes": (0,)}, "page_sizes has 0"),
        ({"total_step": 0}, "total_step is 0"),
        ({"time_step_ms": 0}, "time_step_ms is 0"),
        ({"shards": 0}, "shards is 0"),
        ({"depth": -1}, "depth is -1"),
        ({"twins": -0.1}, "twins is -0.1"),
    ],
)
def test_impossible_settings_are_refused_by_name(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Churn(**settings)
