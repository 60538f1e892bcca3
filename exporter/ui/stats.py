"""Where a run stands, counted from its events; performs no I/O."""

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

from exporter.events import (
    Event,
    GatewaysDiscovered,
    ListingFinished,
    ListingStarted,
    Movement,
    PaceLearnt,
    PageRead,
    RequestEnded,
    RequestStarted,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SessionsWritten,
)
from exporter.model import Gateway

RATE_WINDOW_S = 10.0
"""The rate is that of the last seconds: enough for lumpy writes, few enough to show a stall."""

SAMPLE_S = 0.25
RATE_FROM_S = 0.5
"""A rate of a shorter time says nothing."""


@dataclass(slots=True)
class GatewayStats:
    """One gateway's listing, as far as it is known."""

    total_count: int
    """What the first page told, none where only what is new is asked for; once the listing is
    finished, what it really had.
    """
    page_count: int | None = None
    """None until the first page came."""
    session_count: int | None = None
    """None until the listing is finished."""
    proof: str | None = None
    movement: Movement = field(default_factory=Movement)
    incremental: bool = False
    full_because: str = ""


@dataclass(slots=True)
class RunStats:
    """Counts of one run, brought forward by `apply`.

    Another thread may read it at any time (a bar does), so what is read while the run goes on is a
    plain number kept up to date, never a walk over `gateways`.
    """

    run_id: str = ""
    output: str = ""
    gateway_count: int | None = None
    """Gateways the run will list; None until they are discovered."""
    gateways: dict[Gateway, GatewayStats] = field(default_factory=dict)
    listings_started: int = 0
    listings_in_full: int = 0
    """Of those started: the others ask for what is new, and nobody knows how much that will be."""
    listings_finished: int = 0
    sessions_written: int = 0
    sessions_expected: int = 0
    """Over the gateways whose total is known; a finished listing counts with what it really had."""
    pages_read: int = 0
    pages_resumed: int = 0
    """Of those read: by a run before this one, which was killed."""
    pages_expected: int = 0
    in_flight: int = 0
    requests_sent: int = 0
    requests_ok: int = 0
    requests_throttled: int = 0
    requests_failed: int = 0
    retries: int = 0
    newest_create_ms: int | None = None
    """The latest create time on any page; None while none was told."""
    learnt_rps: float | None = None
    """What the quota seems to be, in requests a second; None while it was not met."""
    started_s: float | None = None
    """When the first event came."""
    listing_started_s: float | None = None
    """When the first total was known: rates count from here."""
    finished: RunFinished | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)
    """(seconds, sessions written) from the start of the rate's window on. Once it holds one it is
    never empty again, so a reader may take the oldest without asking."""

    def apply(self, event: Event, now_s: float) -> None:
        """Count one event that happened at `now_s`, seconds of any clock that never goes back."""
        if self.started_s is None:
            self.started_s = now_s
        match event:
            case RequestStarted() | RequestEnded() | RetryScheduled() | PaceLearnt():
                self._apply_request(event)
            case PageRead():
                self._apply_page(event, now_s)
            case SessionsWritten():
                self.sessions_written += event.session_count
                self._take_sample(now_s)
            case ListingStarted() | ListingFinished():
                self._apply_listing(event, now_s)
            case RunStarted() | GatewaysDiscovered() | RunFinished():
                self._apply_run(event)
            case _:
                assert_never(event)

    @property
    def has_all_totals(self) -> bool:
        """Every gateway has told its total."""
        return self.gateway_count is not None and self.listings_started >= self.gateway_count

    @property
    def is_exact(self) -> bool:
        """What is expected is no guess: each listing is finished, or has a total to reach."""
        return self.has_all_totals and (
            self.listings_in_full == self.listings_started or self.is_read
        )

    @property
    def is_read(self) -> bool:
        """Every listing is finished; what remains is to close and publish the output."""
        return self.gateway_count is not None and self.listings_finished >= self.gateway_count

    @property
    def sessions_estimated(self) -> int | None:
        """Sessions of the whole run; None until a first total is known of a list that is read.

        A gateway whose total is still unknown is taken to be as long as the known ones on average.
        """
        if self.listings_in_full == 0:
            return None
        gateway_count = max(self.gateway_count or 0, self.listings_started)
        return round(self.sessions_expected * gateway_count / self.listings_started)

    @property
    def fraction(self) -> float | None:
        """How much of the run's sessions is written, 0 to 1; None while nobody can tell."""
        sessions = self.sessions_estimated
        if sessions is None:
            return None
        if sessions == 0:
            return 1.0 if self.is_read else 0.0
        return min(1.0, self.sessions_written / sessions)

    def elapsed_s(self, now_s: float) -> float:
        return 0.0 if self.started_s is None else now_s - self.started_s

    def rate(self, now_s: float) -> float | None:
        """Sessions a second over the last RATE_WINDOW_S; None while too little time has passed."""
        if not self._samples:
            return None
        since_s, sessions = self._samples[0]
        if now_s - since_s < RATE_FROM_S:
            return None
        return (self.sessions_written - sessions) / (now_s - since_s)

    def overall_rate(self, now_s: float) -> float | None:
        """Sessions a second since the first total came; None while too little time has passed."""
        if self.listing_started_s is None or now_s - self.listing_started_s < RATE_FROM_S:
            return None
        return self.sessions_written / (now_s - self.listing_started_s)

    def eta_s(self, now_s: float) -> float | None:
        """Seconds until all sessions are written at the present rate; None where unknown."""
        sessions, rate = self.sessions_estimated, self.rate(now_s)
        if self.is_read:
            return 0.0
        if sessions is None or rate is None or rate <= 0:
            return None
        return max(0.0, (sessions - self.sessions_written) / rate)

    def _apply_request(
        self, event: RequestStarted | RequestEnded | RetryScheduled | PaceLearnt
    ) -> None:
        match event:
            case RequestStarted():
                self.requests_sent += 1
                self.in_flight = event.in_flight
            case RequestEnded():
                self.in_flight = event.in_flight
                match event.outcome:
                    case "ok":
                        self.requests_ok += 1
                    case "throttled":
                        self.requests_throttled += 1
                    case "failed":
                        self.requests_failed += 1
                    case _:
                        assert_never(event.outcome)
            case RetryScheduled():
                self.retries += 1
            case PaceLearnt():
                self.learnt_rps = event.learnt_rps
            case _:
                assert_never(event)

    def _apply_page(self, event: PageRead, now_s: float) -> None:
        self.pages_read += 1
        if event.resumed:
            self.pages_resumed += 1
            # What is read from disk tells nothing about how fast the service will be.
            self._samples = deque([(now_s, self.sessions_written)])
        if event.newest_create_ms is not None:
            self.newest_create_ms = max(self.newest_create_ms or 0, event.newest_create_ms)

    def _apply_listing(self, event: ListingStarted | ListingFinished, now_s: float) -> None:
        match event:
            case ListingStarted():
                former = self.gateways.get(event.gateway, GatewayStats(total_count=0))
                self.listings_started += former.page_count is None
                total_count = 0 if event.incremental else event.total_count
                self.gateways[event.gateway] = GatewayStats(
                    total_count, event.page_count, incremental=event.incremental
                )
                self.listings_in_full += not event.incremental
                self.sessions_expected += total_count - former.total_count
                self.pages_expected += event.page_count - (former.page_count or 0)
                if self.listing_started_s is None:
                    self.listing_started_s = now_s
                    self._take_sample(now_s)
            case ListingFinished():
                gateway = self.gateways.setdefault(event.gateway, GatewayStats(total_count=0))
                self.listings_finished += 1
                # Sessions came and went while the list was read: what it really had counts now.
                self.sessions_expected += event.session_count - gateway.total_count
                gateway.total_count = event.session_count
                gateway.session_count = event.session_count
                gateway.proof = event.proof
                gateway.movement = event.movement
                gateway.incremental = event.incremental
                gateway.full_because = event.full_because
            case _:
                assert_never(event)

    def _apply_run(self, event: RunStarted | GatewaysDiscovered | RunFinished) -> None:
        match event:
            case RunStarted():
                self.run_id = event.run_id
                self.output = event.output
            case GatewaysDiscovered():
                self.gateway_count = event.gateway_count
            case RunFinished():
                self.finished = event
            case _:
                assert_never(event)

    def _take_sample(self, now_s: float) -> None:
        samples = self._samples
        if samples and now_s - samples[-1][0] < SAMPLE_S:
            return
        samples.append((now_s, self.sessions_written))
        # The oldest kept is the last one at or before the window's start, so that it is full.
        while len(samples) > 1 and samples[1][0] <= now_s - RATE_WINDOW_S:
            samples.popleft()
