"""Which pages of one gateway's list to ask for, and what the answers prove; performs no I/O.

1. *Sweep.* Page 1 tells the total and how many rows the service really puts on a page; all others
   follow in that size. As soon as an answer shows that the list moves, the rest is read in windows
   that overlap, so that a shift by a row or two loses none.
2. *Sentinel.* Page 1 again. If the head and all totals stayed what they were and as many distinct
   sessions were seen as the total says, nothing moved meanwhile: *quiescent*.
3. *Repair.* What `Evidence` finds open is read again, in rounds: first the ranks no answer has
   shown, which is cheap and right unless sessions were deleted, then the times.

The sessions of the first answer's list prove the listing when as many of them were seen as the
first total says: *anchored*, or *recounted* when that took more than filling gaps in the ranks.
Times without a gap prove it, too: *stitched*. A list in no order is swept again, and if that finds
the same sessions, as many as the total says, it is *recounted*. Anything else is *unproven*.

Where only sessions since some time are wanted, and the list is newest first, the sweep goes in
windows that overlap from the start, ends behind the first row that is older, and times prove it:
what is not read tells no count. Where times cannot, the list is read to its end after all. If the
end seems to be wanted, a look at the last page tells first: then the listing is one like any other.
"""

from collections import deque
from math import ceil
from typing import Literal, assert_never

from exporter.api.roa import SessionPage
from exporter.gateway import Gateway
from exporter.listing.evidence import Evidence, count_crowded, read_times
from exporter.listing.facts import ListingFacts, PageRequest, Proof, Purpose
from exporter.listing.horizon import Horizon
from exporter.listing.keys import KeySet
from exporter.listing.origin import Origin
from exporter.listing.outbox import Outbox
from exporter.listing.recount import Recount
from exporter.listing.repairs import Repairs, Stretch, lay_windows
from exporter.listing.windows import Window, reach_on
from exporter.records import RawSession
from exporter.span import ALL_TIME, Span

Stage = Literal["start", "peek", "sweep", "repair", "resweep"]

MOST_EXPECTED = 1 << 24
"""Most keys that room is made for before they come: a total is only what the service says."""
MOST_STARTS = 4
"""Page 1 is asked for so many times at most, while it comes short."""
LEAST_OVERLAP = 3
"""Rows beyond a tie that two windows share: one pins them together, the others may shift away."""
LEAST_PAGES_TO_PEEK = 10
"""A look at the end of a shorter list costs as much as it may spare."""
LEAST_OVERLAP_AT_REST = 1
"""The same in a list that was not seen to move."""
PAGES_PER_GROWTH = 20
"""Sessions that are only created cost less in gaps, while there are fewer than one in this many
pages, than windows that overlap."""
PAGES_BEFORE_HURRY = 60
WATCH_EVERY = 25
"""Requests between two looks at the head of a list that moves: deletions are noticed early."""
MOST_ROUNDS = 8
MOST_RANK_ROUNDS = 3
"""Gaps in the ranks that stay open for so long are none that reading can fill."""
MOST_RECOUNTS = 2
REPAIRS_PER_PAGE = 3
REPAIRS_BESIDES = 50


