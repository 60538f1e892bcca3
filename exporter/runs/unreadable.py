"""Unreadable rows: rows without a session id, which no output can hold; performs no I/O."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from exporter.errors import IncompleteError
from exporter.events import Event, ListingFinished
from exporter.listing.interface import PageRequest
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage, TimeRange

MAX_NAMED: Final = 100
"""Unreadable rows that a manifest names; it counts all."""


@dataclass(frozen=True, slots=True)
class UnreadableEntry:
    """An unreadable row, and where it was read first."""

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
    """The unreadable rows of one run. A gateway with any is never proven complete.

    A row that is read repeatedly is counted once, unless its content changes.
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

    def record(self, request: PageRequest, page: SessionPage) -> None:
        """Record the unreadable rows of an answer, before its listing accepts it."""
        for row in page.unreadable:
            if not self._time_range.includes(page.sessions[row.place].get("createTime")):
                continue
            entries = self._by_gateway.setdefault(request.gateway, {})
            entry = UnreadableEntry(
                request.gateway, request.page_num, request.page_size, row.place + 1, row.reason
            )
            entries.setdefault(row.stand_in_id, entry)

    def leave_out(self, gateway: Gateway, sessions: list[RawSession]) -> list[RawSession]:
        """The sessions without the stand-ins of unreadable rows."""
        entries = self._by_gateway.get(gateway)
        if entries is None:
            return sessions
        return [each for each in sessions if each["sessionId"] not in entries]

    def amend(self, listings: Sequence[ListingFacts]) -> list[ListingFacts]:
        """The facts of the listings, corrected for unreadable rows.

        Listings count stand-ins like any session.
        """
        return [self._amend(facts) for facts in listings]

    def amend_event(self, event: Event) -> Event:
        if not isinstance(event, ListingFinished):
            return event
        return ListingFinished(self._amend(event.facts))

    def require_none(self) -> None:
        """Raises IncompleteError if there are any; the message names the first."""
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
        """The first `MAX_NAMED` rows, as entries of a manifest."""
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
        entries = self._by_gateway.get(facts.gateway)
        if entries is None:
            return facts
        return replace(
            facts,
            session_count=max(0, facts.session_count - len(entries)),
            proof="unproven",
            missing=f"{len(entries):,} rows cannot be read",
        )
