r"""JSON text to values, including text that orjson refuses; performs no I/O.

A page is one document: a single value that orjson refuses would hide a hundred sessions. Such a
document is read again by the standard library. A value that no output could hold is replaced, and
its object keeps the JSON text that came as `received_<field>`:

- a lone surrogate, or a byte that is no UTF-8 (`\udc80` to `\udcff`), is escaped: `\ud800` becomes
  six characters;
- NaN, an infinity, or a number beyond a double becomes null;
- a value below the level `MAX_LEVELS` becomes its own JSON text.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

from exporter.records.encode import MAX_LEVELS, dump_text

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
MAX_DIGITS: Final = 300
"""Longer integers hardly fit a double, and parsing takes time by the square of their length."""
RECEIVED: Final = "received_"

TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A bracket, or a string, which may lack its end: it is matched once all the same."""


class NumberText(str):
    """A number that no column and no JSON reader can hold, as its text."""

    __slots__ = ()


def decode_json(body: bytes) -> Any:
    """The value of a JSON document. Raises ValueError for other bytes."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        refusal = exc
    text = body.removeprefix(BYTE_ORDER_MARK).decode("utf-8", "surrogateescape")
    try:
        try:
            return read_tolerantly(text)
        except RecursionError:
            return read_tolerantly("".join(shorten_depths(text)))
    except (ValueError, RecursionError):
        raise refusal from None  # orjson's message is the usual one


def read_tolerantly(text: str) -> Any:
    return json.loads(
        text,
        strict=False,  # allows a bare line break within a string
        parse_int=read_integer,
        parse_float=read_float,
        parse_constant=NumberText,
        object_pairs_hook=build_object,
    )


def read_integer(digits: str) -> int | NumberText:
    return int(digits) if len(digits) <= MAX_DIGITS else NumberText(digits)


def read_float(digits: str) -> float | NumberText:
    number = float(digits)
    return number if abs(number) != float("inf") else NumberText(digits)


def build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of values that every output can hold; the last value wins if a name repeats.

    Inner objects were built before.
    """
    built: dict[str, Any] = {}
    received: dict[str, str] = {}
    for name, value in pairs:
        field, kept = escape(name), clean(value)
        built[field] = kept
        if kept is not value:
            is_number = isinstance(value, NumberText)
            received[field] = str(value) if is_number else dump_text(value)
    for field, text in received.items():
        name = f"{RECEIVED}{field}"
        while name in built:
            name = f"{RECEIVED}{name}"
        built[name] = text
    return built


def clean(value: Any) -> Any:
    """The value itself, or its replacement."""
    match value:
        case NumberText():
            return None
        case str():
            return escape(value)
        case list():
            kept = [clean(each) for each in value]
            is_same = all(one is other for one, other in zip(value, kept, strict=True))
            return value if is_same else kept
        case _:
            return value


def escape(text: str) -> str:
    """The text itself, or a copy with escapes for surrogates, which UTF-8 cannot hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def shorten_depths(text: str) -> Iterator[str]:
    """The pieces of a document that nests no deeper than `MAX_LEVELS`."""
    level, start = 0, 0
    for token in TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                if level == MAX_LEVELS:
                    yield text[start : token.start()]
                    start = token.start()
                level += 1
            case "]" | "}":
                level -= 1
                if level == MAX_LEVELS:
                    yield json.dumps(text[start : token.end()])
                    start = token.end()
            case _:
                pass
    yield text[start:]
