"""Looks for a proof in the answers about one list, or for the gaps it lacks; performs no I/O."""

from exporter.listing.gaps import GapFinder, GapRange
from exporter.listing.view import ListView
from exporter.model import Proof


class ProofSearch:
    """Joins the answers after each stage, and remembers the gaps that were left."""

    def __init__(self, view: ListView) -> None:
        self._view = view
        self.gaps = GapFinder(view.observations)
        self.open_gaps: list[GapRange] = []
        """As found last."""
        self.has_read_ends = False
        """Whether both ends were read after the latest repair."""

    def find(self, *, is_closing: bool) -> Proof | None:
        view = self._view
        if view.is_emptied:
            return "stitched"
        if is_closing and self._is_quiescent:
            return "quiescent"
        end, by_ranks = view.end_page, self.joins_by_ranks
        self.open_gaps = self.gaps.find(end=end, by_ranks=by_ranks, list_end=view.ends.page)
        if end is None or self.open_gaps:
            return None
        if by_ranks:
            return "anchored"
        return "stitched" if self.ends_are_fresh else None

    @property
    def joins_by_ranks(self) -> bool:
        observations = self._view.observations
        return (
            observations.ranks_hold
            and observations.order.direction == "newest first"
            and observations.count_ranks() == observations.session_count
        )

    @property
    def ends_are_fresh(self) -> bool:
        """Whether no session can have moved to an end of the list unseen."""
        if not self._view.may_move:
            return True
        return self.has_read_ends and self.gaps.is_joined(self._view.head_page)

    @property
    def _is_quiescent(self) -> bool:
        view, observations = self._view, self._view.observations
        end = view.ends.page
        return (
            view.first_total_count is not None
            and view.head_is_unchanged
            and end is not None
            and observations.pages[end].stop == view.first_total_count
            and observations.session_count == view.first_total_count
            and observations.ranks_hold
            and observations.descends()
        )

    def explain_gaps(self) -> str:
        """Why the list is not proven, for a reader."""
        view = self._view
        if view.depth is not None:
            shown, claimed = view.depth
            return f"the service shows no more than {shown:,} sessions of {claimed:,}"
        if view.observations.is_reordered:
            return "the list changes its order, and two sweeps differ"
        if view.end_page is None:
            return "the end of the list was not found"
        count = len(self.open_gaps)
        if count == 0:
            return "sessions may have moved within the list unseen"
        return f"{count:,} place{'' if count == 1 else 's'} in the list could not be joined"
