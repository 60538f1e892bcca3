"""The promise itself, over thousands of interleavings of a list that moves with requests in flight.

Every session that the list held at the first answer's instant and still held at the last one's is
delivered exactly once, and any other one at most once, whenever the proof is not `unproven`.
"""

import random
from collections import Counter

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from exporter.emulator.churn import Churn, Flow, Order, PageFault
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.model import SessionPage
from tests.support.examples import scale_examples
from tests.support.simulation import GATEWAY, Outcome, build_list, read_in_full, read_naively

FLOWS = st.builds(
    Flow, per_s=st.sampled_from([0.0, 5.0, 20.0, 100.0]), burst=st.sampled_from([1, 1, 3, 30])
)
HONEST = {
    "insertions": FLOWS,
    "expiries": FLOWS,
    "deletions": FLOWS,
    "order": st.sampled_from(Order),
    "tie_size": st.sampled_from([1, 1, 2, 4, 9]),
    "keep_count": st.sampled_from([None, None, 0, 5, 50, 200]),
    "page_cap": st.sampled_from([None, None, 1, 3, 7]),
    "null_when_empty": st.booleans(),
}
FAULTS = st.builds(
    PageFault,
    missing_count=st.sampled_from([None, 1, 3]),
    rate=st.sampled_from([0.0, 0.05, 0.3]),
    page_nums=st.sampled_from([(), (1,), (2,), (3, 5)]),
    once=st.booleans(),
)
CHURNS = st.one_of(
    st.builds(Churn, **HONEST),
    st.builds(Churn, page_faults=st.tuples(FAULTS), **HONEST),
    st.builds(Churn, total_lag_changes=st.sampled_from([1, 3, -1, -3]), **HONEST),
    st.builds(Churn, total_lag_s=st.sampled_from([0.05, 0.5, -0.05]), **HONEST),
)
"""Lists that move in any way, and answers that mislead in at most one."""
COUNTS = st.sampled_from([0, 1, 9, 10, 11, 25, 60, 200])


def read(churn: Churn, session_count: int, *, page_size: int, in_flight: int, seed: int) -> Outcome:
    return read_in_full(
        build_list(churn, session_count, seed=seed),
        in_flight=in_flight,
        latency_s=0.04,
        seed=seed,
        page_size=page_size,
    )


@settings(max_examples=scale_examples(150), deadline=None)
@given(
    churn=CHURNS,
    session_count=COUNTS,
    page_size=st.sampled_from([1, 2, 5, 10, 10, 20]),
    in_flight=st.sampled_from([1, 2, 4, 8, 16]),
    seed=st.integers(0, 2**32),
)
def test_proven_listing_is_complete_and_without_doubles(
    churn: Churn, session_count: int, page_size: int, in_flight: int, seed: int
) -> None:
    outcome = read(churn, session_count, page_size=page_size, in_flight=in_flight, seed=seed)

    assert outcome.facts is not None
    assert outcome.doubled_count == outcome.foreign_count == 0
    if outcome.facts.proof != "unproven":
        assert outcome.lost_count == 0
    assert (outcome.facts.missing == "") == (outcome.facts.proof != "unproven")
    assert outcome.facts.session_count == outcome.seen.total()


BENIGN = {
    "insertions": Churn(insertions=Flow(per_s=50)),
    "retention": Churn(insertions=Flow(per_s=20), expiries=Flow(per_s=20)),
    "retention by count": Churn(insertions=Flow(per_s=20), keep_count=2_000),
    "deletions": Churn(insertions=Flow(per_s=20), deletions=Flow(per_s=20)),
    "deletions of many": Churn(deletions=Flow(per_s=300, burst=30)),
    "ties": Churn(tie_size=9),
    "ties and insertions": Churn(tie_size=9, insertions=Flow(per_s=20)),
    "ties and deletions": Churn(tie_size=4, deletions=Flow(per_s=20)),
    "oldest first": Churn(
        order=Order.OLDEST_FIRST, insertions=Flow(per_s=20), deletions=Flow(per_s=20)
    ),
    "no order": Churn(order=Order.UNORDERED),
    "total behind insertions": Churn(insertions=Flow(per_s=20), total_lag_changes=3),
    "total behind deletions": Churn(deletions=Flow(per_s=20), total_lag_s=0.1),
    "short pages": Churn(page_faults=(PageFault(missing_count=1, rate=0.05),)),
    "empty pages": Churn(page_faults=(PageFault(page_nums=(1, 7)),), null_when_empty=True),
    "capped pages": Churn(insertions=Flow(per_s=20), page_cap=50),
}


