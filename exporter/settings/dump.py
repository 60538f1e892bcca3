"""Settings as a TOML file, and the JSON Schema of such a file; performs no I/O."""

import re
from collections.abc import Mapping
from typing import Any

from exporter.errors import mask_urls, printable
from exporter.settings import catalogs
from exporter.settings.fields import read_fields
from exporter.settings.load import Loaded, build_validator


def build_json_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of the TOML file."""
    schema = build_validator().json_schema()
    properties = {name: without_null(each) for name, each in schema["properties"].items()}
    # Options are texts, numbers or booleans, and tables where their names have dots.
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
    """A key's schema without null, which TOML does not have."""
    kept = {key: value for key, value in schema.items() if key not in {"anyOf", "title"}}
    if kept.get("default", ...) is None:
        del kept["default"]
    kinds = [each for each in schema.get("anyOf", []) if each != {"type": "null"}]
    if len(kinds) == 1:
        return {**kinds[0], **kept}
    return {**kept, "anyOf": kinds} if kinds else kept


def dump_toml(loaded: Loaded) -> str:
    """The effective settings as a TOML file, each line with its origin; unset ones are comments.

    Passwords in URLs are masked.
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


def dump_catalogs(paimon: catalogs.Catalogs) -> str:
    """The catalogs as tables of a TOML file, with possible secrets masked."""
    lines = []
    for name, options in paimon.items():
        is_bare = re.fullmatch(r"[A-Za-z0-9_-]+", name) is not None
        lines += ["", f"[{catalogs.KEY}.{name if is_bare else toml_value(name)}]"]
        lines += [
            f"{toml_value(option)} = {toml_value(catalogs.mask_option(option, value))}"
            for option, value in sorted(options.items())
        ]
    return "".join(f"{line}\n" for line in lines)


def toml_value(value: object) -> str:
    import orjson

    # JSON's texts, numbers, booleans and flat arrays are valid TOML, but for a bare DEL.
    return mask_urls(orjson.dumps(value).decode().replace("\x7f", "\\u007F"))
