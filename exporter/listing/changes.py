"""Tracks what came, changed and went in a list since an earlier run, answer by answer; performs no
I/O.
"""

from collections.abc import Sequence
from typing import Final

from exporter.listing.audit import Audit
from exporter.listing.bookmark import TOLERANCE_MS, Bookmark, Watch, digest_of, is_newest_first
from exporter.listing.bookmark_head import BookmarkHead, Met, find_behind_head
from exporter.listing.bookmark_update import (
    HeadPage,
    NewSession,
    choose_head_page,
    update_bookmark,
)
from exporter.listing.interface import PageRequest
from exporter.listing.lookups import Lookup, PageTimes, summarize_times
from exporter.listing.observations import Observations
from exporter.listing.order import read_times
from exporter.listing.repeats import StrictRepeats, is_at_end, is_cut_at_head
from exporter.listing.windows import Window
from exporter.model import RawSession, SessionPage

TURNED_OVER: Final = "none of the known sessions was met: they have gone, or the list was reordered"
REORDERED: Final = "the list is not newest first any more"
CHANGED: Final = "sessions came in the middle of the list"
SHORT: Final = "answers hold fewer sessions than asked for"
EMPTY: Final = "the list is empty"
RESTLESS: Final = "the list did not hold still long enough to tell what is new"
LOST: Final = "sessions that may have changed are not where they were"


