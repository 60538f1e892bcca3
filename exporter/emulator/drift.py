"""Which sessions a churning list holds after each change; time passed in, performs no I/O."""

import heapq
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import count
from math import inf

from exporter.emulator.churn import Churn, Flow, Order
from exporter.emulator.history import mix64


class Change(IntEnum):
    """At one instant, they happen in this order."""

    INSERTION = 0
    EXPIRY = 1
    DELETION = 2


class LiveSerials:
    """The serials of a list; positions count from 0 in the list's order.

    A plain Python list: to move all of its 100,000 elements costs less than to encode one page.
    """

    def __init__(self, serials: range, *, order: Order, tie_size: int, salt: int) -> None:
        self._order = order
        # A list without order has none within its ties either.
        self._tie_size = 1 if order is Order.UNORDERED else tie_size
        self._salt = salt
        # By rank, so that the newest comes last unless there is no order.
        self._serials = sorted(serials, key=self._rank)

    def __len__(self) -> int:
        return len(self._serials)

    def insert(self, serial: int) -> None:
        self._serials.insert(self._index(serial), serial)

    def remove(self, serial: int) -> None:
        del self._serials[self._index(serial)]

    def at(self, position: int) -> int:
        """Where ties are shuffled, that of one draw among many. IndexError past the end."""
        if self._order is Order.NEWEST_FIRST:
            position = len(self) - 1 - position
        if position < 0:
            raise IndexError(position)
        return self._serials[position]

    def pick(self, start: int, stop: int, *, draw: int) -> list[int]:
        """Those from one position up to another, as far as the list goes.

        Equal draws show one order of the ties, so that picks of one draw fit together.
        """
        start, stop = min(start, len(self)), min(stop, len(self))
        if self._order is Order.NEWEST_FIRST:
            start, stop = len(self) - stop, len(self) - start
        picked = self._serials[start:stop]
        if self._tie_size > 1 and start < stop:
            picked = self._shuffle_ties(start, stop, salt=mix64(self._salt ^ draw))
        return picked[::-1] if self._order is Order.NEWEST_FIRST else picked

    def _shuffle_ties(self, start: int, stop: int, *, salt: int) -> list[int]:
        # Ties at the edges are drawn as a whole: their other members belong to other pages.
        serials, tie_size = self._serials, self._tie_size
        first, last = start, stop
        while first > 0 and serials[first - 1] // tie_size == serials[start] // tie_size:
            first -= 1
        while last < len(serials) and serials[last] // tie_size == serials[stop - 1] // tie_size:
            last += 1
        shuffled = sorted(
            serials[first:last], key=lambda serial: (serial // tie_size, mix64(serial ^ salt))
        )
        return shuffled[start - first : stop - first]

    def _index(self, serial: int) -> int:
        return bisect_left(self._serials, self._rank(serial), key=self._rank)

    def _rank(self, serial: int) -> int:
        return mix64(serial ^ self._salt) if self._order is Order.UNORDERED else serial


class Drift:
    """The list's whole history, as far as it was advanced; seconds are since the first request.

    State n is the list after n changes; state 0 is the first request's. Serials count from the
    oldest session. The same seed gives the same states at the same seconds, no matter how often
    and when the drift is advanced.
    """

    def __init__(
        self,
        churn: Churn,
        *,
        seed: str,
        session_count: int,
        created_s: Callable[[int], float],
    ) -> None:
        """`created_s` of a serial below `session_count`; at most 0."""
        self.initial_count = session_count
        self._churn = churn
        self._created_s = created_s
        self._seed = seed
        self._random = random.Random(f"{seed}/positions")  # noqa: S311  # no secret
        self._due = self._draw_due()
        self._next_due = next(self._due)
        # The oldest serial that may be in the list; it only grows.
        self._oldest = self._find_first()
        self._first = self._oldest
        self.live = self.initial()
        # By change: when it was, the serial it added or the complement of the one it took.
        self._changed_s: list[float] = []
        self._changes: list[int] = []
        # By state: how many were in the list.
        self._totals = [len(self.live)]
        # The state a serial appeared in, by its distance to `initial_count`, and disappeared in.
        self._inserted: list[int] = []
        self._removed: dict[int, int] = {}

    @property
    def state(self) -> int:
        return len(self._changes)

    def advance(self, at_s: float) -> None:
        """Lets all happen that is due."""
        while True:
            due_s, change = self._next_due
            expires_s = self._oldest_expires_s()
            if min(due_s, expires_s) > at_s:
                return
            if expires_s <= due_s:
                self.expire(expires_s)
                continue
            self._next_due = next(self._due)
            match change:
                case Change.INSERTION:
                    self.insert(due_s)
                case Change.EXPIRY:
                    self.expire(due_s)
                case Change.DELETION:
                    # Drawn even from an empty list, so that the later ones stay the same.
                    self._delete(self._random.random(), due_s)

    def insert(self, at_s: float) -> None:
        serial = self.initial_count + len(self._inserted)
        self.live.insert(serial)
        self._note(serial, at_s)
        self._inserted.append(self.state)
        if self._churn.keep_count is not None and len(self.live) > self._churn.keep_count:
            self.expire(at_s)

    def expire(self, at_s: float) -> None:
        """Takes the oldest session, if there is one."""
        if len(self.live) > 0:
            self.remove(self._oldest_live(), at_s)

    def remove(self, serial: int, at_s: float) -> None:
        """Takes a session that is in the list."""
        self.live.remove(serial)
        self._note(~serial, at_s)
        self._removed[serial] = self.state

    def state_at(self, at_s: float) -> int:
        """The latest state no younger than this."""
        return bisect_right(self._changed_s, at_s)

    def total(self, state: int) -> int:
        return self._totals[max(0, state)]

    def replay(self, serials: LiveSerials, first: int, last: int) -> None:
        """Turns the serials of one state into those of a later one."""
        for change in self._changes[first:last]:
            if change >= 0:
                serials.insert(change)
            else:
                serials.remove(~change)

    def initial(self) -> LiveSerials:
        """The serials of state 0."""
        return LiveSerials(
            range(self._first, self.initial_count),
            order=self._churn.order,
            tie_size=self._churn.tie_size,
            salt=random.Random(f"{self._seed}/order").getrandbits(64),  # noqa: S311  # no secret
        )

    def created_s(self, serial: int) -> float:
        """Sessions of one tie have the time of the first of them."""
        serial -= serial % self._churn.tie_size
        if serial < self.initial_count:
            return self._created_s(serial)
        return self._changed_s[self._inserted[serial - self.initial_count] - 1]

    def held_throughout(self, first: int, last: int) -> Iterator[int]:
        """Serials that were in the list in both states and so in all between, oldest first."""
        serials = range(self._first, self.initial_count + bisect_right(self._inserted, first))
        return (serial for serial in serials if self._removed.get(serial, inf) > last)

    def held_between(self, first: int, last: int) -> Iterator[int]:
        """Serials that were in the list in any of these states, oldest first."""
        serials = range(self._first, self.initial_count + bisect_right(self._inserted, last))
        return (serial for serial in serials if self._removed.get(serial, inf) > first)

    def insertion_count(self, first: int, last: int) -> int:
        """How many of the changes from one state to the other were insertions."""
        return bisect_right(self._inserted, last) - bisect_right(self._inserted, first)

    def _note(self, change: int, at_s: float) -> None:
        # A session may be due before it came: where it joined an old tie.
        at_s = max(at_s, self._changed_s[-1]) if self._changed_s else at_s
        self._changed_s.append(at_s)
        self._changes.append(change)
        self._totals.append(len(self.live))

    def _delete(self, share: float, at_s: float) -> None:
        if len(self.live) > 0:
            self.remove(self.live.at(int(share * len(self.live))), at_s)

    def _oldest_live(self) -> int:
        while self._oldest in self._removed:
            self._oldest += 1
        return self._oldest

    def _oldest_expires_s(self) -> float:
        if self._churn.keep_age_s is None or len(self.live) == 0:
            return inf
        return self.created_s(self._oldest_live()) + self._churn.keep_age_s

    def _find_first(self) -> int:
        """What retention took before the first request was never in the list."""
        first = 0
        if self._churn.keep_count is not None:
            first = max(0, self.initial_count - self._churn.keep_count)
        if self._churn.keep_age_s is not None:
            serials = range(self.initial_count)
            first = max(first, bisect_right(serials, -self._churn.keep_age_s, key=self.created_s))
        return first

    def _draw_due(self) -> Iterator[tuple[float, Change]]:
        flows = {
            Change.INSERTION: self._churn.insertions,
            Change.EXPIRY: self._churn.expiries,
            Change.DELETION: self._churn.deletions,
        }
        # Each flow has a chance of its own: to change one does not move the others.
        drawn = [
            draw_instants(flow, change, random.Random(f"{self._seed}/{change.name}"))  # noqa: S311
            for change, flow in flows.items()
        ]
        yield from heapq.merge(*drawn)
        yield inf, Change.DELETION


def draw_instants(
    flow: Flow, change: Change, chance: random.Random
) -> Iterator[tuple[float, Change]]:
    """Seconds in ascending order, as many as there are changes."""
    if flow.per_s == 0:
        return
    at_s = flow.start_s
    for number in count() if flow.limit is None else range(flow.limit):
        if flow.even:
            # Not summed up: a tenth of a second ten times would be a little more than a second.
            at_s = flow.start_s + (number // flow.burst + 1) * flow.burst / flow.per_s
        elif number % flow.burst == 0:
            at_s += chance.expovariate(flow.per_s / flow.burst)
        yield at_s, change
