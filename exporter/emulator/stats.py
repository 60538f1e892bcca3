"""What the emulator has seen, for tests and benchmarks; performs no I/O."""

from dataclasses import dataclass, fields
from weakref import WeakSet

import orjson


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorStats:
    """Counted since the start or the last reset, without the requests for these very stats."""

    request_counts: dict[str, dict[str, int]]
    """By call (`ListWorkspaces`, …, or `unknown`), then by outcome: `ok`, the code of a refusal, or
    `broken` when the emulator stopped before it answered."""
    in_flight: int
    most_in_flight: int
    """Most requests that had arrived and were not answered, at any one time."""
    connection_count: int
    """Connections whose first API request fell into the time."""
    nonce_count: int
    """Distinct nonces of requests that passed all checks of their identity."""

    @property
    def request_count(self) -> int:
        return sum(sum(counts.values()) for counts in self.request_counts.values())

    @property
    def ok_count(self) -> int:
        return sum(counts.get("ok", 0) for counts in self.request_counts.values())

    def to_json(self) -> bytes:
        """All fields, and the two sums."""
        known = {field.name: getattr(self, field.name) for field in fields(self)}
        return orjson.dumps(
            known | {"request_count": self.request_count, "ok_count": self.ok_count}
        )

    @classmethod
    def from_json(cls, text: bytes) -> "EmulatorStats":
        known = orjson.loads(text)
        return cls(**{field.name: known[field.name] for field in fields(cls)})


class Tally:
    """The running counts behind EmulatorStats."""

    def __init__(self) -> None:
        self._in_flight = 0
        # A kept-alive connection outlives a reset and must not be counted again.
        self._connections: WeakSet[object] = WeakSet()
        self.reset()

    def reset(self) -> None:
        """Everything starts at zero but the requests in flight, which still are."""
        self._request_counts: dict[str, dict[str, int]] = {}
        self._most_in_flight = self._in_flight
        self._connection_count = 0
        self._nonce_count = 0

    def request_started(self, connection: object | None) -> None:
        """`connection` is None when it is closed already."""
        self._in_flight += 1
        self._most_in_flight = max(self._most_in_flight, self._in_flight)
        if connection is not None and connection not in self._connections:
            self._connections.add(connection)
            self._connection_count += 1

    def request_admitted(self) -> None:
        self._nonce_count += 1

    def request_ended(self, call: str, outcome: str) -> None:
        self._in_flight -= 1
        counts = self._request_counts.setdefault(call, {})
        counts[outcome] = counts.get(outcome, 0) + 1

    def stats(self) -> EmulatorStats:
        return EmulatorStats(
            request_counts={call: dict(counts) for call, counts in self._request_counts.items()},
            in_flight=self._in_flight,
            most_in_flight=self._most_in_flight,
            connection_count=self._connection_count,
            nonce_count=self._nonce_count,
        )
