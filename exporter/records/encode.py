"""Values to JSON text, including values that orjson refuses; performs no I/O."""

import json
from typing import Any, Final

import orjson

from exporter.errors import ExporterError

MAX_LEVELS: Final = 200
"""Nesting that all JSON libraries can write; orjson stops at 254."""


def encode_json(value: Any) -> bytes:
    """Compact JSON of a decoded value, keys in the order received.

    orjson refuses lone surrogates, integers beyond 64 bits and more than 254 levels. The standard
    library writes them, escaped to ASCII, so that reading gives the same value. It stops at about
    1,000 levels: then those below `MAX_LEVELS` become JSON text.

    Raises ExporterError if even these are too deep, which no decoder of ours lets pass.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        return dump_text(value).encode("ascii")
    except RecursionError:
        pass
    try:
        return dump_text(flatten(value)).encode("ascii")
    except RecursionError as exc:
        raise ExporterError(
            "a session holds a value that is nested too deeply to be written",
            hint="look at the session in the console of the service",
        ) from exc


def dump_text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def flatten(value: Any) -> Any:
    """A copy with JSON text in place of values that are too deep; without recursion."""
    root = [value]
    waiting: list[tuple[Any, Any, int]] = [(root, 0, 0)]
    while waiting:
        holder, key, level = waiting.pop()
        held = holder[key]
        if not isinstance(held, dict | list):
            continue
        if level == MAX_LEVELS:
            holder[key] = dump_text(held)
            continue
        copied = held.copy()
        holder[key] = copied
        keys = list(copied) if isinstance(copied, dict) else range(len(copied))
        waiting.extend((copied, each, level + 1) for each in keys)
    return root[0]
