"""The fields of `Settings` as the command line, the file and the environment name them."""

from dataclasses import dataclass, fields
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from exporter.settings.annotations import Option, format_size
from exporter.settings.settings import Settings

ENVIRONMENT_PREFIX = "LIVY_EXPORTER_"


@dataclass(frozen=True, slots=True)
class Field:
    """One setting, as the command line sees it."""

    name: str
    option: Option
    default: Any
    kind: Literal["text", "number", "switch", "list", "choice", "count"]
    choices: tuple[str, ...]

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        return ENVIRONMENT_PREFIX + self.name.upper()

    @property
    def default_text(self) -> str | None:
        """The default as a user would write it; None where it is none, false, 0 or empty."""
        match self.default:
            case None | False | 0 | ():
                return None
            case bool():
                return "true"
            case tuple():
                return ",".join(self.default)
            case int() if self.option.metavar == "SIZE":
                return format_size(self.default)
            case float():
                return format_seconds(self.default)
            case _:
                return str(self.default)


def format_seconds(seconds: float) -> str:
    """A duration as a user would write it: whole hours and minutes in that unit."""
    for unit, length_s in (("h", 3600), ("m", 60)):
        if seconds >= length_s and seconds % length_s == 0:
            return f"{seconds / length_s:g}{unit}"
    return f"{seconds:g}s"


@cache
def read_fields() -> tuple[Field, ...]:
    """Every setting that is one value, in the order of `Settings`."""
    hints = get_type_hints(Settings, include_extras=True)
    return tuple(
        build_field(each.name, hints[each.name], each.default)
        for each in fields(Settings)
        if get_origin(hints[each.name]) is Annotated
    )


def build_field(name: str, hint: Any, default: object) -> Field:
    option = next(each for each in hint.__metadata__ if isinstance(each, Option))
    bare = hint.__origin__
    parts = get_args(bare)
    if get_origin(bare) is tuple:
        words = get_args(parts[0]) if get_origin(parts[0]) is Literal else ()
        return Field(name, option, default, "list", words)
    choice = next((each for each in (bare, *parts) if get_origin(each) is Literal), None)
    if choice is not None:
        return Field(name, option, default, "choice", get_args(choice))
    if bare is bool:
        return Field(name, option, default, "switch", ())
    if name == "verbose":
        return Field(name, option, default, "count", ())
    return Field(name, option, default, "number" if bare in (int, float) else "text", ())
