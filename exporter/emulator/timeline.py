"""The states that a moving list goes through; performs no I/O."""

import heapq
import random
from bisect import bisect_right
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import count
from math import inf

from exporter.emulator.churn import Churn, Cleanup, Flow, Order, OrderBy, Place
from exporter.emulator.generated_list import mix64
from exporter.emulator.live_list import LiveList, build_key
from exporter.emulator.traits import Traits

NEVER_S = 10**9
"""Seconds, beyond all times of a list."""

RANK_BITS = 56
"""Enough for the rank of any time."""


class Change(IntEnum):
    """Kinds of changes, in the order in which they happen at one instant."""

    INSERTION = 0
    EXPIRY = 1
    DELETION = 2
    TOUCH = 3
    SHOW = 4
    """Of a late session, which was inserted a while ago."""
    SESSION_END = 5
    CLEANUP = 6


class Timeline:
    """All states of a list until now, in seconds since the first request.

    State n is the list after n changes; the first request meets state 0. Serials count sessions in
    the order of insertion. The same seed gives the same states at the same seconds, however often
    and whenever the timeline is advanced.
    """

    def __init__(
        self,
        churn: Churn,
        *,
        seed: str,
        session_count: int,
        created_s: Callable[[int], float],
    ) -> None:
        """`created_s` gives the create time of a serial below `session_count`, at most 0."""
        self.initial_count = session_count
        self.traits = Traits(churn, seed=seed)
        self._churn = churn
        self._initial_s = created_s
        self._seed = seed
        self._salt = random.Random(f"{seed}/order").getrandbits(64)  # noqa: S311  # no secret
        self._random = random.Random(f"{seed}/positions")  # noqa: S311  # no secret
        self._due = self._draw_due()
        self._next_due = next(self._due)
        self._insertion_number = 0
        # Planned changes: time, kind, and the session or the cleanup.
        self._pending: list[tuple[float, Change, int]] = []
        # By serial, counted from `initial_count`.
        self._inserted_s: list[float] = []
        # By serial, in a list that is ordered by end or update time.
        self._ranks: dict[int, int] = {}
        # A heap of sessions by age; removed ones leave it when they become the oldest.
        self._ages: list[tuple[float, int]] | None = None
        # By change: its time, the row it removed and the row it inserted.
        self._changed_s: list[float] = []
        self._changes: list[tuple[int | None, int | None]] = []
        # The states of insertion, by serial less `initial_count`, and of removal, by serial.
        self._inserted: list[int] = []
        self._removed: dict[int, int] = {}
        self._removed_in: list[int] = []
        self._first = self._find_first()
        self._initial_keys = [
            build_key(self._begin(serial), serial) for serial in range(self._first, session_count)
        ]
        self.live = self.initial()
        # By state: the number of rows.
        self._totals = [len(self.live)]
        for number, cleanup in enumerate(churn.cleanups):
            heapq.heappush(self._pending, (cleanup.at_s, Change.CLEANUP, number))

    @property
    def state(self) -> int:
        return len(self._changes)

    def advance(self, at_s: float) -> None:
        """Apply all changes until this second."""
        while True:
            due_s, change = self._next_due
            pending_s = self._pending[0][0] if self._pending else inf
            expires_s = self._oldest_expires_s()
            if min(due_s, pending_s, expires_s) > at_s:
                return
            if expires_s <= min(due_s, pending_s):
                self.expire(expires_s)
            elif pending_s < due_s:
                _, change, number = heapq.heappop(self._pending)
                self._apply_planned(change, number, pending_s)
            else:
                self._next_due = next(self._due)
                self._apply_flow(change, due_s)

    def insert(self, at_s: float, inserted_s: float | None = None) -> None:
        """Insert a session, of now or, if shown late, of `inserted_s`."""
        serial = self.initial_count + len(self._inserted)
        at_s = self._clamp(at_s)
        self._inserted_s.append(at_s if inserted_s is None else inserted_s)
        rank = self._begin(serial)
        self._note(None, build_key(rank, serial), at_s)
        self._inserted.append(self.state)
        if self._ages is not None:
            heapq.heappush(self._ages, (self.created_s(serial), serial))
        if self._churn.keep_count is not None and len(self.live) > self._churn.keep_count:
            self.expire(at_s)

    def expire(self, at_s: float) -> None:
        """Remove the oldest session, if any."""
        if len(self.live) > 0:
            self.remove(self._oldest_live(), at_s)

    def remove(self, serial: int, at_s: float) -> None:
        """Remove a session, which must be in the list."""
        self._note(build_key(self._rank(serial), serial), None, at_s)
        self._removed[serial] = self.state
        self._removed_in.append(self.state)

    def state_at(self, at_s: float) -> int:
        """The state at this second."""
        return bisect_right(self._changed_s, at_s)

    def total(self, state: int) -> int:
        return self._totals[max(0, state)]

    def max_rows(self, first: int, last: int) -> int:
        """The most rows in any of these states."""
        return max(self._totals[first : last + 1])

    def replay(self, live: LiveList, first: int, last: int) -> None:
        """Turn the rows of one state into those of a later one."""
        for removed, inserted in self._changes[first:last]:
            live.apply(removed, inserted)

    def initial(self) -> LiveList:
        """The rows of state 0."""
        return LiveList(
            self._initial_keys,
            order=self._churn.order,
            shuffles_ties=self._churn.tie_size > 1,
            salt=self._salt,
        )

    def inserted_s(self, serial: int) -> float:
        """When it was inserted; all sessions of a tie have the time of their first."""
        if not self._churn.twins_apart:
            serial = self.traits.original(serial)
        serial -= serial % self._churn.tie_size
        if serial < self.initial_count:
            return self._initial_s(serial)
        return self._inserted_s[serial - self.initial_count]

    def order_s(self, serial: int) -> float:
        """The update time that its place stands for, in a list ordered by update time."""
        return (self._ranks[serial] & (1 << RANK_BITS) - 1) / 1_000_000 - 2 * NEVER_S

    def created_s(self, serial: int) -> float:
        """Its create time, which backdating moves away from its insertion."""
        inserted_s = self.inserted_s(serial)
        if not self.traits.backdates:
            return inserted_s
        return inserted_s - self.traits.backdated_s(self.traits.original(serial))

    def held_throughout(self, first: int, last: int) -> Iterator[int]:
        """Serials that were in the list in both states, and so in all between, oldest first."""
        serials = range(self._first, self.initial_count + bisect_right(self._inserted, first))
        return (serial for serial in serials if self._removed.get(serial, inf) > last)

    def held_between(self, first: int, last: int) -> Iterator[int]:
        """Serials that were in the list in any of these states, oldest first."""
        serials = range(self._first, self.initial_count + bisect_right(self._inserted, last))
        return (serial for serial in serials if self._removed.get(serial, inf) > first)

    def insertion_count(self, first: int, last: int) -> int:
        """Insertions from one state to the other."""
        return bisect_right(self._inserted, last) - bisect_right(self._inserted, first)

    def removal_count(self, first: int, last: int) -> int:
        """Removals from one state to the other."""
        return bisect_right(self._removed_in, last) - bisect_right(self._removed_in, first)

    # Ranks

    def _begin(self, serial: int) -> int:
        """Its first rank; plans the end of the session, which moves it later."""
        churn = self._churn
        if churn.order is Order.UNORDERED or churn.order_by is OrderBy.CREATE:
            return self._rank(serial)
        inserted_s = self.inserted_s(serial)
        ends_s = inserted_s + self.traits.run_s(self.traits.original(serial))
        if ends_s <= 0:
            rank_s = ends_s
        else:
            heapq.heappush(self._pending, (ends_s, Change.SESSION_END, serial))
            rank_s = inserted_s
            if churn.order_by is OrderBy.END:
                rank_s += -NEVER_S if churn.running_last else NEVER_S
        self._ranks[serial] = self._place(serial, rank_s)
        return self._ranks[serial]

    def _rank(self, serial: int) -> int:
        churn = self._churn
        if churn.order is Order.UNORDERED:
            return mix64(serial ^ self._salt)
        if churn.order_by is OrderBy.CREATE:
            in_place = churn.backdating.in_place
            return self._place(serial, (self.created_s if in_place else self.inserted_s)(serial))
        return self._ranks[serial]

    def _place(self, serial: int, at_s: float) -> int:
        rank = to_rank(at_s)
        if self._churn.shards > 1:
            rank |= self.traits.shard(serial) << RANK_BITS
        return rank

    def _move(self, serial: int, at_s: float) -> None:
        """Move a session that was just updated or ended."""
        former = build_key(self._ranks[serial], serial)
        at_s = self._clamp(at_s)
        self._ranks[serial] = self._place(serial, at_s)
        self._note(former, build_key(self._ranks[serial], serial), at_s)

    # Changes

    def _clamp(self, at_s: float) -> float:
        """No earlier than the last change: a session in an old tie may expire before it came."""
        return max(at_s, self._changed_s[-1]) if self._changed_s else at_s

    def _note(self, removed: int | None, inserted: int | None, at_s: float) -> None:
        at_s = self._clamp(at_s)
        self.live.apply(removed, inserted)
        self._changed_s.append(at_s)
        self._changes.append((removed, inserted))
        self._totals.append(len(self.live))

    def _apply_flow(self, change: Change, at_s: float) -> None:
        if change is Change.INSERTION:
            self._insertion_number += 1
            if self.traits.is_late(self._insertion_number):
                shown_s = at_s + self._churn.late.lag_s
                heapq.heappush(self._pending, (shown_s, Change.SHOW, self._insertion_number))
            else:
                self.insert(at_s)
        elif change is Change.EXPIRY:
            self.expire(at_s)
        else:
            # Drawn even if the list is empty, so that later draws stay the same.
            share = self._random.random()
            if len(self.live) > 0:
                serial = self.live.at(int(share * len(self.live)))
                act = self.remove if change is Change.DELETION else self._move
                act(serial, at_s)

    def _apply_planned(self, change: Change, number: int, at_s: float) -> None:
        """Apply a planned change."""
        if change is Change.SHOW:
            self.insert(at_s, at_s - self._churn.late.lag_s)
        elif change is Change.CLEANUP:
            cleanup = self._churn.cleanups[number]
            self._clean_up(cleanup, at_s)
            if cleanup.every_s is not None:
                heapq.heappush(self._pending, (at_s + cleanup.every_s, Change.CLEANUP, number))
        elif number not in self._removed:
            self._move(number, at_s)

    def _clean_up(self, cleanup: Cleanup, at_s: float) -> None:
        size = min(cleanup.count, len(self.live))
        if cleanup.place is Place.ANYWHERE:
            positions = self._random.sample(range(len(self.live)), size)
            serials = [self.live.at(position) for position in positions]
        else:
            start = {
                Place.HEAD: 0,
                Place.MIDDLE: (len(self.live) - size) // 2,
                Place.END: len(self.live) - size,
            }[cleanup.place]
            serials = self.live.pick(start, start + size, draw=0)
        for serial in serials:
            self.remove(serial, at_s)

    # Retention

    def _oldest_live(self) -> int:
        if self._ages is None:
            present = self.live.pick(0, len(self.live), draw=0)
            self._ages = [(self.created_s(serial), serial) for serial in present]
            heapq.heapify(self._ages)
        while self._ages[0][1] in self._removed:
            heapq.heappop(self._ages)
        return self._ages[0][1]

    def _oldest_expires_s(self) -> float:
        if self._churn.keep_age_s is None or len(self.live) == 0:
            return inf
        return self.created_s(self._oldest_live()) + self._churn.keep_age_s

    def _find_first(self) -> int:
        """The first serial that retention had kept until the first request."""
        first = 0
        if self._churn.keep_count is not None:
            first = max(0, self.initial_count - self._churn.keep_count)
        if self._churn.keep_age_s is not None:
            serials = range(self.initial_count)
            first = max(first, bisect_right(serials, -self._churn.keep_age_s, key=self.inserted_s))
        return first

    def _draw_due(self) -> Iterator[tuple[float, Change]]:
        flows = {
            Change.INSERTION: self._churn.insertions,
            Change.EXPIRY: self._churn.expiries,
            Change.DELETION: self._churn.deletions,
            Change.TOUCH: self._churn.touches,
        }
        # Each flow has its own random stream, so that changing one leaves the others as they are.
        drawn = [
            draw_instants(flow, change, random.Random(f"{self._seed}/{change.name}"))  # noqa: S311
            for change, flow in flows.items()
        ]
        yield from heapq.merge(*drawn)
        yield inf, Change.DELETION


def to_rank(at_s: float) -> int:
    """Whole microseconds, never below 0."""
    return round((at_s + 2 * NEVER_S) * 1_000_000)


def draw_instants(
    flow: Flow, change: Change, chance: random.Random
) -> Iterator[tuple[float, Change]]:
    """The seconds of a flow's changes, ascending."""
    if flow.per_s == 0:
        return
    at_s = flow.start_s
    for number in count() if flow.limit is None else range(flow.limit):
        if flow.even:
            # Not summed up, as ten times 0.1 s is a little more than a second.
            at_s = flow.start_s + (number // flow.burst + 1) * flow.burst / flow.per_s
        elif number % flow.burst == 0:
            at_s += chance.expovariate(flow.per_s / flow.burst)
        yield at_s, change
