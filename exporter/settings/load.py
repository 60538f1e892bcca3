"""Settings from defaults, TOML file, environment and flags, the later ones winning."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from exporter.errors import UsageError, quote, shorten, suggest
from exporter.settings import catalogs
from exporter.settings.endpoints import check_endpoint, check_region
from exporter.settings.fields import ENVIRONMENT_PREFIX, Field, read_fields
from exporter.settings.files import read_toml
from exporter.settings.settings import Settings

if TYPE_CHECKING:
    from pydantic import TypeAdapter

CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
"""Names the TOML file, like `--config`; not a setting itself."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value that is not a default."""

    field: Field
    value: object
    origin: str
    """The file, the environment variable or the flag."""
    shown: str
    """The setting as the user wrote it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and the source of each one that is not a default."""

    settings: Settings
    given: Mapping[str, Given]
    """By the setting's name."""


def load_settings(
    flags: Mapping[str, object], *, environ: Mapping[str, str], config_file: str | None
) -> Loaded:
    """Merge the four sources and validate them.

    `flags` holds only flags that were given. Raises UsageError naming the source of the first wrong
    value.
    """
    known = {field.name: field for field in read_fields()}
    path = environ.get(CONFIG_VARIABLE, "") if config_file is None else config_file
    hint = "`livy-exporter config show` prints a file with every key"
    document = {} if path == "" and config_file is None else read_toml(path, hint=hint)
    paimon = catalogs.read_catalogs(document.pop(catalogs.KEY, {}), path=path)
    given = {
        each.field.name: each
        for source in (
            read_file(path, document, known),
            read_environment(environ, known),
            read_flags(flags, known),
        )
        for each in source
    }
    settings = replace(validate(given), paimon=paimon)
    for name, check in (
        ("region", check_region),
        ("endpoint", check_endpoint),
        ("storage_endpoint", check_endpoint),
    ):
        value = getattr(settings, name)
        if value is not None:
            check(value)
    return Loaded(settings, given)


def read_file(
    path: str, document: Mapping[str, object], known: Mapping[str, Field]
) -> Iterator[Given]:
    for key, value in document.items():
        if key not in known:
            raise UsageError(
                f"unknown key '{shorten(key)}' in {shorten(path)}",
                hint=suggest(key, [*known, catalogs.KEY]),
            )
        yield Given(known[key], value, path, f"{key} = {quote(value)} in {shorten(path)}")


def read_environment(environ: Mapping[str, str], known: Mapping[str, Field]) -> Iterator[Given]:
    by_variable = {field.variable: field for field in known.values()}
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable == CONFIG_VARIABLE:
            continue
        if variable not in by_variable:
            raise UsageError(
                f"unknown environment variable {shorten(variable)}",
                hint=suggest(variable, [*by_variable, CONFIG_VARIABLE]),
            )
        field = by_variable[variable]
        # Shells and CI systems pass an unset variable as an empty one.
        if text:
            value = split_lists(field, [text]) or text
            yield Given(field, value, variable, f"{variable}={quote(join_lists(value))}")


def read_flags(flags: Mapping[str, object], known: Mapping[str, Field]) -> Iterator[Given]:
    for name, value in flags.items():
        field = known[name]
        parsed = split_lists(field, value) or value
        yield Given(field, parsed, field.flag, f"{field.flag} {quote(join_lists(parsed))}")


def split_lists(field: Field, value: object) -> list[str]:
    """The parts of a list that is written with commas or repeated; empty for other settings."""
    if field.kind != "list" or not isinstance(value, list):
        return []
    # An empty part is kept and refused later: it mostly comes from an unset shell variable.
    return [part.strip() for text in value for part in text.split(",")]


def join_lists(value: object) -> str:
    return ",".join(value) if isinstance(value, list) else str(value)


@cache
def build_validator() -> "TypeAdapter[Settings]":
    """Cached: it takes longer than all validation."""
    from pydantic import TypeAdapter

    return TypeAdapter(Settings)


def validate(given: Mapping[str, Given]) -> Settings:
    from pydantic import ValidationError

    try:
        return build_validator().validate_python({name: each.value for name, each in given.items()})
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        wrong = given[str(first["loc"][0])]
        field = wrong.field
        hint = f"{field.name}: {field.option.help}"
        if first["type"] == "literal_error" and isinstance(first["input"], str):
            hint = suggest(first["input"], list(field.choices))
        raise UsageError(f"{wrong.shown}: {reword(first)}", hint=hint) from exc


REWORDED = {
    "int_type": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_from_float": "should be a whole number",
    "bool_type": "should be true or false",
    "bool_parsing": "should be true or false",
    "tuple_type": 'should be a list, such as ["w-1", "w-2"]',
    "string_type": "should be text",
    "string_unicode": "should be text in UTF-8",
    "string_too_short": "should not be empty",
    "too_short": "should not be empty",
    "greater_than_equal": "should be at least {ge:.12g}",
    "less_than_equal": "should be at most {le:.12g}",
}
"""For whoever typed the value; pydantic's own messages are for Python programmers."""


def reword(error: Mapping[str, Any]) -> str:
    if error["type"] in REWORDED:
        return REWORDED[error["type"]].format(**error.get("ctx", {}))
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should", "should", 1)
