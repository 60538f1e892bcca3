"""Counts the emulator's requests, for tests and benchmarks; performs no I/O."""

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, fields
from weakref import WeakSet

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorStats:
    """Counts since the start or the last reset, without requests to `/emulator/`."""

    request_counts: dict[str, dict[str, int]]
    """By call (`ListWorkspaces`, …, or `unknown`), then by outcome: `ok`, the code of a refusal,
    the name of a fault, or `broken` if the emulator stopped before it answered."""
    in_flight: int
    most_in_flight: int
    """Most requests that were unanswered at one time."""
    connection_count: int
    """Connections whose first request was counted."""
    nonce_count: int
    """Nonces of requests that were authenticated."""
    fault_counts: dict[str, int] = field(default_factory=dict)
    """Requests hit by a fault, by its name, counted when they arrive."""
    quota_seconds: list[tuple[int, int, int]] = field(default_factory=list)
    """For each second that had requests: its number since the first one, permits granted, requests
    refused. Empty if the scenario has no quota."""
    first_request_s: float | None = None
    """Arrival of the first request, in seconds since 1970 by the emulator's clock."""
    last_request_s: float | None = None

    @property
    def request_count(self) -> int:
        return sum(sum(counts.values()) for counts in self.request_counts.values())

    @property
    def ok_count(self) -> int:
        return sum(counts.get("ok", 0) for counts in self.request_counts.values())

    @property
    def granted_count(self) -> int:
        """Requests that the quota granted."""
        return self.count_quota()[0]

    @property
    def refused_count(self) -> int:
        """Requests that the quota refused."""
        return self.count_quota()[1]

    def count_quota(self, *, from_s: int = 0, until_s: int | None = None) -> tuple[int, int]:
        """Permits granted and requests refused from `from_s` until before `until_s`."""
        within = [
            (granted, refused)
            for second, granted, refused in self.quota_seconds
            if from_s <= second and (until_s is None or second < until_s)
        ]
        return sum(granted for granted, _ in within), sum(refused for _, refused in within)

    def to_json(self) -> bytes:
        """All fields and sums."""
        sums = ("request_count", "ok_count", "granted_count", "refused_count")
        return orjson.dumps(asdict(self) | {name: getattr(self, name) for name in sums})

    @classmethod
    def from_json(cls, text: bytes) -> "EmulatorStats":
        known = orjson.loads(text)
        known["quota_seconds"] = [tuple(each) for each in known["quota_seconds"]]
        return cls(**{field.name: known[field.name] for field in fields(cls)})


class StatsCounter:
    """The running counts behind EmulatorStats."""

    def __init__(self) -> None:
        self._in_flight = 0
        # A kept-alive connection outlives a reset and must not be counted again.
        self._connections: WeakSet[object] = WeakSet()
        self.reset()

    def reset(self) -> None:
        """Set every count to zero except the requests in flight."""
        self._request_counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._most_in_flight = self._in_flight
        self._connection_count = 0
        self._nonce_count = 0
        self._fault_counts: Counter[str] = Counter()
        # Granted and refused, by second.
        self._quota_seconds: dict[int, tuple[int, int]] = {}
        self._quota_started_s: float | None = None
        self._first_request_s: float | None = None
        self._last_request_s: float | None = None

    def request_started(self, connection: object | None, *, now_s: float) -> None:
        """`connection` is None if it is closed already; `now_s` since 1970."""
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        if self._first_request_s is None:
            self._first_request_s = now_s
        self._last_request_s = now_s
        if connection is not None and connection not in self._connections:
            self._connections.add(connection)
            self._connection_count += 1

    def request_authenticated(self) -> None:
        self._nonce_count += 1

    def quota_asked(self, *, granted: bool, now_s: float) -> None:
        """`now_s` by the clock of the quota."""
        if self._quota_started_s is None:
            self._quota_started_s = now_s
        second = int(now_s - self._quota_started_s)
        granted_count, refused_count = self._quota_seconds.get(second, (0, 0))
        self._quota_seconds[second] = (granted_count + granted, refused_count + (not granted))

    def fault_injected(self, name: str) -> None:
        self._fault_counts[name] += 1

    def request_ended(self, call: str, outcome: str) -> None:
        self._in_flight -= 1
        self._request_counts[call][outcome] += 1

    def stats(self) -> EmulatorStats:
        return EmulatorStats(
            request_counts={call: dict(counts) for call, counts in self._request_counts.items()},
            in_flight=self._in_flight,
            most_in_flight=self._most_in_flight,
            connection_count=self._connection_count,
            nonce_count=self._nonce_count,
            fault_counts=dict(self._fault_counts),
            quota_seconds=[
                (second, *counts) for second, counts in sorted(self._quota_seconds.items())
            ],
            first_request_s=self._first_request_s,
            last_request_s=self._last_request_s,
        )
