"""A quota of requests, hidden from the client, and its refusals; performs no I/O."""

import math
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Literal, assert_never

from exporter.emulator.answers import RefusalStyle, RequestRefusedError
from exporter.emulator.ranges import require_min, require_positive
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
"""The header of a refusal that states a wait; the last two are forms of `Retry-After`."""

THROTTLING_STYLES = (
    RefusalStyle(code="Throttling.User", status=400),
    RefusalStyle(code="Throttling.User", status=429),
    RefusalStyle(code="Throttling.User", status=429, casing="rpc"),
    RefusalStyle(code="Throttling.Api", status=429),
    RefusalStyle(code="Throttling", status=503),
    RefusalStyle(code="Throttling", status=503, casing="rpc"),
    RefusalStyle(code="Rejected.Throttling", status=429),
)
"""Observed or documented ways in which services of Alibaba Cloud throttle."""

NO_END_KNOWN_S = 60.0
"""The stated wait while the quota is taken away for good."""

ROUNDING = 1e-9
"""Sums of fractions of a permit may fall this much short of a whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateChange:
    """A change of the rate, at a time or after a number of requests."""

    rate_per_s: float
    """0: every request is refused until the next change."""
    at_s: float | None = None
    """Seconds after the first request."""
    after_requests: int | None = None
    """Requests, granted or refused, that still meet the old rate."""

    def __post_init__(self) -> None:
        require_min(self, 0, "rate_per_s")
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
    """Requests that an account may send, over all its connections.

    Raises UsageError for a number out of its range.
    """

    rate_per_s: float
    burst: int = 1
    """Permits in a full token bucket, as it is at first; windows do not use it."""
    kind: QuotaKind = "token-bucket"
    window_s: float = 1.0
    """Length of a window. Fixed ones begin at its multiples on the meter's clock; a sliding one
    ends at each request."""
    per_call: bool = False
    """Each call has such a quota of its own."""
    style: RefusalStyle = THROTTLING_STYLES[1]
    hint: Hint = "none"
    hint_ms: int | None = None
    """The stated wait; None: the true time until the next permit."""
    refusal_latency_s: float | None = None
    """Latency of a refusal; None: as of any other answer."""
    changes: tuple[RateChange, ...] = ()

    def __post_init__(self) -> None:
        require_positive(self, "rate_per_s", "burst", "window_s")
        require_min(self, 0, "hint_ms", "refusal_latency_s")
        if not 400 <= self.style.status <= 599:
            raise UsageError(
                f"a refusal cannot have status {self.style.status}", hint="give 400 to 599"
            )
        rates = (self.rate_per_s, *(change.rate_per_s for change in self.changes))
        min_rate = min(rate for rate in rates if rate > 0)
        if self.kind != "token-bucket" and min_rate * self.window_s < 1:
            raise UsageError(
                f"no request fits into a window of {self.window_s:g}s at {min_rate:g} a second",
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

    def take(self, *, now_s: float, rate_per_s: float) -> float | None:
        while self._granted_s and self._granted_s[0] <= now_s - self._window_s + ROUNDING:
            self._granted_s.popleft()
        max_count = math.floor(rate_per_s * self._window_s + ROUNDING)
        if len(self._granted_s) < max_count:
            self._granted_s.append(now_s)
            return None
        return self._granted_s[-max_count] + self._window_s - now_s


Stock = TokenBucket | FixedWindow | SlidingWindow


class Meter:
    """Grants permits while the quota has any. Its clock may start anywhere."""

    def __init__(self, quota: Quota) -> None:
        self.quota = quota
        self.restart()

    def restart(self) -> None:
        """Return to the state before the first request."""
        self._rate_per_s = self.quota.rate_per_s
        self._changes = list(self.quota.changes)
        # By call, or under "" if all calls share one.
        self._stocks: dict[str, Stock] = {}
        self._started_s: float | None = None
        self._request_count = 0

    def take(self, call: str, *, now_s: float) -> float | None:
        """Take a permit and return None, or return the seconds until there will be one.

        Other requests and changes of the rate may prolong that.
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
        """Seconds until the quota is given back, as far as that is known."""
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
            # A bucket fills at the old rate until then; a whole window has the present rate.
            for stock in self._stocks.values():
                if isinstance(stock, TokenBucket):
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
    """The refusal of a request without a permit; `now_s` since 1970 by the service's clock."""
    return RequestRefusedError(
        quota.style.status,
        quota.style.code,
        "Request was denied due to user flow control.",
        casing=quota.style.casing,
        headers=build_hint(quota, wait_s=wait_s, now_s=now_s),
    )


def build_hint(quota: Quota, *, wait_s: float, now_s: float) -> dict[str, str]:
    """The header that states the wait: `hint_ms`, or the true time rounded up."""
    wait_ms = quota.hint_ms
    if wait_ms is None:
        wait_ms = max(1, math.ceil(wait_s * 1000 - 1e-6))
    match quota.hint:
        case "none":
            return {}
        case "x-acs-retry-after":
            return {"x-acs-retry-after": str(wait_ms)}
        case "x-ratelimit-user" | "x-ratelimit-user-api":
            # The limit stays hidden: the official clients read only TimeLeft.
            reset_s = math.ceil(now_s + wait_ms / 1000)
            return {quota.hint: f"Limit:1,Remain:0,TimeLeft:{wait_ms},Reset:{reset_s}"}
        case "retry-after":
            return {"Retry-After": str(math.ceil(wait_ms / 1000))}
        case "retry-after-date":
            # A date has whole seconds only.
            return {"Retry-After": formatdate(math.ceil(now_s + wait_ms / 1000), usegmt=True)}
        case _:
            assert_never(quota.hint)
