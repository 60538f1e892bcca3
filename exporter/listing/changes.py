"""What has come, changed and gone in a list since an earlier run, as its answers tell; performs no
I/O.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from exporter.listing.audit import Audit
from exporter.listing.bookmark import TOLERANCE_MS, Bookmark, Watch, digest_of, is_newest_first
from exporter.listing.bookmark_update import HeadPage, NewSession, build_known, choose_head_page
from exporter.listing.gaps import GapFinder
from exporter.listing.interface import PageRequest
from exporter.listing.lookups import Lookup, PageTimes, tell_times
from exporter.listing.meetings import MIN_KNOWN_ROWS, KnownHead, Met, find_behind_head
from exporter.listing.observations import Observations
from exporter.listing.order import MIN_ROWS_TO_TRIM, read_times
from exporter.listing.repeats import Plan, Repeats, is_at_end, is_cut_at_head
from exporter.listing.windows import Window, reach_on
from exporter.model import RawSession, SessionPage

SHARE_AHEAD: Final = 4
"""Where nothing tells how many sessions are new, one page is asked for ahead for each so many that
were read.
"""
OVERLAP: Final = 4
OVERLAP_OF_SMALL: Final = 2
"""Rows that two windows share, if they have fewer rows than times are trimmed of."""
LAG_WAITS_S: Final = (0.0, 0.5, 2.0)
"""Before each further look at a total that claims more sessions than were found."""
MAX_ROUNDS: Final = 48
MIN_GAP_ROUNDS: Final = 2
MAX_GAP_ROUNDS: Final = 6
"""Attempts to join two answers: more is asked for after the first few, and then no more."""

TURNED_OVER: Final = "none of the known sessions was met: they have gone, or the list was reordered"
REORDERED: Final = "the list is not newest first any more"
CHANGED: Final = "sessions came in the middle of the list"
SHORT: Final = "answers hold fewer sessions than asked for"
EMPTY: Final = "the list is empty"
RESTLESS: Final = "the list did not hold still long enough to tell what is new"
LOST: Final = "sessions that may have changed are not where they were"


class ChangeTracker:
    """Takes in answers by the order of their requests, and says what to ask for next."""

    def __init__(self, known: Bookmark, *, page_size: int, watch: Watch) -> None:
        self._known = known
        self._page_size = page_size
        self._watch = watch
        self._head = KnownHead(known)
        self._lookups = {
            each.session_id: Lookup(
                each.serial,
                each.session_id,
                each.create_time_ms,
                page_size=page_size,
                digest=each.digest,
                since_ms=each.since_ms or watch.now_ms,
            )
            for each in known.unfinished
        }
        self._behind_head = find_behind_head(known)
        self._audit = Audit(known, page_size=page_size)
        self.trouble = ""
        """Why only a full listing will do, for a reader; empty while it will not."""
        self.new: set[str] = set()
        """Ids of the new sessions that left."""
        self.changed: set[str] = set()
        """Ids of the sessions that might change, and left in a later version."""
        self.overlap_count = 0
        self._observations = Observations()
        self._gaps = GapFinder(self._observations)
        self._asked: set[Window] = set()
        self._repeats = Repeats()
        self._shown: dict[Window, PageTimes] = {}
        self._head_pages: list[HeadPage] = []
        self._newest_ms = 0
        """The latest create time on page 1."""
        self._totals: list[int] = []
        """Of the answers that had rows: what none tells is no total to go by."""
        self._came: list[NewSession] = []
        self._round_count = 0
        self._gap_rounds = 0
        self._lag_tells = 0
        self._look: tuple[int, int] | None = None
        """When the head was looked at again: how many answers and new sessions there were."""
        self._swept_to = page_size

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
        """Since the first answer, as far as the total tells."""
        return max(0, self._totals[-1] - self._totals[0])

    @property
    def deleted_count(self) -> int:
        """While the list was read."""
        return max(0, self._totals[0] - self._totals[-1])

    # What an answer tells

    def take_in(self, request: PageRequest, page: SessionPage) -> list[RawSession]:
        """The rows that leave; none once there is trouble."""
        if self.trouble:
            return []
        window = Window(request.page_num, request.page_size)
        self._asked.add(window)
        if page.row_count == 0:
            self._take_in_none(window)
            return []
        self._totals.append(page.total_count)
        times = read_times(page.sessions)
        met = self._head.find_met(page.session_ids)
        if self._shows_other_order(window, page, times, met):
            self.trouble = REORDERED
            return []
        front = self._head.find_front(window.start, times, met)
        if front is None:
            self.trouble = TURNED_OVER
            return []
        is_evidence = self._repeats.is_evidence(window, page)
        if self._repeats.is_exhausted or (is_evidence and is_cut_at_head(window, page)):
            self.trouble = SHORT
            return []
        index = len(self._observations.pages)
        self._observations.add(window, page, times, size=window.page_size, is_evidence=is_evidence)
        if is_evidence:
            is_end = page.row_count < window.page_size and is_at_end(window, page)
            self._shown[window] = tell_times(times, is_end=is_end)
            if window.start == 0:
                self._head_pages.append(
                    HeadPage(index, page.total_count, list(page.session_ids), times, is_end)
                )
            if met:
                self._head.note(
                    index, window.start, times, met, total_count=page.total_count, is_last=is_end
                )
        self._audit.note(window.start, page, times)
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
        # A session that stood behind the known head may have moved, such as when it ended.
        in_front = page.session_ids[: met[-1][0]] if met else []
        return not self._behind_head.isdisjoint(in_front)

    def _take_in_none(self, window: Window) -> None:
        is_empty = self._repeats.is_empty(window)
        if self._repeats.is_exhausted:
            self.trouble = SHORT
        elif is_empty and window.start == 0:
            self.trouble = EMPTY
        elif is_empty:
            self._shown[window] = tell_times((), is_end=False)

    def _note_new(
        self, window: Window, page: SessionPage, times: Sequence[int | None], front: int
    ) -> list[int]:
        """The positions of the sessions that are seen for the first time, in any run."""
        ids = page.session_ids
        fresh: dict[str, int] = {}
        for at, session_id in enumerate(ids[:front]):
            if session_id in self.new:
                self.overlap_count += 1
            elif session_id not in self._head and session_id not in self._lookups:
                fresh.setdefault(session_id, at)
        self.new.update(fresh)
        first_seen = list(fresh.values())
        watched = {
            first_seen[at] for at in self._watch.find([page.sessions[at] for at in first_seen])
        }
        self._came += [
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
            lookup.serial = self._head.estimate_base(page.total_count) - lookup.place
            session = page.sessions[at]
            digest = digest_of(session)
            if digest != lookup.digest:
                self.changed.add(session_id)
                leaving.append(at)
                lookup.since_ms = self._watch.now_ms
            is_watched = self._watch.watches(session, since_ms=lookup.since_ms)
            lookup.digest = digest if is_watched else None
        return leaving

    # What to ask next

    def plan(self) -> Plan:
        """What to ask for in the next round, when all answers are in; nothing when all is proven,
        or when there is trouble.
        """
        if self.trouble:
            return []
        due = self._repeats.take_due()
        if due:
            return due
        self._round_count += 1
        if self._round_count > MAX_ROUNDS:
            self.trouble = RESTLESS
            return []
        self._start_over_if_moved()
        for step in (self._read_on, self._join, self._look_up, self._compare):
            plan = step()
            if plan or self.trouble:
                return [] if self.trouble else plan
        return []

    def _start_over_if_moved(self) -> None:
        """Look for the known sessions anew where another look at the head showed new ones: what
        met them before knew nothing of these.
        """
        if self._look is not None and len(self.new) > self._look[1]:
            self._head.forget(before=self._look[0])
            self._swept_to = self._page_size
        self._look = None

    @property
    def _overlap(self) -> int:
        if self._page_size >= MIN_ROWS_TO_TRIM:
            return OVERLAP
        return min(self._page_size // 2, OVERLAP_OF_SMALL)

    def _read_on(self) -> Plan:
        """Windows to look for the known sessions on, until enough of them were met."""
        if self._head.is_met:
            return []
        total_count = self._totals[-1]
        if self._head.meetings:
            deepest = self._observations.pages[self._head.deepest.page]
            self._swept_to = max(self._swept_to, deepest.stop)
            stop = self._swept_to + 1
        elif self._swept_to < total_count:
            stop = total_count - self._known.total_count + MIN_KNOWN_ROWS
            if stop <= self._swept_to:
                stop = self._swept_to + max(1, self._swept_to // SHARE_AHEAD)
            stop = min(stop, total_count)
        else:
            self.trouble = TURNED_OVER
            return []
        return self._sweep_to(stop)

    def _sweep_to(self, stop: int) -> Plan:
        """Windows that go on where the head was read to."""
        plan = []
        while self._swept_to < stop:
            window = reach_on(self._swept_to, most=self._page_size, overlap=self._overlap)
            self._swept_to = window.stop
            plan.append((window, 0.0))
        return plan

    def _join(self) -> Plan:
        """Windows that join the head and the known sessions."""
        gaps = self._gaps.find(end=self._head.deepest.page, by_ranks=False)
        if not gaps:
            return []
        self._gap_rounds += 1
        if self._gap_rounds > MAX_GAP_ROUNDS:
            self.trouble = RESTLESS
            return []
        windows = self._gaps.plan(
            gaps, page_size=self._page_size, overlap=self._overlap, by_ranks=False
        )
        if self._gap_rounds > MIN_GAP_ROUNDS:
            # Rows are further away than they seem: whole pages on both sides.
            for gap in gaps:
                upper, lower = (self._observations.pages[at] for at in (gap.upper, gap.lower))
                windows.append(Window(max(1, -(-lower.start // self._page_size)), self._page_size))
                windows.append(Window(upper.stop // self._page_size + 1, self._page_size))
        return [(window, 0.0) for window in dict.fromkeys(windows)]

    def _look_up(self) -> Plan:
        """Where the sessions may be by now that may have changed and were not found yet."""
        # Those next to what was read already take no page of their own.
        places = {self._expect(each) for each in self._lookups.values() if each.is_open}
        stop = self._swept_to
        for place in sorted(places):
            if stop <= place < stop + self._page_size:
                stop = place + 1
        if stop > self._swept_to:
            return self._sweep_to(stop)
        plan = self._choose_windows(self._lookups.values())
        if any(each.is_lost for each in self._lookups.values()):
            self.trouble = LOST
        return plan

    def _expect(self, lookup: Lookup) -> int:
        """The place where a session is by its serial, but not behind the end; those that stood
        behind what a capped total claims still do.
        """
        total_count = self._totals[-1]
        place = max(0, self._head.estimate_base(total_count) - lookup.serial)
        if lookup.serial < self._known.expired_count:
            return place
        return min(place, total_count - 1)

    def _choose_windows(self, lookups: Iterable[Lookup]) -> Plan:
        chosen = (
            each.choose_window(self._expect(each), self._shown) for each in lookups if each.is_open
        )
        windows = {window for window in chosen if window is not None}
        return [(window, 0.0) for window in sorted(windows, key=lambda each: each.start)]

    def _compare(self) -> Plan:
        """Look whether sessions came where nothing was read; nothing to ask when they did not."""
        audit = self._audit
        while (verdict := audit.judge(self._head.deepest)) == "anchor needed":
            anchor = audit.find_anchor()
            if anchor is None:
                return []
            if anchor.is_open:
                plan = self._choose_windows([anchor])
                if plan:
                    return plan
            if audit.is_exhausted:
                verdict = "changed"
                break
        if verdict == "more claimed":
            return self._ask_for_lag()
        if verdict == "changed":
            self.trouble = CHANGED
        return []

    def _ask_for_lag(self) -> Plan:
        """Ask for the head once more where the total claims more sessions than were found: it may
        know of some that are not shown yet, or have been shown too late for the run before.
        """
        if self._lag_tells >= len(LAG_WAITS_S):
            self.trouble = CHANGED
            return []
        wait_s = LAG_WAITS_S[self._lag_tells]
        self._lag_tells += 1
        self._look = len(self._observations.pages), len(self.new)
        last = self._head.find_end() // self._page_size + 1
        return [(Window(page_num, self._page_size), wait_s) for page_num in range(1, last + 1)]

    def to_known(self) -> Bookmark | None:
        """What is known by now, once there is nothing more to ask; None where only a full listing
        can tell what is new next time.
        """
        # What stands behind the first row of an answer was seen if the answer is joined to the
        # known sessions.
        runs = self._observations.find_runs(by_ranks=False)
        run = runs[self._head.deepest.page]
        page = choose_head_page(each for each in self._head_pages if runs[each.page] == run)
        if page is None:
            return None
        return build_known(
            self._known,
            head=self._head,
            page=page,
            audit=self._audit,
            lookups=list(self._lookups.values()),
            came=self._came,
            now_ms=self._watch.now_ms,
        )
