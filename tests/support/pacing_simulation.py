"""Simulates exporters that share one hidden quota, and measures them; performs no I/O."""

import heapq
import math
import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from exporter.api.pacer import Pacer
from exporter.api.quota_edges import Ticket
from exporter.emulator.quota import Meter, Quota, RateChange

WAKE_LATE_S = 0.0015
"""Timers of an event loop fire up to this much late."""


@dataclass(slots=True)
class Exporter:
    """One run: its pacer, the pages it still has to request, and the times of its answers."""

    pacer: Pacer
    page_count: int
    starts_s: float = 0.0
    sent_s: list[float] = field(default_factory=list)
    granted_s: list[float] = field(default_factory=list)
    refused_s: list[float] = field(default_factory=list)
    """By the simulation's clock, as the others."""
    max_in_flight: int = 0
    timer_s: float = math.nan
    """The timer that is set; an older one has no effect."""

    def count_granted(self, from_s: float, to_s: float = math.inf) -> int:
        return bisect_left(self.granted_s, to_s) - bisect_left(self.granted_s, from_s)

    def count_refused(self, from_s: float, to_s: float = math.inf) -> int:
        return bisect_left(self.refused_s, to_s) - bisect_left(self.refused_s, from_s)


@dataclass(frozen=True, slots=True)
class Others:
    """Other users of the quota, who send at a fixed rate and never slow down."""

    rate_per_s: float
    from_s: float = 0.0
    to_s: float = math.inf


class Simulation:
    """Sends as soon as a pacer allows, over a network with latency, to a server with or without a
    quota; repeats refused requests.
    """

    def __init__(
        self,
        quota: Quota | None,
        *,
        latency_s: float,
        jitter_s: float = 0.0,
        seed: int = 0,
        others: Sequence[Others] = (),
    ) -> None:
        self._meter = Meter(quota) if quota is not None else None
        self._latency_s = latency_s
        self._jitter_s = jitter_s
        self._random = random.Random(seed)  # noqa: S311 - a simulation repeats
        # Windows begin at multiples of their length on the server's clock, not on ours.
        window_s = 1.0 if quota is None else quota.window_s
        self.server_clock_s = self._random.random() * window_s
        self._others = others
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._event_count = 0
        self.now_s = 0.0

    def run(self, *exporters: Exporter, until_s: float = math.inf) -> None:
        for exporter in exporters:
            self._plan(exporter.starts_s, partial(self._send, exporter))
        for others in self._others:
            self._plan(others.from_s, partial(self._let_others_ask, others))
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, act = heapq.heappop(self._events)
            act()

    def _let_others_ask(self, others: Others) -> None:
        if self._meter is not None and self.now_s < others.to_s:
            self._meter.take("", now_s=self.server_clock_s + self.now_s)
            gap_s = self._random.expovariate(others.rate_per_s)
            self._plan(self.now_s + gap_s, partial(self._let_others_ask, others))

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
            exporter.max_in_flight = max(exporter.max_in_flight, exporter.pacer.in_flight)
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
            wait_s = self._meter.take("", now_s=self.server_clock_s + self.now_s)
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


LATENCIES = [(0.02, 0.005), (0.06, 0.03)]
"""Latency and jitter of answers in seconds; runs take them in turn."""

ENDLESS = 10**9
"""More pages than any simulation reads."""
STARVED_S = 30.0
"""Nobody may have less than half its fair share for longer."""
ABSENCE_S = 60.0
"""How long a quota is taken away, or others use it."""
SETTLED_S = 47.0
"""Until then an exporter has its quota for itself."""
PATIENCE_S = 150.0
"""A quota that is unused so long after it came back counts as never used again."""


def build_exporter(
    page_count: int = ENDLESS,
    *,
    max_in_flight: int = 32,
    max_rps: float | None = None,
    starts_s: float = 0.0,
) -> Exporter:
    pacer = Pacer(max_in_flight=max_in_flight, max_rps=max_rps)
    return Exporter(pacer, page_count, starts_s=starts_s)