@pytest.mark.parametrize("name", BENIGN)
def test_list_that_moves_at_a_natural_rate_is_proven(name: str) -> None:
    outcomes = [
        read(BENIGN[name], 2_000, page_size=100, in_flight=16, seed=seed) for seed in range(5)
    ]

    proofs = Counter(outcome.facts.proof for outcome in outcomes if outcome.facts is not None)
    assert proofs["unproven"] == 0
    assert sum(outcome.lost_count + outcome.doubled_count for outcome in outcomes) == 0


@pytest.mark.parametrize("name", ["insertions", "retention", "deletions", "ties"])
def test_naive_reader_loses_sessions_of_the_same_lists(name: str) -> None:
    outcomes = [
        read_naively(
            build_list(BENIGN[name], 5_000, seed=seed), in_flight=16, latency_s=0.04, seed=seed
        )
        for seed in range(5)
    ]

    assert sum(outcome.lost_count for outcome in outcomes) > 0


@pytest.mark.parametrize("session_count", [0, 1, 99, 100, 101])
@pytest.mark.parametrize("churn", BENIGN.values(), ids=BENIGN)
def test_list_of_about_a_page_keeps_the_promise(churn: Churn, session_count: int) -> None:
    for seed in range(5):
        outcome = read(churn, session_count, page_size=100, in_flight=4, seed=seed)

        assert outcome.facts is not None
        # A list that has only begun, and tells no total yet, may be anything.
        has_begun = session_count > 0 or churn.total_lag_changes == 0
        assert outcome.facts.proof != "unproven" or not has_begun
        assert outcome.lost_count == outcome.doubled_count == outcome.foreign_count == 0


class ListingMachine(RuleBasedStateMachine):
    """Hypothesis chooses what happens between any two steps of a listing."""

    @initialize(
        session_count=COUNTS,
        page_size=st.sampled_from([3, 5, 10]),
        order=st.sampled_from([Order.NEWEST_FIRST, Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
        tie_size=st.sampled_from([1, 1, 3]),
    )
    def start(self, session_count: int, page_size: int, order: Order, tie_size: int) -> None:
        self.sessions = build_list(
            Churn(order=order, tie_size=tie_size), session_count, seed=session_count
        )
        self.listing = FullListing(GATEWAY, page_size=page_size)
        self.now_s = 0.0
        self.sent: list[PageRequest] = []
        self.answered: list[tuple[PageRequest, SessionPage]] = []
        self.seen: Counter[str] = Counter()

    def moment(self) -> float:
        self.now_s += 0.01
        return self.now_s

    @rule(most=st.integers(1, 6))
    def ask(self, most: int) -> None:
        while len(self.sent) < most and (request := self.listing.next_request()) is not None:
            self.sent.append(request)

    @precondition(lambda self: self.sent)
    @rule(place=st.integers(0, 5))
    def answer(self, place: int) -> None:
        request = self.sent.pop(place % len(self.sent))
        answer = self.sessions.page(request.page_num, request.page_size, self.moment())
        sessions = orjson.loads(answer.rows)
        ids = [session["sessionId"] for session in sessions]
        self.answered.append((request, SessionPage(answer.total_count, sessions, ids)))

    @precondition(lambda self: self.answered)
    @rule(place=st.integers(0, 5))
    def receive(self, place: int) -> None:
        self.listing.accept(*self.answered.pop(place % len(self.answered)))
        self.seen.update(row["sessionId"] for row in self.listing.take_rows(1_000_000))

    @precondition(lambda self: self.sessions.answer_count > 0)
    @rule(count=st.integers(1, 4))
    def insert(self, count: int) -> None:
        for _ in range(count):
            self.sessions.insert(self.moment())

    @precondition(lambda self: self.sessions.answer_count > 0)
    @rule(position=st.integers(0, 60))
    def delete(self, position: int) -> None:
        row_count = sum(1 for _ in self.sessions.sessions())
        if row_count > 0:
            self.sessions.delete(position % row_count, self.moment())

    @precondition(lambda self: self.sessions.answer_count > 0)
    @rule()
    def expire(self) -> None:
        self.sessions.expire(self.moment())

    def teardown(self) -> None:
        if not hasattr(self, "listing"):
            return
        chance = random.Random(len(self.seen))  # noqa: S311 - an interleaving is no secret
        while self.listing.facts is None:
            self.ask(6)
            if self.sent:
                self.answer(chance.randrange(6))
            if self.answered and chance.random() < 0.7:
                self.receive(chance.randrange(6))
        truth = self.sessions.truth()
        assert max(self.seen.values(), default=1) == 1
        assert not truth.foreign(self.seen)
        if self.listing.facts.proof != "unproven":
            assert not truth.lost(self.seen)


TestListing = ListingMachine.TestCase
TestListing.settings = settings(
    max_examples=scale_examples(400), stateful_step_count=60, deadline=None
)
