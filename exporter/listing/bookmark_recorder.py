"""Records the bookmark of a full listing as its answers come; performs no I/O."""

from dataclasses import dataclass, replace

from exporter.listing.bookmark import (
    TOLERANCE_MS,
    Anchor,
    AnchorSample,
    Bookmark,
    Unfinished,
    Watch,
    cut_head,
    digest_of,
    is_newest_first,
)
from exporter.listing.interface import PageRequest
from exporter.listing.order import read_times
from exporter.listing.windows import Window
from exporter.model import ListingFacts, SessionPage


@dataclass(frozen=True, slots=True)
class HeadObservation:
    """An answer to page 1 behind whose first row every session was seen."""

    total_count: int
    session_ids: list[str]
    times: list[int | None]
    number: int
    is_whole: bool
    """Whether it shows the whole list."""


@dataclass(frozen=True, slots=True)
class UnfinishedObservation:
    rank: int
    number: int
    create_time_ms: int
    digest: str


class BookmarkRecorder:
    """Sees every answer of a listing before the listing takes it in: the version of a session that
    it sees first is the one that is exported.
    """

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._head: HeadObservation | None = None
        self._unfinished: dict[str, UnfinishedObservation] = {}
        self._anchors = AnchorSample()
        self._is_orderly = True
        self._newest_ms = 0
        self._head_newest_ms = 0
        self._max_wanted = 0
        self._max_on_page = 0

    def note(self, request: PageRequest, page: SessionPage) -> None:
        ids = page.session_ids
        times = read_times(page.sessions)
        if not ids or not self._is_orderly:
            return
        timed = [time for time in times if time is not None]
        if not timed or not is_newest_first(timed):
            self._is_orderly = False
            return
        self._max_on_page = max(self._max_on_page, len(ids))
        self._newest_ms = max(self._newest_ms, *timed)
        if request.page_num == 1:
            self._head_newest_ms = max(self._head_newest_ms, *timed)
            self._max_wanted = max(self._max_wanted, min(request.page_size, page.total_count))
            is_whole = page.total_count <= len(ids) < request.page_size
            self._note_head(
                HeadObservation(page.total_count, list(ids), times, request.number, is_whole)
            )
        top_rank = page.total_count - 1 - Window(request.page_num, request.page_size).start
        self._anchors.add(Anchor(top_rank, ids[0], times[0]), request.number)
        for position in self._watch.find(page.sessions):
            first = self._unfinished.get(ids[position])
            self._unfinished[ids[position]] = UnfinishedObservation(
                top_rank - position,
                request.number,
                times[position] or 0,
                digest_of(page.sessions[position]) if first is None else first.digest,
            )

    def _note_head(self, seen: HeadObservation) -> None:
        # Sessions that came since the listing began may have passed by unseen, unless this answer
        # shares a session with the one it began with.
        if self._head is None or not set(self._head.session_ids).isdisjoint(seen.session_ids):
            self._head = seen

    def to_bookmark(self, facts: ListingFacts) -> Bookmark | None:
        """For the next run; None where only a full listing can find what is new."""
        head = self._head
        if self._newest_ms > self._head_newest_ms + TOLERANCE_MS:
            # Some of the newest stand further back, such as those that have not ended.
            return None
        if head is None or not self._is_orderly or facts.proof == "unproven":
            return None
        vanished_count = facts.deleted_count

        def to_serial(rank: int, number: int) -> int:
            # Sessions that vanished while the list was read make earlier ranks too high. When each
            # of them went is not known: they are taken to have gone at an even pace.
            late = (head.number - number) / head.number
            # Where the total hides rows, ranks are below zero.
            return rank - round(vanished_count * late)

        count = cut_head(head.session_ids, head.times, is_whole=head.is_whole)
        timed = [time for time in head.times[:count] if time is not None]
        if not timed:
            return None
        places = {each: place for place, each in enumerate(head.session_ids)}
        return Bookmark(
            total_count=head.total_count,
            expired_count=0,
            head=tuple(head.session_ids[:count]),
            head_oldest_ms=min(timed),
            head_newest_ms=max(timed),
            anchors=tuple(
                replace(anchor, serial=to_serial(anchor.serial, number))
                for anchor, number in self._anchors.read_all()
                if anchor.session_id not in places
            ),
            unfinished=tuple(
                Unfinished(
                    head.total_count - 1 - places[session_id]
                    if session_id in places
                    else to_serial(seen.rank, seen.number),
                    session_id,
                    seen.create_time_ms,
                    seen.digest,
                    self._watch.now_ms,
                )
                for session_id, seen in self._unfinished.items()
            ),
            slack=vanished_count,
            page_cap=self._max_on_page if self._max_on_page < self._max_wanted else None,
            full_at_ms=self._watch.now_ms,
        )
