"""Settings from their sources, the later winning: defaults, TOML file, environment, flags."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, assert_never

from exporter.errors import UsageError, mask_urls, quote, shorten
from exporter.settings import catalogs
from exporter.settings.catalogs import Catalogs
from exporter.settings.endpoints import check_endpoint, check_region
from exporter.settings.files import read_toml
from exporter.settings.settings import ENVIRONMENT_PREFIX, Field, Settings, read_fields

if TYPE_CHECKING:
    from pydantic import TypeAdapter

CONFIG_VARIABLE = ENVIRONMENT_PREFIX + "CONFIG"
"""Names the TOML file, as `--config` does; no setting itself."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value that is not a default, and where it was given."""

    field: Field
    value: object
    source: Literal["file", "environment", "flag"]
    file: str = ""

    def __str__(self) -> str:
        """As the reader wrote it."""
        match self.source:
            case "file":
                return f"{self.field.name} = {quote(self.value)} in {shorten(self.file)}"
            case "environment":
                return f"{self.field.variable}={quote(self._text)}"
            case "flag":
                return f"{self.field.flag} {quote(self._text)}"
            case _:
                assert_never(self.source)

    @property
    def _text(self) -> str:
        return ",".join(self.value) if isinstance(self.value, list) else str(self.value)

    @property
    def origin(self) -> str:
        match self.source:
            case "file":
                return self.file
            case "environment":
                return self.field.variable
            case "flag":
                return self.field.flag
            case _:
                assert_never(self.source)


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, and where each one that is not a default came from."""

    settings: Settings
    given: Mapping[str, Given]
    """By the setting's name."""


def load_settings(
    flags: Mapping[str, object], *, environ: Mapping[str, str], config_file: str | None
) -> Loaded:
    """Merge the four sources and validate them.

    `flags` holds only what was given. Raises UsageError naming the source of the first value that
    does not fit.
    """
    known = {field.name: field for field in read_fields()}
    path = environ.get(CONFIG_VARIABLE) or None if config_file is None else config_file
    document = {} if path is None else read_document(path)
    described = catalogs.read_catalogs(document.pop(catalogs.KEY, {}), path=path or "")
    given = {
        each.field.name: each
        for source in (
            [] if path is None else read_file(path, document, known),
            read_environment(environ, known),
            read_flags(flags, known),
        )
        for each in source
    }
    settings = replace(validate(given), paimon=described)
    for name, check in (
        ("region", check_region),
        ("endpoint", check_endpoint),
        ("storage_endpoint", check_endpoint),
    ):
        value = getattr(settings, name)
        if value is not None:
            check(value)
    return Loaded(settings, given)


def read_document(path: str) -> dict[str, Any]:
    return read_toml(path, hint="`livy-exporter config show` prints a file with every key")


def read_file(
    path: str, document: Mapping[str, object], known: Mapping[str, Field]
) -> Iterator[Given]:
    for key, value in document.items():
        if key not in known:
            raise UsageError(
                f"unknown key '{shorten(key)}' in {shorten(path)}",
                hint=suggest(key, [*known, catalogs.KEY]),
            )
        yield Given(known[key], value, "file", path)


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
        # An empty variable is how shells and CI systems say "not set".
        if text:
            yield Given(field, split_lists(field, [text]) or text, "environment")


def read_flags(flags: Mapping[str, object], known: Mapping[str, Field]) -> Iterator[Given]:
    for name, value in flags.items():
        yield Given(known[name], split_lists(known[name], value) or value, "flag")


def split_lists(field: Field, value: object) -> list[str]:
    """The ids of a list written with commas or given several times; empty for any other setting."""
    if field.kind != "list" or not isinstance(value, list):
        return []
    # An empty id stays one, and is refused: it is mostly a shell variable that is not set.
    return [part.strip() for text in value for part in text.split(",")]


def suggest(word: str, known: list[str]) -> str:
    """A hint that names the nearest known word, or all of them."""
    import difflib

    near = difflib.get_close_matches(shorten(word), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)


@cache
def build_validator() -> "TypeAdapter[Settings]":
    """Once a process: it takes longer than all validation."""
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
        raise UsageError(f"{wrong}: {reword(first)}", hint=hint) from exc


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
"""pydantic's words are for who writes Python, these for who typed the value."""


def reword(error: Mapping[str, Any]) -> str:
    if error["type"] in REWORDED:
        return REWORDED[error["type"]].format(**error.get("ctx", {}))
    message: str = error["msg"]
    return message.removeprefix("Value error, ").replace("Input should", "should", 1)


def build_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the TOML file."""
    schema = build_validator().json_schema()
    properties = {name: without_null(each) for name, each in schema["properties"].items()}
    # Options may be texts, numbers, booleans, and tables where their names have dots.
    properties[catalogs.KEY] = {
        "type": "object",
        "additionalProperties": {"type": "object"},
        "description": "catalogs of Paimon tables: [paimon.NAME], and below it their options",
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "livy-exporter configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A key's schema as TOML has it: there is no null, and what is not set is left out."""
    kept = {key: value for key, value in schema.items() if key not in {"anyOf", "title"}}
    if kept.get("default", ...) is None:
        del kept["default"]
    kinds = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    if len(kinds) == 1:
        return {**kinds[0], **kept}
    return {**kept, "anyOf": kinds} if kinds else kept


def dump_toml(loaded: Loaded) -> str:
    """The effective settings as a TOML file, each line with its origin; unset ones are comments.

    A password in a URL is masked.
    """
    lines = []
    for field in read_fields():
        name, value = field.name, getattr(loaded.settings, field.name)
        if value is None:
            lines.append(f"# {name} is not set")
        else:
            origin = loaded.given[name].origin if name in loaded.given else "default"
            lines.append(f"{name} = {toml_value(value)}  # {printable(origin)}")
    return "\n".join(lines) + "\n"


def dump_catalogs(described: Catalogs) -> str:
    """Tables of a TOML file with the catalogs' options, what may be a secret masked."""
    lines = []
    for name, options in described.items():
        is_bare = re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None
        lines += ["", f"[{catalogs.KEY}.{name if is_bare else toml_value(name)}]"]
        lines += [
            f"{toml_value(option)} = {toml_value(catalogs.mask_option(option, value))}"
            for option, value in sorted(options.items())
        ]
    return "".join(f"{line}\n" for line in lines)


def toml_value(value: object) -> str:
    import orjson

    # JSON's texts, numbers, booleans and flat arrays are TOML's as well, but for a bare DEL.
    return mask_urls(orjson.dumps(value).decode().replace("\x7f", "\\u007F"))


def printable(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", "?", text)
