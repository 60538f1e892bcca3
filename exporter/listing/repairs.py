"""Plans what is read again after the sweep, until the answers join; performs no I/O."""

from exporter.listing.plan import PlannedRequest
from exporter.listing.proof_search import ProofSearch
from exporter.listing.view import ListView
from exporter.listing.windows import Window, reach_on, read_on

HEAD_WAITS_S = (0.0, 1.0, 5.0, 20.0)
"""Before each further look at a head from which all that the first answer showed has gone."""
MAX_ROUNDS = 16
MAX_HEAD_ROUNDS = 4

Plan = list[PlannedRequest]


class Repairs:
    """Rounds of requests; each is planned once all answers to the one before it are in."""

    def __init__(self, view: ListView, proofs: ProofSearch) -> None:
        self._view = view
        self._proofs = proofs
        self._round_count = 0
        self._head_round_count = 0
        """Rounds that read on behind a head to which many sessions had come."""
        self._head_look_count = 0
        """Looks at a head from which all that the first answer showed has gone."""

    def start_over(self) -> None:
        self._round_count = 0

    def close(self) -> Plan:
        """Look at the head, and at the end where that was not shown or may have moved."""
        view = self._view
        if view.cutoff.is_met or (view.ends.is_found and not view.may_move):
            self._proofs.has_read_ends = True
            return [self._look_at_head()]
        return self._read_ends()

    def plan_round(self, *, max_count: int) -> Plan:
        """Requests that may bring a proof, about `max_count` at most; empty when none is left."""
        view = self._view
        if self._round_count >= MAX_ROUNDS:
            return []
        if view.observations.is_reordered and not view.observations.order.is_sorted:
            # Nothing joins answers whose order means nothing.
            return []
        if view.end_page is None:
            # Nothing else helps until the end is found.
            wait_s = view.ends.next_wait_s()
            return [] if wait_s is None else self._probe_end(wait_s)
        if self._has_lost_head:
            if self._head_look_count < len(HEAD_WAITS_S):
                self._head_look_count += 1
                return [self._look_at_head(HEAD_WAITS_S[self._head_look_count - 1])]
            # No replica lags by so much: what the first answer showed was deleted.
            self._proofs.gaps.trusted_heads.add(view.head_page)
        return self._fill_gaps(max_count) or self._freshen_ends()

    def _fill_gaps(self, max_count: int) -> Plan:
        proofs = self._proofs
        windows = proofs.gaps.plan(
            proofs.open_gaps,
            page_size=self._view.page_size,
            overlap=self._view.choose_overlap(),
            by_ranks=proofs.joins_by_ranks,
        )
        if windows:
            self._round_count += 1
            proofs.has_read_ends = False
        return [PlannedRequest(window, "repair") for window in windows[:max_count]]

    def _freshen_ends(self) -> Plan:
        """Look for what has moved to an end of the list since that was read."""
        view, proofs = self._view, self._proofs
        if not proofs.has_read_ends:
            return self._read_ends()
        if self._head_round_count >= MAX_HEAD_ROUNDS or proofs.ends_are_fresh:
            return []
        # More came to the head than a page shows: on, until rows are met that were seen before.
        self._head_round_count += 1
        bottom = proofs.gaps.find_bottom(view.head_page)
        window = reach_on(bottom, most=view.page_size, overlap=view.page_size // 2)
        return [self._look_at_head(), PlannedRequest(window, "repair")]

    def _read_ends(self) -> Plan:
        self._proofs.has_read_ends = True
        return [self._look_at_head(), *self._read_landings(), *self._probe_end()]

    def _look_at_head(self, wait_s: float = 0.0) -> PlannedRequest:
        return PlannedRequest(Window(1, self._view.page_size), "sentinel", wait_s)

    def _probe_end(self, wait_s: float = 0.0) -> Plan:
        """Windows over the place where the rows seem to end."""
        view = self._view
        place = view.ends.shown_to
        if view.ends.page is not None:
            seen = view.observations.pages[view.ends.page]
            place = view.observations.estimate_place(seen.stop, page=view.ends.page)
        elif view.ends.depth is not None:
            place = view.ends.depth[0]
        windows = view.end_look.probe(place, page_size=view.page_size)
        return [PlannedRequest(window, "repair", wait_s) for window in windows]

    def _read_landings(self) -> Plan:
        """Windows over the places, read before, that sessions may have moved to by ending."""
        view, observations = self._view, self._view.observations
        if not view.may_move:
            return []
        front, tail = observations.find_landings()
        plan = []
        if front is not None:
            seen = observations.pages[front]
            start = observations.estimate_place(seen.start, page=front)
            plan += self._read_again(start - view.page_size // 2, start + seen.row_count)
        if tail is not None:
            start = observations.estimate_place(observations.pages[tail].start, page=tail)
            plan += self._read_again(start - view.choose_overlap(), view.ends.shown_to)
        return plan

    def _read_again(self, start: int, stop: int) -> Plan:
        most, overlap = self._view.page_size, self._view.choose_overlap()
        return [
            PlannedRequest(window, "repair")
            for window in read_on(max(0, start), stop, most=most, overlap=overlap)
        ]

    @property
    def _has_lost_head(self) -> bool:
        """Whether page 1 shows nothing but what stood behind it when the first answer came."""
        view, observations, gaps = self._view, self._view.observations, self._proofs.gaps
        first, latest = observations.pages[0].span, observations.pages[view.head_page].span
        if first is None or latest is None or view.head_page in gaps.trusted_heads:
            return False
        is_sorted = observations.order.direction == "newest first" and observations.order.is_sorted
        return is_sorted and latest[1] < first[0] and not gaps.is_joined(view.head_page)
