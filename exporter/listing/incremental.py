"""Reads the pages of a list that hold sessions which an earlier run has not seen; performs no I/O.

Whatever does not fit the bookmark falls back to a full listing. A session put in far behind the
head while another one went is not noticed: it leaves the totals as they were.
"""

from collections import deque
from dataclasses import replace

from exporter.listing.bookmark import Bookmark, Watch
from exporter.listing.bookmark_recorder import BookmarkRecorder
from exporter.listing.change_rounds import ChangeRounds
from exporter.listing.changes import ChangeTracker
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.listing.plan import PlannedRequest
from exporter.listing.windows import Window
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage


class IncrementalListing:
    """The state of one gateway's listing, which goes on from a bookmark.

    Invariant: answers are taken in by the order of their requests; `_taken_count` of them were,
    `_early` holds those behind a gap, all others up to `_asked_count` are in flight. A round ends
    when none is.
    """

    def __init__(
        self,
        gateway: Gateway,
        bookmark: Bookmark | None,
        *,
        page_size: int,
        watch: Watch,
        full_because: str = "",
    ) -> None:
        """A full listing without a bookmark, or where `full_because` gives a reason for one."""
        self._gateway = gateway
        self._max_page_size = page_size
        self._recorder = BookmarkRecorder(watch)
        self._full_because = full_because
        self._full: FullListing | None = None
        self._full_from = 0
        self._facts: ListingFacts | None = None
        self._next_bookmark: Bookmark | None = None
        # Requests and rows on their way.
        self._asked_count = 0
        self._taken_count = 0
        self._planned: deque[PlannedRequest] = deque()
        self._early: dict[int, tuple[PageRequest, SessionPage]] = {}
        self._ready: deque[list[RawSession]] = deque()
        self._repair_count = 0
        self._seen_again: set[str] = set()
        """Ids of sessions that left before the full listing began, and are in it, too."""
        self._tracker: ChangeTracker | None = None
        self._rounds: ChangeRounds | None = None
        if bookmark is None or not bookmark.head or full_because:
            self._begin_full()
            return
        page_size = min(page_size, bookmark.page_cap or page_size)
        self._tracker = ChangeTracker(bookmark, page_size=page_size, watch=watch)
        self._rounds = ChangeRounds(self._tracker, page_size=page_size)
        self._planned.append(PlannedRequest(Window(1, page_size), "sweep"))

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    @property
    def asked_count(self) -> int:
        return self._asked_count

    @property
    def is_incremental(self) -> bool:
        return self._full is None

    @property
    def page_count(self) -> int | None:
        if self._full is not None:
            if self._full_from == 0:
                return self._full.page_count
            return self._full_from + (self._full.page_count or 1)
        return None if self._taken_count == 0 else self._asked_count + len(self._planned)

    @property
    def held_count(self) -> int:
        if self._full is not None:
            return len(self._ready) + self._full.held_count
        return self._asked_count - self._taken_count + len(self._ready)

    @property
    def ready_count(self) -> int:
        return len(self._ready) + (0 if self._full is None else self._full.ready_count)

    @property
    def facts(self) -> ListingFacts | None:
        return self._facts

    @property
    def bookmark(self) -> Bookmark | None:
        """For the next run, once the facts are settled; None where only a full listing will do."""
        return self._next_bookmark

    def next_request(self) -> PageRequest | None:
        if self._full is not None:
            request = self._full.next_request()
            if request is None:
                return None
            self._asked_count += 1
            return replace(request, number=self._full_from + request.number)
        if not self._planned:
            return None
        planned = self._planned.popleft()
        self._asked_count += 1
        self._repair_count += planned.purpose == "repair"
        return planned.to_request(self._gateway, self._asked_count)

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        self._recorder.note(request, page)
        tracker, rounds = self._tracker, self._rounds
        if self._full is not None or tracker is None or rounds is None:
            self._accept_in_full(request, page)
            return
        self._early[request.number] = request, page
        while (found := self._early.pop(self._taken_count + 1, None)) is not None:
            self._taken_count += 1
            rows = tracker.take_in(*found)
            if rows:
                self._ready.append(rows)
        if self._taken_count == self._asked_count and not self._planned:
            self._end_round(tracker, rounds)

    def take_rows(self, most: int) -> list[RawSession]:
        rows: list[RawSession] = []
        while self._ready and len(rows) < most:
            rows += self._ready.popleft()
        # Rows that left before must not leave again; an empty step does not end the rows.
        while self._full is not None and not rows and self._full.ready_count > 0:
            rows = self._full.take_rows(most)
            if self._tracker is not None:
                has_left = self._tracker.has_left
                rows = [row for row in rows if not has_left(row["sessionId"])]
        return rows

    # The full listing

    def _begin_full(self) -> None:
        self._full = FullListing(self._gateway, page_size=self._max_page_size)
        self._full_from = self._asked_count

    def _accept_in_full(self, request: PageRequest, page: SessionPage) -> None:
        full, tracker = self._full, self._tracker
        if full is None:
            return
        if tracker is not None:
            self._seen_again.update(filter(tracker.has_left, page.session_ids))
        full.accept(replace(request, number=request.number - self._full_from), page)
        facts = full.facts
        if facts is None or self._facts is not None:
            return
        left_count = 0 if tracker is None else len(tracker.new) + len(tracker.changed)
        self._facts = replace(
            facts,
            session_count=facts.session_count + left_count - len(self._seen_again),
            page_count=self._full_from + facts.page_count,
            full_because=self._full_because if tracker is None else tracker.trouble,
        )
        self._next_bookmark = self._recorder.to_bookmark(facts)

    def _end_round(self, tracker: ChangeTracker, rounds: ChangeRounds) -> None:
        """Nothing is in flight and nothing planned."""
        plan = rounds.plan()
        if tracker.trouble:
            self._begin_full()
        elif plan:
            self._planned.extend(
                PlannedRequest(window, "repair" if tracker.was_asked(window) else "sweep", wait_s)
                for window, wait_s in plan
            )
        else:
            self._conclude(tracker)

    def _conclude(self, tracker: ChangeTracker) -> None:
        self._facts = ListingFacts(
            gateway=self._gateway,
            session_count=len(tracker.new) + len(tracker.changed),
            total_count_first=tracker.total_count_first,
            total_count_last=tracker.total_count_last,
            inserted_count=tracker.inserted_count,
            deleted_count=tracker.deleted_count,
            overlap_count=tracker.overlap_count,
            page_count=self._taken_count,
            repair_page_count=self._repair_count,
            proof="quiescent" if self._taken_count == 1 else "anchored",
            mode="incremental",
        )
        self._next_bookmark = tracker.to_bookmark()
