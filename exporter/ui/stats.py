"""Counts of a run, from its events; performs no I/O."""

from collections import deque
from dataclasses import dataclass, field
from typing import assert_never

from exporter.events import (
    Event,
    GatewaysDiscovered,
    ListingFinished,
    ListingStarted,
    PaceLearnt,
    PageRead,
    RequestEnded,
    RequestStarted,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SessionsWritten,
)
from exporter.model import Gateway, ListingFacts

RATE_WINDOW_S = 10.0
"""The window of the rate: long enough for lumpy writes, short enough to show a stall."""

SAMPLE_S = 0.25
RATE_FROM_S = 0.5
"""The shortest time that gives a rate."""


@dataclass(slots=True)
class GatewayStats:
    """Counts of one gateway's listing."""

    total_count: int
    """By the first page, or 0 for an incremental listing; the real count once it is finished."""
    page_count: int | None = None
    """None until the first page is read."""
    incremental: bool = False
    facts: ListingFacts | None = None
    """None until the listing is finished."""


@dataclass(slots=True)
class RunStats:
    """Counts of one run, updated by `apply`.

    A bar reads them from another thread, so they are plain numbers: it never iterates `gateways`.
    """

    run_id: str = ""
    output: str = ""
    gateway_count: int | None = None
    """None until the gateways are discovered."""
    gateways: dict[Gateway, GatewayStats] = field(default_factory=dict)
    listings_started: int = 0
    listings_in_full: int = 0
    """Full listings among those started; incremental ones do not know how much they will read."""
    listings_finished: int = 0
    sessions_written: int = 0
    sessions_expected: int = 0
    """Sum of the known totals, or of the real counts of finished listings."""
    pages_read: int = 0
    pages_resumed: int = 0
    """Pages read by a killed run before this one; part of `pages_read`."""
    pages_expected: int = 0
    in_flight: int = 0
    requests_sent: int = 0
    requests_ok: int = 0
    requests_throttled: int = 0
    requests_failed: int = 0
    retries: int = 0
    newest_create_ms: int | None = None
    """The latest create time on any page, if there is one."""
    learnt_rps: float | None = None
    """The estimated quota in requests a second; None while it is not met."""
    started_s: float | None = None
    """Time of the first event."""
    listing_started_s: float | None = None
    """Time of the first total: the overall rate counts from here."""
    finished: RunFinished | None = None
    _samples: deque[tuple[float, int]] = field(default_factory=deque)
    """(seconds, sessions written) since the start of the rate's window. Never empty after the first
    sample, so a reader may take the oldest one unchecked."""

    def apply(self, event: Event, now_s: float) -> None:
        """Count one event that happened at `now_s`, by any monotonic clock."""
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
        """Every gateway's total is known."""
        return self.gateway_count is not None and self.listings_started >= self.gateway_count

    @property
    def is_exact(self) -> bool:
        """The expected counts are no estimate: each listing is finished, or is a full one."""
        return self.has_all_totals and (
            self.listings_in_full == self.listings_started or self.is_read
        )

    @property
    def is_read(self) -> bool:
        """Every listing is finished; the output remains to be closed and published."""
        return self.gateway_count is not None and self.listings_finished >= self.gateway_count

    @property
    def sessions_estimated(self) -> int | None:
        """Sessions of the whole run; None until the total of a full listing is known.

        A gateway with an unknown total counts with the average of the known ones.
        """
        if self.listings_in_full == 0:
            return None
        gateway_count = max(self.gateway_count or 0, self.listings_started)
        return round(self.sessions_expected * gateway_count / self.listings_started)

    @property
    def fraction(self) -> float | None:
        """The written part of the run's sessions, 0 to 1; None while unknown."""
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
        """Sessions a second since the first total; None while too little time has passed."""
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
            # Reading from disk says nothing about the speed of the service.
            self._samples = deque([(now_s, self.sessions_written)])
        if event.newest_create_ms is not None:
            self.newest_create_ms = max(self.newest_create_ms or 0, event.newest_create_ms)

    def _apply_listing(self, event: ListingStarted | ListingFinished, now_s: float) -> None:
        match event:
            case ListingStarted():
                previous = self.gateways.get(event.gateway, GatewayStats(total_count=0))
                self.listings_started += previous.page_count is None
                total_count = 0 if event.incremental else event.total_count
                self.gateways[event.gateway] = GatewayStats(
                    total_count, event.page_count, incremental=event.incremental
                )
                self.listings_in_full += not event.incremental
                self.sessions_expected += total_count - previous.total_count
                self.pages_expected += event.page_count - (previous.page_count or 0)
                if self.listing_started_s is None:
                    self.listing_started_s = now_s
                    self._take_sample(now_s)
            case ListingFinished():
                gateway = self.gateways.setdefault(event.gateway, GatewayStats(total_count=0))
                self.listings_finished += 1
                # The list may have changed since its first page.
                self.sessions_expected += event.facts.session_count - gateway.total_count
                gateway.total_count = event.facts.session_count
                gateway.incremental = event.facts.mode == "incremental"
                gateway.facts = event.facts
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
        # The oldest one kept is at or before the start of the window, so that it is full.
        while len(samples) > 1 and samples[1][0] <= now_s - RATE_WINDOW_S:
            samples.popleft()
