import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from statistics import fmean, pvariance
from typing import Any

import aiohttp
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from exporter.emulator.churn import Churn, Flow, Order, PageFault
from exporter.emulator.generated_list import PageCache
from exporter.emulator.moving_list import MovingSessions, Truth
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.emulator.server import open_emulator
from exporter.errors import UsageError
from exporter.model import Gateway
from tests.support.examples import scale_examples

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
NEWEST_MS = 1_782_820_800_000
START_S = 5_000.0
MOVING: dict[str, Callable[[Flow], Churn]] = {
    "insertions": lambda flow: Churn(insertions=flow),
    "deletions": lambda flow: Churn(deletions=flow),
}
BUSY = Churn(insertions=Flow(per_s=50), expiries=Flow(per_s=20), deletions=Flow(per_s=20))


def churn_list(
    churn: Churn, session_count: int = 500, *, seed: int = 7, spacing_ms: int = 60_000
) -> MovingSessions:
    return MovingSessions(
        GATEWAY,
        churn,
        seed=seed,
        session_count=session_count,
        newest_created_ms=NEWEST_MS,
        spacing_ms=spacing_ms,
        cache=PageCache(10**7),
    )


def list_all(sessions: MovingSessions, now_s: float = START_S) -> list[str]:
    """All ids at one instant."""
    return sessions.list_ids(1, 10**6, now_s)[1]


def read_rows(
    sessions: MovingSessions, now_s: float, *, page_num: int = 1, page_size: int = 10**6
) -> list[dict[str, Any]]:
    rows = orjson.loads(sessions.page(page_num, page_size, now_s).rows)
    assert isinstance(rows, list)
    return rows


