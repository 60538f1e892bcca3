"""What has come, changed and gone in a list since an earlier run, as its answers tell; performs no
I/O.
"""

from collections.abc import Iterable, Iterator, Sequence

from exporter.api.roa import SessionPage
from exporter.listing.doubts import Doubts
from exporter.listing.facts import PageRequest
from exporter.listing.gaps import GapFinder
from exporter.listing.known import (
    Anchor,
    Known,
    Unfinished,
    Watch,
    digest_of,
    is_newest_first,
)
from exporter.listing.lookups import Lookup, PageTimes
from exporter.listing.meetings import MIN_KNOWN_ROWS, Meeting, find_depth, is_deep_enough
from exporter.listing.observations import Observations, read_times
from exporter.listing.succession import Came, Top, build_next, choose_top
from exporter.listing.windows import Window, reach_on
from exporter.records import RawSession

PAGES_AT_ONCE = 2
"""Pages asked for ahead where nothing tells how many sessions are new."""
MIN_OVERLAP = 4
"""Rows that two windows share."""
EMPTY_WAITS_S = (0.0, 0.5)
LAG_WAITS_S = (0.0, 0.5, 2.0)
"""Before each further look at a total that claims more sessions than were found."""
MAX_ROUNDS = 24
MAX_GAP_ROUNDS = 6

TURNED_OVER = "none of the known sessions was met: they have gone, or the list was reordered"
REORDERED = "the list is not newest first any more"
CHANGED = "sessions came in the middle of the list"
SHORT = "answers hold fewer sessions than asked for"
EMPTY = "the list is empty"
RESTLESS = "the list did not hold still long enough to tell what is new"
LOST = "sessions that had not ended are not where they were"

Plan = list[tuple[Window, float]]
"""Windows to ask for next, each after a wait in seconds."""


