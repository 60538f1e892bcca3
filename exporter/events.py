"""The events of a run: frozen values for listeners that draw, log or count; performs no I/O."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from exporter.model import Gateway, ListingFacts

Outcome = Literal["ok", "throttled", "failed"]


@dataclass(frozen=True, slots=True)
class RunStarted:
    run_id: str
    output: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class GatewaysDiscovered:
    gateway_count: int
    """Gateways this run will list; a ListingStarted follows with the first page of each."""


@dataclass(frozen=True, slots=True)
class ListingStarted:
    """The first page of a gateway arrived, with the total.

    Emitted again where an incremental listing goes on to read the whole list.
    """

    gateway: Gateway
    total_count: int
    page_count: int
    incremental: bool = False
    """Only new and changed sessions are listed; neither count says how many they are."""


@dataclass(frozen=True, slots=True)
class RequestStarted:
    in_flight: int
    """Requests in flight over all gateways, this one included."""


@dataclass(frozen=True, slots=True)
class RequestEnded:
    outcome: Outcome
    in_flight: int
    """Requests still in flight over all gateways."""
    elapsed_s: float


@dataclass(frozen=True, slots=True)
class RetryScheduled:
    call: str
    """The request, for a reader: `page 17 of w-1/lc-2`."""
    attempt: int
    """The attempt that failed, from 1."""
    wait_s: float
    error: str
    """Why the attempt failed; never holds a secret."""
    gateway: Gateway | None = None
    """None where the call concerns no single gateway."""


@dataclass(frozen=True, slots=True)
class PaceLearnt:
    """A throttled answer changed the estimate of the quota."""

    learnt_rps: float
    """The estimated quota, in requests a second."""


@dataclass(frozen=True, slots=True)
class PageRead:
    gateway: Gateway
    page_num: int
    session_count: int
    resumed: bool = False
    """Read by an earlier run, and taken from its journal."""
    newest_create_ms: int | None = None
    """The latest create time on the page, milliseconds since 1970; None where it has none."""


@dataclass(frozen=True, slots=True)
class SessionsWritten:
    session_count: int
    """Sessions handed to the sink by this step, not the sum."""


@dataclass(frozen=True, slots=True)
class ListingFinished:
    """A gateway's listing is concluded; its last rows may still be on their way to the sink."""

    facts: ListingFacts

    @property
    def gateway(self) -> Gateway:
        return self.facts.gateway


@dataclass(frozen=True, slots=True)
class RunFinished:
    """The run is over and its output is published."""

    output: str
    status: Literal["complete", "incomplete"]
    session_count: int
    size_bytes: int
    """Of the files that this run wrote; 0 for a table, whose library writes them."""
    elapsed_s: float
    incremental: bool = False
    """Whether the run added new and changed sessions instead of replacing the output."""


Event = (
    RunStarted
    | GatewaysDiscovered
    | ListingStarted
    | RequestStarted
    | RequestEnded
    | RetryScheduled
    | PaceLearnt
    | PageRead
    | SessionsWritten
    | ListingFinished
    | RunFinished
)

Listener = Callable[[Event], None]
"""Called in the event loop, in order; must not block."""
