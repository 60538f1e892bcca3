"""A session list that moves while it is read, and what a reader is owed; performs no I/O."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields

import orjson

from exporter.emulator.churn import Churn
from exporter.emulator.distortion import Distortion, Question
from exporter.emulator.generated_list import (
    PageCache,
    RawSession,
    SessionList,
    SessionPage,
    SessionSeries,
)
from exporter.emulator.replica import Replica, Shown
from exporter.emulator.session_rows import SessionRows
from exporter.emulator.timeline import Drift
from exporter.model import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What a listing between two answers has to deliver, and what it may."""

    owed: frozenset[str]
    """Ids of the sessions that the first answer's list held and the last answer's still held."""
    allowed: frozenset[str]
    """Ids of those that the list held at any time between, the owed ones among them."""
    inserted_count: int
    deleted_count: int
    """Insertions and deletions, of whatever reason, between the two answers."""
    answer_count: int
    """Answers the list gave since it was started, not only those between the two."""

    def lost(self, session_ids: Iterable[str]) -> frozenset[str]:
        """What is owed and not among these."""
        return self.owed.difference(session_ids)

    def foreign(self, session_ids: Iterable[str]) -> frozenset[str]:
        """What is among these and not allowed."""
        return frozenset(session_ids) - self.allowed

    def to_json(self) -> bytes:
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return orjson.dumps(known | {"owed": sorted(self.owed), "allowed": sorted(self.allowed)})

    @classmethod
    def from_json(cls, text: bytes) -> "Truth":
        known = orjson.loads(text)
        ids = {name: frozenset(known[name]) for name in ("owed", "allowed")}
        return cls(**{field.name: known[field.name] for field in fields(cls)} | ids)


