"""The annotations of a setting: help, bounds, units and checks; performs no I/O.

pydantic reads them as metadata. annotated-types would do for the bounds, but it costs `--help`
25 ms.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime
from functools import partial
from typing import Annotated, Any, Literal

from exporter.settings.files import find_fault
from exporter.times import EPOCH, LAST_MS, ceil_ms, floor_ms

Group = Literal[
    "identity and service",
    "what to list",
    "output",
    "object store",
    "run after run",
    "speed",
    "watching",
]


@dataclass(frozen=True, slots=True)
class Option:
    """The text and the place of a setting in `--help` and the JSON Schema."""

    help: str
    group: Group
    metavar: str | None = None
    short: str | None = None
    completes: Literal["file"] | None = None
    """The names a shell offers for the value, besides choices."""

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core_schema), "description": self.help}


# Checks raise ValueError, which pydantic collects.


@dataclass(frozen=True, slots=True)
class Before:
    """A check that sees a value before pydantic does, and returns it or another one."""

    check: Callable[[Any], object]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.check, handler(source))


@dataclass(frozen=True, slots=True)
class After:
    """A check of a value whose type pydantic has made sure of."""

    check: Callable[[Any], object]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(self.check, handler(source))


@dataclass(frozen=True, slots=True)
class Bounds:
    """The least and the most a number may be, both included."""

    least: float
    most: float

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        bounded = {**handler(source), "ge": self.least, "le": self.most}
        return core_schema.no_info_before_validator_function(refuse_bool, bounded)


def refuse_bool(value: object) -> object:
    """The value, unless it is true or false, which pydantic would take as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


@dataclass(frozen=True, slots=True)
class NotEmpty:
    """A text or a list that has at least one element."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "min_length": 1}


Text = Annotated[str, NotEmpty()]
"""An empty text mostly comes from an unset shell variable: taking it as "not set" would hide
that."""


def path_name(*, reserved_bytes: int = 0, is_local: bool = False) -> Before:
    """Annotates the name of a file or a folder, or a URL unless `is_local`.

    `reserved_bytes` are added to the name while the file is being written.
    """
    return Before(partial(check_path, reserved_bytes=reserved_bytes, is_local=is_local))


def check_path(value: object, *, reserved_bytes: int, is_local: bool) -> object:
    if isinstance(value, str):
        is_url = "://" in value
        if is_url and is_local:
            raise ValueError("should be on this machine, not a URL")
        fault = find_fault(value, reserved_bytes=reserved_bytes, is_url=is_url)
        if fault is not None:
            raise ValueError(fault)
    return value


MAX_ID_LENGTH = 255


def check_id(value: str) -> str:
    # A hyphen in front is mostly a flag that took the place of a forgotten value.
    is_fit = value.isprintable() and not re.search(r"^-|\s", value)
    if not is_fit or len(value) > MAX_ID_LENGTH:
        raise ValueError("should be an id, such as w-1a2b3c4d")
    return value


Id = Annotated[str, NotEmpty(), After(check_id)]
"""An id that the service gave."""


def refuse_repeated(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"names {value} twice")
    return values


DISTINCT = After(refuse_repeated)
"""The values of a list are all different."""

DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?"


@dataclass(frozen=True, slots=True)
class Duration(Bounds):
    """A bounded number of seconds, which may have a unit, such as `500ms` or `7d`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        bounded = Bounds.__get_pydantic_core_schema__(self, source, handler)
        return core_schema.no_info_before_validator_function(parse_duration, bounded)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^{DURATION_PATTERN}$"}
        return {"anyOf": [handler(core_schema["schema"]), text]}


def parse_duration(value: object) -> object:
    """Seconds of a text such as `30`, `30s`, `5m` or `7d`; any other value as it is.

    Raises ValueError for other text.
    """
    if not isinstance(value, str):
        return value
    match = re.fullmatch(DURATION_PATTERN, value.strip())
    if match is None:
        raise ValueError("should be a duration such as 30s, 5m or 2h")
    return float(match[1]) * DURATION_UNITS_S[match[2] or "s"]


SIZE_UNITS_BYTES = {
    "b": 1,
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", start=1)},
    **{f"{prefix}ib": 1024**power for power, prefix in enumerate("kmgt", start=1)},
}
SIZE_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtT]?i?[bB])?"
MAX_SIZE_BYTES = 1 << 62
"""Beyond all bounds."""


@dataclass(frozen=True, slots=True)
class Size:
    """A bounded number of bytes, which may have a unit, such as `64MiB` or `1GB`."""

    least: int
    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        bounded = core_schema.no_info_after_validator_function(self.check, handler(source))
        return core_schema.no_info_before_validator_function(parse_size, bounded)

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        number = {"type": "integer", "minimum": self.least, "maximum": self.most}
        return {"anyOf": [number, {"type": "string", "pattern": f"^{SIZE_PATTERN}$"}]}

    def check(self, size_bytes: int) -> int:
        if not self.least <= size_bytes <= self.most:
            raise ValueError(f"should be {format_size(self.least)} to {format_size(self.most)}")
        return size_bytes


def parse_size(value: object) -> object:
    """Bytes of a text such as `1000000`, `64MiB` or `1.5 GB`; any other value as it is.

    Raises ValueError for other text.
    """
    value = refuse_bool(value)
    if not isinstance(value, str):
        return value
    match = re.fullmatch(SIZE_PATTERN, value.strip())
    unit_bytes = None if match is None else SIZE_UNITS_BYTES.get((match[2] or "b").lower())
    if match is None or unit_bytes is None:
        raise ValueError("should be a size such as 64MiB, 500MB or 1GiB")
    return int(min(float(match[1]) * unit_bytes, MAX_SIZE_BYTES))  # hundreds of digits: infinity


def format_size(size_bytes: int) -> str:
    """A size in the largest unit that divides it."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % SIZE_UNITS_BYTES[unit.lower()] == 0:
            return f"{size_bytes // SIZE_UNITS_BYTES[unit.lower()]}{unit}"
    return f"{size_bytes}B"


DATE_PATTERN = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
TIME_PATTERN = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"
OFFSET_PATTERN = r"[Zz]|[+-][0-9]{2}:[0-9]{2}"
EXAMPLES = "2026-11-01, 2026-11-01T08:00:00+08:00, or 7d for seven days before the run"


def check_instant(value: object) -> object:
    """The value, a TOML date or time as text. Raises ValueError for text that is no instant."""
    if isinstance(value, date):
        value = value.isoformat()
    if isinstance(value, str):
        parse_instant(value, now=EPOCH)
    return value


Instant = Annotated[str, NotEmpty(), Before(check_instant)]
"""The text of an instant: a date, RFC 3339, or a duration back from the start of the run."""


def parse_instant(text: str, *, now: datetime) -> int:
    """The instant in epoch milliseconds, rounded up; a duration counts back from `now`.

    Raises ValueError for other text, and for a time without an offset.
    """
    text = text.strip()
    if re.fullmatch(DURATION_PATTERN, text) and not text[-1].isdecimal():
        back_s = parse_duration(text)
        now_ms = floor_ms(now)
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
    return min(max(0, ceil_ms(at)), LAST_MS)
