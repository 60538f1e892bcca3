"""Reads one gateway's whole list and proves that it is complete; performs no I/O.

The stages are explained in `README.md` in this folder: start, peek, sweep, close, repair, resweep.
"""

from collections import deque
from collections.abc import Sequence
from math import ceil
from typing import assert_never

from exporter.listing.confirming_sweep import ConfirmingSweep
from exporter.listing.interface import PageRequest, Purpose
from exporter.listing.observations import MAX_EXPECTED
from exporter.listing.order import read_times
from exporter.listing.plan import PlannedRequest
from exporter.listing.proof_search import ProofSearch
from exporter.listing.repairs import Repairs
from exporter.listing.repeats import EMPTY_WAITS_S
from exporter.listing.resequencer import Resequencer
from exporter.listing.sweep import Sweep
from exporter.listing.view import EMPTIED_WAITS_S, ListView, Stage
from exporter.listing.windows import Window
from exporter.model import (
    ALL_TIME,
    Gateway,
    ListingFacts,
    Proof,
    RawSession,
    SessionPage,
    TimeRange,
)

MAX_STARTS = 4
"""Page 1 is asked for so many times at most, while it comes short."""
MIN_PAGES_TO_PEEK = 10
"""A look at the end of a shorter list costs as much as it may spare."""
MAX_CONFIRMING_SWEEPS = 2


