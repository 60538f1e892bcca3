"""Replays recorded answers into new listings; performs no I/O."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from exporter.errors import ReplayError
from exporter.listing.interface import Listing, PageRequest
from exporter.model import Gateway, SessionPage


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """An answer that a listing accepted, and its place among the listing's requests."""

    request: PageRequest
    asked_count: int
    """Requests that the listing had made by then."""
    body: bytes
    """The answer's bytes."""


@dataclass(frozen=True, slots=True)
class ResumedRun:
    """The run whose answers are recorded."""

    run_id: str
    started_at: datetime
    answer_count: int


class AnswerLog(Protocol):
    """The answers of all listings in the order in which they were accepted, for a later run.

    Any prefix of that order is a state that the listings were in.
    """

    @property
    def resumed(self) -> ResumedRun | None:
        """None where nothing is resumed."""

    @property
    def has_recorded(self) -> bool:
        """Whether there are answers of an earlier run."""

    def read_recorded(self) -> Iterator[Sequence[RecordedAnswer]]:
        """The answers of the earlier run, some at a time; each step blocks."""

    async def make_room(self) -> None:
        """Wait until one more answer may be recorded: a crash must not lose too many."""

    def record(self, listing: Listing, request: PageRequest, page: SessionPage) -> None:
        """Record an answer just before its listing accepts it; does not block."""

    async def flush_if_due(self) -> None:
        """Write the recorded answers if there are enough."""

    def close(self) -> int:
        """Write the remaining answers, and keep all for the next run; blocks.

        Returns how many answers that run can resume with.
        """

    def remove(self) -> None:
        """Remove all answers: they are published, or of no use; blocks."""


class NoAnswerLog:
    """Records nothing."""

    resumed: Final = None
    has_recorded: Final = False

    def read_recorded(self) -> Iterator[Sequence[RecordedAnswer]]:
        return iter(())

    async def make_room(self) -> None:
        pass

    def record(self, listing: Listing, request: PageRequest, page: SessionPage) -> None:
        pass

    async def flush_if_due(self) -> None:
        pass

    def close(self) -> int:
        return 0

    def remove(self) -> None:
        pass


NO_ANSWER_LOG: Final = NoAnswerLog()


class Replay:
    """Makes the listings repeat their requests in the same order, so that recorded answers fit.

    A listing decides the same when it gets the same answers at the same places between its
    requests. Each request is compared with the recorded one all the same.
    """

    def __init__(self, listings: Sequence[Listing]) -> None:
        self._listings = {listing.gateway: listing for listing in listings}
        self._unanswered: dict[tuple[Gateway, int], tuple[Listing, PageRequest]] = {}

    @property
    def unanswered(self) -> list[tuple[Listing, PageRequest]]:
        """Requests without a recorded answer, in the order of each gateway."""
        return list(self._unanswered.values())

    def advance(self, answer: RecordedAnswer) -> Listing:
        """The listing of `answer`, ready to accept it.

        Raises ReplayError when the listing does not make the recorded request.
        """
        recorded = answer.request
        listing = self._listings.get(recorded.gateway)
        if listing is None:
            raise ReplayError(f"the journal has an answer of {recorded.gateway}, which is not read")
        while listing.asked_count < answer.asked_count:
            request = listing.next_request()
            if request is None:
                raise build_error(recorded, None)
            self._unanswered[request.gateway, request.number] = listing, request
        found = self._unanswered.pop((recorded.gateway, recorded.number), None)
        if found is None or found[1] != recorded:
            raise build_error(recorded, None if found is None else found[1])
        return listing


def build_error(recorded: PageRequest, request: PageRequest | None) -> ReplayError:
    asked = "nothing" if request is None else f"page {request.page_num}"
    return ReplayError(
        f"the journal answers page {recorded.page_num} of {recorded.gateway} as request"
        f" {recorded.number}, where {asked} is asked for",
        hint="run again: a journal that does not fit is not kept",
    )