class Coverage:
    """The state of one gateway's listing.

    Invariant: every request up to `_asked` is answered or in flight. A stage ends when none is in
    flight.
    """

    def __init__(self, gateway: Gateway, *, page_size: int, span: Span = ALL_TIME) -> None:
        self._gateway = gateway
        self._page_size = page_size
        self._stage: Stage = "start"
        self._planned: deque[tuple[Window, Purpose]] = deque([(Window(1, page_size), "sweep")])
        self._swept_to = 0
        # Requests and rows on their way.
        self._asked = 0
        self._answered = 0
        self._outbox = Outbox(span)
        # What was seen.
        self._keys = KeySet(0)
        self._overlap_count = 0
        self._evidence = Evidence()
        self._horizon = Horizon(span.since_ms, self._evidence)
        self._origin: Origin | None = None
        self._most_on_page = 0
        self._largest_total = 0
        self._largest_tie = 1
        self._moved = False
        self._restless = False
        """Whether to read on in windows that overlap."""
        self._watched = 0
        # What the sentinel told, and what was done about it.
        self._total_count_last = 0
        self._newcomer_count = 0
        self._held_still = False
        self._ranks_hold = True
        self._round_count = 0
        self._repair_count = 0
        self._repairs = Repairs(self._evidence)
        self._recounts: list[Recount] = []
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
        row_count = min(self._largest_total, self._horizon.likely_stop)
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
            window, purpose = self._planned.popleft()
        elif self._sweeps_on() and not self._awaits_answers:
            window, purpose = self._sweep_on()
        else:
            return None
        self._asked += 1
        return PageRequest(self._gateway, window.page_num, window.page_size, self._asked, purpose)

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        self._answered += 1
        if self._stage == "peek":
            # These rows come again in their turn.
            self._outbox.put(request.number, [])
        else:
            self._take_in(request, page)
        if self._answered == self._asked and not self._planned and not self._sweeps_on():
            self._end_stage(page)

    def _take_in(self, request: PageRequest, page: SessionPage) -> None:
        self._repair_count += request.purpose == "repair"
        self._largest_total = max(self._largest_total, page.total_count)
        times = read_times(page.sessions)
        window = Window(request.page_num, request.page_size)
        if times:
            self._horizon.note(times, stop=window.start + len(times))
        self._evidence.add(window, page, times, size_is_known=self._stage != "start")
        repeated = self._note_rows(page, times, request.purpose)
        if times and (self._moved or self._horizon.is_ahead):
            within_ms = 2 * self._evidence.disorder_ms if self._horizon.is_ahead else 0
            self._largest_tie = max(self._largest_tie, count_crowded(times, within_ms))
        if request.purpose == "sentinel":
            self._compare_head(page, times)
        else:
            self._overlap_count += len(repeated)
        if self._recounts:
            new_count = len(page.session_ids) - len(repeated)
            self._recounts[-1].add(page, start=window.start, new_count=new_count)
        for position in reversed(repeated):
            del page.sessions[position]
        self._outbox.put(request.number, page.sessions)

    def take_rows(self, most: int) -> list[RawSession]:
        return self._outbox.take(most)

    def _sweeps_on(self) -> bool:
        if self._stage == "resweep" and not self._recounts[-1].has_begun:
            return False
        # A sweep that is to prove something alone looks behind the end, too.
        stop = self._evidence.total_count + (self._stage == "resweep")
        return (
            self._stage in {"sweep", "resweep"}
            and self._swept_to < stop
            and self._asked < 2 * self._most_repairs
            and not (self._stage == "sweep" and self._horizon.is_met)
        )

    @property
    def _awaits_answers(self) -> bool:
        """Whether to wait rather than ask for what may not be needed."""
        return self._answered < self._asked and self._swept_to >= self._horizon.prudent_stop

    @property
    def _most_repairs(self) -> int:
        """A list may grow faster than it is read: there is an end to reading on, too."""
        pages = -(-self._first_total_count // self._page_size)
        return REPAIRS_PER_PAGE * pages + REPAIRS_BESIDES

    def _sweep_on(self) -> tuple[Window, Purpose]:
        if self._moved and not self._restless and self._asked >= self._watched + WATCH_EVERY:
            self._watched = self._asked
            return Window(1, self._page_size), "sentinel"
        again = self._stage == "resweep"
        window = (
            reach_on(self._swept_to, most=self._page_size, overlap=self._overlap)
            if self._restless and not again
            else Window(self._swept_to // self._page_size + 1, self._page_size)
        )
        self._swept_to = window.stop
        return window, "repair" if again else "sweep"

    @property
    def _overlap(self) -> int:
        """Rows that neighbouring windows share: more than one tie, and some that may shift away."""
        least = (
            LEAST_OVERLAP if self._moved or not self._horizon.is_ahead else LEAST_OVERLAP_AT_REST
        )
        return min(self._page_size // 2, self._largest_tie + least)

    def _note_rows(self, page: SessionPage, times: list[int] | None, purpose: Purpose) -> list[int]:
        """Which rows were seen before."""
        if self._origin is None and page.session_ids:
            self._keys = KeySet(min(page.total_count, MOST_EXPECTED))
            self._origin = Origin(page, times)
            return self._keys.add_all(page.session_ids)
        repeated = self._keys.add_all(page.session_ids)
        if self._origin is None:
            return repeated
        self._origin.count(times, repeated)
        grown = page.total_count - self._origin.total_count
        self._moved |= grown != 0
        if self._stage == purpose == "sweep" and page.session_ids and not self._restless:
            self._moved |= bool(repeated)
            hurries = grown * PAGES_PER_GROWTH > self._answered + PAGES_BEFORE_HURRY
            slipped = self._moved and len(repeated) != self._evidence.count_known_ranks()
            self._ranks_hold &= not slipped
            self._restless = slipped or hurries or grown < 0
        return repeated

    def _compare_head(self, page: SessionPage, times: list[int] | None) -> None:
        origin = self._origin
        if origin is None:
            return
        head, first_head = (
            page.session_ids[: self._page_size],
            origin.session_ids[: self._page_size],
        )
        self._held_still = not self._moved and head == first_head
        grown = page.total_count - origin.total_count
        found = origin.count_newcomers(page, times)
        self._newcomer_count = max(0, grown) if found is None else found
        self._ranks_hold &= found is None or found == grown
        self._restless |= not self._ranks_hold
        self._total_count_last = page.total_count

    def _end_stage(self, page: SessionPage) -> None:
        """Nothing is in flight and nothing planned; `page` is the answer that came last."""
        match self._stage:
            case "start":
                self._end_start(page)
            case "peek":
                self._end_peek(page)
            case "sweep":
                self._end_sweep()
            case "repair" | "resweep":
                self._judge()
            case _:
                assert_never(self._stage)

    def _end_sweep(self) -> None:
        self._stage = "repair"
        if self._evidence.order == "newest first":
            self._planned.append((Window(1, self._page_size), "sentinel"))
        else:
            self._judge()

    def _end_start(self, page: SessionPage) -> None:
        row_count = len(page.session_ids)
        self._total_count_last = page.total_count
        if len(set(page.session_ids)) == row_count == page.total_count == self._largest_total:
            # The whole list in one answer is one instant: nothing can have moved.
            self._conclude("quiescent")
            return
        if self._horizon.is_met:
            # So is all of it that is wanted.
            self._conclude("quiescent")
            return
        came_short = row_count < min(self._page_size, page.total_count)
        confirmed = row_count == self._most_on_page > 0
        self._most_on_page = max(self._most_on_page, row_count)
        if came_short and not confirmed and self._asked < MOST_STARTS:
            # A service that caps its pages does so again; a fault passes.
            self._planned.append((Window(1, self._page_size), "sweep"))
            return
        self._page_size = min(self._page_size, self._most_on_page or self._page_size)
        page_count = ceil(page.total_count / self._page_size)
        may_want_all = self._horizon.is_ahead and self._horizon.likely_stop >= page.total_count
        if may_want_all and page_count >= LEAST_PAGES_TO_PEEK:
            self._stage = "peek"
            self._planned.append((Window(page_count, self._page_size), "sentinel"))
        else:
            self._begin_sweep()

    def _end_peek(self, page: SessionPage) -> None:
        """The list's last page tells whether there is anything in it that is not wanted."""
        times = read_times(page.sessions)
        if times and min(times) >= self._horizon.since_ms:
            self._horizon = Horizon(None, self._evidence)
        self._begin_sweep()

    def _begin_sweep(self) -> None:
        self._swept_to = self._page_size
        # Sessions that come at the end of a list leave no trace at its head: it may always move.
        self._restless = self._evidence.order == "oldest first"
        if self._horizon.is_ahead:
            # Whether ranks slip shows only in windows that do not overlap, read to the end.
            self._restless, self._ranks_hold = True, False
        self._stage = "sweep"
        if not self._sweeps_on():
            self._end_sweep()

    def _judge(self) -> None:
        """Conclude if there is a proof, or no hope for one; read again what may bring it else."""
        proof = self._find_proof()
        if proof is not None:
            self._conclude(proof)
            return
        windows = self._plan_repairs() if not self._recounts else []
        most = self._most_repairs
        if windows and self._round_count < MOST_ROUNDS and self._repair_count + len(windows) < most:
            self._round_count += 1
            self._planned.extend((window, "repair") for window in windows)
        elif self._horizon.is_met:
            # What times do not prove of a part, counts may prove of the whole.
            self._horizon = Horizon(None, self._evidence)
            self._round_count = 0
            self._stage = "sweep"
            if not self._sweeps_on():
                self._end_sweep()
        elif len(self._recounts) < MOST_RECOUNTS and self._repair_count < most:
            self._stage = "resweep"
            self._recounts.append(Recount(min(self._evidence.total_count, MOST_EXPECTED)))
            self._swept_to = self._page_size
            self._planned.append((Window(1, self._page_size), "repair"))
        else:
            self._conclude("unproven")

    @property
    def _is_quiescent(self) -> bool:
        return (
            self._held_still
            and self._repair_count == 0
            and len(self._keys) == self._first_total_count
            and self._evidence.descends()
        )

    @property
    def _counts_hold(self) -> bool:
        """Whether times tell which sessions were in the list at first.

        A session that is shown late, behind older ones, would be counted among them; the ranks
        would slip then, as they do where ties are shuffled in a list that gets no session at all.
        """
        none_came = self._newcomer_count == 0 and self._largest_total == self._first_total_count
        evidence = self._evidence
        return evidence.is_sorted and evidence.is_exact and (self._ranks_hold or none_came)

    @property
    def _first_total_count(self) -> int:
        return 0 if self._origin is None else self._origin.total_count

    def _find_proof(self) -> Proof | None:
        origin, evidence = self._origin, self._evidence
        proof: Proof | None = None
        if origin is None:
            # Where there was nothing at some instant, nothing was there all along.
            proof = "stitched" if evidence.emptied else None
        elif self._is_quiescent:
            proof = "quiescent"
        elif self._counts_hold and origin.seen_count == origin.total_count:
            proof = "anchored" if self._ranks_hold else "recounted"
        elif evidence.is_sorted and not evidence.find_time_gaps(since_ms=self._horizon.since_ms):
            proof = "stitched"
        elif self._recounts and self._recounts[-1].agrees:
            proof = "recounted"
        return proof

    def _plan_repairs(self) -> list[Window]:
        evidence, overlap = self._evidence, self._overlap
        stretches: list[Stretch] = []
        if (
            self._ranks_hold
            and self._origin is not None
            and evidence.order == "newest first"
            and self._round_count < MOST_RANK_ROUNDS
        ):
            stretches = self._repairs.find_in_ranks(self._origin.total_count, overlap=overlap)
            self._ranks_hold = bool(stretches)
        if not stretches and evidence.is_sorted:
            stretches = self._repairs.find_in_times(
                since_ms=self._horizon.since_ms, page_size=self._page_size, overlap=overlap
            )
        return lay_windows(stretches, page_size=self._page_size, overlap=overlap)

    def _conclude(self, proof: Proof) -> None:
        grown = self._total_count_last - self._first_total_count
        self._facts = ListingFacts(
            gateway=self._gateway,
            session_count=self._outbox.session_count,
            total_count_first=self._first_total_count,
            total_count_last=self._total_count_last,
            inserted_count=max(self._newcomer_count, grown, 0),
            deleted_count=max(0, self._newcomer_count - grown),
            overlap_count=self._overlap_count,
            page_count=self._answered,
            repair_page_count=self._repair_count,
            proof=proof,
            missing=self._evidence.say_missing() if proof == "unproven" else "",
        )
