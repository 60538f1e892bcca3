"""Values that every stage uses: gateways, sessions, pages, time ranges, listing facts."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from math import inf
from typing import Any, Final, Literal

from exporter.times import read_create_time

RawSession = dict[str, Any]
"""One session as it was decoded; lives only between the service's answer and the sink."""


@dataclass(frozen=True, slots=True)
class UnreadableRow:
    """A row of a page without a session id."""

    place: int
    """On its page, from 0."""
    stand_in_id: str
    """The id of the stand-in on the page: the same wherever the row is read."""
    reason: str
    """Why the row has no session id, for a reader."""


@dataclass(frozen=True, slots=True)
class SessionPage:
    """One answer of ListLivyComputeSessions: a contiguous piece of the list at one instant."""

    total_count: int
    sessions: Sequence[RawSession]
    session_ids: Sequence[str]
    """The ids of `sessions`, in the same order."""
    unreadable: tuple[UnreadableRow, ...] = ()
    """Rows without an id, in the order of their places. In `sessions` each has a stand-in with an
    id of its own, so that a listing counts it like any other row; no output holds it."""
    body: bytes = field(default=b"", compare=False, repr=False)
    """The answer's bytes, for the journal; `read_session_page` parses them again."""

    @property
    def row_count(self) -> int:
        """Rows that the service put on the page."""
        return len(self.session_ids)


@dataclass(frozen=True, slots=True, order=True)
class Gateway:
    """A Livy gateway's full name: three ids that together select one session list."""

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
    """The counts of one gateway's listing, and its proof."""

    gateway: Gateway
    session_count: int
    """Distinct sessions handed to the output: those in the time range, and in an incremental
    listing only new or changed ones."""
    total_count_first: int
    total_count_last: int
    inserted_count: int
    """Sessions in front of the first answer's when the head was read again; a lower bound."""
    deleted_count: int
    """Computed from the totals and the insertions; a lower bound."""
    overlap_count: int
    """Rows seen again and left out, except those of the sentinel."""
    page_count: int
    """All pages read, including the sentinel and repairs."""
    repair_page_count: int
    proof: Proof
    missing: str = ""
    """Why the listing is unproven, for a reader; empty if it is proven."""
    mode: Mode = "full"
    full_because: str = ""
    """Why an incremental run listed the gateway in full, for a reader; empty if it did not."""


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
    """The parameters of ListLivyComputeSessions other than the place in the list.

    A filter of the API is added here and nowhere else, as a field that names its parameter. It is
    sent with each request. Runs with different filters share neither a journal nor a state.
    """

    page_size: int = field(metadata={"parameter": "pageSize"})
    """1 to 100; a request that reads a place again may ask for fewer rows."""

    @property
    def parameters(self) -> dict[str, str]:
        """The fields that are set, as they are sent."""
        return {
            each.metadata["parameter"]: str(getattr(self, each.name))
            for each in fields(self)
            if getattr(self, each.name) is not None
        }

    @property
    def filters(self) -> dict[str, Any]:
        """The fields that select sessions and are set."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {
            name: value
            for name, value in values.items()
            if name != "page_size" and value is not None
        }

    @property
    def identity(self) -> dict[str, Any]:
        """The fields that determine an answer's content, as JSON."""
        return {"page_size": self.page_size, **self.filters}


@dataclass(frozen=True, slots=True)
class TimeRange:
    """Create times from `since_ms` up to, but not including, `until_ms`; None: no bound."""

    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def has_bounds(self) -> bool:
        return self.since_ms is not None or self.until_ms is not None

    def includes(self, create_time: object) -> bool:
        """Whether the range includes a session with this create time.

        A session without a readable one is included: nothing shows that it is outside the range.
        """
        at_ms = read_create_time(create_time)
        if at_ms is None:
            return True
        min_ms = -inf if self.since_ms is None else self.since_ms
        end_ms = inf if self.until_ms is None else self.until_ms
        return min_ms <= at_ms < end_ms


ALL_TIME = TimeRange()

SCOPE_COLUMNS: Final = ("region_id", "workspace_id", "compute_id")
"""Columns that name a session's gateway."""
KEY_COLUMNS: Final = (*SCOPE_COLUMNS, "session_id")
"""Columns that name a session."""

FileFormat = Literal["parquet", "ndjson"]
TableFormat = Literal["delta", "iceberg", "paimon"]
OutputFormat = Literal[FileFormat, TableFormat]

FileCodec = Literal["none", "gzip", "zstd"]
"""Compresses a text file as a whole; the file's name says which."""
ParquetCodec = Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"]
"""Compresses the pages inside a Parquet file."""
