"""Which pages of a list hold what an earlier run has not seen; performs no I/O.

1. *Head.* Page 1, and on until known sessions are met, so many that none which was shown late can
   stand behind. Each window shares rows with the one before it: answers that nothing joins, neither
   shared rows nor times, are joined by further ones, from whichever replica they come.
2. *Lookups.* The pages where the sessions are that may have changed: by serial, then by create
   time.
3. *Audit.* If the total differs from what was found, a known session near the end tells by its
   place whether sessions came in between.

One answer that tells all is *quiescent*, more are *anchored*. Whatever does not fit falls back to a
full listing. Not noticed is what leaves the totals as if nothing had come: a session put in far
behind the head while another one went.
"""

from collections import deque
from dataclasses import replace

from exporter.listing.bookmark import Bookmark, Watch
from exporter.listing.bookmark_recorder import BookmarkRecorder
from exporter.listing.changes import ChangeTracker
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest, Purpose
from exporter.listing.windows import Window
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage


class IncrementalListing:
    """The state of one gateway's listing, from what an earlier run knew of it.

    Invariant: answers are taken in by the order of their requests; `_taken` of them were, `_early`
    holds those behind a gap, all others up to `_asked` are in flight. A round ends when none is.
    """

    def __init__(
        self,
        gateway: Gateway,
        known: Bookmark | None,
        *,
        page_size: int,
        watch: Watch,
        full_because: str = "",
    ) -> None:
        """Without anything known, or for a reason that is given, a full listing."""
        self._gateway = gateway
        self._max_page_size = page_size
        self._ledger = BookmarkRecorder(watch)
        self._full_because = full_because
        self._full: FullListing | None = None
        self._full_from = 0
        self._facts: ListingFacts | None = None
        self._next_known: Bookmark | None = None
        # Requests and rows on their way.
        self._asked = 0
        self._taken = 0
        self._planned: deque[tuple[Window, Purpose, float]] = deque()
        self._early: dict[int, tuple[PageRequest, SessionPage]] = {}
        self._ready: deque[list[RawSession]] = deque()
        self._repair_count = 0
        self._seen_again: set[str] = set()
        """What had left already and is in the full listing, too."""
        self._page_size = page_size
        self._growth: ChangeTracker | None = None
        if known is None or not known.head or full_because:
            self._begin_full()
            return
        self._page_size = min(page_size, known.page_cap or page_size)
        self._growth = ChangeTracker(known, page_size=self._page_size, watch=watch)
        self._planned.append((Window(1, self._page_size), "sweep", 0.0))

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    @property
    def asked_count(self) -> int:
        return self._asked

    @property
    def is_incremental(self) -> bool:
        return self._full is None

    @property
    def page_count(self) -> int | None:
        if self._full is not None:
            if self._full_from == 0:
                return self._full.page_count
            return self._full_from + (self._full.page_count or 1)
        return None if self._taken == 0 else self._asked + len(self._planned)

    @property
    def held_count(self) -> int:
        if self._full is not None:
            return len(self._ready) + self._full.held_count
        return self._asked - self._taken + len(self._ready)

    @property
    def ready_count(self) -> int:
        return len(self._ready) + (0 if self._full is None else self._full.ready_count)

    @property
    def facts(self) -> ListingFacts | None:
        return self._facts

    @property
    def known(self) -> Bookmark | None:
        """For the next run, once the facts are settled; None where only a full listing will do."""
        return self._next_known

    def next_request(self) -> PageRequest | None:
        if self._full is not None:
            request = self._full.next_request()
            if request is None:
                return None
            self._asked += 1
            return replace(request, number=self._full_from + request.number)
        if not self._planned:
            return None
        window, purpose, wait_s = self._planned.popleft()
        self._asked += 1
        self._repair_count += purpose == "repair"
        return PageRequest(
            self._gateway, window.page_num, window.page_size, self._asked, purpose, wait_s
        )

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        self._ledger.note(request, page)
        growth = self._growth
        if self._full is not None or growth is None:
            self._accept_in_full(request, page)
            return
        self._early[request.number] = request, page
        while (found := self._early.pop(self._taken + 1, None)) is not None:
            self._taken += 1
            rows = growth.take_in(*found)
            if rows:
                self._ready.append(rows)
        if self._taken == self._asked and not self._planned:
            self._end_round(growth)

    def take_rows(self, most: int) -> list[RawSession]:
        rows: list[RawSession] = []
        while self._ready and len(rows) < most:
            rows += self._ready.popleft()
        # What has left must not leave again; a step of nothing else is no end of the rows.
        while self._full is not None and not rows and self._full.ready_count > 0:
            rows = self._full.take_rows(most)
            if self._growth is not None:
                has_left = self._growth.has_left
                rows = [row for row in rows if not has_left(row["sessionId"])]
        return rows

    # The full listing

    def _begin_full(self) -> None:
        self._full = FullListing(self._gateway, page_size=self._max_page_size)
        self._full_from = self._asked

    def _accept_in_full(self, request: PageRequest, page: SessionPage) -> None:
        full, growth = self._full, self._growth
        if full is None:
            return
        if growth is not None:
            self._seen_again.update(filter(growth.has_left, page.session_ids))
        full.accept(replace(request, number=request.number - self._full_from), page)
        facts = full.facts
        if facts is None or self._facts is not None:
            return
        left_count = 0 if growth is None else len(growth.new) + len(growth.changed)
        self._facts = replace(
            facts,
            session_count=facts.session_count + left_count - len(self._seen_again),
            page_count=self._full_from + facts.page_count,
            full_because=self._full_because if growth is None else growth.trouble,
        )
        self._next_known = self._ledger.known(facts)

    def _end_round(self, growth: ChangeTracker) -> None:
        """Nothing is in flight and nothing planned."""
        plan = growth.plan()
        if growth.trouble:
            self._begin_full()
        elif plan:
            self._planned.extend(
                (window, "repair" if growth.was_asked(window) else "sweep", wait_s)
                for window, wait_s in plan
            )
        else:
            self._conclude(growth)

    def _conclude(self, growth: ChangeTracker) -> None:
        self._facts = ListingFacts(
            gateway=self._gateway,
            session_count=len(growth.new) + len(growth.changed),
            total_count_first=growth.total_count_first,
            total_count_last=growth.total_count_last,
            inserted_count=growth.inserted_count,
            deleted_count=growth.deleted_count,
            overlap_count=growth.overlap_count,
            page_count=self._taken,
            repair_page_count=self._repair_count,
            proof="quiescent" if self._taken == 1 else "anchored",
            mode="incremental",
        )
        self._next_known = growth.to_known()
