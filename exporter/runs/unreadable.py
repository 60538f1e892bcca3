"""Rows of the lists that no output can hold, because nothing tells which session each is; performs
no I/O.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from exporter.errors import IncompleteError
from exporter.events import Event, ListingFinished
from exporter.listing.interface import PageRequest
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage, TimeRange

MAX_NAMED: Final = 100
"""Rows that a manifest names; all are counted."""


@dataclass(frozen=True, slots=True)
class UnreadableEntry:
    """Where a row was met first."""

    gateway: Gateway
    page_num: int
    page_size: int
    place: int
    """On its page, from 1."""
    reason: str

    def __str__(self) -> str:
        return (
            f"row {self.place} of page {self.page_num} of {self.gateway}"
            f" (of {self.page_size} rows a page) cannot be read: {self.reason}"
        )


class UnreadableRows:
    """Those of one run. A gateway that has any is never proven: they are in no output.

    A row is counted once however often it is met, unless it says something else then.
    """

    def __init__(self, time_range: TimeRange) -> None:
        self._time_range = time_range
        self._by_gateway: dict[Gateway, dict[str, UnreadableEntry]] = {}

    @property
    def count(self) -> int:
        return sum(map(len, self._by_gateway.values()))

    @property
    def first(self) -> UnreadableEntry | None:
        return next(
            (entry for found in self._by_gateway.values() for entry in found.values()), None
        )

    def note(self, request: PageRequest, page: SessionPage) -> None:
        """Take in an answer, before its listing does."""
        for row in page.unreadable:
            if not self._time_range.includes(page.sessions[row.place].get("createTime")):
                continue
            known = self._by_gateway.setdefault(request.gateway, {})
            entry = UnreadableEntry(
                request.gateway, request.page_num, request.page_size, row.place + 1, row.reason
            )
            known.setdefault(row.stand_in_id, entry)

    def leave_out(self, gateway: Gateway, sessions: list[RawSession]) -> list[RawSession]:
        """The sessions that are to be written."""
        known = self._by_gateway.get(gateway)
        if known is None:
            return sessions
        return [each for each in sessions if each["sessionId"] not in known]

    def amend(self, listings: Sequence[ListingFacts]) -> list[ListingFacts]:
        """What the listings found, as far as it is in the output.

        They count stand-ins like any session, and know nothing of what cannot be written.
        """
        return [self._amend(facts) for facts in listings]

    def amend_event(self, event: Event) -> Event:
        if not isinstance(event, ListingFinished):
            return event
        return ListingFinished(self._amend(event.facts))

    def require_none(self) -> None:
        """Raises IncompleteError that names the first of them."""
        first = self.first
        if first is None:
            return
        more = f", and {self.count - 1:,} more rows" if self.count > 1 else ""
        error = IncompleteError(
            f"{first}{more}",
            hint="nothing was published: report the row to the service's support, or publish all"
            " others with --allow-incomplete",
        )
        error.gateway = first.gateway
        raise error

    def build_entries(self) -> list[dict[str, Any]]:
        """The first of them, as a manifest names them."""
        entries = [entry for found in self._by_gateway.values() for entry in found.values()]
        return [
            {
                "region_id": entry.gateway.region_id,
                "workspace_id": entry.gateway.workspace_id,
                "gateway_id": entry.gateway.gateway_id,
                "page_num": entry.page_num,
                "page_size": entry.page_size,
                "place": entry.place,
                "reason": entry.reason,
            }
            for entry in entries[:MAX_NAMED]
        ]

    def _amend(self, facts: ListingFacts) -> ListingFacts:
        known = self._by_gateway.get(facts.gateway)
        if known is None:
            return facts
        return replace(
            facts,
            session_count=max(0, facts.session_count - len(known)),
            proof="unproven",
            missing=f"{len(known):,} rows cannot be read",
        )
