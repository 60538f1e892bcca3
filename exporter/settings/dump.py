"""Settings as a TOML file, and the JSON Schema of such a file; performs no I/O."""

import re
from collections.abc import Mapping
from typing import Any

from exporter.errors import mask_urls
from exporter.settings import catalogs
from exporter.settings.catalogs import Catalogs
from exporter.settings.fields import read_fields
from exporter.settings.load import Loaded, build_validator


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
