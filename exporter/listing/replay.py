"""Brings listings back to where a killed run left them, answer by answer; performs no I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from exporter.errors import ReplayError
from exporter.listing.interface import Listing, PageRequest
from exporter.model import Gateway, SessionPage


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer that a listing took in, and its place among the listing's requests."""

    request: PageRequest
    asked_count: int
    """Requests that the listing had given by then."""
    body: bytes
    """As it came."""


@dataclass(frozen=True, slots=True)
class ResumedRun:
    """The run whose answers are recorded."""

    run_id: str
    started_at: datetime
    answer_count: int


class AnswerLog(Protocol):
    """The answers of all listings in the order in which they were taken in, kept for a later run.

    Any prefix of that order is a state the listings were in.
    """

    @property
    def resumed(self) -> ResumedRun | None:
        """None where the run begins at the beginning."""

    @property
    def has_recorded(self) -> bool:
        """Whether an earlier run kept any."""

    def read_recorded(self) -> Iterator[Sequence[RecordedAnswer]]:
        """The answers that an earlier run kept, some at a time; each step blocks."""

    async def make_room(self) -> None:
        """Wait until one more answer may be noted: a crash must not lose too many."""

    def note(self, listing: Listing, request: PageRequest, page: SessionPage) -> None:
        """Keep an answer, just before its listing takes it in; does not block."""

    async def flush_if_due(self) -> None:
        """Write the noted answers if there are enough."""

    def close(self) -> int:
        """Write what is left, and keep it for the next run; blocks. Returns how many answers that
        run can take over.
        """

    def remove(self) -> None:
        """Keep nothing: what was read is published, or of no use; blocks."""


class NoAnswerLog:
    """Keeps nothing."""

    resumed: Final = None
    has_recorded: Final = False

    def read_recorded(self) -> Iterator[Sequence[RecordedAnswer]]:
        return iter(())

    async def make_room(self) -> None:
        pass

    def note(self, listing: Listing, request: PageRequest, page: SessionPage) -> None:
        pass

    async def flush_if_due(self) -> None:
        pass

    def close(self) -> int:
        return 0

    def remove(self) -> None:
        pass


NO_ANSWER_LOG: Final = NoAnswerLog()


class Replay:
    """Gives the same requests again in the same order, so that the recorded answers fit.

    A listing decides the same when it gets the same answers at the same places between its
    requests; the requests it gives meanwhile are compared with the recorded ones all the same.
    """

    def __init__(self, listings: Sequence[Listing]) -> None:
        self._listings = {listing.gateway: listing for listing in listings}
        self._unanswered: dict[tuple[Gateway, int], tuple[Listing, PageRequest]] = {}

    @property
    def unanswered(self) -> list[tuple[Listing, PageRequest]]:
        """Requests without a recorded answer, in the order of each gateway."""
        return list(self._unanswered.values())

    def ask(self, answer: RecordedAnswer) -> Listing:
        """The listing of `answer`, ready to take it in.

        Raises ReplayError when it would not have asked for that.
        """
        recorded = answer.request
        listing = self._listings.get(recorded.gateway)
        if listing is None:
            raise ReplayError(f"the journal has an answer of {recorded.gateway}, which is not read")
        while listing.asked_count < answer.asked_count:
            request = listing.next_request()
            if request is None:
                raise self._differ(recorded, None)
            self._unanswered[request.gateway, request.number] = listing, request
        found = self._unanswered.pop((recorded.gateway, recorded.number), None)
        if found is None or found[1] != recorded:
            raise self._differ(recorded, None if found is None else found[1])
        return listing

    def _differ(self, recorded: PageRequest, request: PageRequest | None) -> ReplayError:
        asked = "nothing" if request is None else f"page {request.page_num}"
        return ReplayError(
            f"the journal answers page {recorded.page_num} of {recorded.gateway} as request"
            f" {recorded.number}, where {asked} is asked for",
            hint="run again: a journal that does not fit is not kept",
        )
