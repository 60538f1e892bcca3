"""An index of the row that showed each session last, in 18 to 36 bytes a session; no I/O.

Rows are numbered through all answers of a listing, in the order in which these were taken in. A
Python dictionary of the ids would cost over 150 bytes each. Only a 64-bit hash of each id is kept,
in an open addressing table, and the number of the row that showed it last. Two of n ids share a
hash with probability n²/2⁶⁵, about one in four million for three million sessions.
"""

from array import array
from collections.abc import Sequence

MIN_SLOTS = 1024


class RowIndex:
    """The latest row of each session; `expected_count` of them fit without growing."""

    def __init__(self, expected_count: int) -> None:
        # A slot holds a hash, or zero where it is free. At most two thirds are taken, so that a
        # free one is near.
        slot_count = max(MIN_SLOTS, 1 << (expected_count * 3 // 2).bit_length())
        self._slots = array("q", (0,)) * slot_count
        self._rows = array("I", (0,)) * slot_count
        self._count = 0

    def __len__(self) -> int:
        """Distinct sessions."""
        return self._count

    def add_all(self, keys: Sequence[str], first_row: int) -> list[tuple[int, int]]:
        """Note rows from number `first_row` on; the positions of the sessions that an earlier row
        showed, here or before, each with that row's number.
        """
        while (self._count + len(keys)) * 3 > len(self._slots) * 2:
            self._grow()
        slots, rows = self._slots, self._rows
        last = len(slots) - 1
        repeated = []
        for row, key in enumerate(keys, first_row):
            word = hash(key) or 1
            place = word & last
            while found := slots[place]:
                if found == word:
                    repeated.append((row - first_row, rows[place]))
                    break
                place = (place + 1) & last
            else:
                slots[place] = word
            rows[place] = row
        self._count += len(keys) - len(repeated)
        return repeated

    def _grow(self) -> None:
        former_slots, former_rows = self._slots, self._rows
        size = 2 * len(former_slots)
        slots, rows = array("q", (0,)) * size, array("I", (0,)) * size
        last = size - 1
        for former_place, word in enumerate(former_slots):
            if word:
                place = word & last
                while slots[place]:
                    place = (place + 1) & last
                slots[place], rows[place] = word, former_rows[former_place]
        self._slots, self._rows = slots, rows
