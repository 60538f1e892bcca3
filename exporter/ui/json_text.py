"""JSON as text for a terminal or a log, from any value."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from exporter.errors import mask_urls
from exporter.times import format_instant


def json_line(fields: Mapping[str, object], *, at: datetime, level: str) -> str:
    """One JSON object: the time, the level, then `fields`, without the passwords of URLs."""
    shown = {
        name: mask_urls(each) if isinstance(each, str) else each for name, each in fields.items()
    }
    return dump_json({"ts": format_instant(at), "level": level, **shown})


def dump_json(value: object, *, indent: bool = False) -> str:
    """A value as JSON; bytes of a file name that are no UTF-8 are escaped."""
    import orjson

    option = orjson.OPT_INDENT_2 if indent else 0
    try:
        return orjson.dumps(value, option=option).decode()
    except TypeError:
        return orjson.dumps(escape_surrogates(value), option=option).decode()


def escape_surrogates(value: Any) -> Any:
    """The value with an escape for each surrogate, by which Python stands in for such bytes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {escape_surrogates(key): escape_surrogates(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [escape_surrogates(each) for each in value]
    return value
