"""What a session is: as received, and as a row."""

from dataclasses import dataclass
from typing import Any

RawSession = dict[str, Any]
"""One session as it was decoded; lives only between the service's answer and the sink."""


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row of a page that has no id by which its session could be known."""

    place: int
    """On its page, from 0."""
    stand_in_id: str
    """Of the session that keeps the row's place on the page: the same wherever the row is met."""
    reason: str
    """Why it is none, for a reader."""
