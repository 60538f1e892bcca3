"""A session list that moves while it is read, and the truth about it; performs no I/O."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

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
from exporter.emulator.timeline import Timeline
from exporter.model import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """The sessions that a listing between two answers must deliver, and those that it may."""

    owed: frozenset[str]
    """Ids of the sessions that were in the list at the first answer and still at the last."""
    allowed: frozenset[str]
    """Ids of the sessions that were in the list at any time between, the owed ones included."""
    inserted_count: int = 0
    deleted_count: int = 0
    """Insertions and deletions between the two answers, for any reason."""
    answer_count: int = 0
    """All answers of the list since its start."""

    def lost(self, session_ids: Iterable[str]) -> frozenset[str]:
        """The owed ids that are missing from these."""
        return self.owed.difference(session_ids)

    def foreign(self, session_ids: Iterable[str]) -> frozenset[str]:
        """The ids among these that are not allowed."""
        return frozenset(session_ids) - self.allowed

    def to_json(self) -> bytes:
        ids = {"owed": sorted(self.owed), "allowed": sorted(self.allowed)}
        return orjson.dumps(asdict(self) | ids)

    @classmethod
    def from_json(cls, text: bytes) -> "Truth":
        known = orjson.loads(text)
        return cls(**known | {name: frozenset(known[name]) for name in ("owed", "allowed")})


class MovingSessions:
    """A gateway's sessions under churn, by any clock; if the clock goes back, time stands still.

    Create times are as if the first answer came at `newest_created_ms`. The same arguments and
    questions, at the same intervals, give the same bytes.
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
        """`brief` rows have only the fields that a listing reads."""
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
        """Return to the state before the first answer."""
        churn = self._churn
        self._timeline = Timeline(
            churn,
            seed=self._seed,
            session_count=self._session_count,
            created_s=self._initial_created_s,
        )
        self._start_s: float | None = None
        self._elapsed_s = 0.0
        is_late = churn.total_lag_s < 0 or churn.total_lag_changes < 0
        self._replicas = [
            Replica(self._timeline, lag_s=lag_s, is_late=is_late)
            for lag_s in churn.replicas or (0.0,)
        ]
        self._rows = SessionRows(
            self._series,
            churn,
            self._timeline,
            newest_created_ms=self._newest_created_ms,
            brief=self._brief,
        )
        # By answer: the state that it showed, and the one without the replica's lag.
        self._answers: list[tuple[int, int]] = []
        self._answer_s: list[float] = []
        self._random = random.Random(f"{self._seed}/replicas")  # noqa: S311  # no secret
        self._distortion = Distortion(churn, seed=self._seed)
        # By page: the cached answer, and until when it is used.
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
        """The total and the session ids of a page; counts as an answer, for less work."""
        total_count, serials, _ = self._answer(page_num, page_size, now_s)
        return total_count, list(self._ids(serials))

    def list_rows(
        self, page_num: int, page_size: int, now_s: float
    ) -> tuple[int, list[RawSession]]:
        """The total and the decoded rows of a page; counts as an answer.

        The caller must not change the rows.
        """
        total_count, serials, at_s = self._answer(page_num, page_size, now_s)
        return total_count, [self._rows.find(serial, at_s) for serial in serials]

    def sessions(self) -> Iterator[RawSession]:
        """The sessions that answers show by now, in list order."""
        replica = min(self._replicas, key=lambda each: each.lag_s)
        shown, _ = self._states(self._elapsed_s - replica.lag_s)
        live = replica.rows(shown)
        serials = self._drop_withheld(live.pick(0, len(live), draw=self.answer_count))
        return (self._rows.build(serial, self._elapsed_s)[0] for serial in serials)

    def insert(self, now_s: float) -> None:
        """Insert a session, besides those of the settings."""
        self._advance(now_s)
        self._timeline.insert(self._elapsed_s)

    def expire(self, now_s: float) -> None:
        """Remove the oldest session, if any, besides the expiries of the settings."""
        self._advance(now_s)
        self._timeline.expire(self._elapsed_s)

    def delete(self, position: int, now_s: float) -> None:
        """Remove the session at this position, from 0. Raises IndexError past the end."""
        self._advance(now_s)
        self._timeline.remove(self._timeline.live.at(position), self._elapsed_s)

    @property
    def answer_count(self) -> int:
        return len(self._answers)

    def truth(self, first_answer: int = 1, last_answer: int | None = None) -> Truth:
        """The truth between two answers, counted from 1; None is the latest.

        With lagging replicas the bounds are the state that the first answer showed and the one that
        a replica without lag would have shown last: sessions held between these are owed by any
        reading of "at the first answer" and "at the last".
        """
        answers = self._answers[first_answer - 1 : last_answer]
        if not answers:
            return Truth(owed=frozenset(), allowed=frozenset(), answer_count=self.answer_count)
        first, last = answers[0][0], answers[-1][1]
        earliest = min(shown for shown, _ in answers)
        return Truth(
            owed=frozenset(self._ids(self._timeline.held_throughout(first, last))),
            allowed=frozenset(self._ids(self._timeline.held_between(earliest, last))),
            inserted_count=self._timeline.insertion_count(first, last),
            deleted_count=self._timeline.removal_count(first, last),
            answer_count=self.answer_count,
        )

    def owed_rows(self, first_answer: int, last_answer: int | None = None) -> dict[str, RawSession]:
        """The owed sessions whose rows did not change between two answers, by id."""
        answers = self._answers[first_answer - 1 : last_answer]
        rows: dict[str, RawSession] = {}
        first_s = self._answer_s[first_answer - 1] - max(self._churn.replicas or (0.0,))
        first_s -= self._churn.page_cache_s + max(0.0, -self._churn.total_lag_s)
        serials = list(self._timeline.held_throughout(answers[0][0], answers[-1][1]))
        for serial in self._drop_withheld(serials):
            row, is_final = self._rows.build(serial, first_s)
            if is_final:
                rows[row["sessionId"]] = row
        return rows

    def max_rows(self, first_answer: int = 1, last_answer: int | None = None) -> int:
        """The most rows that the list had at any time between two answers."""
        answers = self._answers[first_answer - 1 : last_answer]
        return self._timeline.max_rows(answers[0][0], answers[-1][1]) if answers else 0

    def owed(self, first_s: float, last_s: float) -> frozenset[str]:
        """As in a truth, between two times of the clock, neither in the future."""
        return frozenset(self._ids(self._timeline.held_throughout(*self._span(first_s, last_s))))

    def allowed(self, first_s: float, last_s: float) -> frozenset[str]:
        """As in a truth, between two times of the clock, neither in the future."""
        return frozenset(self._ids(self._timeline.held_between(*self._span(first_s, last_s))))

    def _span(self, first_s: float, last_s: float) -> tuple[int, int]:
        start_s = first_s if self._start_s is None else self._start_s
        return self._states(first_s - start_s)[0], self._states(last_s - start_s)[0]

    def _answer(self, page_num: int, page_size: int, now_s: float) -> tuple[int, list[int], float]:
        """The stated total, the shown serials, and the time that the rows are of."""
        self._advance(now_s)
        question = Question(self.answer_count + 1, page_num, page_size, self._elapsed_s)
        shown = self._show_cached(question)
        self._answers.append((shown.state, self._states(self._elapsed_s)[0]))
        self._answer_s.append(self._elapsed_s)
        serials = self._distortion.cut(question, shown.start, shown.serials)
        serials = self._drop_withheld(serials)
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
        counting = self._draw_replica() if churn.total_of_any_replica else chosen
        replica = self._replicas[chosen]
        at_s = question.at_s - replica.lag_s
        state, _ = self._states(at_s)
        total_s = question.at_s - self._replicas[counting].lag_s
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
            self._distortion.state_total(
                counting, question.at_s, lambda: self._timeline.total(self._states(total_s)[1])
            ),
            live.pick(start, start + page_size, draw=question.number),
            before,
        )

    def _round_size(self, page_size: int) -> int:
        sizes = sorted(self._churn.page_sizes)
        return (
            next((size for size in sizes if size >= page_size), sizes[-1]) if sizes else page_size
        )

    def _drop_withheld(self, serials: list[int]) -> list[int]:
        """The serials without the withheld ones."""
        if self._churn.withheld == 0:
            return serials
        return [serial for serial in serials if not self._timeline.traits.is_withheld(serial)]

    def _draw_replica(self) -> int:
        return 0 if len(self._replicas) == 1 else self._random.randrange(len(self._replicas))

    def _advance(self, now_s: float) -> None:
        if self._start_s is None:
            self._start_s = now_s
        self._elapsed_s = max(self._elapsed_s, now_s - self._start_s)
        self._timeline.advance(self._elapsed_s)

    def _states(self, at_s: float) -> tuple[int, int]:
        """The state whose rows are shown at this second, and the one whose total is stated."""
        lag_s, lag_changes = self._churn.total_lag_s, self._churn.total_lag_changes
        now = self._timeline.state_at(at_s)
        shown = min(self._timeline.state_at(at_s + min(0.0, lag_s)), now + min(0, lag_changes))
        counted = min(self._timeline.state_at(at_s - max(0.0, lag_s)), now - max(0, lag_changes))
        return max(0, shown), max(0, counted)

    def _row(self, serial: int, at_s: float) -> bytes:
        # Only final rows are cached, so the key needs no time.
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
        churn, traits = self._churn, self._timeline.traits
        if churn.withheld > 0:
            serials = (serial for serial in serials if not traits.is_withheld(serial))
        if churn.twins > 0:
            serials = map(traits.original, serials)
        return map(self._series.session_id, serials)


class ClockedSessions:
    """A moving list that reads the time from a clock."""

    def __init__(self, moving: MovingSessions, *, now_s: Callable[[], float]) -> None:
        self.moving = moving
        self._now_s = now_s

    def page(self, page_num: int, page_size: int) -> SessionPage:
        return self.moving.page(page_num, page_size, self._now_s())

    def sessions(self) -> Iterator[RawSession]:
        return self.moving.sessions()


def build_truth(session_list: SessionList, first_answer: int = 1) -> Truth:
    """The truth about any list; one that does not move owes all it has, and counts no answers."""
    if isinstance(session_list, ClockedSessions):
        return session_list.moving.truth(first_answer)
    ids = frozenset(session["sessionId"] for session in session_list.sessions())
    return Truth(owed=ids, allowed=ids)
