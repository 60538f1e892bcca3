"""The bookmark that a run leaves of one gateway's list for the next incremental one; no I/O.

The list is newest first. A session's *serial* is its rank, counted from the end of the list, plus
the number of sessions that have expired from the end so far: it stays the same while sessions come
at the head and go at the end. Every session that the list held at the bookmark's instant has been
exported: in a final version, or in the version whose digest the bookmark keeps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from exporter.listing.overlap import find_longest_rise
from exporter.model import RawSession
from exporter.records.encode import encode_json
from exporter.times import read_create_time

TOLERANCE_MS = 60_000
"""By how much newer than a session in front of it a session may be."""
DAY_MS = 24 * 3600 * 1000

FINAL_STATES = frozenset({"terminated", "error"})
"""In lower case, though any case counts; a session in any other state may change."""
ACTIVE_STATES = frozenset({"starting", "running", "terminating"})
"""A session in any other state that is not final has ended once it stayed unchanged for a day."""
MAX_HEAD_ROWS = 100
MAX_ANCHORS = 256


@dataclass(frozen=True, slots=True)
class Watch:
    """Decides which sessions may still change, at the time of a run."""

    now_ms: int
    settle_ms: int
    """How long a session is read again after it has ended."""

    def watches(self, session: RawSession, *, since_ms: int) -> bool:
        """Whether a session may change; `since_ms` is when its present version was seen first."""
        state = session.get("state")
        name = state.casefold() if isinstance(state, str) else ""
        if name in ACTIVE_STATES:
            return True
        end_ms = read_create_time(session.get("endTime"))
        # Without an end time, only the time it was seen counts.
        changed_ms = since_ms if end_ms is None else min(end_ms, since_ms)
        if name not in FINAL_STATES:
            return self.now_ms - changed_ms < DAY_MS
        return self.now_ms - changed_ms < self.settle_ms

    def find(self, sessions: Sequence[RawSession]) -> list[int]:
        """The positions of those that may change, all seen for the first time."""
        ends: list[Any] = [session.get("endTime") for session in sessions]
        bound_ms = self.now_ms - self.settle_ms
        if set(map(type, ends)) == {int} and min(ends) > 0 and max(ends) <= bound_ms:
            found = find_unfinished(sessions)
        else:
            found = list(range(len(sessions)))
        return [
            at
            for at in found
            if self.watches(sessions[at], since_ms=self.now_ms) and not self._is_old(sessions[at])
        ]

    def _is_old(self, session: RawSession) -> bool:
        """Whether a session that is seen for the first time, and has ended without an end time, is
        taken to have ended long ago.
        """
        create_ms = read_create_time(session.get("createTime"))
        has_end = read_create_time(session.get("endTime")) is not None
        if has_end or create_ms is None or not is_final(session):
            return False
        return self.now_ms - create_ms >= DAY_MS


@dataclass(frozen=True, slots=True)
class Anchor:
    """A session whose place shows how many came or went in front of it."""

    serial: int
    session_id: str
    create_time_ms: int | None = None
    """None where it has none: it is looked for by its serial alone."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A session that may change: it has not ended, or only recently."""

    serial: int
    session_id: str
    create_time_ms: int
    digest: str
    """Of the version that was exported last."""
    since_ms: int = 0
    """When that version was seen first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bookmark:
    """One gateway's list at the instant of one answer."""

    total_count: int
    expired_count: int
    """Sessions that went from the end of the list since serials began to be counted."""
    head: tuple[str, ...]
    """Ids of the first rows, in list order."""
    head_oldest_ms: int
    """The create time of the last of them."""
    head_newest_ms: int | None = None
    """The create time of the first of them; None where it was not kept."""
    anchors: tuple[Anchor, ...]
    """Spread over the whole list, from its end on."""
    unfinished: tuple[Unfinished, ...]
    slack: int = 0
    """How far serials may be off, because sessions vanished while they were recorded."""
    page_cap: int | None = None
    """Rows on a page where the service puts fewer than it is asked for; None: as many."""
    full_at_ms: int = 0
    """When the list was last read in full."""

    def serial_at(self, place: int) -> int:
        """The serial of the row that stood at a place of the list."""
        return self.total_count + self.expired_count - 1 - place


def explain_full_listing(bookmark: Bookmark, *, now_ms: int, every_s: float) -> str:
    """Why a gateway is to be listed in full, for a reader; empty while its last full listing is
    recent enough. It is due as well where the clock was set back since.
    """
    age_ms = now_ms - bookmark.full_at_ms
    if bookmark.full_at_ms > 0 and 0 <= age_ms < every_s * 1000:
        return ""
    days = every_s / 86_400
    return f"no full listing in the last {days:.3g} day{'' if days == 1 else 's'}"


def is_final(session: RawSession) -> bool:
    state = session.get("state")
    return isinstance(state, str) and state.casefold() in FINAL_STATES


def find_unfinished(sessions: Sequence[RawSession]) -> list[int]:
    """The positions of those that may change; there is hardly ever one, so the check is cheap."""
    states = [session.get("state") for session in sessions]
    if sum(map(states.count, FINAL_STATES)) == len(states):
        return []
    return [position for position, session in enumerate(sessions) if not is_final(session)]


def digest_of(session: RawSession) -> str:
    """Equal for two versions of a session with the same content."""
    return blake2b(encode_json(dict(sorted(session.items()))), digest_size=8).hexdigest()


def is_newest_first(times: Sequence[int]) -> bool:
    """Whether new sessions stand at the head.

    A service may order by another time that is not quite the create time, and a session may bear an
    old one. But where newer sessions stand behind older ones, new ones may come anywhere.
    """
    falling = [-time for time in times]
    if falling == sorted(falling):
        return True
    kept = find_longest_rise([(each, at) for at, each in enumerate(falling)])
    if len(kept) * 10 < len(times) * 9:
        return False
    in_order = set(kept)
    reached = falling[kept[0]]
    for at, each in enumerate(falling):
        if at in in_order:
            reached = each
        elif each < reached - TOLERANCE_MS:
            # Newer than one that keeps the order and stands in front of it.
            return False
    return True


def cut_head(session_ids: Sequence[str], times: Sequence[int | None], *, is_whole: bool) -> int:
    """How many of the first rows to keep as the head; `is_whole` if they are all of the list.

    Where the list goes on, the last row may share its time with an unseen one, and the two may
    change places: the head ends before such a tie. It ends with a row that has a time.
    """
    count = min(len(session_ids), MAX_HEAD_ROWS)
    if is_whole and count == len(session_ids):
        return count
    timed = [at for at in range(count) if times[at] is not None]
    if not timed:
        return count
    last_ms = times[timed[-1]]
    kept = [at for at in timed if times[at] != last_ms]
    # All of one time: better met than not at all.
    return kept[-1] + 1 if kept else count


class AnchorSample:
    """At most `MAX_ANCHORS` anchors, spread evenly over the serials that they are added with."""

    def __init__(self) -> None:
        self._stride = 1
        self._by_range: dict[int, tuple[Anchor, int]] = {}

    def add(self, anchor: Anchor, number: int = 0) -> None:
        self._by_range.setdefault(anchor.serial // self._stride, (anchor, number))
        while len(self._by_range) > MAX_ANCHORS:
            kept = self.read_all()
            self._stride *= 2
            self._by_range = {}
            for each in kept:
                self._by_range.setdefault(each[0].serial // self._stride, each)

    def read_all(self) -> list[tuple[Anchor, int]]:
        """From the end of the list on, each with the number it was added with."""
        return sorted(self._by_range.values(), key=lambda each: each[0].serial)
