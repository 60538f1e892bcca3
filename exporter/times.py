"""Instants as datetimes, as epoch milliseconds and as RFC 3339 text; performs no I/O."""

from datetime import UTC, datetime, timedelta
from typing import Final

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_MS: Final = -62_135_596_800_000
LAST_MS: Final = 253_402_300_799_999
"""The years 1 to 9999: all that a datetime and RFC 3339 can express."""

_MILLISECOND: Final = timedelta(milliseconds=1)
_MAX_DIGITS: Final = 19


def read_create_time(value: object) -> int | None:
    """Epoch milliseconds of a create time as the service sent it: a number, or decimal text.

    None for anything else, and for 0 and below, which the service uses for "no time".
    """
    if type(value) is str and value.isascii() and value.isdecimal() and len(value) <= _MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and value > 0 else None  # a bool is no time


def floor_ms(at: datetime) -> int:
    """Epoch milliseconds, rounded down."""
    return (at - EPOCH) // _MILLISECOND


def ceil_ms(at: datetime) -> int:
    """Epoch milliseconds, rounded up."""
    return -((EPOCH - at) // _MILLISECOND)


def from_ms(at_ms: int) -> datetime:
    return EPOCH + timedelta(milliseconds=at_ms)


def format_instant(at: datetime) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_ms(at_ms: int | None) -> str | None:
    """RFC 3339 in UTC, to the millisecond; None for None."""
    return None if at_ms is None else format_instant(from_ms(at_ms))


def format_second(at: datetime) -> str:
    """RFC 3339 in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def parse_rfc3339(text: str) -> datetime:
    """The instant, in UTC. Raises ValueError for other text."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as exc:  # its offset moves it out of the years 1 to 9999
        raise ValueError(text) from exc
