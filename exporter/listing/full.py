"""Which pages of one gateway's list to ask for, and what the answers prove; performs no I/O.

1. *Sweep.* Page 1 tells how many rows the service really puts on a page, and about how many there
   are; all others follow in that size, on behind what the total tells as long as there are rows. As
   soon as an answer shows that the list moves, the rest is read in windows that overlap, so that a
   shift by a row or two loses none.
2. *Close.* Page 1 again, and a window over the end of the list, where none has shown that yet.
3. *Repair.* What `Observations` has not joined is read again, in rounds.

An answer with fewer rows than it should have, or with a session twice, is evidence of nothing until
it was told twice.

If the head and all totals stayed what they were and as many distinct sessions were seen as the
total says, nothing moved meanwhile: *quiescent*. If the first answer and the end are in one run of
rows, the listing is *anchored* where only ranks were needed for that, and *stitched* else. Where
sessions may move, as in a list ordered by their end, both ends and where sessions land that have
ended are read again after all else. A list whose order changes from answer to answer is swept
again, and if that finds the same sessions, as many as the total says, it is *recounted*. Anything
else is *unproven*.

Where only sessions since some time are wanted, and the list is newest first, the sweep goes in
windows that overlap from the start and ends behind enough rows that are older. Where times cannot
prove that part, the list is read to its end after all. If the end seems to be wanted, a look at the
last page tells first: then the listing is one like any other.
"""

from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import Literal, assert_never

from exporter.listing.confirming_sweep import ConfirmingSweep
from exporter.listing.cutoff import Cutoff
from exporter.listing.doubts import Doubts
from exporter.listing.end_look import EndLook
from exporter.listing.ends import EndSearch
from exporter.listing.gaps import GapFinder, GapRange
from exporter.listing.head import Head
from exporter.listing.interface import PageRequest, Purpose
from exporter.listing.observations import MAX_EXPECTED, MIN_HELD, Observations
from exporter.listing.order import MIN_ROWS_TO_TRIM, count_crowded, read_times
from exporter.listing.resequencer import Resequencer
from exporter.listing.windows import Window, reach_on, read_on
from exporter.model import (
    ALL_TIME,
    Gateway,
    ListingFacts,
    Proof,
    RawSession,
    SessionPage,
    TimeRange,
)

Stage = Literal["start", "peek", "sweep", "close", "repair", "resweep"]

MAX_STARTS = 4
"""Page 1 is asked for so many times at most, while it comes short."""
EMPTIED_WAITS_S = (0.0, 1.0, 5.0, 20.0)
"""The same where sessions were seen before."""
HEAD_WAITS_S = (0.0, 1.0, 5.0, 20.0)
"""Before each further look at a head of which all that was there has gone."""
EMPTY_WAITS_S = (0.0, 0.5)
"""Before each further look at a list that is told to be empty."""
MIN_OVERLAP = 4
"""Rows beyond a tie that two windows share: some may shift away, and two have to stay."""
MIN_OVERLAP_AT_REST = 2
"""The same in a list that was not seen to move, or in small pages, which move by less at once."""
MAX_APART = 32
"""Answers that count as under way at once, at most."""
MIN_PAGES_TO_PEEK = 10
"""A look at the end of a shorter list costs as much as it may spare."""
PAGES_PER_GROWTH = 20
"""Sessions that are only created cost less in gaps, while there are fewer than one in this many
pages, than windows that overlap."""
PAGES_BEFORE_HURRY = 60
PAGES_BEYOND = 10
"""Where rows go on behind the total, the sweep goes ahead by one in so many of the pages so far."""
WATCH_EVERY = 25
"""Requests between two looks at the head of a list that moves: deletions are noticed early."""
LOOK_BACK = 64
"""Answers before the latest one that may have shown the same rows, while a list is swept."""
MAX_ROUNDS = 16
MAX_HEAD_ROUNDS = 4
MAX_RECOUNTS = 2
MAX_COST = 3.8
"""Requests relative to the pages, all included."""
MAX_BESIDES = 24
"""More of them in a list of few pages, ..."""
MAX_SMALL = 40
"""... but no more than so many."""


