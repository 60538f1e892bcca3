"""What a setting's annotation can say: help, bounds, duration, not empty; performs no I/O.

pydantic reads these as metadata. annotated-types would do for the bounds, and cost `--help` 25 ms.
"""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

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
