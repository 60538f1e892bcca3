"""Exporters that share one hidden quota, in simulated time; performs no I/O."""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from exporter.api.pacing import Pacer, Ticket
from exporter.emulator.quota import Meter, Quota

WAKE_LATE_S = 0.0015
"""A timer of an event loop fires up to this much late."""


@dataclass(slots=True)
class Exporter:
    """One run: its pacer, the pages it still has to ask for, and what became of its requests."""

    pacer: Pacer
    page_count: int
    starts_s: float = 0.0
    sent_s: list[float] = field(default_factory=list)
    granted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    """When the answers came, by the simulation's clock."""
    most_in_flight: int = 0
    timer_s: float = math.nan
    """The timer that is set; an older one that still fires is void."""

    def count_granted(self, from_s: float, to_s: float = math.inf) -> int:
        return sum(from_s <= answered_s < to_s for answered_s in self.granted_s)

    def count_refused(self, from_s: float, to_s: float = math.inf) -> int:
        return sum(from_s <= answered_s < to_s for answered_s in self.refused_s)


class Simulation:
    """Sends as soon as a pacer allows, over a network of some latency, to a server with a quota
    or without one; a refused page is asked for again.
    """

    def __init__(
        self,
        quota: Quota | None,
        *,
        latency_s: float,
        jitter_s: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._meter = Meter(quota) if quota is not None else None
        self._latency_s = latency_s
        self._jitter_s = jitter_s
        self._random = random.Random(seed)  # noqa: S311 - a simulation repeats
        # Windows begin at whole seconds of the server's clock, which is not ours.
        self._server_clock_s = self._random.random()
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_count = 0
        self.now_s = 0.0

    def run(self, *exporters: Exporter, until_s: float = math.inf) -> None:
        for exporter in exporters:
            self._plan(exporter.starts_s, partial(self._send, exporter))
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()

    def _plan(self, at_s: float, act: Callable[[], None]) -> None:
        self._event_count += 1
        heapq.heappush(self._events, (at_s, self._event_count, act))

    def _send(self, exporter: Exporter) -> None:
        while exporter.page_count > 0:
            wait_s = exporter.pacer.wait_s(self.now_s)
            if wait_s > 0.0:
                if wait_s < math.inf:
                    self._set_timer(exporter, self.now_s + wait_s)
                return
            exporter.page_count -= 1
            ticket = exporter.pacer.send(self.now_s)
            exporter.sent_s.append(self.now_s)
            exporter.most_in_flight = max(exporter.most_in_flight, exporter.pacer.in_flight)
            self._plan(self.now_s + self._travel_s(), partial(self._arrive, exporter, ticket))

    def _set_timer(self, exporter: Exporter, at_s: float) -> None:
        def wake() -> None:
            if exporter.timer_s == at_s:
                self._send(exporter)

        exporter.timer_s = at_s
        self._plan(at_s + self._random.random() * WAKE_LATE_S, wake)

    def _travel_s(self) -> float:
        return (self._latency_s + self._random.random() * self._jitter_s) / 2

    def _arrive(self, exporter: Exporter, ticket: Ticket) -> None:
        travel_s = self._travel_s()
        throttled, hint_s = False, None
        if self._meter is not None:
            wait_s = self._meter.take("", now_s=self._server_clock_s + self.now_s)
            throttled = wait_s is not None
            quota = self._meter.quota
            if throttled and quota.refusal_latency_s is not None:
                travel_s = quota.refusal_latency_s
            if wait_s is not None and quota.hint != "none":
                hint_s = wait_s if quota.hint_ms is None else quota.hint_ms / 1000
        self._plan(
            self.now_s + travel_s,
            lambda: self._answer(exporter, ticket, throttled=throttled, hint_s=hint_s),
        )

    def _answer(
        self, exporter: Exporter, ticket: Ticket, *, throttled: bool, hint_s: float | None
    ) -> None:
        exporter.pacer.end(self.now_s, ticket, throttled=throttled, retry_after_s=hint_s)
        if throttled:
            exporter.refused_s.append(self.now_s)
            exporter.page_count += 1
        else:
            exporter.granted_s.append(self.now_s)
        self._send(exporter)
