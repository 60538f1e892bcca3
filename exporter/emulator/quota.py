"""A quota of requests that nobody tells the client, and its refusals; performs no I/O."""

import math
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal, assert_never

from exporter.emulator.answers import RefusalStyle, RequestRefusedError
from exporter.errors import UsageError

QuotaKind = Literal["token-bucket", "fixed-window", "sliding-window"]

Hint = Literal[
    "none",
    "x-acs-retry-after",
    "x-ratelimit-user",
    "x-ratelimit-user-api",
    "retry-after",
    "retry-after-date",
]
"""The header of a refusal that says how long to wait; the last two both are `Retry-After`."""

THROTTLING_STYLES = (
    RefusalStyle(code="Throttling.User", status=400),
    RefusalStyle(code="Throttling.User", status=429),
    RefusalStyle(code="Throttling.User", status=429, casing="rpc"),
    RefusalStyle(code="Throttling.Api", status=429),
    RefusalStyle(code="Throttling", status=503),
    RefusalStyle(code="Throttling", status=503, casing="rpc"),
    RefusalStyle(code="Rejected.Throttling", status=429),
)
"""Ways in which Alibaba Cloud's services were seen or documented to throttle."""

NO_END_KNOWN_S = 60.0
"""What a refusal tells while the quota is taken away for good."""

ROUNDING = 1e-9
"""Sums of fractions of a permit fall this much short of a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChange:
    """From some moment on another rate; exactly one of the two moments is given."""

    rate_per_s: float
    """0: the quota is taken away, and every request is refused until the next change."""
    at_s: float | None = None
    """Seconds after the first request that the quota was asked about."""
    after_requests: int | None = None
    """How many requests, granted or refused, still meet the old rate."""

    def __post_init__(self) -> None:
        if self.rate_per_s < 0:
            raise UsageError(f"rate_per_s is {self.rate_per_s:g}", hint="give 0 or more")
        if (self.at_s is None) == (self.after_requests is None):
            raise UsageError(
                "a change of the quota needs one moment", hint="give at_s or after_requests"
            )

    def is_due(self, *, elapsed_s: float, request_count: int) -> bool:
        if self.at_s is not None:
            return elapsed_s >= self.at_s
        return self.after_requests is not None and request_count >= self.after_requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """How many requests an account may send, over all its connections.

    Raises UsageError where a number is out of its range.
    """

    rate_per_s: float
    burst: int = 1
    """Permits that a token bucket holds when full, as it is at first; a window has none."""
    kind: QuotaKind = "token-bucket"
    window_s: float = 1.0
    """Length of a window. Fixed ones begin at the multiples of it on the meter's clock; a sliding
    one ends at each request, and counts what was granted in it."""
    per_call: bool = False
    """Whether each call has such a quota of its own."""
    style: RefusalStyle = THROTTLING_STYLES[1]
    hint: Hint = "none"
    hint_ms: int | None = None
    """What the hint says; None: the truth, which is the time until the next permit."""
    refusal_latency_s: float | None = None
    """What a refusal takes; None: as long as any other answer, 0: refused at the door."""
    changes: tuple[RateChange, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rate_per_s", "burst", "window_s"):
            if getattr(self, name) <= 0:
                raise UsageError(f"{name} is {getattr(self, name):g}", hint="give more than 0")
        for name in ("hint_ms", "refusal_latency_s"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise UsageError(f"{name} is {value:g}", hint="give 0 or more")
        if not 400 <= self.style.status <= 599:
            raise UsageError(
                f"a refusal cannot have status {self.style.status}", hint="give 400 to 599"
            )
        given = (self.rate_per_s, *(change.rate_per_s for change in self.changes))
        least = min(rate for rate in given if rate > 0)
        if self.kind != "token-bucket" and least * self.window_s < 1:
            raise UsageError(
                f"no request fits into a window of {self.window_s:g}s at {least:g} a second",
                hint="make the window longer, so that it holds at least one",
            )


class TokenBucket:
    def __init__(self, burst: int, *, now_s: float) -> None:
        self._burst = burst
        self._permits = float(burst)
        self._filled_s = now_s

    def fill(self, *, now_s: float, rate_per_s: float) -> None:
        added = (now_s - self._filled_s) * rate_per_s
        self._permits = min(self._burst, self._permits + added)
        self._filled_s = now_s

    def take(self, *, now_s: float, rate_per_s: float) -> float | None:
        self.fill(now_s=now_s, rate_per_s=rate_per_s)
        if self._permits >= 1 - ROUNDING:
            self._permits -= 1
            return None
        return (1 - self._permits) / rate_per_s


class FixedWindow:
    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._number = -1
        self._taken = 0

    def fill(self, *, now_s: float, rate_per_s: float) -> None:
        """A window holds what its present rate says, however much of it is over."""

    def take(self, *, now_s: float, rate_per_s: float) -> float | None:
        number = math.floor(now_s / self._window_s)
        if number != self._number:
            self._number, self._taken = number, 0
        if self._taken < math.floor(rate_per_s * self._window_s + ROUNDING):
            self._taken += 1
            return None
        return (number + 1) * self._window_s - now_s


class SlidingWindow:
    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._granted_s: deque[float] = deque()

    def fill(self, *, now_s: float, rate_per_s: float) -> None:
        """A window holds what its present rate says, whatever was granted in it."""

    def take(self, *, now_s: float, rate_per_s: float) -> float | None:
        while self._granted_s and self._granted_s[0] <= now_s - self._window_s + ROUNDING:
            self._granted_s.popleft()
        most = math.floor(rate_per_s * self._window_s + ROUNDING)
        if len(self._granted_s) < most:
            self._granted_s.append(now_s)
            return None
        return self._granted_s[-most] + self._window_s - now_s


Stock = TokenBucket | FixedWindow | SlidingWindow


class Meter:
    """Gives permits out as long as the quota has any. Its clock may start anywhere."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.restart()

    def restart(self) -> None:
        """As before the first request."""
        self._rate_per_s = self.quota.rate_per_s
        self._changes = list(self.quota.changes)
        # By call, or under "" when all calls share one.
        self._stocks: dict[str, Stock] = {}
        self._started_s: float | None = None
        self._request_count = 0

    def take(self, call: str, *, now_s: float) -> float | None:
        """None: there was a permit, and it is taken. Otherwise in how many seconds there will be
        one, unless others take it or the rate changes.
        """
        if self._started_s is None:
            self._started_s = now_s
        if self._changes:
            self._change_rate(started_s=self._started_s, now_s=now_s)
        self._request_count += 1
        if self._rate_per_s == 0:
            return self._compute_absence_s(elapsed_s=now_s - self._started_s)
        key = call if self.quota.per_call else ""
        stock = self._stocks.get(key)
        if stock is None:
            stock = self._stocks[key] = self._build_stock(now_s)
        return stock.take(now_s=now_s, rate_per_s=self._rate_per_s)

    def _compute_absence_s(self, *, elapsed_s: float) -> float:
        """How long the quota is still taken away, as far as that is known."""
        ends_s = [
            change.at_s
            for change in self._changes
            if change.at_s is not None and change.rate_per_s > 0
        ]
        return min(ends_s) - elapsed_s if ends_s else NO_END_KNOWN_S

    def _change_rate(self, *, started_s: float, now_s: float) -> None:
        due = [
            (now_s if change.at_s is None else started_s + change.at_s, change)
            for change in self._changes
            if change.is_due(elapsed_s=now_s - started_s, request_count=self._request_count)
        ]
        for moment_s, change in sorted(due, key=lambda each: each[0]):
            # What came in until then came in at the old rate.
            for stock in self._stocks.values():
                stock.fill(now_s=moment_s, rate_per_s=self._rate_per_s)
            self._rate_per_s = change.rate_per_s
            self._changes.remove(change)

    def _build_stock(self, now_s: float) -> Stock:
        match self.quota.kind:
            case "token-bucket":
                return TokenBucket(self.quota.burst, now_s=now_s)
            case "fixed-window":
                return FixedWindow(self.quota.window_s)
            case "sliding-window":
                return SlidingWindow(self.quota.window_s)
            case _:
                assert_never(self.quota.kind)


