"""Compares one more sweep with those before it; performs no I/O.

A session that was seen both before an instant and after it was in the list at that instant. If
there are as many of these as the total, they are the whole list, whatever its order.
"""

from exporter.listing.keyset import KeySet
from exporter.model import SessionPage


class ConfirmingSweep:
    """One more sweep; its first page is asked for alone, once every earlier answer is in."""

    def __init__(self, expected_count: int) -> None:
        self._keys = KeySet(expected_count)
        self._total_count: int | None = None
        self._differs = False

    @property
    def has_begun(self) -> bool:
        return self._total_count is not None

    def add(self, page: SessionPage, *, start: int, new_count: int) -> None:
        """Take in an answer from place `start` on; `new_count` of its sessions no sweep has seen
        before.
        """
        if self._total_count is None:
            self._total_count = page.total_count
        # A total that moves, or has rows behind it, may lag.
        self._differs |= new_count > 0 or page.total_count != self._total_count
        self._differs |= start + len(page.session_ids) > page.total_count
        self._keys.add_all(page.session_ids)

    @property
    def agrees(self) -> bool:
        return not self._differs and len(self._keys) == self._total_count
