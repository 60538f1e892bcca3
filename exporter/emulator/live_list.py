"""The rows of a list at one instant, kept in its order; performs no I/O."""

from bisect import bisect_left, insort

from exporter.emulator.churn import Order
from exporter.emulator.generated_list import mix64

SERIAL_BITS = 40
SERIAL_MASK = (1 << SERIAL_BITS) - 1


def build_key(rank: int, serial: int) -> int:
    """A number that sorts by rank, then by serial, and tells both."""
    return rank << SERIAL_BITS | serial


class LiveList:
    """The keys of a list's rows; positions count from 0 in the list's order.

    A plain Python list: to move all of its 100,000 elements costs less than to encode one page.
    """

    def __init__(self, keys: list[int], *, order: Order, shuffles_ties: bool, salt: int) -> None:
        self._newest_first = order is Order.NEWEST_FIRST
        # A list without order has none within its ties either.
        self._shuffles_ties = shuffles_ties and order is not Order.UNORDERED
        self._salt = salt
        # The newest comes last, unless there is no order.
        self._keys = sorted(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def apply(self, gone: int | None, come: int | None) -> None:
        """One change: a row that goes, one that comes, or one that moves."""
        if gone is not None:
            del self._keys[bisect_left(self._keys, gone)]
        if come is not None:
            insort(self._keys, come)

    def at(self, position: int) -> int:
        """Its serial; where ties are shuffled, that of one draw among many. IndexError past the
        end.
        """
        if self._newest_first:
            position = len(self) - 1 - position
        if position < 0:
            raise IndexError(position)
        return self._keys[position] & SERIAL_MASK

    def pick(self, start: int, stop: int, *, draw: int) -> list[int]:
        """The serials from one position up to another, as far as the list goes.

        Equal draws show one order of the ties, so that picks of one draw fit together.
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
        # Ties at the edges are drawn as a whole: their other members belong to other pages.
        keys = self._keys
        first = bisect_left(keys, build_key(keys[start] >> SERIAL_BITS, 0))
        last = bisect_left(keys, build_key((keys[stop - 1] >> SERIAL_BITS) + 1, 0))
        shuffled = sorted(
            keys[first:last],
            key=lambda key: (key >> SERIAL_BITS, mix64((key & SERIAL_MASK) ^ salt)),
        )
        return shuffled[start - first : stop - first]
