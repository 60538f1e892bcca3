"""JSON as text for a terminal or a log, whatever it is made of."""

from typing import Any


def dump_json(value: object, *, indent: bool = False) -> str:
    """A value as JSON; of a name that is no UTF-8 the other bytes are escaped."""
    import orjson

    option = orjson.OPT_INDENT_2 if indent else 0
    try:
        return orjson.dumps(value, option=option).decode()
    except TypeError:
        return orjson.dumps(escape_surrogates(value), option=option).decode()


def escape_surrogates(value: Any) -> Any:
    """The value with texts that UTF-8 can hold: Python's for the bytes that are none."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {escape_surrogates(key): escape_surrogates(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [escape_surrogates(each) for each in value]
    return value
