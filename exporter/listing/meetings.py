"""Answers that show sessions an earlier run has met at the head of the list; performs no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.listing.known import Known

MIN_KNOWN_ROWS = 10
"""So many have to be met: a session that is shown late may stand behind some of them."""
LATE_MS = 60_000
"""How long after it was created a session may be shown first."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """An answer that shows known sessions of the head."""

    page: int
    """Its index among the answers."""
    base: int
    """The serial of the row at place 0, as the deepest of these sessions tells."""
    reached: int
    """The place in the known head of the deepest of them."""
    came_count: int
    """Sessions in front of that one that were not there before, less those that went."""
    total_count: int
    oldest_ms: int | None
    """Create time of the deepest of them."""
    is_last: bool
    """Whether the list seems to end with this answer."""


def find_depth(
    times: Sequence[int | None], met: Sequence[tuple[int, int]], *, is_last: bool
) -> tuple[int, int]:
    """The position of the deepest known session, and its place in the known head.

    Sessions of one create time may have changed places: only the last of all of them tells.
    """
    places = dict(met)
    for at, _ in reversed(met):
        tied = {each for each, time in enumerate(times) if time == times[at]}
        is_whole = is_last or max(tied) < len(times) - 1
        if is_whole and tied <= places.keys() and at == max(tied):
            return at, max(places[each] for each in tied)
    return met[-1]


def is_deep_enough(deepest: Meeting, known: Known) -> bool:
    """Whether no session that was shown late can stand behind the known ones that were met."""
    if deepest.reached == len(known.head) - 1 or deepest.is_last:
        return True
    if deepest.reached + 1 < MIN_KNOWN_ROWS:
        return False
    newest_ms = known.head_newest_ms
    if newest_ms is None or deepest.oldest_ms is None:
        return True
    return deepest.oldest_ms < newest_ms - LATE_MS