class FullListing:
    """The state of one gateway's listing.

    Invariant: every request up to `_asked` is answered or in flight. A stage ends when none is in
    flight.
    """

    def __init__(
        self, gateway: Gateway, *, page_size: int, time_range: TimeRange = ALL_TIME
    ) -> None:
        self._gateway = gateway
        self._page_size = page_size
        self._stage: Stage = "start"
        self._planned: deque[tuple[Window, Purpose, float]] = deque()
        self._plan(Window(1, page_size), "sweep")
        self._swept_to = 0
        # Requests and rows on their way.
        self._asked = self._answered = 0
        self._outbox = Resequencer(time_range)
        # What was seen.
        self._observations = Observations()
        self._ends = EndSearch()
        self._head = Head()
        self._head_page = 0
        """Index of the latest answer about page 1."""
        self._horizon = Cutoff(time_range.since_ms, self._observations)
        self._doubts = Doubts()
        self._look = EndLook()
        self._empty_count = 0
        """Answers in a row that told of an empty list."""
        self._first_total_count: int | None = None
        self._overlap_count = 0
        self._max_on_page = 0
        self._largest_total = 0
        self._largest_tie = 1
        self._moved = self._restless = False
        """Whether to read on in windows that overlap."""
        self._watched = 0
        # What the second look at the head told, and what was done about it.
        self._total_count_last = self._total_count_swept = 0
        self._newcomer_count = 0
        self._held_still = False
        self._round_count = self._repair_count = self._head_rounds = 0
        self._head_looks = 0
        """Looks taken at a head of which all that was there has gone."""
        self._probed_round = False
        """Whether both ends were read after the latest repair."""
        self._goes_on = False
        """Whether rows were seen where the list seemed to end."""
        self._gaps = GapFinder(self._observations)
        self._open_gaps: list[GapRange] = []
        self._recounts: list[ConfirmingSweep] = []
        self._facts: ListingFacts | None = None

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    @property
    def asked_count(self) -> int:
        return self._asked

    @property
    def is_incremental(self) -> bool:
        return False

    @property
    def page_count(self) -> int | None:
        """Pages that the list has by the largest total seen, as far as they are likely to be read;
        None before the first answer.
        """
        if self._answered == 0:
            return None
        row_count = min(max(self._largest_total, self._ends.shown_to), self._horizon.likely_stop)
        return max(1, ceil(row_count / self._page_size))

    @property
    def held_count(self) -> int:
        return self._asked - self._outbox.released_count + self._outbox.ready_count

    @property
    def ready_count(self) -> int:
        return self._outbox.ready_count

    @property
    def facts(self) -> ListingFacts | None:
        return self._facts

    @property
    def finished(self) -> bool:
        """Everything is answered and every row was taken."""
        return self._facts is not None and self._outbox.ready_count == 0

    def next_request(self) -> PageRequest | None:
        if self._planned:
            window, purpose, wait_s = self._planned.popleft()
        elif self._sweeps_on() and not self._awaits_answers:
            window, purpose = self._sweep_on()
            wait_s = 0.0
        else:
            return None
        self._asked += 1
        self._repair_count += purpose == "repair"
        self._look.note_asked(window, self._asked)
        return PageRequest(
            self._gateway, window.page_num, window.page_size, self._asked, purpose, wait_s
        )

    def take_rows(self, most: int) -> list[RawSession]:
        return self._outbox.take(most)

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        self._answered += 1
        window = Window(request.page_num, request.page_size)
        if self._stage == "peek":
            # These rows come again in their turn.
            self._outbox.put(request.number, [])
        else:
            self._take_in(request, window, page)
        if self._answered == self._asked and not self._planned and not self._sweeps_on():
            self._end_stage(page)

    # What an answer tells

    def _take_in(self, request: PageRequest, window: Window, page: SessionPage) -> None:
        self._note_total(page)
        if page.row_count == 0:
            self._take_in_none(window, page)
            new: list[RawSession] = []
        else:
            new = self._take_in_rows(request, window, page)
        is_first_look = request.number == self._look.number
        if is_first_look and page.row_count > 0:
            self._look.note_first(page.total_count, page=len(self._observations.pages) - 1)
        self._outbox.put(request.number, new, is_last=is_first_look)
        if self._stage == "sweep":
            found = self._look.search(
                window, page.row_count, shown_to=self._ends.shown_to, page_size=self._page_size
            )
            if found is not None:
                self._plan(found, "repair")
            self._pass_shown()

    def _note_total(self, page: SessionPage) -> None:
        if self._first_total_count is None and page.row_count > 0:
            self._first_total_count = page.total_count
        self._total_count_last = page.total_count
        self._largest_total = max(self._largest_total, page.total_count)
        self._moved |= page.total_count != (self._first_total_count or page.total_count)

    def _take_in_rows(
        self, request: PageRequest, window: Window, page: SessionPage
    ) -> list[RawSession]:
        """The rows that were not seen before."""
        self._empty_count = 0
        times = read_times(page.sessions)
        is_evidence = self._is_evidence(window, page)
        size = window.page_size
        if self._stage == "start" and page.row_count != page.total_count:
            # While it is not known what size the service caps pages at, no answer is short.
            size = page.row_count
        repeated = self._observations.add(window, page, times, size=size, is_evidence=is_evidence)
        if self._horizon.is_ahead:
            stop = window.start + page.row_count
            self._horizon.note(times, page.sessions, stop=stop, size=window.page_size)
        self._note_tie(times)
        if is_evidence:
            self._note_evidence(window, page, times)
        self._note_movement(request, page, repeated)
        if request.purpose != "sentinel" and request.number != self._look.number:
            self._overlap_count += len(repeated)
        if self._recounts:
            new_count = page.row_count - len(repeated)
            self._recounts[-1].add(page, start=window.start, new_count=new_count)
        for position in reversed(repeated):
            del page.sessions[position]
        return page.sessions

    def _note_evidence(
        self, window: Window, page: SessionPage, times: Sequence[int | None]
    ) -> None:
        at = len(self._observations.pages) - 1
        seen = self._observations.pages[at]
        shown_to = self._ends.shown_to
        self._ends.note(at, seen)
        self._look.note_rows(seen.stop)
        if window.start == 0:
            self._head_page = at
            self._note_head(page, times)
        is_closing = self._stage in {"close", "repair"}
        self._goes_on |= is_closing and not seen.is_short and seen.stop > shown_to

    def _take_in_none(self, window: Window, page: SessionPage) -> None:
        if page.total_count == 0:
            # Believed when it is told again and again; one such answer may be a fault.
            self._empty_count += window.start == 0
            looks_again = not self._is_emptied and not self._is_spent and not self._planned
            if self._stage != "start" and looks_again:
                wait_s = EMPTIED_WAITS_S[max(0, self._empty_count - 1)]
                self._plan(Window(1, self._page_size), "sentinel", wait_s)
        elif window.start < page.total_count:
            self._observations.total_count = page.total_count
            self._look.note_none(window, shown_to=self._ends.shown_to)
        else:
            self._ends.note_none(window.start)
        if self._recounts:
            self._recounts[-1].add(page, start=window.start, new_count=0)

    def _is_evidence(self, window: Window, page: SessionPage) -> bool:
        """Whether an answer shows all that stood between its first row and its last one.

        Asks again for one that may not.
        """
        is_told = self._ends.was_told(window.start + page.row_count)
        if self._stage == "start" or self._doubts.is_evidence(window, page, end_is_told=is_told):
            return True
        if self._doubts.may_ask_again(window) and not self._is_spent:
            self._plan(window, "repair")
        return False

    def _note_tie(self, times: Sequence[int | None]) -> None:
        if self._moved or self._horizon.is_ahead:
            timed = [time for time in times if time is not None]
            within_ms = 2 * self._observations.order.disorder_ms if self._horizon.is_ahead else 0
            self._largest_tie = max(self._largest_tie, count_crowded(timed, within_ms))

    def _note_head(self, page: SessionPage, times: Sequence[int | None]) -> None:
        """Compare a page 1 with the first one."""
        self._held_still = (
            self._stage == "close" and self._head.is_first(page.session_ids) and not self._moved
        )
        came = self._head.count_newcomers(page.session_ids, times)
        grown = page.total_count - (self._first_total_count or 0)
        self._newcomer_count = max(0, grown) if came is None else came
        self._observations.ranks_hold &= came is None or came == grown

    def _note_movement(self, request: PageRequest, page: SessionPage, repeated: list[int]) -> None:
        observations = self._observations
        if not observations.ranks_hold or observations.order.direction != "newest first":
            self._restless |= self._stage == "sweep"
        if self._stage != "sweep" or request.purpose != "sweep" or self._restless:
            return
        grown = page.total_count - (self._first_total_count or 0)
        known = observations.count_known_ranks(LOOK_BACK, also=self._look.page)
        self._moved |= len(repeated) != known
        hurries = grown * PAGES_PER_GROWTH > self._answered + PAGES_BEFORE_HURRY
        slipped = self._moved and len(repeated) != known
        observations.ranks_hold &= not slipped
        self._restless = slipped or hurries or grown < 0

    # What to ask next

    def _plan(self, window: Window, purpose: Purpose, wait_s: float = 0.0) -> None:
        self._planned.append((window, purpose, wait_s))

    def _sweeps_on(self) -> bool:
        if self._stage == "resweep":
            # A sweep that is to prove something alone looks behind the end, too.
            begun = self._recounts[-1].has_begun
            return begun and self._swept_to <= self._observations.total_count
        return (
            self._stage == "sweep"
            and self._swept_to < self._sweep_stop
            and not self._is_spent
            and not self._horizon.is_met
            and self._empty_count == 0
        )

    @property
    def _sweep_stop(self) -> float:
        """The place up to which to sweep."""
        if self._look.hollow_from is not None:
            return self._look.hollow_from
        ends = self._ends
        total_count = self._observations.total_count
        if not self._restless and self._look.spares_last_page(total_count):
            return total_count - total_count % self._page_size
        if ends.shown_to <= total_count or ends.is_found:
            return total_count
        # The total hides rows: on until they end.
        ahead = max(1, ceil(ends.shown_to / self._page_size) // PAGES_BEYOND)
        return ends.shown_to + (ahead - 1) * self._page_size + 1

    @property
    def _awaits_answers(self) -> bool:
        """Whether to wait rather than ask for what may not be needed."""
        if self._look.waits and self._answered < self._asked:
            return True
        return self._answered < self._asked and self._swept_to >= self._horizon.prudent_stop

    @property
    def _budget(self) -> int:
        """Requests at most; a list may grow faster than it is read."""
        cost = ceil(MAX_COST * self._page_total)
        return max(cost, min(cost + MAX_BESIDES, MAX_SMALL))

    @property
    def _page_total(self) -> int:
        """Pages that the list has, as its rows tell, or its total; but no more than twice those it
        had at first, since it may grow as fast as it is read.
        """
        first = self._first_total_count or 0
        grown = self._observations.total_count - first
        # Some services show their last page again behind the end.
        shown_to = min(self._ends.shown_to, max(first, self._observations.session_count))
        row_count = shown_to - max(0, grown - first)
        if not self._ends.is_found and self._ends.depth is None:
            row_count = max(first, row_count)
        return max(1, ceil(row_count / self._page_size))

    def _sweep_on(self) -> tuple[Window, Purpose]:
        if self._moved and self._asked >= self._watched + WATCH_EVERY and self._watches:
            self._watched = self._asked
            return Window(1, self._page_size), "sentinel"
        again = self._stage == "resweep"
        window = (
            reach_on(self._swept_to, most=self._page_size, overlap=self._overlap)
            if self._restless and not again
            else Window(self._swept_to // self._page_size + 1, self._page_size)
        )
        self._swept_to = window.stop
        self._pass_shown()
        return window, "repair" if again else "sweep"

    def _pass_shown(self) -> None:
        """Leave out of the sweep what the search for the end has shown."""
        if self._restless or self._stage != "sweep":
            return
        while Window(self._swept_to // self._page_size + 1, self._page_size) in self._look.shown:
            self._swept_to += self._page_size

    @property
    def _watches(self) -> bool:
        return self._stage == "sweep" and (not self._restless or self._may_move)

    @property
    def _overlap(self) -> int:
        """Rows that neighbouring windows share: some that may shift away, and more than one tie, if
        times have to join them.
        """
        at_rest = self._horizon.is_ahead and not self._moved
        is_small = self._page_size < MIN_ROWS_TO_TRIM
        least = MIN_OVERLAP_AT_REST if at_rest or is_small else MIN_OVERLAP
        # Neighbours may be answered as many answers apart as there are in flight.
        apart = self._observations.pace * min(self._asked - self._answered, MAX_APART)
        tie = 0 if self._observations.keeps_ties else self._largest_tie
        if tie + least > self._page_size // 2:
            # No times can join them, but enough shared rows may.
            tie = MIN_HELD
        return min(self._page_size // 2, tie + least + ceil(apart))

    # What the answers come to

    def _end_stage(self, page: SessionPage) -> None:
        """Nothing is in flight and nothing planned; `page` is the answer that came last."""
        if self._is_spent:
            restless = "the list did not hold still long enough to be read"
            self._conclude("unproven", self._say_missing() if self._open_gaps else restless)
            return
        match self._stage:
            case "start":
                self._end_start(page)
            case "peek":
                self._end_peek(page)
            case "sweep":
                self._close()
            case "close" | "repair" | "resweep":
                self._judge()
            case _:
                assert_never(self._stage)

    @property
    def _is_spent(self) -> bool:
        """Whether so much was asked for that there has to be an end to it."""
        return self._asked + len(self._planned) >= self._budget and self._stage != "start"

    def _end_start(self, page: SessionPage) -> None:
        row_count = page.row_count
        if row_count == 0:
            self._end_empty_start(page)
            return
        self._empty_count = 0
        is_whole = len(set(page.session_ids)) == row_count != self._page_size
        if is_whole and row_count == page.total_count == self._largest_total:
            # The whole list in one answer is one instant: nothing can have moved since, but before.
            was_empty = self._answered > len(self._observations.pages)
            self._conclude("stitched" if was_empty else "quiescent")
            return
        came_short = row_count < min(self._page_size, max(page.total_count, row_count + 1))
        # A total of fewer rows tells of a young list at least as well as of a service that caps.
        confirmed = row_count == self._max_on_page > 0 and page.total_count > row_count
        self._max_on_page = max(self._max_on_page, row_count)
        if came_short and not confirmed and self._asked < MAX_STARTS:
            # A service that caps its pages does so again; a fault passes.
            self._plan(Window(1, self._page_size), "sweep")
            return
        self._page_size = min(self._page_size, self._max_on_page or self._page_size)
        page_count = ceil(page.total_count / self._page_size)
        if page_count < MIN_PAGES_TO_PEEK:
            self._horizon = Cutoff(None, self._observations)
        if self._horizon.is_ahead:
            self._stage = "peek"
            self._plan(Window(page_count, self._page_size), "sentinel")
        else:
            self._begin_sweep()

    def _end_empty_start(self, page: SessionPage) -> None:
        again = self._answered - 1
        if self._is_emptied:
            # Where there was nothing at some instant, nothing was there all along.
            self._conclude("quiescent" if self._answered == self._empty_count else "stitched")
        elif again < MAX_STARTS + len(EMPTY_WAITS_S):
            wait_s = EMPTY_WAITS_S[min(self._empty_count, len(EMPTY_WAITS_S)) - 1]
            self._plan(Window(1, self._page_size), "sweep", wait_s)
        else:
            self._conclude("unproven", f"page 1 is empty, though its total is {page.total_count:,}")

    @property
    def _is_emptied(self) -> bool:
        waits = EMPTY_WAITS_S if self._first_total_count is None else EMPTIED_WAITS_S
        return self._empty_count > len(waits)

    def _end_peek(self, page: SessionPage) -> None:
        """The last page tells whether old sessions come last, and are not wanted."""
        times = [time for time in read_times(page.sessions) if time is not None]
        if not times or max(times) >= self._horizon.since_ms:
            self._horizon = Cutoff(None, self._observations)
        self._begin_sweep()

    def _begin_sweep(self) -> None:
        self._swept_to = self._page_size
        self._stage = "sweep"
        total_count = self._observations.total_count
        is_longer = max(total_count, self._ends.shown_to) >= self._page_size
        if is_longer and not self._horizon.is_ahead:
            # Whether the total is right, or the list goes on behind it, decides how to read it.
            self._plan(self._look.begin(total_count, page_size=self._page_size), "sweep")
        # Sessions that come at the end of a list leave no trace at its head: it may always move.
        self._restless = self._observations.order.direction != "newest first"
        if self._horizon.is_ahead:
            # Whether ranks slip shows only in windows that do not overlap, read to the end.
            self._restless, self._observations.ranks_hold = True, False
        if not self._planned and not self._sweeps_on():
            self._close()

    def _close(self) -> None:
        """The sweep is through: look at both ends."""
        self._total_count_swept = self._total_count_last
        self._stage = "close"
        self._probed_round = True
        self._plan(Window(1, self._page_size), "sentinel")
        if not self._horizon.is_met and (not self._ends.is_found or self._may_move):
            self._plan_landings()
            self._plan_probe()

    def _plan_probe(self, wait_s: float = 0.0) -> None:
        """Look over the place where the rows seem to end."""
        place = self._ends.shown_to
        if self._ends.page is not None:
            seen = self._observations.pages[self._ends.page]
            place = self._observations.estimate_place(seen.stop, page=self._ends.page)
        elif self._ends.depth is not None:
            place = self._ends.depth[0]
        for window in self._look.probe(place, page_size=self._page_size):
            self._plan(window, "repair", wait_s)

    def _plan_landings(self) -> None:
        """Read again where sessions may have moved to that have ended since, which was read."""
        if not self._may_move:
            return
        front, tail = self._observations.find_landings()
        if front is not None:
            seen = self._observations.pages[front]
            start = self._observations.estimate_place(seen.start, page=front)
            self._read_again(start - self._page_size // 2, start + seen.row_count)
        if tail is not None:
            start = self._observations.estimate_place(
                self._observations.pages[tail].start, page=tail
            )
            self._read_again(start - self._overlap, self._ends.shown_to)

    def _read_again(self, start: int, stop: int) -> None:
        for window in read_on(max(0, start), stop, most=self._page_size, overlap=self._overlap):
            self._plan(window, "repair")

    @property
    def _may_move(self) -> bool:
        """Whether sessions may change their place, since create times do not order the list."""
        return not self._observations.order.is_sorted or self._observations.order.disorder_ms > 0

    @property
    def _ranks_hold(self) -> bool:
        observations = self._observations
        return (
            observations.ranks_hold
            and observations.order.direction == "newest first"
            and observations.count_ranks() == observations.session_count
        )

    def _judge(self) -> None:
        """Conclude if there is a proof, or no hope for one; read again what may bring it else."""
        proof = self._find_proof()
        if proof is not None:
            self._conclude(proof)
            return
        if self._goes_on and not self._recounts and self._find_end() is None:
            self._sweep_behind()
        elif not self._recounts and self._plan_round():
            self._stage = "repair"
        elif self._horizon.is_met:
            # What times do not prove of a part, counts may prove of the whole.
            self._horizon = Cutoff(None, self._observations)
            self._round_count = 0
            self._stage = "sweep"
            if not self._sweeps_on():
                self._close()
        elif self._may_recount:
            self._stage = "resweep"
            self._recounts.append(
                ConfirmingSweep(min(self._observations.total_count, MAX_EXPECTED))
            )
            self._swept_to = self._page_size
            self._plan(Window(1, self._page_size), "repair")
        else:
            self._conclude("unproven", self._say_missing())

    def _sweep_behind(self) -> None:
        """Go on with the sweep: there are rows where the list seemed to end."""
        self._goes_on = False
        self._look.hollow_from = None
        self._swept_to = self._ends.shown_to
        self._stage = "sweep"
        if not self._sweeps_on():
            self._close()

    @property
    def _may_recount(self) -> bool:
        return (
            len(self._recounts) < MAX_RECOUNTS
            and self._asked + self._page_total <= self._budget
            and self._depth is None
            and self._total_count_last == self._total_count_swept
        )

    def _find_proof(self) -> Proof | None:
        if self._is_emptied:
            return "stitched"
        if self._first_total_count is not None and self._is_quiescent:
            return "quiescent"
        end, by_ranks = self._find_end(), self._ranks_hold
        self._open_gaps = self._gaps.find(end=end, by_ranks=by_ranks, list_end=self._ends.page)
        if end is not None and not self._open_gaps:
            if by_ranks:
                return "anchored"
            if self._ends_are_fresh:
                return "stitched"
        if self._recounts and self._recounts[-1].agrees:
            return "recounted"
        return None

    @property
    def _depth(self) -> tuple[int, int] | None:
        """How many rows the service shows of how many, where it shows none behind these."""
        if self._find_end() is not None:
            return None
        if self._look.hollow_from is not None:
            return self._ends.shown_to, self._total_count_last
        return self._ends.depth

    def _find_end(self) -> int | None:
        return self._horizon.page if self._horizon.is_met else self._ends.page

    @property
    def _ends_are_fresh(self) -> bool:
        """Whether no session can have moved to an end of the list unseen."""
        if not self._may_move:
            return True
        return self._probed_round and self._gaps.is_joined(self._head_page)

    @property
    def _is_quiescent(self) -> bool:
        observations = self._observations
        end = self._ends.page
        return (
            self._held_still
            and end is not None
            and self._stage == "close"
            and observations.pages[end].stop == self._first_total_count
            and observations.session_count == self._first_total_count
            and observations.ranks_hold
            and observations.descends()
        )

    def _plan_round(self) -> bool:
        """Ask for what may bring a proof; False when there is nothing left to try."""
        if self._round_count >= MAX_ROUNDS:
            return False
        if self._observations.is_reordered and not self._observations.order.is_sorted:
            # Nothing joins answers whose order means nothing.
            return False
        if self._find_end() is None:
            # Nothing else helps until the end is found.
            wait_s = self._ends.next_wait_s()
            if wait_s is not None:
                self._plan_probe(wait_s)
            return wait_s is not None
        if self._has_lost_head and self._look_at_head():
            return True
        windows = self._gaps.plan(
            self._open_gaps,
            page_size=self._page_size,
            overlap=self._overlap,
            by_ranks=self._ranks_hold,
        )
        for window in windows[: max(0, self._budget - self._asked - len(self._planned))]:
            self._plan(window, "repair")
        if windows:
            self._round_count += 1
            self._probed_round = False
        elif not self._probed_round:
            self._plan(Window(1, self._page_size), "sentinel")
            self._plan_landings()
            self._plan_probe()
            self._probed_round = True
        elif self._head_rounds < MAX_HEAD_ROUNDS and not self._ends_are_fresh:
            # More came to the head than a page shows: on, until rows are met that were known.
            self._head_rounds += 1
            self._plan(Window(1, self._page_size), "sentinel")
            bottom = self._gaps.find_bottom(self._head_page)
            overlap = self._page_size // 2
            self._plan(reach_on(bottom, most=self._page_size, overlap=overlap), "repair")
        return bool(self._planned)

    def _look_at_head(self) -> bool:
        """Ask for the head once more; False when it is believed."""
        if self._head_looks < len(HEAD_WAITS_S):
            self._plan(Window(1, self._page_size), "sentinel", HEAD_WAITS_S[self._head_looks])
            self._head_looks += 1
            return True
        # No replica lags by so much: what the first answer showed was deleted.
        self._gaps.trusted_heads.add(self._head_page)
        return False

    @property
    def _has_lost_head(self) -> bool:
        """Whether page 1 shows nothing but what stood behind it when the first answer came."""
        observations = self._observations
        first, latest = observations.pages[0].span, observations.pages[self._head_page].span
        if first is None or latest is None or self._head_page in self._gaps.trusted_heads:
            return False
        is_sorted = observations.order.direction == "newest first" and observations.order.is_sorted
        return is_sorted and latest[1] < first[0] and not self._gaps.is_joined(self._head_page)

    def _say_missing(self) -> str:
        """Why the list is not proven, for a reader."""
        if self._depth is not None:
            shown, claimed = self._depth
            return f"the service shows no more than {shown:,} sessions of {claimed:,}"
        if self._observations.is_reordered:
            return "the list changes its order, and two sweeps differ"
        if self._find_end() is None:
            return "the end of the list was not found"
        count = len(self._open_gaps)
        if count == 0:
            return "sessions may have moved within the list unseen"
        return f"{count:,} place{'' if count == 1 else 's'} in the list could not be joined"

    def _conclude(self, proof: Proof, missing: str = "") -> None:
        self._outbox.finish()
        first_total = self._first_total_count or 0
        grown = self._total_count_last - first_total
        self._facts = ListingFacts(
            gateway=self._gateway,
            session_count=self._outbox.session_count,
            total_count_first=first_total,
            total_count_last=self._total_count_last,
            inserted_count=max(self._newcomer_count, grown, 0),
            deleted_count=max(0, self._newcomer_count - grown),
            overlap_count=self._overlap_count,
            page_count=self._answered,
            repair_page_count=self._repair_count,
            proof=proof,
            missing=missing,
        )
