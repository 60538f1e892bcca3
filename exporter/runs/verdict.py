"""Decides whether listings are complete enough to be published; performs no I/O."""

from collections.abc import Sequence

from exporter.errors import IncompleteError
from exporter.model import ListingFacts
from exporter.runs.manifest import Status
from exporter.runs.unreadable import UnreadableRows


def require_complete(
    listings: Sequence[ListingFacts], unreadable: UnreadableRows, *, allow_incomplete: bool
) -> Status:
    """The status of the run.

    Raises IncompleteError when a listing is unproven or has unreadable rows, unless allowed.
    """
    unproven = [facts for facts in listings if facts.proof == "unproven"]
    if not unproven:
        return "complete"
    if allow_incomplete:
        return "incomplete"
    unreadable.require_none()
    first = unproven[0]
    more = f", and {len(unproven) - 1} more gateways" if len(unproven) > 1 else ""
    error = IncompleteError(
        f"cannot prove that {first.gateway} is complete: {first.missing};"
        f" {first.session_count:,} distinct sessions seen, the total was"
        f" {first.total_count_first:,} at first and {first.total_count_last:,} at last{more}",
        hint="nothing was published: run again when fewer sessions come and go, or publish as it is"
        " with --allow-incomplete",
    )
    error.gateway = first.gateway if not more else None
    raise error
