"""Answers that differ from the list."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from exporter.emulator.churn import Churn, Cleanup, DoubledRow, Flow, Order, PageFault
from exporter.emulator.generated_list import PageCache
from exporter.emulator.moving_list import MovingSessions
from exporter.model import Gateway

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
START_S = 5_000.0


def churn_list(churn: Churn, session_count: int = 500) -> MovingSessions:
    return MovingSessions(
        GATEWAY,
        churn,
        seed=7,
        session_count=session_count,
        newest_created_ms=1_782_820_800_000,
        spacing_ms=1_000,
        cache=PageCache(10**7),
    )


def ask(
    sessions: MovingSessions, page_num: int, page_size: int = 100, after_s: float = 0.0
) -> tuple[int, list[str]]:
    return sessions.list_ids(page_num, page_size, START_S + after_s)


PLAIN = {page_num: ask(churn_list(Churn()), page_num)[1] for page_num in range(1, 8)}


# Totals


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"total_cap": 300}, 300),
        ({"total_cap": 0}, 0),
        ({"total_cap": 600}, 500),
        ({"total_step": 200}, 400),
        ({"total_step": 1_000}, 0),
        ({"total_offset": 7}, 507),
        ({"total_offset": -7}, 493),
        ({"total_offset": -700}, 0),
        ({"total_offset": 90, "total_step": 100, "total_cap": 450}, 450),
    ],
)
def test_total_is_wrong_and_rows_continue(settings: dict[str, Any], expected: int) -> None:
    sessions = churn_list(Churn(**settings))

    assert [ask(sessions, page_num) for page_num in (1, 5, 6)] == [
        (expected, PLAIN[page_num]) for page_num in (1, 5, 6)
    ]
    assert len(sessions.truth().owed) == 500


def test_total_stays_as_long_as_it_is_cached() -> None:
    sessions = churn_list(Churn(total_cache_s=5.0, insertions=Flow(per_s=1, even=True)))

    totals = [ask(sessions, 1, after_s=after_s)[0] for after_s in (0, 4.9, 5, 9, 10.1)]

    assert totals == [500, 500, 505, 505, 510]


def test_each_replica_caches_its_own_total() -> None:
    churn = Churn(total_cache_s=60.0, replicas=(0.0, 2.0, 4.0), insertions=Flow(per_s=1, even=True))
    sessions = churn_list(churn)
    ask(sessions, 1)

    early = {ask(sessions, 1, after_s=10)[0] for _ in range(60)}
    late = {ask(sessions, 1, after_s=50)[0] for _ in range(60)}

    assert early == late
    assert len(early) == 3
    assert early <= {500, 506, 508, 510}


# Rows that are not shown


def test_no_row_is_shown_behind_the_depth_and_all_are_owed() -> None:
    sessions = churn_list(Churn(depth=250))

    answers = [ask(sessions, page_num) for page_num in range(1, 6)]

    assert {total for total, _ in answers} == {500}
    assert [len(ids) for _, ids in answers] == [100, 100, 50, 0, 0]
    assert len(sessions.truth().owed) == 500


def test_no_page_behind_the_last_number_has_a_row() -> None:
    sessions = churn_list(Churn(max_page_num=3))

    assert [len(ask(sessions, page_num)[1]) for page_num in (2, 3, 4)] == [100, 100, 0]
    assert len(ask(sessions, 3, 60)[1]) == 60


def test_rows_withheld_leave_their_pages_short_and_are_not_owed() -> None:
    sessions = churn_list(Churn(withheld=0.1))

    answers = [ask(sessions, page_num) for page_num in range(1, 6)]

    shown = [each for _, ids in answers for each in ids]
    assert {total for total, _ in answers} == {500}
    assert all(70 < len(ids) < 100 for _, ids in answers)
    assert sessions.truth().owed == frozenset(shown)
    assert {row["sessionId"] for row in sessions.sessions()} == set(shown)


def test_answers_are_empty_by_their_number() -> None:
    sessions = churn_list(
        Churn(page_faults=(PageFault(answers=(2, 4), zero_total=True),)),
    )

    answers = [ask(sessions, 1) for _ in range(5)]

    assert answers == [(500, PLAIN[1]), (0, []), (500, PLAIN[1]), (0, []), (500, PLAIN[1])]


def test_empty_answers_may_state_the_right_total_or_zero() -> None:
    faulty = churn_list(Churn(page_faults=(PageFault(page_nums=(1, 3)),)))
    none = churn_list(Churn(page_faults=(PageFault(page_nums=(1, 3), zero_total=True),)))

    assert [ask(faulty, page_num) for page_num in (1, 1, 3)] == [
        (500, []),
        (500, PLAIN[1]),
        (500, []),
    ]
    assert [ask(none, page_num) for page_num in (1, 1, 3)] == [(0, []), (500, PLAIN[1]), (0, [])]


def test_empty_answers_come_at_their_rate() -> None:
    sessions = churn_list(Churn(page_faults=(PageFault(rate=0.1, zero_total=True),)))

    totals = Counter(ask(sessions, 1)[0] for _ in range(1_000))

    assert 60 <= totals[0] <= 140
    assert totals[0] + totals[500] == 1_000


def test_empty_answers_last_for_a_while() -> None:
    fault = PageFault(rate=1.0, zero_total=True, start_s=2.0, lasts_s=3.0)
    sessions = churn_list(Churn(page_faults=(fault,)))

    totals = [ask(sessions, 1, after_s=after_s)[0] for after_s in (0, 1.9, 2, 5, 5.1)]

    assert totals == [500, 500, 0, 0, 500]


def test_no_page_is_hit_twice_in_succession_if_the_next_is_spared() -> None:
    fault = PageFault(rate=1.0, zero_total=True, spares_next=True)
    sessions = churn_list(Churn(page_faults=(fault,)))

    totals = [ask(sessions, page_num)[0] for page_num in (1, 2, 1, 1, 2, 3)]

    assert totals == [0, 0, 500, 0, 500, 0]


# Rows that are shown twice


def test_doubled_row_hides_the_one_behind_it_in_one_answer() -> None:
    sessions = churn_list(Churn(doubled_rows=(DoubledRow(rate=0.3),)))

    answers = [ask(sessions, 2)[1] for _ in range(200)]

    doubled = [ids for ids in answers if ids != PLAIN[2]]
    places = [next(n for n in range(100) if ids[n] != PLAIN[2][n]) for ids in doubled]
    assert 40 <= len(doubled) <= 80
    for ids, place in zip(doubled, places, strict=True):
        assert ids == [*PLAIN[2][:place], PLAIN[2][place - 1], *PLAIN[2][place + 1 :]]
    assert len(set(places)) > 20
    assert len(sessions.truth().owed) == 500


def test_doubled_row_stays_for_a_while_on_that_page_alone() -> None:
    sessions = churn_list(Churn(doubled_rows=(DoubledRow(rate=1.0, lasts_s=5.0),)))

    first = ask(sessions, 2)[1]

    assert first != PLAIN[2]
    assert ask(sessions, 2, after_s=4.9)[1] == first
    assert ask(sessions, 2, after_s=5.0)[1] not in (first, PLAIN[2])
    assert len(set(ask(sessions, 2, 99)[1])) == 98


def test_row_doubled_across_pages_hides_the_first_one() -> None:
    sessions = churn_list(Churn(doubled_rows=(DoubledRow(rate=1.0, across_pages=True),)))

    assert ask(sessions, 1)[1] == PLAIN[1]
    assert ask(sessions, 2)[1] == [PLAIN[1][-1], *PLAIN[2][1:]]
    assert ask(sessions, 6)[1] == []


def test_twins_are_one_session_in_two_neighbouring_rows() -> None:
    sessions = churn_list(Churn(twins=0.2, insertions=Flow(per_s=10, limit=100)))
    ask(sessions, 1)

    total_count, ids = ask(sessions, 1, 10**6, after_s=60)

    rows = list(sessions.sessions())
    assert total_count == len(ids) == len(rows) == 600
    assert 420 < len(set(ids)) < 540
    assert [row["sessionId"] for row in rows] == ids
    times = [row["createTime"] for row in rows]
    assert times == sorted(times, reverse=True)
    assert len({row["createTime"] for row in rows}) == len(set(ids))
    assert sessions.truth().allowed == frozenset(ids)


def test_twins_apart_are_one_session_in_two_rows_anywhere() -> None:
    sessions = churn_list(Churn(twins=0.1, twins_apart=True))

    total_count, ids = ask(sessions, 1, 10**6)

    places: dict[str, list[int]] = {}
    for place, session_id in enumerate(ids):
        places.setdefault(session_id, []).append(place)
    apart = [found[-1] - found[0] for found in places.values() if len(found) > 1]
    assert total_count == len(ids) == 500
    assert 25 < len(apart) < 75
    assert max(apart) > 200
    rows = {row["sessionId"]: row for row in sessions.sessions()}
    assert all(rows[row["sessionId"]] == row for row in sessions.sessions())
    assert sessions.truth().owed == frozenset(ids)


# Pages


def test_page_behind_the_end_is_the_last_one_again() -> None:
    sessions = churn_list(Churn(last_page_again=True), 450)

    last = ask(sessions, 5)

    assert len(last[1]) == 50
    assert ask(sessions, 6) == ask(sessions, 600) == last
    assert ask(churn_list(Churn(last_page_again=True), 0), 3) == (0, [])


def test_page_sizes_are_rounded_to_those_that_are_known() -> None:
    sessions = churn_list(Churn(page_sizes=(10, 50)))
    plain = churn_list(Churn())

    for asked, counted in ((3, 10), (10, 10), (11, 50), (50, 50), (100, 50)):
        assert ask(sessions, 3, asked) == ask(plain, 3, counted)


def test_page_size_is_capped_in_some_answers() -> None:
    sessions = churn_list(Churn(page_cap=30, page_cap_share=0.5))
    capped = ask(churn_list(Churn()), 2, 30)[1]

    answers = Counter(tuple(ask(sessions, 2)[1]) for _ in range(200))

    assert set(answers) == {tuple(capped), tuple(PLAIN[2])}
    assert 60 <= answers[tuple(capped)] <= 140


# All faults together


EVERYTHING = Churn(
    insertions=Flow(per_s=20),
    deletions=Flow(per_s=5),
    cleanups=(Cleanup(at_s=2.0, count=50),),
    replicas=(0.0, 1.0),
    total_of_any_replica=True,
    total_cache_s=0.5,
    total_cap=450,
    doubled_rows=(DoubledRow(rate=0.2, lasts_s=0.5), DoubledRow(rate=0.1, across_pages=True)),
    page_faults=(PageFault(rate=0.1, zero_total=True),),
    page_cap=60,
    page_cap_share=0.3,
    tie_size=5,
    twins=0.05,
)


@pytest.mark.parametrize("order", Order)
def test_equal_seeds_give_equal_answers_and_a_restart_the_same_again(order: Order) -> None:
    def read(sessions: MovingSessions) -> list[object]:
        return [sessions.page(n % 6 + 1, 100, START_S + n / 20) for n in range(120)]

    churn = replace(EVERYTHING, order=order)
    sessions = churn_list(churn)
    first = read(sessions)
    truth = sessions.truth()
    sessions.restart()

    assert read(sessions) == first == read(churn_list(churn))
    assert sessions.truth() == truth


def test_no_answer_shows_what_is_not_allowed() -> None:
    sessions = churn_list(EVERYTHING)
    seen: set[str] = set()

    for number in range(200):
        seen.update(ask(sessions, number % 6 + 1, after_s=number / 20)[1])

    truth = sessions.truth()
    assert not truth.foreign(seen)
    assert truth.owed <= truth.allowed
    assert len(truth.lost(seen)) < 20