def build_quota_refusal(quota: Quota, *, wait_s: float, now_s: float) -> RequestRefusedError:
    """What a request without a permit is told; `now_s` since the epoch, by the service's clock."""
    return RequestRefusedError(
        quota.style.status,
        quota.style.code,
        "Request was denied due to user flow control.",
        casing=quota.style.casing,
        headers=build_hint(quota, wait_s=wait_s, now_s=now_s),
    )


def build_hint(quota: Quota, *, wait_s: float, now_s: float) -> dict[str, str]:
    """The header that tells how long to wait, never less than the truth unless the quota lies."""
    wait_ms = quota.hint_ms
    if wait_ms is None:
        wait_ms = max(1, math.ceil(wait_s * 1000 - 1e-6))
    match quota.hint:
        case "none":
            return {}
        case "x-acs-retry-after":
            return {"x-acs-retry-after": str(wait_ms)}
        case "x-ratelimit-user" | "x-ratelimit-user-api":
            # The limit stays hidden: of these four the official clients read TimeLeft alone.
            reset_s = math.ceil(now_s + wait_ms / 1000)
            return {quota.hint: f"Limit:1,Remain:0,TimeLeft:{wait_ms},Reset:{reset_s}"}
        case "retry-after":
            return {"Retry-After": str(math.ceil(wait_ms / 1000))}
        case "retry-after-date":
            # A date has whole seconds only.
            return {"Retry-After": formatdate(math.ceil(now_s + wait_ms / 1000), usegmt=True)}
        case _:
            assert_never(quota.hint)