def read_naively(
    sessions: MovingSessions, *, in_flight: int, seed: int, latency_s: float = 0.04
) -> Counter[str]:
    """Page 1, then each page that its total implies, once."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    total_count, ids = sessions.list_ids(1, 100, START_S)
    seen = Counter(ids)
    page_nums = iter(range(2, -(-total_count // 100) + 1))
    asked = [(START_S, page_num) for page_num in itertools.islice(page_nums, in_flight)]
    asked = [(at_s + latency_s * chance.uniform(0.5, 1.5), page_num) for at_s, page_num in asked]
    heapq.heapify(asked)
    while asked:
        now_s, page_num = heapq.heappop(asked)
        seen.update(sessions.list_ids(page_num, 100, now_s)[1])
        for later in itertools.islice(page_nums, 1):
            heapq.heappush(asked, (now_s + latency_s * chance.uniform(0.5, 1.5), later))
    return seen


def read_until_empty(sessions: MovingSessions) -> Counter[str]:
    """One page after the other, until the present end of the list."""
    seen: Counter[str] = Counter()
    for page_num in itertools.count(1):
        ids = sessions.list_ids(page_num, 100, START_S + 0.04 * page_num)[1]
        if not ids:
            return seen
        seen.update(ids)
    raise AssertionError


IDS_BY_SERIAL = tuple(list_all(churn_list(Churn(order=Order.OLDEST_FIRST), 3_000)))
PLACES = {
    order: {
        session_id: place
        for place, session_id in enumerate(list_all(churn_list(Churn(order=order), 3_000)))
    }
    for order in Order
}
"""A still list of each order: the place of a session among all that may ever be inserted."""


class Model:
    """The model of a moving list: a whole copy of it for each change."""

    def __init__(self, churn: Churn, session_count: int) -> None:
        self.churn = churn
        self.now_s = 0.0
        self.inserted_count = session_count
        kept = list(IDS_BY_SERIAL[:session_count])
        if churn.keep_count is not None:
            kept = kept[max(0, len(kept) - churn.keep_count) :]
        self.states: list[tuple[float, list[str]]] = [(0.0, kept)]
        self.answers: list[int] = []

    def wait(self, wait_s: float) -> None:
        until_s = self.now_s + wait_s
        due: list[tuple[float, str]] = []
        for kind, flow in (("insert", self.churn.insertions), ("take", self.churn.expiries)):
            if flow.per_s > 0:
                gap_s = flow.burst / flow.per_s
                bursts = range(1, int(until_s / gap_s) + 1)
                times = [flow.start_s + n * gap_s for n in bursts for _ in range(flow.burst)]
                due += [(at_s, kind) for at_s in times[: flow.limit]]
        for at_s, kind in sorted(due):
            if self.now_s < at_s <= until_s:
                if kind == "insert":
                    self.insert(at_s)
                else:
                    self.expire(at_s)
        self.now_s = until_s

    def insert(self, at_s: float) -> None:
        self.note([*self.live(), IDS_BY_SERIAL[self.inserted_count]], at_s)
        self.inserted_count += 1
        if self.churn.keep_count is not None and len(self.live()) > self.churn.keep_count:
            self.expire(at_s)

    def expire(self, at_s: float) -> None:
        if self.live():
            self.note(self.live()[1:], at_s)

    def delete(self, position: int) -> None:
        taken = self.in_order(self.live())[position]
        self.note([each for each in self.live() if each != taken], self.now_s)

    def live(self) -> list[str]:
        """Oldest first."""
        return self.states[-1][1]

    def in_order(self, ids: list[str]) -> list[str]:
        return sorted(ids, key=PLACES[self.churn.order].__getitem__)

    def note(self, ids: list[str], at_s: float) -> None:
        self.states.append((at_s, ids))

    def list_ids(self, page_num: int, page_size: int) -> tuple[int, list[str]]:
        lag_s, lag_changes = self.churn.total_lag_s, self.churn.total_lag_changes
        shown = self.state_before(max(0, -lag_s), max(0, -lag_changes))
        counted = self.state_before(max(0, lag_s), max(0, lag_changes))
        self.answers.append(shown)
        rows = self.in_order(self.states[shown][1])
        size = min(page_size, self.churn.page_cap or page_size)
        return len(self.states[counted][1]), rows[(page_num - 1) * size :][:size]

    def state_before(self, lag_s: float, lag_changes: int) -> int:
        known = [n for n, (at_s, _) in enumerate(self.states) if at_s <= self.now_s - lag_s]
        return max(0, min([max(known, default=0), len(self.states) - 1 - lag_changes]))

    def truth(self, first_answer: int = 1) -> tuple[frozenset[str], frozenset[str]]:
        answers = self.answers[first_answer - 1 :]
        if not answers:
            return frozenset(), frozenset()
        held = [frozenset(ids) for _, ids in self.states[answers[0] : answers[-1] + 1]]
        return frozenset.intersection(*held), frozenset.union(*held)


EIGHTHS = st.integers(min_value=0, max_value=16).map(lambda eighths: eighths / 8)
EVEN_FLOWS = st.builds(
    Flow,
    per_s=st.sampled_from([0.0, 1.0, 4.0]),
    burst=st.sampled_from([1, 2, 4]),
    limit=st.sampled_from([None, 5]),
    start_s=EIGHTHS,
    even=st.just(True),
)
CHURNS = st.builds(
    Churn,
    order=st.sampled_from(Order),
    insertions=EVEN_FLOWS,
    expiries=EVEN_FLOWS,
    keep_count=st.sampled_from([None, 0, 12]),
    total_lag_s=st.sampled_from([0.0, 0.0, 0.5, -0.5]),
    total_lag_changes=st.sampled_from([0, 0, 3, -3]),
    page_cap=st.sampled_from([None, 7]),
)


class ChurningMachine(RuleBasedStateMachine):
    """The list and its model get the same changes and questions, in simulated time."""

    @initialize(churn=CHURNS, session_count=st.integers(0, 30), page_size=st.integers(1, 40))
    def start(self, churn: Churn, session_count: int, page_size: int) -> None:
        self.sessions = churn_list(churn, session_count)
        self.model = Model(churn, session_count)
        self.ask(1, page_size)

    @property
    def now_s(self) -> float:
        return START_S + self.model.now_s

    @rule(page_num=st.integers(1, 6), page_size=st.integers(1, 40))
    def ask(self, page_num: int, page_size: int) -> None:
        listed = self.sessions.list_ids(page_num, page_size, self.now_s)

        assert listed == self.model.list_ids(page_num, page_size)

    @rule(page_num=st.integers(1, 3))
    def read(self, page_num: int) -> None:
        page = self.sessions.page(page_num, 10, self.now_s)

        ids = [row["sessionId"] for row in orjson.loads(page.rows)]
        assert (page.total_count, ids) == self.model.list_ids(page_num, 10)

    @rule(wait_s=EIGHTHS)
    def wait(self, wait_s: float) -> None:
        self.model.wait(wait_s)

    @rule()
    def insert(self) -> None:
        self.sessions.insert(self.now_s)
        self.model.insert(self.model.now_s)

    @rule()
    def expire(self) -> None:
        self.sessions.expire(self.now_s)
        self.model.expire(self.model.now_s)

    @precondition(lambda self: len(self.model.live()) > 0)
    @rule(chance=st.integers(min_value=0))
    def delete(self, chance: int) -> None:
        position = chance % len(self.model.live())
        self.sessions.delete(position, self.now_s)
        self.model.delete(position)

    @rule(chance=st.integers(min_value=0))
    def ask_for_a_later_truth(self, chance: int) -> None:
        first_answer = 1 + chance % len(self.model.answers)
        truth = self.sessions.truth(first_answer)

        assert (truth.owed, truth.allowed) == self.model.truth(first_answer)

    @invariant()
    def truth_is_the_models(self) -> None:
        if hasattr(self, "model"):
            truth = self.sessions.truth()
            assert (truth.owed, truth.allowed) == self.model.truth()


TestChurningListIsAsASimpleModelSays = ChurningMachine.TestCase
TestChurningListIsAsASimpleModelSays.settings = settings(
    max_examples=scale_examples(200), stateful_step_count=40, deadline=None
)


@pytest.mark.parametrize("order", Order)
def test_equal_seeds_give_equal_bytes_and_other_seeds_give_others(order: Order) -> None:
    churn = replace(BUSY, order=order, tie_size=4, page_faults=(PageFault(rate=0.1),))

    def read(sessions: MovingSessions) -> list[object]:
        return [sessions.page(n % 5 + 1, 100, START_S + n / 20) for n in range(100)]

    sessions = churn_list(churn)
    first = read(sessions)
    sessions.restart()

    assert read(sessions) == first
    assert read(churn_list(churn)) == first
    assert read(churn_list(churn, seed=8)) != first


@given(pauses_s=st.lists(st.floats(0, 1), max_size=10))
@settings(deadline=None)
def test_list_is_the_same_at_one_instant_however_often_it_was_asked(pauses_s: list[float]) -> None:
    end_s = START_S + 10
    rarely, often = churn_list(BUSY), churn_list(BUSY)
    list_all(rarely)

    for now_s in itertools.accumulate(pauses_s, initial=START_S):
        list_all(often, now_s)

    assert list_all(often, end_s) == list_all(rarely, end_s)


def test_nothing_moves_before_the_first_question() -> None:
    early, late = churn_list(BUSY), churn_list(BUSY)

    assert list_all(early, 10.0) == list_all(late, 99_999.0)
    assert list_all(early, 12.5) == list_all(late, 100_001.5)


def test_clock_that_goes_back_stands_still() -> None:
    sessions = churn_list(BUSY)
    first = list_all(sessions, START_S)
    last = list_all(sessions, START_S + 10)

    assert list_all(sessions, START_S + 3) == last
    assert sessions.truth().owed == frozenset(first) & frozenset(last)
    assert list_all(sessions, START_S + 10) == last


def test_new_sessions_come_at_the_head_with_the_time_they_came_at() -> None:
    sessions = churn_list(Churn(insertions=Flow(per_s=4, even=True)))
    before = list_all(sessions)

    rows = read_rows(sessions, START_S + 1)

    assert [row["sessionId"] for row in rows[4:]] == before
    assert [row["createTime"] - NEWEST_MS for row in rows[:4]] == [1000, 750, 500, 250]


def test_random_gaps_vary_and_keep_the_rate() -> None:
    sessions = churn_list(Churn(insertions=Flow(per_s=50)), 0)
    list_all(sessions)

    times = [row["createTime"] for row in reversed(read_rows(sessions, START_S + 200))]

    gaps_s = [(b - a) / 1000 for a, b in itertools.pairwise(times)]
    assert 9_500 <= len(times) <= 10_500
    # The deviation of exponential gaps is as large as their mean.
    assert 0.9 < pvariance(gaps_s) ** 0.5 / fmean(gaps_s) < 1.1


def test_burst_happens_at_once_and_keeps_the_rate() -> None:
    sessions = churn_list(Churn(insertions=Flow(per_s=10, burst=20)), 0)
    list_all(sessions)

    counts = {len(list_all(sessions, START_S + n)) for n in range(1, 500)}

    assert all(count % 20 == 0 for count in counts)
    assert 4_000 <= max(counts) <= 6_000


def test_insertions_end_at_their_limit_and_may_outnumber_the_first_rows() -> None:
    sessions = churn_list(Churn(insertions=Flow(per_s=50, limit=300)), 7)
    list_all(sessions)

    assert len(list_all(sessions, START_S + 100)) == len(list_all(sessions, START_S + 200)) == 307


def test_list_grows_from_nothing_and_shrinks_to_nothing() -> None:
    growing = churn_list(Churn(insertions=Flow(per_s=2, even=True)), 0)
    shrinking = churn_list(Churn(deletions=Flow(per_s=10)), 50)

    assert growing.list_ids(1, 100, START_S) == (0, [])
    assert growing.list_ids(1, 100, START_S + 1)[0] == 2
    assert shrinking.list_ids(1, 100, START_S)[0] == 50
    assert shrinking.list_ids(1, 100, START_S + 1_000) == (0, [])
    assert shrinking.truth().owed == frozenset()
    assert len(shrinking.truth().allowed) == 50


def test_expiry_takes_the_oldest_and_deletion_any() -> None:
    expiring = churn_list(Churn(expiries=Flow(per_s=10)))
    deleting = churn_list(Churn(deletions=Flow(per_s=10)))
    before = list_all(expiring)
    list_all(deleting)

    expired = list_all(expiring, START_S + 10)
    kept = set(list_all(deleting, START_S + 10))

    removed = [position for position, each in enumerate(before) if each not in kept]
    assert expired == before[: len(expired)]
    assert len(expired) < 450
    assert min(removed) < 100
    assert max(removed) > 400


@pytest.mark.parametrize("order", Order)
def test_retention_by_age_keeps_exactly_the_younger_sessions(order: Order) -> None:
    churn = Churn(order=order, keep_age_s=30.0, insertions=Flow(per_s=20, limit=100))
    sessions = churn_list(churn, 1_000, spacing_ms=100)

    for second in (0, 1, 2.5, 20, 29):
        rows = read_rows(sessions, START_S + second)
        ages_s = [second - (row["createTime"] - NEWEST_MS) / 1000 for row in rows]
        inserted_count = sum(age_s < second for age_s in ages_s)
        assert 0 <= min(ages_s) <= max(ages_s) < 30.0
        assert abs(len(rows) - inserted_count - 10 * (30 - second)) <= 1
    assert len(list_all(sessions, START_S + 1_000)) == 0


def test_retention_by_count_holds_from_the_first_answer_on() -> None:
    sessions = churn_list(Churn(keep_count=100, insertions=Flow(per_s=10)), 500)

    totals = {sessions.list_ids(1, 1, START_S + n)[0] for n in range(50)}

    assert totals == {100}
    assert len(sessions.truth().allowed) == 100 + sessions.truth().inserted_count


def test_oldest_first_list_is_the_reverse_of_newest_first() -> None:
    newest_first = churn_list(BUSY)
    oldest_first = churn_list(replace(BUSY, order=Order.OLDEST_FIRST, deletions=Flow()))
    still = churn_list(replace(BUSY, deletions=Flow()))

    assert list_all(oldest_first) == list_all(newest_first)[::-1]
    assert list_all(still) == list_all(newest_first)
    assert list_all(oldest_first, START_S + 9) == list_all(still, START_S + 9)[::-1]


def test_unordered_list_has_no_order_yet_a_stable_one() -> None:
    sessions = churn_list(replace(BUSY, order=Order.UNORDERED))
    before = list_all(sessions)
    times = [row["createTime"] for row in read_rows(sessions, START_S)]

    after = list_all(sessions, START_S + 5)

    new = [position for position, each in enumerate(after) if each not in before]
    up = sum(a < b for a, b in itertools.pairwise(times))
    assert 200 < up < 300
    assert [each for each in after if each in before] == [each for each in before if each in after]
    assert min(new) < 100
    assert max(new) > len(after) - 100


def test_ties_share_a_create_time_and_are_drawn_anew_for_each_answer() -> None:
    sessions = churn_list(Churn(tie_size=9, insertions=Flow(per_s=30, even=True)), 500)
    list_all(sessions)

    answers = [read_rows(sessions, START_S + 1) for _ in range(5)]

    runs = [[row["createTime"] for row in rows] for rows in answers]
    groups = [len(list(group)) for _, group in itertools.groupby(runs[0])]
    orders = {tuple(row["sessionId"] for row in rows) for rows in answers}
    # 530 sessions: the newest group is not yet full.
    assert groups == [8, *[9] * 58]
    assert all(run == runs[0] == sorted(run, reverse=True) for run in runs)
    assert len(orders) == 5


def test_tie_is_drawn_as_a_whole_though_a_page_shows_a_part_of_it() -> None:
    sessions = churn_list(Churn(tie_size=9), 900)
    first_tie = set(churn_list(Churn(), 900).list_ids(1, 9, START_S)[1])

    seen = [sessions.list_ids(page_num, 1, START_S)[1][0] for page_num in [1, 5, 9] * 60]

    assert [set(seen[place::3]) for place in range(3)] == [first_tie] * 3


def test_session_that_joins_a_tie_past_its_age_leaves_when_it_comes() -> None:
    churn = Churn(tie_size=4, keep_age_s=1.0, insertions=Flow(per_s=1, limit=1, even=True))
    sessions = churn_list(churn, 1)
    list_all(sessions)

    listed = list_all(sessions, START_S + 5)

    assert listed == []
    assert sessions.allowed(START_S, START_S + 0.5) == frozenset()
    assert len(sessions.allowed(START_S, START_S + 1.0)) == 1


def test_pages_of_shuffled_ties_may_double_a_row_and_miss_its_neighbour() -> None:
    sessions = churn_list(Churn(tie_size=9), 1_000)

    seen = read_naively(sessions, in_flight=1, seed=1)

    truth = sessions.truth()
    assert seen.total() == len(truth.owed) == 1_000
    assert len(truth.lost(seen)) == sum(count - 1 for count in seen.values()) > 0


@pytest.mark.parametrize("flow", ["insertions", "deletions"])
def test_late_total_is_too_small_or_too_large(flow: str) -> None:
    churn = MOVING[flow](Flow(per_s=8, even=True))
    by_time = churn_list(replace(churn, total_lag_s=0.5), 100)
    by_count = churn_list(replace(churn, total_lag_changes=4), 100)
    sign = 1 if flow == "insertions" else -1

    for sessions in (by_time, by_count):
        assert sessions.list_ids(1, 10**6, START_S)[0] == 100
        total_count, ids = sessions.list_ids(1, 10**6, START_S + 2)
        assert len(ids) == 100 + sign * 16
        assert total_count == 100 + sign * 12


def test_late_total_is_the_former_one_for_all_kinds_of_changes() -> None:
    churn = replace(BUSY, keep_age_s=40.0)
    late = churn_list(replace(churn, total_lag_s=0.5), spacing_ms=100)
    prompt = churn_list(churn, spacing_ms=100)

    list_all(late)

    totals = [
        (prompt.list_ids(1, 1, now_s)[0], late.list_ids(1, 1, now_s + 0.5)[0])
        for now_s in (START_S + eighth / 8 for eighth in range(100))
    ]

    assert all(then == stated for then, stated in totals)


def test_late_rows_make_the_total_too_large_and_owe_what_was_shown() -> None:
    churn = Churn(total_lag_s=-0.5, insertions=Flow(per_s=8, even=True))
    sessions = churn_list(churn, 100)
    list_all(sessions)

    total_count, ids = sessions.list_ids(1, 10**6, START_S + 2)

    assert (total_count, len(ids)) == (116, 112)
    assert sessions.truth().allowed == frozenset(ids)


def test_page_size_is_capped_in_silence() -> None:
    capped, plain = churn_list(Churn(page_cap=40)), churn_list(Churn())

    for page_num in (1, 2, 13, 14):
        expected = plain.list_ids(page_num, 40, START_S)
        assert capped.list_ids(page_num, 100, START_S) == expected
        assert capped.list_ids(page_num, 40, START_S) == expected
    assert capped.list_ids(2, 7, START_S) == plain.list_ids(2, 7, START_S)


def test_short_page_lacks_its_last_rows_and_states_the_whole_total() -> None:
    fault = PageFault(missing_count=3, page_nums=(2, 5), once=False)
    sessions, plain = churn_list(Churn(page_faults=(fault,))), churn_list(Churn())

    for page_num in (1, 2, 3, 2, 5, 6):
        total_count, ids = sessions.list_ids(page_num, 100, START_S)
        whole = plain.list_ids(page_num, 100, START_S)[1]
        assert total_count == 500
        assert ids == (whole[:-3] if page_num in (2, 5) else whole)


def test_empty_page_in_the_middle_is_empty_once() -> None:
    sessions = churn_list(Churn(page_faults=(PageFault(page_nums=(3,)),)))

    lengths = [len(sessions.list_ids(n, 100, START_S)[1]) for n in (2, 3, 4, 3)]

    assert lengths == [100, 0, 100, 100]


def test_faults_by_rate_hit_that_share_of_the_answers() -> None:
    sessions = churn_list(Churn(page_faults=(PageFault(rate=0.2, missing_count=1),)))

    lengths = Counter(len(sessions.list_ids(n % 5 + 1, 100, START_S)[1]) for n in range(2_000))

    assert set(lengths) == {99, 100}
    assert 320 <= lengths[99] <= 480


def test_answer_without_rows_is_null_if_set() -> None:
    null = churn_list(Churn(null_when_empty=True), 0).page(1, 100, START_S)
    empty = churn_list(Churn(), 0).page(1, 100, START_S)

    assert (null.total_count, null.rows) == (0, b"null")
    assert (empty.total_count, empty.rows) == (0, b"[]")


def test_session_runs_grows_and_ends_while_its_id_stays() -> None:
    sessions = churn_list(Churn(run_s=10.0, insertions=Flow(per_s=1, limit=1, even=True)), 0)
    list_all(sessions)

    (young,), (older,), (ended,), (later,) = (
        read_rows(sessions, START_S + second) for second in (2, 6, 11, 99)
    )

    assert young["sessionId"] == older["sessionId"] == ended["sessionId"]
    assert [young["state"], older["state"]] == ["running", "running"]
    assert [young.get("endTime"), older.get("endTime")] == [0, 0]
    assert young["vcoreSeconds"] < older["vcoreSeconds"] < ended["vcoreSeconds"]
    assert young["cuHours"] < older["cuHours"] < ended["cuHours"]
    assert ended["state"] in {"terminated", "error"}
    assert ended["endTime"] == NEWEST_MS + 11_000
    assert later == ended


def test_restart_lets_ended_sessions_run_again() -> None:
    sessions = churn_list(Churn(run_s=3600.0), 100)
    first = read_rows(sessions, START_S)
    read_rows(sessions, START_S + 10_000)

    sessions.restart()

    assert read_rows(sessions, START_S + 20_000) == first


def test_truth_between_two_instants_is_the_one_between_the_answers_then() -> None:
    sessions = churn_list(BUSY)
    for second in range(10):
        list_all(sessions, START_S + second)

    truth = sessions.truth(first_answer=3, last_answer=8)

    assert truth.answer_count == 10
    assert truth.owed == sessions.owed(START_S + 2, START_S + 7)
    assert truth.allowed == sessions.allowed(START_S + 2, START_S + 7)
    assert truth.owed < truth.allowed
    came = truth.allowed - frozenset(list_all(churn_list(BUSY)))
    assert truth.inserted_count > 150
    assert truth.deleted_count > 100
    assert len(came) >= truth.inserted_count


def test_without_an_answer_nothing_is_owed_nor_allowed() -> None:
    truth = churn_list(BUSY).truth()

    assert (truth.owed, truth.allowed, truth.answer_count) == (frozenset(), frozenset(), 0)


def test_truth_survives_json() -> None:
    sessions = churn_list(BUSY)
    list_all(sessions)
    list_all(sessions, START_S + 1)

    assert Truth.from_json(sessions.truth().to_json()) == sessions.truth()


@pytest.mark.parametrize("in_flight", [1, 16])
def test_naive_reader_loses_nothing_of_a_still_list(in_flight: int) -> None:
    sessions = churn_list(Churn(), 20_000)

    seen = read_naively(sessions, in_flight=in_flight, seed=1)

    assert sessions.truth().owed == sessions.truth().allowed == frozenset(seen)
    assert max(seen.values()) == 1


@pytest.mark.parametrize("seed", range(10))
def test_naive_reader_with_requests_in_flight_loses_rows_under_insertions(seed: int) -> None:
    sessions = churn_list(Churn(insertions=Flow(per_s=50)), 20_000, seed=seed)

    seen = read_naively(sessions, in_flight=16, seed=seed)

    truth = sessions.truth()
    assert len(truth.lost(seen)) >= 5
    assert max(seen.values()) == 2
    assert truth.foreign(seen) == frozenset()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("flow", ["deletions", "insertions"])
def test_naive_reader_one_by_one_loses_rows_under_deletions_only(flow: str, seed: int) -> None:
    sessions = churn_list(MOVING[flow](Flow(per_s=10)), 5_000, seed=seed)

    seen = read_until_empty(sessions)

    assert (len(sessions.truth().lost(seen)) > 0) is (flow == "deletions")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Flow(per_s=-1), "per_s is -1"),
        (lambda: Flow(per_s=float("nan")), "per_s is nan"),
        (lambda: Flow(burst=0), "burst is 0"),
        (lambda: Flow(limit=-1), "limit is -1"),
        (lambda: PageFault(rate=-0.5), "rate is -0.5"),
        (lambda: Churn(tie_size=0), "tie_size is 0"),
        (lambda: Churn(page_cap=0), "page_cap is 0"),
        (lambda: Churn(keep_count=-1), "keep_count is -1"),
    ],
)
def test_number_out_of_its_range_is_refused_by_name(
    build: Callable[[], object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        build()


class FakeClock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now_s = START_S

    def __call__(self) -> float:
        return self.now_s


def moving_scenario(churn: Churn) -> Scenario:
    gateways = (
        EmulatedGateway(gateway_id="lc-1", name="moving", session_count=250, churn=churn),
        EmulatedGateway(gateway_id="lc-2", name="still", session_count=250),
    )
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one", gateways=gateways)
    return Scenario(anonymous=True, workspaces=(workspace,))


async def ask(
    client: aiohttp.ClientSession, endpoint: str, page_num: int = 1
) -> tuple[int, list[str]]:
    url = f"{endpoint}/api/v1/workspaces/w-1/livycompute/lc-1/session"
    async with client.get(url, params={"pageNum": page_num, "pageSize": 100}) as answer:
        body = orjson.loads(await answer.read())
    return body["totalCount"], [row["sessionId"] for row in body["sessions"]]


async def test_emulator_serves_a_moving_list_by_its_clock_and_knows_the_truth() -> None:
    clock = FakeClock()
    scenario = moving_scenario(Churn(insertions=Flow(per_s=10, even=True)))
    async with (
        open_emulator(scenario, monotonic_s=clock) as emulator,
        aiohttp.ClientSession() as client,
    ):
        first_total, first_ids = await ask(client, emulator.endpoint)
        clock.now_s += 2
        last_total, last_ids = await ask(client, emulator.endpoint)
        truth = emulator.truth("w-1", "lc-1")
        second_truth = emulator.truth("w-1", "lc-1", first_answer=2)

    assert (first_total, last_total) == (250, 270)
    assert first_ids[:80] == last_ids[20:]
    assert (len(truth.owed), len(truth.allowed)) == (250, 270)
    assert (truth.inserted_count, truth.deleted_count, truth.answer_count) == (20, 0, 2)
    assert second_truth.owed == second_truth.allowed == truth.allowed


async def test_truth_is_served_on_loopback_and_restarts_after_a_reset() -> None:
    clock = FakeClock()
    scenario = moving_scenario(Churn(insertions=Flow(per_s=10, even=True)))
    async with (
        open_emulator(scenario, monotonic_s=clock) as emulator,
        aiohttp.ClientSession() as client,
    ):

        async def fetch_truth(query: str) -> tuple[int, bytes]:
            url = f"{emulator.endpoint}/emulator/truth?{query}"
            async with client.get(url) as answer:
                return answer.status, await answer.read()

        await ask(client, emulator.endpoint)
        clock.now_s += 2
        await ask(client, emulator.endpoint)
        status, text = await fetch_truth("workspace=w-1&gateway=lc-1")
        _, later_text = await fetch_truth("workspace=w-1&gateway=lc-1&first_answer=2")
        unknown_status, _ = await fetch_truth("workspace=w-1&gateway=lc-9")
        bad_status, _ = await fetch_truth("workspace=w-1&gateway=lc-1&first_answer=none")
        truths = [emulator.truth("w-1", "lc-1"), emulator.truth("w-1", "lc-1", first_answer=2)]
        async with client.post(f"{emulator.endpoint}/emulator/reset") as answer:
            await answer.read()
        total_after_reset, _ = await ask(client, emulator.endpoint)

    assert (status, unknown_status, bad_status) == (200, 404, 400)
    assert [Truth.from_json(text), Truth.from_json(later_text)] == truths
    assert total_after_reset == 250


async def test_still_gateway_owes_all_it_has() -> None:
    async with open_emulator(moving_scenario(BUSY)) as emulator:
        truth = emulator.truth("w-1", "lc-2")
        ids = {session["sessionId"] for session in emulator.sessions("w-1", "lc-2")}

        with pytest.raises(KeyError):
            emulator.truth("w-1", "lc-9")

    assert truth.owed == truth.allowed == ids
