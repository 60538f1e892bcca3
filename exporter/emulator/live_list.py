"""The rows of a list at one instant, in list order; performs no I/O."""

from bisect import bisect_left, insort

from exporter.emulator.churn import Order
from exporter.emulator.generated_list import mix64

SERIAL_BITS = 40
SERIAL_MASK = (1 << SERIAL_BITS) - 1


def build_key(rank: int, serial: int) -> int:
    """A number that holds rank and serial, and sorts by rank first."""
    return rank << SERIAL_BITS | serial


class LiveList:
    """The keys of a list's rows; positions count from 0 in list order.

    A plain Python list: moving all of 100,000 elements costs less than encoding one page.
    """

    def __init__(self, keys: list[int], *, order: Order, shuffles_ties: bool, salt: int) -> None:
        self._newest_first = order is Order.NEWEST_FIRST
        # An unordered list has no order within its ties to shuffle.
        self._shuffles_ties = shuffles_ties and order is not Order.UNORDERED
        self._salt = salt
        # Ascending by rank, so the newest comes last unless the list is unordered.
        self._keys = sorted(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def apply(self, removed: int | None, inserted: int | None) -> None:
        """Apply one change: a row is removed, inserted, or moved (both)."""
        if removed is not None:
            del self._keys[bisect_left(self._keys, removed)]
        if inserted is not None:
            insort(self._keys, inserted)

    def at(self, position: int) -> int:
        """The serial at a position, ties unshuffled. Raises IndexError past the end."""
        if self._newest_first:
            position = len(self) - 1 - position
        if position < 0:
            raise IndexError(position)
        return self._keys[position] & SERIAL_MASK

    def pick(self, start: int, stop: int, *, draw: int) -> list[int]:
        """The serials from `start` up to `stop`, as far as the list goes.

        Equal draws give ties the same order, so that picks of one draw fit together.
        """
        start, stop = min(start, len(self)), min(stop, len(self))
        if self._newest_first:
            start, stop = len(self) - stop, len(self) - start
        picked = self._keys[start:stop]
        if self._shuffles_ties and picked:
            picked = self._shuffle_ties(start, stop, salt=mix64(self._salt ^ draw))
        if self._newest_first:
            picked.reverse()
        return [key & SERIAL_MASK for key in picked]

    def _shuffle_ties(self, start: int, stop: int, *, salt: int) -> list[int]:
        # Ties at both ends are shuffled as a whole, as they continue on other pages.
        keys = self._keys
        first = bisect_left(keys, build_key(keys[start] >> SERIAL_BITS, 0))
        last = bisect_left(keys, build_key((keys[stop - 1] >> SERIAL_BITS) + 1, 0))
        shuffled = sorted(
            keys[first:last],
            key=lambda key: (key >> SERIAL_BITS, mix64((key & SERIAL_MASK) ^ salt)),
        )
        return shuffled[start - first : stop - first]