class Growth:
    """Takes in answers by the order of their requests, and says what to ask for next."""

    def __init__(self, known: Known, *, page_size: int, watch: Watch) -> None:
        self._known = known
        self._page_size = page_size
        self._watch = watch
        self._places = {session_id: place for place, session_id in enumerate(known.head)}
        self._wanted = {
            each.session_id: Lookup(
                each.serial,
                each.session_id,
                each.create_time_ms,
                digest=each.digest,
                since_ms=each.since_ms or watch.now_ms,
            )
            for each in known.unfinished
        }
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
        self._doubts = Doubts()
        self._again: list[Window] = []
        """To be asked once more, since what they showed is evidence of nothing."""
        self._empty_count = 0
        self._shown: dict[int, PageTimes] = {}
        """What pages showed, by number."""
        self._round_count = 0
        self._gap_rounds = 0
        self._lag_tells = 0
        self._told_from = 0
        """Index of the first answer since the head was asked for once more."""
        self._swept_to = page_size
        self._tops: list[Top] = []
        self._meetings: list[Meeting] = []
        self._is_past_head = False
        """Whether a page behind all of the known head was read: no more of it can be met."""
        self._totals: list[int] = []
        self._anchor: Lookup | None = None
        self._anchor_places: dict[str, int | None] = dict.fromkeys(
            each.session_id for each in known.anchors
        )
        """Where the anchors were seen last."""
        self._is_audited = False
        self._gone_count = 0
        """Sessions that went from behind the head."""
        self._came: list[Came] = []

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
        self._totals.append(page.total_count)
        times = read_times(page.sessions)
        if page.row_count == 0:
            self._take_in_none(window, page)
            return []
        self._empty_count = 0
        is_evidence = self._is_evidence(window, page)
        index = len(self._observations.pages)
        self._observations.add(window, page, size=window.page_size, is_evidence=is_evidence)
        self._note_times(window, page, times)
        ids = page.session_ids
        met = [(at, self._places[each]) for at, each in enumerate(ids) if each in self._places]
        if not is_newest_first([time for time in times if time is not None]):
            self.trouble = REORDERED
            return []
        if not met and self._is_behind(times):
            if not self._meetings:
                self.trouble = TURNED_OVER
                return []
            self._is_past_head = True
        fresh = self._find_fresh(window, page, times, met)
        if window.start == 0:
            self._tops.append(Top(index, page.total_count, list(ids), times))
        if met and is_evidence:
            self._meet(index, window, page, times, met)
        leaving = self._note_new(window, page, times, fresh)
        leaving += self._note_found(window, page)
        return [page.sessions[at] for at in sorted(leaving)]

    def _take_in_none(self, window: Window, page: SessionPage) -> None:
        if window.page_size == self._page_size:
            self._shown[window.page_num] = PageTimes(None, None, is_sorted=True)
        if window.start == 0:
            self._empty_count += 1
            if self._empty_count > len(EMPTY_WAITS_S):
                self.trouble = EMPTY
            else:
                self._again.append(window)
        elif window.start < min(page.total_count, self._swept_to) and not self._doubts.note_none(
            window
        ):
            self._ask_again(window)

    def _is_evidence(self, window: Window, page: SessionPage) -> bool:
        """Whether an answer shows all that stood between its first row and its last; asks again for
        one that may not.
        """
        is_evidence = self._doubts.is_evidence(window, page)
        if not is_evidence:
            self._ask_again(window)
        return is_evidence

    def _ask_again(self, window: Window) -> None:
        if self._doubts.may_ask_again(window):
            self._again.append(window)
        else:
            self.trouble = SHORT

    def _note_times(self, window: Window, page: SessionPage, times: Sequence[int | None]) -> None:
        if window.page_size != self._page_size:
            return
        timed = [time for time in times if time is not None]
        self._shown[window.page_num] = PageTimes(
            max(timed, default=None),
            min(timed, default=None),
            is_sorted=timed == sorted(timed, reverse=True),
            is_last=page.row_count < window.page_size
            and window.start + page.row_count == page.total_count,
        )

    def _find_fresh(
        self,
        window: Window,
        page: SessionPage,
        times: Sequence[int | None],
        met: Sequence[tuple[int, int]],
    ) -> list[int]:
        """The positions of the rows that no earlier run has seen.

        Those are all that stand in front of the last of the known head, and are not part of it.
        """
        known, ids = self._known, page.session_ids
        is_in_front = not met and self._is_in_front(window)
        last_met = met[-1][0] if met else -1
        return [
            at
            for at, (session_id, time) in enumerate(zip(ids, times, strict=True))
            if session_id not in self._places
            and session_id not in self._wanted
            and (
                is_in_front
                or at < last_met
                or (time is not None and time >= known.head_oldest_ms and not self._ends_head(met))
            )
        ]

    def _ends_head(self, met: Sequence[tuple[int, int]]) -> bool:
        return bool(met) and met[-1][1] == len(self._places) - 1

    def _is_in_front(self, window: Window) -> bool:
        """Whether an answer without a known session stands in front of these."""
        if not self._meetings:
            return True
        return window.stop <= min(self._meetings[-1].came_count, self._most_in_front)

    def _is_behind(self, times: Sequence[int | None]) -> bool:
        """Whether all of an answer is older than the known head."""
        timed = [time for time in times if time is not None]
        return bool(timed) and max(timed) < self._known.head_oldest_ms

    @property
    def _most_in_front(self) -> int:
        return max(each.came_count for each in self._meetings)

    def _meet(
        self,
        index: int,
        window: Window,
        page: SessionPage,
        times: Sequence[int | None],
        met: Sequence[tuple[int, int]],
    ) -> None:
        known = self._known
        is_last = window.start + page.row_count >= page.total_count
        at, reached = find_depth(times, met, is_last=is_last)
        place = window.start + at
        serial = known.total_count + known.expired_count - 1 - reached
        self._meetings.append(
            Meeting(
                index,
                serial + place,
                reached,
                place - reached,
                page.total_count,
                times[at],
                (is_last and page.row_count < window.page_size) or window.stop >= page.total_count,
            )
        )

    def _note_new(
        self, window: Window, page: SessionPage, times: Sequence[int | None], fresh: list[int]
    ) -> list[int]:
        """The positions of those that were not seen yet."""
        ids = page.session_ids
        self.overlap_count += sum(ids[at] in self.new for at in fresh)
        first_seen = [at for at in fresh if ids[at] not in self.new]
        first_seen = list({ids[at]: at for at in reversed(first_seen)}.values())
        if not first_seen:
            return []
        self.new.update(ids[at] for at in first_seen)
        watched = set(self._watch.find(page.sessions))
        first = min(first_seen)
        self._came += [
            Came(
                window.start + at,
                page.total_count,
                ids[at],
                times[at],
                digest_of(page.sessions[at]) if at in watched else None,
            )
            for at in sorted(first_seen)
            if at in watched or at == first
        ]
        return first_seen

    def _estimate_base(self, total_count: int) -> int:
        """The serial of the row at place 0, in an answer with a total."""
        known = self._known
        if not self._meetings:
            return total_count - 1 + known.expired_count
        deepest = self._deepest
        return deepest.base + total_count - deepest.total_count

    def _note_found(self, window: Window, page: SessionPage) -> list[int]:
        """The positions of sessions that might change and have: each leaves once."""
        leaving = []
        for at, session_id in enumerate(page.session_ids):
            if session_id in self._anchor_places:
                self._anchor_places[session_id] = window.start + at
            wanted = self._wanted.get(session_id)
            if wanted is None or wanted.place is not None:
                continue
            wanted.place = window.start + at
            wanted.serial = self._estimate_base(page.total_count) - wanted.place
            session = page.sessions[at]
            digest = digest_of(session)
            if digest != wanted.digest:
                self.changed.add(session_id)
                leaving.append(at)
                wanted.since_ms = self._watch.now_ms
            is_watched = self._watch.watches(session, since_ms=wanted.since_ms)
            wanted.digest = digest if is_watched else None
        return leaving

    # What to ask next

    def plan(self) -> Plan:
        """What to ask for in the next round, when all answers are in.

        Nothing when all is proven, or when there is trouble.
        """
        if self.trouble:
            return []
        again, self._again = self._again, []
        if again:
            wait_s = EMPTY_WAITS_S[self._empty_count - 1] if self._empty_count > 0 else 0.0
            return [(window, wait_s) for window in again]
        self._round_count += 1
        if self._round_count > MAX_ROUNDS:
            self.trouble = RESTLESS
            return []
        for step in (self._read_on, self._join, self._look_up, self._audit):
            plan = step()
            if plan or self.trouble:
                return [] if self.trouble else plan
        return []

    @property
    def _deepest(self) -> Meeting:
        # Before the sessions that were waited for were shown, the known ones reached less deep.
        told = [each for each in self._meetings if each.page >= self._told_from] or self._meetings
        return max(told, key=lambda each: (each.reached, each.page))

    def _page(self, page_num: int) -> Window:
        return Window(page_num, self._page_size)

    def _read_on(self) -> Plan:
        """Windows to look for the known sessions on, until enough of them were met."""
        if self._meetings and self._is_deep_enough:
            return []
        total_count = self._totals[-1]
        if not self._meetings:
            if self._swept_to >= total_count:
                self.trouble = TURNED_OVER
                return []
            stop = total_count - self._known.total_count + MIN_KNOWN_ROWS
            if stop <= self._swept_to:
                stop = self._swept_to + PAGES_AT_ONCE * self._page_size
            stop = self._extend(stop)
        else:
            deepest = self._observations.pages[self._deepest.page]
            self._swept_to = max(self._swept_to, deepest.stop)
            stop = self._swept_to + 1
        windows = []
        while self._swept_to < min(stop, max(total_count, self._swept_to + 1)):
            windows.append(reach_on(self._swept_to, most=self._page_size, overlap=self._overlap))
            self._swept_to = windows[-1].stop
            if self._swept_to >= total_count:
                break
        return [(window, 0.0) for window in windows]

    def _extend(self, stop: int) -> int:
        """As far as sessions that may change stand close behind, so that they need no search."""
        base = self._estimate_base(self._totals[-1])
        places = [base - each.serial for each in self._wanted.values() if each.is_open]
        return max([stop, *(at + 1 for at in places if at < stop + self._page_size)])

    @property
    def _overlap(self) -> int:
        return min(self._page_size // 2, MIN_OVERLAP)

    @property
    def _is_deep_enough(self) -> bool:
        """Whether no session that was shown late can stand behind the known ones that were met."""
        return self._is_past_head or is_deep_enough(self._deepest, self._known)

    def _join(self) -> Plan:
        """Windows that join the head and the known sessions."""
        gaps = self._gaps.find(end=self._deepest.page, ends=(), by_ranks=False)
        if not gaps:
            return []
        self._gap_rounds += 1
        if self._gap_rounds > MAX_GAP_ROUNDS:
            self.trouble = RESTLESS
            return []
        windows = self._gaps.plan(
            gaps, page_size=self._page_size, overlap=self._overlap, by_ranks=False
        )
        return [(window, 0.0) for window in windows]

    def _look_up(self) -> Plan:
        """The pages where the sessions are by now that were not found yet."""
        wanted = [each for each in self._wanted.values() if each.is_open]
        return self._choose_pages(wanted)

    def _choose_pages(self, lookups: Iterable[Lookup]) -> Plan:
        base = self._estimate_base(self._totals[-1])
        pages = set()
        for each in lookups:
            page_num = each.choose_page((base - each.serial) // self._page_size + 1, self._shown)
            if page_num is not None:
                pages.add(page_num)
            elif each.is_lost:
                self.trouble = LOST
        return [(self._page(page_num), 0.0) for page_num in sorted(pages)]

    # What it proves

    def _audit(self) -> Plan:
        """Look whether sessions came where nothing was read, if the total differs from what was
        found; nothing to ask when they did not.
        """
        deepest, known = self._deepest, self._known
        came = deepest.total_count - known.total_count
        self._gone_count = deepest.came_count - came
        if self._gone_count < 0:
            return self._ask_for_lag()
        if self._gone_count == 0 or self._is_audited:
            return []
        if self._anchor is None or self._anchor.is_gone:
            self._anchor = self._choose_anchor()
            if self._anchor is None:
                self._is_audited = True
                return []
        self._anchor.place = self._anchor_places[self._anchor.session_id]
        if self._anchor.is_open:
            return self._choose_pages([self._anchor])
        self._is_audited = True
        # Sessions that went in front of the anchor moved it to the front, those that came back.
        place = self._anchor.place or 0
        gone_in_front = self._estimate_base(self._totals[-1]) - self._anchor.serial - place
        tolerance = known.slack + abs(self._totals[-1] - deepest.total_count)
        if gone_in_front < -tolerance or self._gone_count - gone_in_front < -tolerance:
            self.trouble = CHANGED
        return []

    def _ask_for_lag(self) -> Plan:
        """Ask for the head once more where the total claims more sessions than were found: it may
        know of some that are not shown yet, or have been shown too late for the run before.
        """
        if self._lag_tells >= len(LAG_WAITS_S):
            self.trouble = CHANGED
            return []
        self._lag_tells += 1
        start = self._observations.pages[self._deepest.page].start - self._gone_count
        page_num = start // self._page_size + 1
        self._told_from = len(self._observations.pages)
        wait_s = LAG_WAITS_S[self._lag_tells - 1]
        return [(self._page(each), wait_s) for each in range(1, page_num + 1)]

    def _choose_anchor(self) -> Lookup | None:
        """The session nearest to the end of those that must still be there."""
        known = self._known
        gone = known.expired_count + self._gone_count + known.slack
        tried = -1 if self._anchor is None else self._anchor.serial
        left = [each for each in known.anchors if each.serial >= gone and each.serial > tried]
        nearest = min(left, key=lambda each: each.serial, default=None)
        if nearest is None:
            return None
        return Lookup(nearest.serial, nearest.session_id, nearest.create_time_ms)

    def to_known(self) -> Known | None:
        """What is known by now, once there is nothing more to ask."""
        known = self._known
        top = choose_top(self._tops)
        base = self._estimate_base(top.total_count)
        uncertain = abs(top.total_count - self._deepest.total_count)
        return build_next(
            known,
            top,
            base=base,
            anchors=self._list_anchors(),
            unfinished=self._list_unfinished(),
            slack=uncertain + (0 if self._gone_count > 0 else known.slack),
            full_at_ms=known.full_at_ms or self._watch.now_ms,
        )

    def _serial_of(self, came: Came) -> int:
        return self._estimate_base(came.total_count) - came.place

    def _list_unfinished(self) -> Iterator[Unfinished]:
        for each in self._came:
            if each.digest is not None:
                yield Unfinished(
                    self._serial_of(each),
                    each.session_id,
                    each.create_time_ms or 0,
                    each.digest,
                    self._watch.now_ms,
                )
        for found in self._wanted.values():
            if found.place is not None and found.digest is not None:
                yield Unfinished(
                    found.serial,
                    found.session_id,
                    found.create_time_ms or 0,
                    found.digest,
                    found.since_ms,
                )

    def _list_anchors(self) -> Iterator[Anchor]:
        if self._gone_count == 0:
            yield from self._known.anchors
        elif self._anchor is not None and self._anchor.place is not None:
            # Where the others are by now is not known exactly.
            serial = self._estimate_base(self._totals[-1]) - self._anchor.place
            yield Anchor(serial, self._anchor.session_id, self._anchor.create_time_ms)
        for found in self._wanted.values():
            if found.place is not None:
                yield Anchor(found.serial, found.session_id, found.create_time_ms)
        for each in self._came:
            yield Anchor(self._serial_of(each), each.session_id, each.create_time_ms)
