"""JSON text of what was received, also of what orjson cannot write; performs no I/O."""

import json
from typing import Any

import orjson

from exporter.errors import ExporterError


def encode_json(value: Any) -> bytes:
    """Compact JSON of a decoded value, keys in the order received.

    orjson refuses lone surrogates, integers beyond 64 bits and more than 254 levels. The standard
    library writes them, escaped to ASCII, so that the value survives being read again.

    Raises ExporterError where the value is nested too deeply for either, at about 1,000 levels.
    """
    try:
        return orjson.dumps(value)
    except TypeError:
        pass
    try:
        return json.dumps(value, separators=(",", ":")).encode("ascii")
    except RecursionError as exc:
        raise ExporterError(
            "a session holds a value that is nested too deeply to be written",
            hint="look at the session in the console of the service",
        ) from exc
