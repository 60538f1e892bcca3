"""Values that every stage knows: gateways, sessions, pages, time ranges, listing facts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Final, Literal

from exporter.times import read_create_time

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


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One answer of ListLivyComputeSessions: a contiguous piece of the list at one instant."""

    total_count: int
    sessions: Sequence[RawSession]
    session_ids: Sequence[str]
    """Of `sessions`, in the same order."""
    unreadable: tuple[UnreadableRow, ...] = ()
    """Rows without an id, in the order of their places. In `sessions` each has a stand-in with an
    id of its own, so that a listing counts it like any other; what is written leaves it out."""
    body: bytes = field(default=b"", compare=False, repr=False)
    """The answer as it came, for whoever keeps it; `read_session_page` makes a page of it again."""

    @property
    def row_count(self) -> int:
        """Rows that the service put on the page."""
        return len(self.session_ids)


@dataclass(frozen=True, slots=True, order=True)
class Gateway:
    """A Livy gateway, named in full: three services' ids that together key one session list."""

    region_id: str
    workspace_id: str
    gateway_id: str
    """`livyComputeId` in the request's path, `computeId` in a session."""

    def __str__(self) -> str:
        return f"{self.workspace_id}/{self.gateway_id}"


Proof = Literal["quiescent", "anchored", "stitched", "recounted", "unproven"]
Mode = Literal["full", "incremental"]


@dataclass(frozen=True, slots=True)
class ListingFacts:
    """What was read of one gateway, and what that proves."""

    gateway: Gateway
    session_count: int
    """Distinct sessions that were handed on: those in the time range, and in an incremental listing
    only those that are new or changed."""
    total_count_first: int
    total_count_last: int
    inserted_count: int
    """Sessions in front of the first answer's, when the head was read again; at least so many."""
    deleted_count: int
    """As the totals and the insertions tell; at least so many."""
    overlap_count: int
    """Rows that were seen again and left out, but for those of the sentinel."""
    page_count: int
    """Pages read in all, the sentinel and repairs included."""
    repair_page_count: int
    proof: Proof
    missing: str = ""
    """Why the listing is unproven, for a reader; empty if it is proven."""
    mode: Mode = "full"
    full_because: str = ""
    """Why a listing that was to be incremental is a full one, for a reader; empty if it is not."""


@dataclass(slots=True)
class RequestCounts:
    """Requests of a run by how they ended; `sent` is the sum of `ok`, `throttled` and `failed`."""

    sent: int = 0
    ok: int = 0
    throttled: int = 0
    retried: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ListingQuery:
    """The parameters of ListLivyComputeSessions that are no place in the list.

    A filter of the API is added here and nowhere else, as a field that names its parameter: it is
    sent with each request, and runs with different filters take over neither each other's journal
    nor each other's state.
    """

    page_size: int = field(metadata={"parameter": "pageSize"})
    """1 to 100; a listing that looks again at a place may ask for fewer rows."""

    @property
    def parameters(self) -> dict[str, str]:
        """As they are sent; a field that is None is not."""
        return {
            each.metadata["parameter"]: str(getattr(self, each.name))
            for each in fields(self)
            if getattr(self, each.name) is not None
        }

    @property
    def filters(self) -> dict[str, Any]:
        """The fields that choose sessions, where they are set."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name != "page_size" and value is not None
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that decide what an answer holds, as JSON."""
        return {"page_size": self.page_size, **self.filters}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Create times from `since_ms` up to, but not including, `until_ms`; None: no bound."""

    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def has_bounds(self) -> bool:
        return self.since_ms is not None or self.until_ms is not None

    def wants(self, create_time: object) -> bool:
        """Whether to keep a session that was created then. One that does not tell is kept: nothing
        shows that it was not created within the range.
        """
        at_ms = read_create_time(create_time)
        if at_ms is None:
            return True
        least = -inf if self.since_ms is None else self.since_ms
        most = inf if self.until_ms is None else self.until_ms
        return least <= at_ms < most


ALL_TIME = TimeRange()

SCOPE_COLUMNS: Final = ("region_id", "workspace_id", "compute_id")
"""Columns that name a session's gateway."""
KEY_COLUMNS: Final = (*SCOPE_COLUMNS, "session_id")
"""Columns that name a session."""

FileFormat = Literal["parquet", "ndjson", "arrow"]
TableFormat = Literal["delta", "iceberg", "paimon"]
OutputFormat = Literal[FileFormat, TableFormat]

FileCodec = Literal["none", "gzip", "zstd"]
"""Compresses a text file as a whole; the file's name says which."""
ParquetCodec = Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"]
"""Compresses the pages inside a Parquet file."""
