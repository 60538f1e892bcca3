"""The session ids of one listing, kept in 12 to 24 bytes each; performs no I/O.

A Python set of the ids themselves would cost over 100 bytes each. Only a 64-bit hash of each id is
kept, in an open addressing table. Two of n ids share a hash with probability n²/2⁶⁵, about one in
four million for three million sessions; the listing would then be one row short of its total, and
unproven.
"""

from array import array
from collections.abc import Sequence

MIN_SLOTS = 1024


class KeySet:
    """A set of texts that only grows; `expected_count` of them fit without growing."""

    def __init__(self, expected_count: int) -> None:
        # A slot holds a hash, or zero where it is free. At most two thirds are taken, so that a
        # free one is near.
        slot_count = max(MIN_SLOTS, 1 << (expected_count * 3 // 2).bit_length())
        self._slots = array("q", (0,)) * slot_count
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add_all(self, keys: Sequence[str]) -> list[int]:
        """Add the keys; the positions of those that were there before, here or earlier in
        `keys`.
        """
        while (self._count + len(keys)) * 3 > len(self._slots) * 2:
            self._slots = grow(self._slots)
        slots = self._slots
        last = len(slots) - 1
        repeated = []
        for position, key in enumerate(keys):
            word = hash(key) or 1
            place = word & last
            while found := slots[place]:
                if found == word:
                    repeated.append(position)
                    break
                place = (place + 1) & last
            else:
                slots[place] = word
        self._count += len(keys) - len(repeated)
        return repeated


def grow(slots: "array[int]") -> "array[int]":
    """The same hashes in twice the slots."""
    larger = array("q", (0,)) * (2 * len(slots))
    last = len(larger) - 1
    for word in slots:
        if word:
            place = word & last
            while larger[place]:
                place = (place + 1) & last
            larger[place] = word
    return larger
