"""Which sessions are wanted by their create times, and how that is written; performs no I/O."""

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from math import inf
from typing import Any

from exporter.errors import UsageError
from exporter.messages import quote
from exporter.options import DURATION_PATTERN, parse_duration

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = 253_402_300_799_999
"""The last instant that RFC 3339 has a text for."""

DATE_PATTERN = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME_PATTERN = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
OFFSET_PATTERN = r"[Zz]|[+-][0-9]{2}:[0-9]{2}"
EXAMPLES = "2026-11-01, 2026-11-01T08:00:00+08:00, or 7d for seven days before the run"


@dataclass(frozen=True, slots=True)
class Span:
    """Create times from `since_ms` up to, but not including, `until_ms`; None: no bound."""

    since_ms: int | None = None
    until_ms: int | None = None

    @property
    def has_bounds(self) -> bool:
        return self.since_ms is not None or self.until_ms is not None

    def wants(self, create_time: object) -> bool:
        """Whether to keep a session that was created then. One that does not tell is kept: nothing
        shows that it was not created within the span.
        """
        at_ms = read_create_time(create_time)
        if at_ms is None:
            return True
        least = -inf if self.since_ms is None else self.since_ms
        most = inf if self.until_ms is None else self.until_ms
        return least <= at_ms < most


ALL_TIME = Span()
MAX_DIGITS = 19


def read_create_time(value: object) -> int | None:
    """A create time as the service sent it, in epoch milliseconds; decimal text is read as well.

    Its zero is no time, nor is anything below; true is a whole number to Python alone.
    """
    if type(value) is str and value.isascii() and value.isdecimal() and len(value) <= MAX_DIGITS:
        value = int(value)
    return value if type(value) is int and value > 0 else None


@dataclass(frozen=True, slots=True)
class Instant:
    """Marks a text that names an instant: a date, RFC 3339, or a duration back from the start."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(check_instant, handler(source))


def check_instant(value: object) -> object:
    """The value, a TOML date or time as its text. Raises ValueError for a text that names no
    instant.
    """
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        parse_instant(value, now=EPOCH)
    return value


def parse_instant(text: str, *, now: datetime) -> int:
    """The instant in epoch milliseconds; a duration such as `7d` is counted back from `now`.

    The first of its milliseconds that is not before it: create times are whole ones. Raises
    ValueError for any other text, and for a time without an offset.
    """
    text = text.strip()
    if re.fullmatch(DURATION_PATTERN, text) and not text[-1].isdecimal():
        back_s = parse_duration(text)
        now_ms = (now - EPOCH) // timedelta(milliseconds=1)
        return now_ms - int(min(float(back_s) * 1000, now_ms))  # type: ignore[arg-type]  # of a text it is a number
    match = re.fullmatch(f"({DATE_PATTERN})(?:[Tt ]({TIME_PATTERN})({OFFSET_PATTERN})?)?", text)
    if match is None:
        raise ValueError(f"should be a date, a time or a duration, such as {EXAMPLES}")
    day, time, offset = match.groups()
    if time is not None and offset is None:
        raise ValueError(f"should say its offset from UTC, such as {day}T{time}Z or +08:00")
    try:
        at = datetime.fromisoformat(f"{day}T{time or '00:00'}{(offset or 'Z').upper()}")
    except ValueError as exc:
        raise ValueError("should be a day and a time that exist") from exc
    return min(max(0, read_ms(at)), LAST_MS)


def read_ms(at: datetime) -> int:
    """Epoch milliseconds, rounded up."""
    return -((EPOCH - at) // timedelta(milliseconds=1))


def format_ms(at_ms: int | None) -> str | None:
    """RFC 3339, UTC, to the millisecond."""
    if at_ms is None:
        return None
    at = EPOCH + timedelta(milliseconds=at_ms)
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def resolve_span(since: str | None, until: str | None, *, now: datetime) -> Span:
    """What two settings mean for a run that starts `now`.

    Raises UsageError for one that is no instant, and where no session can be between them.
    """
    since_ms, until_ms = (
        None if text is None else read_setting(flag, text, now=now)
        for flag, text in (("--since", since), ("--until", until))
    )
    if since_ms is not None and since_ms > read_ms(now):
        raise UsageError(
            f"--since {since} is in the future: {format_ms(since_ms)}",
            hint=f"no session was created since; give an earlier one, such as {EXAMPLES}",
        )
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UsageError(
            f"--since {since} is not before --until {until}:"
            f" {format_ms(since_ms)}, {format_ms(until_ms)}",
            hint="sessions are kept that were created at --since or later, and before --until",
        )
    return Span(since_ms, until_ms)


def read_setting(flag: str, text: str, *, now: datetime) -> int:
    try:
        return parse_instant(text, now=now)
    except ValueError as exc:
        raise UsageError(f"{flag} {quote(text)} {exc}", hint=f"give {EXAMPLES}") from exc