class ChangeTracker:
    """Takes in answers by the order of their requests; `ChangeRounds` plans these."""

    def __init__(self, bookmark: Bookmark, *, page_size: int, watch: Watch) -> None:
        self.bookmark = bookmark
        self._watch = watch
        self.head = BookmarkHead(bookmark)
        self._behind_head = find_behind_head(bookmark)
        self._lookups = {
            each.session_id: Lookup(
                each.serial,
                each.session_id,
                each.create_time_ms,
                page_size=page_size,
                digest=each.digest,
                since_ms=each.since_ms or watch.now_ms,
            )
            for each in bookmark.unfinished
        }
        self.audit = Audit(bookmark, page_size=page_size)
        self.trouble = ""
        """Why only a full listing will do, for a reader; empty while it will not."""
        self.new: set[str] = set()
        """Ids of the new sessions that left."""
        self.changed: set[str] = set()
        """Ids of the sessions that might change, and left in a later version."""
        self.overlap_count = 0
        self.observations = Observations()
        self.repeats = StrictRepeats()
        self.shown: dict[Window, PageTimes] = {}
        """The create times of each window whose answer is evidence."""
        self._asked: set[Window] = set()
        self._head_pages: list[HeadPage] = []
        self._newest_ms = 0
        """The latest create time on page 1."""
        self._totals: list[int] = []
        """Of the answers that had rows: the total of an empty one may be a fault."""
        self._new_sessions: list[NewSession] = []

    @property
    def lookups(self) -> list[Lookup]:
        """One for each session that may have changed."""
        return list(self._lookups.values())

    def has_left(self, session_id: str) -> bool:
        return session_id in self.new or session_id in self.changed

    def was_asked(self, window: Window) -> bool:
        return window in self._asked

    @property
    def total_count_first(self) -> int:
        return self._totals[0]

    @property
    def total_count_last(self) -> int:
        return self._totals[-1]

    @property
    def inserted_count(self) -> int:
        """Since the first answer, by the totals."""
        return max(0, self._totals[-1] - self._totals[0])

    @property
    def deleted_count(self) -> int:
        """While the list was read."""
        return max(0, self._totals[0] - self._totals[-1])

    def take_in(self, request: PageRequest, page: SessionPage) -> list[RawSession]:
        """The rows that leave; none once there is trouble."""
        if self.trouble:
            return []
        window = Window(request.page_num, request.page_size)
        self._asked.add(window)
        if page.row_count == 0:
            self._take_in_empty(window)
            return []
        self._totals.append(page.total_count)
        times = read_times(page.sessions)
        met = self.head.find_met(page.session_ids)
        if self._shows_other_order(window, page, times, met):
            self.trouble = REORDERED
            return []
        front = self.head.find_front(window.start, times, met)
        if front is None:
            self.trouble = TURNED_OVER
            return []
        is_evidence = self.repeats.is_evidence(window, page)
        if self.repeats.is_exhausted or (is_evidence and is_cut_at_head(window, page)):
            self.trouble = SHORT
            return []
        index = len(self.observations.pages)
        self.observations.add(window, page, times, size=window.page_size, is_evidence=is_evidence)
        if is_evidence:
            is_end = page.row_count < window.page_size and is_at_end(window, page)
            self.shown[window] = summarize_times(times, is_end=is_end)
            if window.start == 0:
                self._head_pages.append(
                    HeadPage(index, page.total_count, list(page.session_ids), times, is_end)
                )
            if met:
                self.head.note(
                    index, window.start, times, met, total_count=page.total_count, is_last=is_end
                )
        self.audit.note(window.start, page, times)
        leaving = self._note_new(window, page, times, front)
        leaving += self._note_found(window, page)
        return [page.sessions[at] for at in sorted(leaving)]

    def _shows_other_order(
        self, window: Window, page: SessionPage, times: Sequence[int | None], met: Met
    ) -> bool:
        """Whether an answer shows that new sessions need not stand at the head."""
        timed = [time for time in times if time is not None]
        if not is_newest_first(timed):
            return True
        newest_ms = max(timed, default=0)
        if window.start == 0:
            self._newest_ms = max(self._newest_ms, newest_ms)
        elif newest_ms > self._newest_ms + TOLERANCE_MS:
            return True
        # A session that stood behind the bookmark's head may have moved, such as when it ended.
        in_front = page.session_ids[: met[-1][0]] if met else []
        return not self._behind_head.isdisjoint(in_front)

    def _take_in_empty(self, window: Window) -> None:
        is_empty = self.repeats.is_empty(window)
        if self.repeats.is_exhausted:
            self.trouble = SHORT
        elif is_empty and window.start == 0:
            self.trouble = EMPTY
        elif is_empty:
            self.shown[window] = summarize_times((), is_end=False)

    def _note_new(
        self, window: Window, page: SessionPage, times: Sequence[int | None], front: int
    ) -> list[int]:
        """The positions of the sessions that no run has seen before."""
        ids = page.session_ids
        fresh: dict[str, int] = {}
        for at, session_id in enumerate(ids[:front]):
            if session_id in self.new:
                self.overlap_count += 1
            elif session_id not in self.head and session_id not in self._lookups:
                fresh.setdefault(session_id, at)
        self.new.update(fresh)
        first_seen = list(fresh.values())
        watched = {
            first_seen[at] for at in self._watch.find([page.sessions[at] for at in first_seen])
        }
        self._new_sessions += [
            NewSession(
                window.start + at,
                page.total_count,
                ids[at],
                times[at],
                digest_of(page.sessions[at]) if at in watched else None,
            )
            for at in first_seen
            if at in watched or at == first_seen[0]
        ]
        return first_seen

    def _note_found(self, window: Window, page: SessionPage) -> list[int]:
        """The positions of sessions that might change and have: each leaves once."""
        leaving = []
        for at, session_id in enumerate(page.session_ids):
            lookup = self._lookups.get(session_id)
            if lookup is None or lookup.place is not None:
                continue
            lookup.place, lookup.total_count = window.start + at, page.total_count
            lookup.serial = self.head.estimate_base(page.total_count) - lookup.place
            session = page.sessions[at]
            digest = digest_of(session)
            if digest != lookup.digest:
                self.changed.add(session_id)
                leaving.append(at)
                lookup.since_ms = self._watch.now_ms
            is_watched = self._watch.watches(session, since_ms=lookup.since_ms)
            lookup.digest = digest if is_watched else None
        return leaving

    def to_bookmark(self) -> Bookmark | None:
        """The bookmark once there is nothing more to ask; None where only a full listing can find
        what is new next time.
        """
        # Every session behind the first row of an answer was seen if the answer is joined to the
        # bookmark's head.
        runs = self.observations.find_runs(by_ranks=False)
        run = runs[self.head.deepest.page]
        page = choose_head_page(each for each in self._head_pages if runs[each.page] == run)
        if page is None:
            return None
        return update_bookmark(
            self.bookmark,
            head=self.head,
            page=page,
            audit=self.audit,
            lookups=self.lookups,
            new_sessions=self._new_sessions,
            now_ms=self._watch.now_ms,
        )
