"""A session list that moves while it is read, and what a reader is owed; performs no I/O."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields

import orjson

from exporter.emulator.churn import Churn
from exporter.emulator.drift import Drift, LiveSerials
from exporter.emulator.history import (
    PageCache,
    RawSession,
    SessionList,
    SessionPage,
    SessionSeries,
    without_end,
)
from exporter.gateway import Gateway


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
    ) -> None:
        self._gateway = gateway
        self._churn = churn
        self._seed = f"{seed}/{gateway.region_id}/{gateway}"
        self._session_count = session_count
        self._newest_created_ms = newest_created_ms
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
        self._drift = Drift(
            self._churn,
            seed=self._seed,
            session_count=self._session_count,
            created_s=self._initial_created_s,
        )
        self._start_s: float | None = None
        self._elapsed_s = 0.0
        # Where rows lag, the serials answers show are not the drift's newest, but these.
        self._late = self._drift.initial() if self._rows_lag() else None
        self._late_state = 0
        # The state each answer showed.
        self._answers: list[int] = []
        self._random = random.Random(f"{self._seed}/faults")  # noqa: S311  # no secret
        self._faults_done: set[tuple[int, int]] = set()
        self._cache.forget(self._gateway)

    def page(self, page_num: int, page_size: int, now_s: float) -> SessionPage:
        """The first answer starts the churn."""
        total_count, serials = self._answer(page_num, page_size, now_s)
        rows = b"[%b]" % b",".join([self._row(serial) for serial in serials])
        if not serials and self._churn.null_when_empty:
            rows = b"null"
        return SessionPage(total_count, rows)

    def list_ids(self, page_num: int, page_size: int, now_s: float) -> tuple[int, list[str]]:
        """The total and the session ids of a page: an answer too, for less work."""
        total_count, serials = self._answer(page_num, page_size, now_s)
        return total_count, list(self._ids(serials))

    def sessions(self) -> Iterator[RawSession]:
        """What answers show by now, in list order."""
        shown, _ = self._states(self._elapsed_s)
        live = self._shown(shown)
        serials = live.pick(0, len(live), draw=self.answer_count)
        return (orjson.loads(self._row(serial)) for serial in serials)

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
        """Between two answers, counted from 1; None is the latest. Without any, nothing is owed."""
        answers = self._answers[first_answer - 1 : last_answer]
        if not answers:
            return _build_truth((), (), answer_count=self.answer_count)
        first, last = answers[0], answers[-1]
        inserted_count = self._drift.insertion_count(first, last)
        return _build_truth(
            self._ids(self._drift.held_throughout(first, last)),
            self._ids(self._drift.held_between(first, last)),
            inserted_count=inserted_count,
            deleted_count=last - first - inserted_count,
            answer_count=self.answer_count,
        )

    def owed(self, first_s: float, last_s: float) -> frozenset[str]:
        """As a truth's, between two instants of the clock that are not yet to come."""
        return frozenset(self._ids(self._drift.held_throughout(*self._span(first_s, last_s))))

    def allowed(self, first_s: float, last_s: float) -> frozenset[str]:
        """As a truth's, between two instants of the clock that are not yet to come."""
        return frozenset(self._ids(self._drift.held_between(*self._span(first_s, last_s))))

    def _span(self, first_s: float, last_s: float) -> tuple[int, int]:
        start_s = first_s if self._start_s is None else self._start_s
        return self._states(first_s - start_s)[0], self._states(last_s - start_s)[0]

    def _answer(self, page_num: int, page_size: int, now_s: float) -> tuple[int, list[int]]:
        self._advance(now_s)
        shown, told = self._states(self._elapsed_s)
        self._answers.append(shown)
        if self._churn.page_cap is not None:
            page_size = min(page_size, self._churn.page_cap)
        start = (page_num - 1) * page_size
        serials = self._shown(shown).pick(start, start + page_size, draw=self.answer_count)
        missing = self._draw_missing(page_num, len(serials))
        return self._drift.total(told), serials[: len(serials) - missing]

    def _advance(self, now_s: float) -> None:
        if self._start_s is None:
            self._start_s = now_s
        self._elapsed_s = max(self._elapsed_s, now_s - self._start_s)
        self._drift.advance(self._elapsed_s)

    def _rows_lag(self) -> bool:
        return self._churn.total_lag_s < 0 or self._churn.total_lag_changes < 0

    def _states(self, elapsed_s: float) -> tuple[int, int]:
        """The state whose rows are shown at these seconds, and the one whose total is told."""
        lag_s, lag_changes = self._churn.total_lag_s, self._churn.total_lag_changes
        now = self._drift.state_at(elapsed_s)
        shown = min(self._drift.state_at(elapsed_s + min(0.0, lag_s)), now + min(0, lag_changes))
        told = min(self._drift.state_at(elapsed_s - max(0.0, lag_s)), now - max(0, lag_changes))
        return max(0, shown), max(0, told)

    def _shown(self, state: int) -> LiveSerials:
        if self._late is None:
            return self._drift.live
        self._drift.replay(self._late, self._late_state, state)
        self._late_state = state
        return self._late

    def _draw_missing(self, page_num: int, row_count: int) -> int:
        """How many of its last rows an answer is to lack."""
        missing = 0
        for number, fault in enumerate(self._churn.page_faults):
            # Drawn for each answer, so that the others' chance is the same without this one.
            hit = self._random.random() < fault.rate
            if page_num in fault.page_nums and (number, page_num) not in self._faults_done:
                hit = True
                if fault.once:
                    self._faults_done.add((number, page_num))
            if hit:
                count = row_count if fault.missing_count is None else fault.missing_count
                missing = max(missing, min(count, row_count))
        return missing

    def _row(self, serial: int) -> bytes:
        # A session that has ended stays as it is, so no key tells when it was encoded.
        key = (self._gateway, serial, 0)
        row = self._cache.read(key)
        if row is not None:
            return row
        created_s = self._drift.created_s(serial)
        created_ms = round(self._newest_created_ms + created_s * 1000)
        run_s = self._churn.run_s
        run_ms = None if run_s is None else round(run_s * 1000)
        session = self._series.session(serial, created_ms=created_ms, run_ms=run_ms)
        age_s = self._elapsed_s - created_s
        if run_s is not None and age_s < run_s:
            return orjson.dumps(_running(session, max(0.0, age_s) / run_s, form=serial))
        row = orjson.dumps(session)
        self._cache.write(key, row)
        return row

    def _initial_created_s(self, serial: int) -> float:
        return (self._series.created_ms(serial) - self._newest_created_ms) / 1000

    def _ids(self, serials: Iterable[int]) -> Iterator[str]:
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


def _running(session: RawSession, share: float, *, form: int) -> RawSession:
    """The session when only this share of its run was over."""
    for name in ("vcoreSeconds", "mbSeconds"):
        session[name] = int(session[name] * share)
    session["cuHours"] = round(session["vcoreSeconds"] / 3600, 3)
    return without_end(session, "running", form=form)