class FullListing:
    """The state of one gateway's listing.

    Invariant: every request up to `_asked_count` is answered or in flight. A stage ends when none
    is in flight.
    """

    def __init__(
        self, gateway: Gateway, *, page_size: int, time_range: TimeRange = ALL_TIME
    ) -> None:
        self._gateway = gateway
        self._stage: Stage = "start"
        self._view = ListView(page_size=page_size, since_ms=time_range.since_ms)
        self._sweep = Sweep(self._view)
        self._proofs = ProofSearch(self._view)
        self._repairs = Repairs(self._view, self._proofs)
        self._confirming_sweeps: list[ConfirmingSweep] = []
        self._planned = deque([self._look_at_head("sweep")])
        self._asked_count = self._answered_count = 0
        self._resequencer = Resequencer(time_range)
        self._overlap_count = 0
        self._repair_count = 0
        self._swept_total_count = 0
        """The total at the end of the sweep."""
        self._facts: ListingFacts | None = None

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    @property
    def bookmark(self) -> None:
        """None: what it reads is not recorded. See `IncrementalListing`."""

    @property
    def asked_count(self) -> int:
        return self._asked_count

    @property
    def is_incremental(self) -> bool:
        return False

    @property
    def page_count(self) -> int | None:
        """Pages of the list by the largest total seen, as far as they are likely to be read; None
        before the first answer.
        """
        if self._answered_count == 0:
            return None
        view = self._view
        row_count = max(view.max_total_count, view.ends.shown_to)
        return max(1, ceil(min(row_count, view.cutoff.likely_stop) / view.page_size))

    @property
    def held_count(self) -> int:
        rows = self._resequencer
        return self._asked_count - rows.released_count + rows.ready_count

    @property
    def ready_count(self) -> int:
        return self._resequencer.ready_count

    @property
    def facts(self) -> ListingFacts | None:
        return self._facts

    @property
    def finished(self) -> bool:
        """Whether everything is answered and every row was taken."""
        return self._facts is not None and self.ready_count == 0

    def next_request(self) -> PageRequest | None:
        if self._planned:
            planned = self._planned.popleft()
        elif self._sweeps_on and not self._sweep.must_wait(in_flight=self._in_flight):
            planned = self._sweep_on()
        else:
            return None
        self._asked_count += 1
        self._repair_count += planned.purpose == "repair"
        self._view.end_look.note_asked(planned.window, self._asked_count)
        return planned.to_request(self._gateway, self._asked_count)

    def take_rows(self, most: int) -> list[RawSession]:
        return self._resequencer.take(most)

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        self._answered_count += 1
        if self._stage == "peek":
            # These rows come again in their turn.
            self._resequencer.put(request.number, [])
        else:
            self._take_in(request, page)
        if self._in_flight == 0 and not self._planned and not self._sweeps_on:
            self._end_stage(page)

    # Take an answer in

    def _take_in(self, request: PageRequest, page: SessionPage) -> None:
        view, end_look = self._view, self._view.end_look
        window = Window(request.page_num, request.page_size)
        view.note_total(page)
        is_first_look = request.number == end_look.number
        new_rows = self._take_in_rows(request, window, page)
        if is_first_look and page.row_count > 0:
            end_look.note_first(page.total_count, page=len(view.observations.pages) - 1)
        self._resequencer.put(request.number, new_rows, is_last=is_first_look)
        if self._stage == "sweep":
            found = end_look.search(
                window, page.row_count, shown_to=view.ends.shown_to, page_size=view.page_size
            )
            if found is not None:
                self._planned.append(PlannedRequest(found, "repair"))
            self._sweep.skip_shown()

    def _take_in_rows(
        self, request: PageRequest, window: Window, page: SessionPage
    ) -> list[RawSession]:
        """The rows that were not seen before."""
        row_count = page.row_count
        repeated: Sequence[int] = ()
        if row_count == 0:
            self._view.add_empty(window, page)
            self._ask_again_if_emptied(page)
        else:
            is_evidence = self._is_evidence(window, page)
            repeated = self._view.add(window, page, stage=self._stage, is_evidence=is_evidence)
        if self._stage == "sweep" and row_count > 0:
            self._sweep.note_movement(
                request, page.total_count, len(repeated), answered_count=self._answered_count
            )
        if request.purpose != "sentinel" and request.number != self._view.end_look.number:
            self._overlap_count += len(repeated)
        if self._confirming_sweeps:
            new_count = row_count - len(repeated)
            self._confirming_sweeps[-1].add(page, start=window.start, new_count=new_count)
        seen = frozenset(repeated)
        return [each for position, each in enumerate(page.sessions) if position not in seen]

    def _ask_again_if_emptied(self, page: SessionPage) -> None:
        """One answer that says the list is empty may be a fault; many in a row are believed."""
        view = self._view
        if page.total_count > 0 or self._stage == "start":
            return
        if not view.is_emptied and not self._is_spent and not self._planned:
            wait_s = EMPTIED_WAITS_S[max(0, view.empty_count - 1)]
            self._planned.append(self._look_at_head("sentinel", wait_s))

    def _is_evidence(self, window: Window, page: SessionPage) -> bool:
        """Whether an answer shows all that stood between its first row and its last one.

        Asks again for one that may not.
        """
        is_evidence = self._stage == "start" or self._view.is_evidence(window, page)
        if not is_evidence and self._view.repeats.may_ask_again(window) and not self._is_spent:
            self._planned.append(PlannedRequest(window, "repair"))
        return is_evidence

    # Ask on

    @property
    def _in_flight(self) -> int:
        return self._asked_count - self._answered_count

    @property
    def _is_spent(self) -> bool:
        """Whether so much was asked for that there has to be an end to it."""
        asked_count = self._asked_count + len(self._planned)
        return self._stage != "start" and asked_count >= self._view.max_request_count

    @property
    def _sweeps_on(self) -> bool:
        if self._stage == "resweep":
            # A sweep that is to prove something alone looks behind the end, too.
            has_begun = self._confirming_sweeps[-1].has_begun
            return has_begun and self._sweep.swept_to <= self._view.observations.total_count
        return self._stage == "sweep" and self._sweep.has_more and not self._is_spent

    def _sweep_on(self) -> PlannedRequest:
        if self._stage == "resweep":
            return PlannedRequest(self._sweep.next_page(), "repair")
        return self._sweep.next_request(asked_count=self._asked_count, in_flight=self._in_flight)

    def _look_at_head(self, purpose: Purpose, wait_s: float = 0.0) -> PlannedRequest:
        return PlannedRequest(Window(1, self._view.page_size), purpose, wait_s)

    # End a stage

    def _end_stage(self, page: SessionPage) -> None:
        """Nothing is in flight and nothing planned; `page` is the answer that came last."""
        if self._is_spent:
            restless = "the list did not hold still long enough to be read"
            has_gaps = bool(self._proofs.open_gaps)
            self._conclude("unproven", self._proofs.explain_gaps() if has_gaps else restless)
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

    def _end_start(self, page: SessionPage) -> None:
        view, row_count = self._view, page.row_count
        if row_count == 0:
            self._end_empty_start(page)
            return
        is_whole = len(set(page.session_ids)) == row_count != view.page_size
        if is_whole and row_count == page.total_count == view.max_total_count:
            # The whole list in one answer is one instant: nothing can have moved since, but before.
            was_empty = self._answered_count > len(view.observations.pages)
            self._conclude("stitched" if was_empty else "quiescent")
            return
        if not view.settle_page_size(page, is_last_try=self._asked_count >= MAX_STARTS):
            self._planned.append(self._look_at_head("sweep"))
            return
        page_count = ceil(page.total_count / view.page_size)
        if page_count < MIN_PAGES_TO_PEEK:
            view.drop_cutoff()
        if view.cutoff.is_ahead:
            self._stage = "peek"
            self._planned.append(PlannedRequest(Window(page_count, view.page_size), "sentinel"))
        else:
            self._begin_sweep()

    def _end_empty_start(self, page: SessionPage) -> None:
        empty_count = self._view.empty_count
        if self._view.is_emptied:
            # Where there was nothing at some instant, nothing was there all along.
            self._conclude("quiescent" if self._answered_count == empty_count else "stitched")
        elif self._answered_count - 1 < MAX_STARTS + len(EMPTY_WAITS_S):
            wait_s = EMPTY_WAITS_S[min(empty_count, len(EMPTY_WAITS_S)) - 1]
            self._planned.append(self._look_at_head("sweep", wait_s))
        else:
            self._conclude("unproven", f"page 1 is empty, though its total is {page.total_count:,}")

    def _end_peek(self, page: SessionPage) -> None:
        """Drop the cutoff unless the last page shows that unwanted sessions come last."""
        times = [time for time in read_times(page.sessions) if time is not None]
        if not times or max(times) >= self._view.cutoff.since_ms:
            self._view.drop_cutoff()
        self._begin_sweep()

    def _begin_sweep(self) -> None:
        self._stage = "sweep"
        first_look = self._sweep.begin()
        if first_look is not None:
            self._planned.append(first_look)
        else:
            self._close_unless_sweeping()

    def _close_unless_sweeping(self) -> None:
        if not self._sweeps_on:
            self._close()

    def _close(self) -> None:
        """The sweep is through: look at both ends."""
        self._swept_total_count = self._view.last_total_count
        self._stage = "close"
        self._planned.extend(self._repairs.close())

    def _judge(self) -> None:
        """Conclude if there is a proof, or no hope for one; else read again what may bring it."""
        proof = self._proofs.find(is_closing=self._stage == "close")
        confirming = self._confirming_sweeps
        if proof is None and confirming and confirming[-1].agrees:
            proof = "recounted"
        if proof is not None:
            self._conclude(proof)
        elif not confirming and self._read_again():
            return
        elif self._view.cutoff.is_met:
            # What times do not prove of a part, counts may prove of the whole.
            self._view.drop_cutoff()
            self._repairs.start_over()
            self._stage = "sweep"
            self._close_unless_sweeping()
        elif self._may_confirm:
            self._begin_confirming_sweep()
        else:
            self._conclude("unproven", self._proofs.explain_gaps())

    def _read_again(self) -> bool:
        """Read what may bring a proof; False where nothing is left to read."""
        view = self._view
        if view.has_rows_behind_end and view.end_page is None:
            self._sweep.go_behind_end()
            self._stage = "sweep"
            self._close_unless_sweeping()
            return True
        plan = self._repairs.plan_round(max_count=view.max_request_count - self._asked_count)
        self._planned.extend(plan)
        if plan:
            self._stage = "repair"
        return bool(plan)

    @property
    def _may_confirm(self) -> bool:
        view = self._view
        return (
            len(self._confirming_sweeps) < MAX_CONFIRMING_SWEEPS
            and self._asked_count + view.page_count <= view.max_request_count
            and view.depth is None
            and view.last_total_count == self._swept_total_count
        )

    def _begin_confirming_sweep(self) -> None:
        self._stage = "resweep"
        expected_count = min(self._view.observations.total_count, MAX_EXPECTED)
        self._confirming_sweeps.append(ConfirmingSweep(expected_count))
        self._sweep.swept_to = self._view.page_size
        self._planned.append(self._look_at_head("repair"))

    def _conclude(self, proof: Proof, missing: str = "") -> None:
        self._resequencer.finish()
        view = self._view
        grown = view.count_grown(view.last_total_count)
        self._facts = ListingFacts(
            gateway=self._gateway,
            session_count=self._resequencer.session_count,
            total_count_first=view.first_total_count or 0,
            total_count_last=view.last_total_count,
            inserted_count=max(view.newcomer_count, grown, 0),
            deleted_count=max(0, view.newcomer_count - grown),
            overlap_count=self._overlap_count,
            page_count=self._answered_count,
            repair_page_count=self._repair_count,
            proof=proof,
            missing=missing,
        )