def build_simulation(quota: Quota, *, seed: int, others: Sequence[Others] = ()) -> Simulation:
    latency_s, jitter_s = LATENCIES[seed % len(LATENCIES)]
    return Simulation(quota, latency_s=latency_s, jitter_s=jitter_s, seed=seed, others=others)


def measure_windows(quota: Quota, *, seed: int, window_count: int = 8) -> tuple[float, float]:
    """The used share of the quota and the refused share of the requests, of an exporter alone.

    Measured after two windows; the start cuts the first fixed one short.
    """
    exporter, simulation = build_exporter(), build_simulation(quota, seed=seed)
    from_s = 2 * quota.window_s
    if quota.kind == "fixed-window":
        from_s -= simulation.server_clock_s
    to_s = from_s + window_count * quota.window_s
    simulation.run(exporter, until_s=to_s)
    granted_count = exporter.count_granted(from_s, to_s)
    refused_count = exporter.count_refused(from_s, to_s)
    used = granted_count / (to_s - from_s) / quota.rate_per_s
    return used, refused_count / (granted_count + refused_count)


def measure_recovery_s(
    quota: Quota, *, seed: int, left_rps: float | None = None, others_rps: float = 0.0
) -> float:
    """Seconds after a minute of scarcity until an exporter uses 90 % of its quota again.

    In that minute the quota is `left_rps`, unless None, and others use `others_rps`.
    """
    back_s = SETTLED_S + ABSENCE_S
    if left_rps is not None:
        taken = RateChange(rate_per_s=left_rps, at_s=SETTLED_S)
        given_back = RateChange(rate_per_s=quota.rate_per_s, at_s=back_s)
        quota = replace(quota, changes=(taken, given_back))
    others = [Others(others_rps, SETTLED_S, back_s)] if others_rps > 0 else []
    exporter = build_exporter()
    simulation = build_simulation(quota, seed=seed, others=others)
    simulation.run(exporter, until_s=back_s + PATIENCE_S)
    # Among fewer than twenty requests, one more or less matters too much.
    stretch_s = max(5.0, 20 / quota.rate_per_s)
    moment_s = back_s
    while moment_s + stretch_s < back_s + PATIENCE_S:
        used_count = exporter.count_granted(moment_s, moment_s + stretch_s)
        if used_count >= 0.9 * quota.rate_per_s * stretch_s:
            return moment_s - back_s
        moment_s += 0.5
    return math.inf


@dataclass(frozen=True, slots=True)
class Sharing:
    """Several exporters at one quota, measured from the start of the last one."""

    starved_from_s: float
    """The first time that one had less than half its fair share for STARVED_S; inf: never."""
    used: float
    """The share of the quota that they used together."""
    min_share: float
    """The smallest share, relative to a fair one."""


def measure_sharing(
    quota: Quota, *, exporter_count: int, apart_s: float, seed: int, lasts_s: float = 150.0
) -> Sharing:
    exporters = [build_exporter(starts_s=number * apart_s) for number in range(exporter_count)]
    from_s = exporters[-1].starts_s
    to_s = from_s + lasts_s
    build_simulation(quota, seed=seed).run(*exporters, until_s=to_s)
    counts = [each.count_granted(from_s, to_s) for each in exporters]
    fair_rps = quota.rate_per_s / exporter_count
    return Sharing(
        starved_from_s=min(find_starved_s(each, fair_rps, from_s, to_s) for each in exporters),
        used=sum(counts) / lasts_s / quota.rate_per_s,
        min_share=min(counts) / lasts_s / fair_rps,
    )


def find_starved_s(exporter: Exporter, fair_rps: float, from_s: float, to_s: float) -> float:
    """The first time that an exporter had less than half its fair share for STARVED_S."""
    moment_s = from_s
    while moment_s + STARVED_S <= to_s:
        if exporter.count_granted(moment_s, moment_s + STARVED_S) < fair_rps * STARVED_S / 2:
            return moment_s
        moment_s += 1.0
    return math.inf
