"""Instants as the service, users and files write them; performs no I/O."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = 253_402_300_799_999
"""The last instant that RFC 3339 has a text for."""


MAX_DIGITS = 19


def read_create_time(value: object) -> int | None:
    """A create time as the service sent it, in epoch milliseconds; decimal text is read as well.

    Its zero is no time, nor is anything below; true is a whole number to Python alone.
    """
    if type(value) is str and value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and value > 0 else None


def read_ms(at: datetime) -> int:
    """Epoch milliseconds, rounded up."""
    return -((EPOCH - at) // timedelta(milliseconds=1))


def format_ms(at_ms: int | None) -> str | None:
    """RFC 3339, UTC, to the millisecond."""
    if at_ms is None:
        return None
    at = EPOCH + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_second(at: datetime) -> str:
    """RFC 3339, UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def format_instant(at: datetime) -> str:
    """RFC 3339, UTC, to the millisecond: as `exportedAt` is in the sessions."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def to_ms(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def from_ms(at_ms: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
