"""The session ids of one listing, kept in 12 to 24 bytes each; performs no I/O.

A Python set of the ids themselves would cost over 100 bytes each. Only a 64-bit hash of each id is kept, in an open
addressing table. Two of n ids share a hash with probability n²/2⁶⁵, about one in four million for three million
sessions; the listing would then be one row short of its total, and found incomplete, not passed as complete.
"""

from array import array
from collections.abc import Iterable

MASK_64 = (1 << 64) - 1
LEAST_SLOTS = 1024


class KeySet:
    """A set of texts that only grows."""

    def __init__(self) -> None:
        # A slot holds a hash, or zero where it is free; never more than two thirds are taken.
        self._slots = array("Q", bytes(8 * LEAST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_all(self, keys: Iterable[str]) -> list[bool]:
        """Add each key; whether it was new, in order. A key given twice is new once."""
        slots = self._slots
        last = len(slots) - 1
        added = []
        for key in keys:
            word = hash(key) & MASK_64 or 1
            place = word & last
            while (found := slots[place]) and found != word:
                place = (place + 1) & last
            added.append(not found)
            if not found:
                slots[place] = word
                self._count += 1
                if self._count * 3 > last * 2:
                    slots = self._slots = grow(slots)
                    last = len(slots) - 1
        return added


def grow(slots: "array[int]") -> "array[int]":
    """The same hashes in twice the slots."""
    larger = array("Q", bytes(2 * slots.itemsize * len(slots)))
    last = len(larger) - 1
    for word in slots:
        if word:
            place = word & last
            while larger[place]:
                place = (place + 1) & last
            larger[place] = word
    return larger