class ChurningSessions:
    """A gateway's sessions under churn, by any clock; where one goes back, time stands still.

    Sessions carry create times as if the first answer came at `newest_created_ms`. The same
    arguments, questions and seconds between them give the same bytes.
    """

    def __init__(
        self,
        gateway: Gateway,
        churn: Churn,
        *,
        seed: int,
        session_count: int,
        newest_created_ms: int,
        spacing_ms: int,
        cache: PageCache,
        brief: bool = False,
    ) -> None:
        """`brief` rows have only what a listing looks at."""
        self._gateway = gateway
        self._churn = churn
        self._seed = f"{seed}/{gateway.region_id}/{gateway}"
        self._session_count = session_count
        self._newest_created_ms = newest_created_ms
        self._brief = brief
        self._series = SessionSeries(
            gateway,
            seed=seed,
            oldest_created_ms=newest_created_ms - session_count * spacing_ms,
            spacing_ms=spacing_ms,
        )
        self._cache = cache
        self.restart()

    def restart(self) -> None:
        """As if nothing had been asked yet."""
        churn = self._churn
        self._drift = Drift(
            churn,
            seed=self._seed,
            session_count=self._session_count,
            created_s=self._initial_created_s,
        )
        self._start_s: float | None = None
        self._elapsed_s = 0.0
        is_late = churn.total_lag_s < 0 or churn.total_lag_changes < 0
        self._replicas = [
            Replica(self._drift, lag_s=lag_s, is_late=is_late) for lag_s in churn.replicas or (0.0,)
        ]
        self._rows = SessionRows(
            self._series,
            churn,
            self._drift,
            newest_created_ms=self._newest_created_ms,
            brief=self._brief,
        )
        # The state each answer showed, and the one that a copy without lag would have shown.
        self._answers: list[tuple[int, int]] = []
        self._answer_s: list[float] = []
        self._random = random.Random(f"{self._seed}/replicas")  # noqa: S311  # no secret
        self._distortion = Distortion(churn, seed=self._seed)
        # By page: until when it is answered as it was, and how.
        self._pages: dict[tuple[int, int], tuple[float, Shown]] = {}
        self._cache.forget(self._gateway)

    def page(self, page_num: int, page_size: int, now_s: float) -> SessionPage:
        """The first answer starts the churn."""
        total_count, serials, at_s = self._answer(page_num, page_size, now_s)
        rows = b"[%b]" % b",".join([self._row(serial, at_s) for serial in serials])
        if not serials and self._churn.null_when_empty:
            rows = b"null"
        return SessionPage(total_count, rows)

    def list_ids(self, page_num: int, page_size: int, now_s: float) -> tuple[int, list[str]]:
        """The total and the session ids of a page: an answer too, for less work."""
        total_count, serials, _ = self._answer(page_num, page_size, now_s)
        return total_count, list(self._ids(serials))

    def list_rows(
        self, page_num: int, page_size: int, now_s: float
    ) -> tuple[int, list[RawSession]]:
        """The total and the rows of a page: an answer too, and not encoded. Whoever takes the rows
        must not change them.
        """
        total_count, serials, at_s = self._answer(page_num, page_size, now_s)
        return total_count, [self._rows.find(serial, at_s) for serial in serials]

    def sessions(self) -> Iterator[RawSession]:
        """What answers show by now, in list order."""
        replica = min(self._replicas, key=lambda each: each.lag_s)
        shown, _ = self._states(self._elapsed_s - replica.lag_s)
        live = replica.rows(shown)
        serials = self._unveil(live.pick(0, len(live), draw=self.answer_count))
        return (self._rows.build(serial, self._elapsed_s)[0] for serial in serials)

    def insert(self, now_s: float) -> None:
        """One more session, besides those of the settings."""
        self._advance(now_s)
        self._drift.insert(self._elapsed_s)

    def expire(self, now_s: float) -> None:
        """Takes the oldest session, if there is one, besides those of the settings."""
        self._advance(now_s)
        self._drift.expire(self._elapsed_s)

    def delete(self, position: int, now_s: float) -> None:
        """Takes the session at this position, counted from 0. IndexError where there is none."""
        self._advance(now_s)
        self._drift.remove(self._drift.live.at(position), self._elapsed_s)

    @property
    def answer_count(self) -> int:
        return len(self._answers)

    def truth(self, first_answer: int = 1, last_answer: int | None = None) -> Truth:
        """Between two answers, counted from 1; None is the latest. Without any, nothing is owed.

        Of answers from copies that lag, the first one's state and what a copy without lag would
        have shown as the last one bound what is owed: so both readings of either end agree on it.
        """
        answers = self._answers[first_answer - 1 : last_answer]
        if not answers:
            return _build_truth((), (), answer_count=self.answer_count)
        first, last = answers[0][0], answers[-1][1]
        earliest = min(shown for shown, _ in answers)
        return _build_truth(
            self._ids(self._drift.held_throughout(first, last)),
            self._ids(self._drift.held_between(earliest, last)),
            inserted_count=self._drift.insertion_count(first, last),
            deleted_count=self._drift.removal_count(first, last),
            answer_count=self.answer_count,
        )

    def owed_rows(self, first_answer: int, last_answer: int | None = None) -> dict[str, RawSession]:
        """What is owed between two answers, of which each row is the one that it was all along;
        without those that changed.
        """
        answers = self._answers[first_answer - 1 : last_answer]
        rows: dict[str, RawSession] = {}
        first_s = self._answer_s[first_answer - 1] - max(self._churn.replicas or (0.0,))
        first_s -= self._churn.page_cache_s + max(0.0, -self._churn.total_lag_s)
        serials = list(self._drift.held_throughout(answers[0][0], answers[-1][1]))
        for serial in self._unveil(serials):
            row, is_final = self._rows.build(serial, first_s)
            if is_final:
                rows[row["sessionId"]] = row
        return rows

    def max_rows(self, first_answer: int = 1, last_answer: int | None = None) -> int:
        """The greatest number of rows that the list really had between two answers."""
        answers = self._answers[first_answer - 1 : last_answer]
        return self._drift.max_rows(answers[0][0], answers[-1][1]) if answers else 0

    def owed(self, first_s: float, last_s: float) -> frozenset[str]:
        """As a truth's, between two instants of the clock that are not yet to come."""
        return frozenset(self._ids(self._drift.held_throughout(*self._span(first_s, last_s))))

    def allowed(self, first_s: float, last_s: float) -> frozenset[str]:
        """As a truth's, between two instants of the clock that are not yet to come."""
        return frozenset(self._ids(self._drift.held_between(*self._span(first_s, last_s))))

    def _span(self, first_s: float, last_s: float) -> tuple[int, int]:
        start_s = first_s if self._start_s is None else self._start_s
        return self._states(first_s - start_s)[0], self._states(last_s - start_s)[0]

    def _answer(self, page_num: int, page_size: int, now_s: float) -> tuple[int, list[int], float]:
        """The total and serials that are told, and the instant that the rows are of."""
        self._advance(now_s)
        question = Question(self.answer_count + 1, page_num, page_size, self._elapsed_s)
        shown = self._show_cached(question)
        self._answers.append((shown.state, self._states(self._elapsed_s)[0]))
        self._answer_s.append(self._elapsed_s)
        serials = self._distortion.cut(question, shown.start, shown.serials)
        serials = self._unveil(serials)
        if self._churn.doubled_rows:
            serials = self._distortion.double(question, serials, shown.before)
        missing, zero_total = self._distortion.draw_missing(question, len(serials))
        total_count = 0 if zero_total else shown.total_count
        return total_count, serials[: len(serials) - missing], shown.at_s

    def _show_cached(self, question: Question) -> Shown:
        if self._churn.page_cache_s == 0:
            return self._show(question)
        key = (question.page_num, question.page_size)
        until_s, shown = self._pages.get(key, (0.0, None))
        if shown is None or question.at_s >= until_s:
            shown = self._show(question)
            self._pages[key] = (question.at_s + self._churn.page_cache_s, shown)
        return shown

    def _show(self, question: Question) -> Shown:
        churn = self._churn
        page_size = self._round_size(question.page_size)
        if churn.page_cap is not None and (
            churn.page_cap_share >= 1 or self._random.random() < churn.page_cap_share
        ):
            page_size = min(page_size, churn.page_cap)
        chosen = self._draw_replica()
        telling = self._draw_replica() if churn.total_of_any_replica else chosen
        replica = self._replicas[chosen]
        at_s = question.at_s - replica.lag_s
        state, _ = self._states(at_s)
        told_s = question.at_s - self._replicas[telling].lag_s
        live = replica.rows(state)
        page_num = question.page_num
        if churn.last_page_again:
            page_num = min(page_num, max(1, -(-len(live) // page_size)))
        start = (page_num - 1) * page_size
        before: Sequence[int] = ()
        if churn.doubled_rows and start > 0:
            before = live.pick(start - 1, start, draw=question.number)
        return Shown(
            state,
            at_s + min(0.0, churn.total_lag_s),
            start,
            self._distortion.tell_total(
                telling, question.at_s, lambda: self._drift.total(self._states(told_s)[1])
            ),
            live.pick(start, start + page_size, draw=question.number),
            before,
        )

    def _round_size(self, page_size: int) -> int:
        sizes = sorted(self._churn.page_sizes)
        return (
            next((size for size in sizes if size >= page_size), sizes[-1]) if sizes else page_size
        )

    def _unveil(self, serials: list[int]) -> list[int]:
        """Those that answers show at all."""
        if self._churn.withheld == 0:
            return serials
        return [serial for serial in serials if not self._drift.traits.is_withheld(serial)]

    def _draw_replica(self) -> int:
        return 0 if len(self._replicas) == 1 else self._random.randrange(len(self._replicas))

    def _advance(self, now_s: float) -> None:
        if self._start_s is None:
            self._start_s = now_s
        self._elapsed_s = max(self._elapsed_s, now_s - self._start_s)
        self._drift.advance(self._elapsed_s)

    def _states(self, at_s: float) -> tuple[int, int]:
        """The state whose rows are shown at these seconds, and the one whose total is told."""
        lag_s, lag_changes = self._churn.total_lag_s, self._churn.total_lag_changes
        now = self._drift.state_at(at_s)
        shown = min(self._drift.state_at(at_s + min(0.0, lag_s)), now + min(0, lag_changes))
        told = min(self._drift.state_at(at_s - max(0.0, lag_s)), now - max(0, lag_changes))
        return max(0, shown), max(0, told)

    def _row(self, serial: int, at_s: float) -> bytes:
        # A session that has ended stays as it is, so no key tells when it was encoded.
        key = (self._gateway, serial, 0)
        row = self._cache.read(key)
        if row is not None:
            return row
        session, is_final = self._rows.build(serial, at_s)
        row = orjson.dumps(session)
        if is_final:
            self._cache.write(key, row)
        return row

    def _initial_created_s(self, serial: int) -> float:
        return (self._series.created_ms(serial) - self._newest_created_ms) / 1000

    def _ids(self, serials: Iterable[int]) -> Iterator[str]:
        """Of the sessions that answers show."""
        churn, traits = self._churn, self._drift.traits
        if churn.withheld > 0:
            serials = (serial for serial in serials if not traits.is_withheld(serial))
        if churn.twins > 0:
            serials = map(traits.original, serials)
        return map(self._series.session_id, serials)


class ClockedSessions:
    """A churning list, asked at the time its clock tells."""

    def __init__(self, churning: ChurningSessions, *, now_s: Callable[[], float]) -> None:
        self.churning = churning
        self._now_s = now_s

    def page(self, page_num: int, page_size: int) -> SessionPage:
        return self.churning.page(page_num, page_size, self._now_s())

    def sessions(self) -> Iterator[RawSession]:
        return self.churning.sessions()


def tell_truth(session_list: SessionList, first_answer: int = 1) -> Truth:
    """Of any list: one that does not churn owes all it has, and counts no answers."""
    if isinstance(session_list, ClockedSessions):
        return session_list.churning.truth(first_answer)
    ids = [session["sessionId"] for session in session_list.sessions()]
    return _build_truth(ids, ids)


def _build_truth(
    owed: Iterable[str],
    allowed: Iterable[str],
    *,
    inserted_count: int = 0,
    deleted_count: int = 0,
    answer_count: int = 0,
) -> Truth:
    return Truth(
        owed=frozenset(owed),
        allowed=frozenset(allowed),
        inserted_count=inserted_count,
        deleted_count=deleted_count,
        answer_count=answer_count,
    )
