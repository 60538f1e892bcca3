"""What a setting's annotation can say: help, bounds, duration, not empty; performs no I/O.

pydantic reads these as metadata. annotated-types would do for the bounds, and cost `--help` 25 ms.
"""

import re
from dataclasses import dataclass
from datetime import date, datetime
from typing import Annotated, Any, Literal

from exporter.settings.files import find_fault
from exporter.times import EPOCH, LAST_MS, ceil_ms, floor_ms

DURATION_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
DURATION_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d)?"

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
    """What the command line and the JSON Schema say of one setting."""

    help: str
    group: Group
    metavar: str | None = None
    short: str | None = None
    completes: Literal["file"] | None = None
    """What a shell offers for the value, besides choices."""

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {**handler(core_schema), "description": self.help}


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
    """The value; ValueError for true and false, which pydantic would take as 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("should be a number")  # pydantic collects ValueErrors
    return value


@dataclass(frozen=True, slots=True)
class Filled:
    """The least length of a text or a list."""

    least: int = 1

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        return {**handler(source), "min_length": self.least}


Text = Annotated[str, Filled()]
"""An empty text is mostly a shell variable that is not set: to take it for none would hide that."""


@dataclass(frozen=True, slots=True)
class PathName:
    """Marks the name of a file or a folder, or a URL."""

    reserved_bytes: int = 0
    """What is added to the name while the file is being written."""
    is_local: bool = False
    """Whether a URL is none."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(self.check, handler(source))

    def check(self, value: object) -> object:
        """The value. Raises ValueError for a name that nothing can have."""
        if isinstance(value, str):
            # Each store has its own limits; what none can take is a NUL.
            is_url = "://" in value
            if is_url and self.is_local:
                raise ValueError("should be on this machine, not a URL")  # as below
            fault = find_fault(value, reserved_bytes=self.reserved_bytes, is_url=is_url)
            if fault is not None:
                raise ValueError(fault)  # pydantic collects ValueErrors
        return value


MAX_ID_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Identifier:
    """Marks an id that the service gave."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(check_id, handler(source))


def check_id(value: str) -> str:
    """The id. Raises ValueError for what is none, but perhaps a flag without its value."""
    is_fit = value.isprintable() and not re.search(r"^-|\s", value)
    if not is_fit or len(value) > MAX_ID_LENGTH:
        raise ValueError("should be an id, such as w-1a2b3c4d")  # pydantic collects ValueErrors
    return value


Id = Annotated[str, Filled(), Identifier()]


@dataclass(frozen=True, slots=True)
class Duration:
    """Marks a number of seconds that may also be written with a unit, such as `500ms` or `7d`."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(parse_duration, handler(source))

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        text = {"type": "string", "pattern": f"^{DURATION_PATTERN}$"}
        return {"anyOf": [handler(core_schema["schema"]), text]}


def parse_duration(value: object) -> object:
    """Seconds of a text such as `30`, `30s`, `5m` or `7d`; any other value as it is.

    Raises ValueError for a text that is no duration.
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
MAX_SIZE_BYTES = 1 << 62
"""Out of all bounds."""
SIZE_PATTERN = r"([0-9]+(?:\.[0-9]+)?)\s*([kKmMgGtT]?i?[bB])?"


@dataclass(frozen=True, slots=True)
class Size:
    """Marks a number of bytes that may also be written with a unit, such as `64MiB` or `1GB`."""

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
        """The size; ValueError for one out of bounds."""
        if not self.least <= size_bytes <= self.most:
            bounds = f"{format_size(self.least)} to {format_size(self.most)}"
            raise ValueError(f"should be {bounds}")  # pydantic collects ValueErrors
        return size_bytes


def parse_size(value: object) -> object:
    """Bytes of a text such as `1000000`, `64MiB` or `1.5 GB`; any other value as it is.

    Raises ValueError for a text that is no size.
    """
    value = refuse_bool(value)
    if not isinstance(value, str):
        return value
    match = re.fullmatch(SIZE_PATTERN, value.strip())
    if match is None or (match[2] or "b").lower() not in SIZE_UNITS_BYTES:
        raise ValueError("should be a size such as 64MiB, 500MB or 1GiB")
    size_bytes = float(match[1]) * SIZE_UNITS_BYTES[(match[2] or "b").lower()]
    return int(min(size_bytes, MAX_SIZE_BYTES))  # hundreds of digits are infinity


def format_size(size_bytes: int) -> str:
    """A size as a reader would write it, without a loss."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % SIZE_UNITS_BYTES[unit.lower()] == 0:
            return f"{size_bytes // SIZE_UNITS_BYTES[unit.lower()]}{unit}"
    return f"{size_bytes}B"


@dataclass(frozen=True, slots=True)
class Distinct:
    """The values of a list are all different."""

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_after_validator_function(refuse_repeated, handler(source))


def refuse_repeated(values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"names {value} twice")  # pydantic collects ValueErrors
    return values


DATE_PATTERN = r"[0-9]{4}-[0-9]{2}-[0-9]{2}"


TIME_PATTERN = r"[0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?"


OFFSET_PATTERN = r"[Zz]|[+-][0-9]{2}:[0-9]{2}"


EXAMPLES = "2026-11-01, 2026-11-01T08:00:00+08:00, or 7d for seven days before the run"


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
