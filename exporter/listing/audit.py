"""Checks by totals and an anchor whether sessions came where nothing was read; performs no I/O.

Behind the bookmark's head an incremental listing reads only what it has to. If the total differs
from what was found, sessions went there, or came, or both. The place of an anchor near the end of
the list then shows how many went or came in front of it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from exporter.listing.bookmark import Anchor, Bookmark
from exporter.listing.bookmark_head import Meeting
from exporter.listing.lookups import Lookup
from exporter.model import SessionPage

MAX_ANCHORS_TRIED: Final = 4
"""Anchors that are looked for and not found, before only a full listing will do."""

Verdict = Literal["fits", "more claimed", "anchor needed", "changed"]


@dataclass(frozen=True, slots=True)
class AnchorObservation:
    """Where an anchor stands by now."""

    place: int
    total_count: int
    """Of the answer that shows it."""
    tied_count: int
    """Others in the answer that were created at the same time."""


class Audit:
    """Compares one run's totals and places with those of the bookmark."""

    def __init__(self, bookmark: Bookmark, *, page_size: int) -> None:
        self._bookmark = bookmark
        self._page_size = page_size
        self._tried_count = 0
        self._anchor_ids = {each.session_id for each in bookmark.anchors}
        self._seen: dict[str, AnchorObservation] = {}
        self.anchor: Lookup | None = None
        """The anchor that is looked for."""
        self.gone_count = 0
        """Sessions that went from behind the head, less those that came there."""

    def note(self, start: int, page: SessionPage, times: Sequence[int | None]) -> None:
        """Take in an answer, whatever it was asked for."""
        for session_id in self._anchor_ids.intersection(page.session_ids):
            at = page.session_ids.index(session_id)
            tied_count = times.count(times[at]) - 1
            seen = AnchorObservation(start + at, page.total_count, tied_count)
            self._seen.setdefault(session_id, seen)
        if self.anchor is not None:
            self._place(self.anchor)

    def _place(self, anchor: Lookup) -> None:
        seen = self._seen.get(anchor.session_id)
        if seen is not None and anchor.place is None:
            anchor.place, anchor.total_count = seen.place, seen.total_count

    def compare(self, deepest: Meeting) -> Verdict:
        """Compare the totals, and the anchor's place if it was found."""
        came = deepest.total_count - self._bookmark.total_count
        self.gone_count = deepest.came_count - came
        if self.gone_count < 0:
            return "more claimed"
        if self.gone_count == 0:
            return "fits"
        if self.anchor is None or self.anchor.place is None:
            return "anchor needed"
        return "fits" if self._fits(self.anchor, deepest) else "changed"

    def _fits(self, anchor: Lookup, deepest: Meeting) -> bool:
        """Whether no more went in front of the anchor, or behind it, than went in all."""
        gone_in_front = self._count_gone_in_front(anchor, deepest)
        tolerance = self._bookmark.slack + abs(anchor.total_count - deepest.total_count)
        # Sessions of one create time may have changed places.
        tolerance += self._seen[anchor.session_id].tied_count
        return -tolerance <= gone_in_front <= self.gone_count + tolerance

    @staticmethod
    def _count_gone_in_front(anchor: Lookup, deepest: Meeting) -> int:
        # What went in front of it moved it to the front, what came moved it back.
        base = deepest.base + anchor.total_count - deepest.total_count
        return base - anchor.serial - (anchor.place or 0)

    def find_kept(self, deepest: Meeting) -> tuple[Anchor, ...]:
        """The anchors whose serials are known to be what they were."""
        anchors, anchor = self._bookmark.anchors, self.anchor
        if self.gone_count == 0:
            return anchors
        if anchor is None or anchor.place is None:
            return ()
        if self._count_gone_in_front(anchor, deepest) != 0:
            # Where the others are by now is not known exactly.
            return ()
        return tuple(each for each in anchors if each.serial >= anchor.serial)

    def find_anchor(self) -> Lookup | None:
        """The anchor to look for; None where none can still be there."""
        if self.anchor is None or self.anchor.is_gone or self.anchor.is_lost:
            self.anchor = self._choose()
        return self.anchor

    @property
    def is_exhausted(self) -> bool:
        return self._tried_count > MAX_ANCHORS_TRIED

    def _choose(self) -> Lookup | None:
        """The nearest to the end of those that must still be there; later ones further in front."""
        bookmark = self._bookmark
        gone = bookmark.expired_count + self.gone_count + bookmark.slack
        tried = -1 if self.anchor is None else self.anchor.serial
        left = [each for each in bookmark.anchors if each.serial >= gone and each.serial > tried]
        if not left:
            return None
        self._tried_count += 1
        nearest: Anchor = min(left, key=lambda each: each.serial)
        anchor = Lookup(
            nearest.serial, nearest.session_id, nearest.create_time_ms, page_size=self._page_size
        )
        self._place(anchor)
        return anchor
