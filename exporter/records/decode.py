r"""JSON text to values, also of what orjson refuses to read; performs no I/O.

A page is one document: one text in it that orjson refuses would hide a hundred sessions. Such a
document is read once more by the standard library. What no output could hold is replaced there, and
the object it was in keeps it as `received_<field>`, as the JSON text that came:

- a lone surrogate, or a byte that is no UTF-8 (as `\udc80` to `\udcff`), is escaped in the value:
  `\ud800` are six characters then;
- NaN, an infinity, or a number beyond a double is null;
- a value below the level `MAX_LEVELS` is its own JSON text.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
MAX_DIGITS: Final = 300
"""A whole number of more than these is beyond a double, and costs the square of them to read."""
MAX_LEVELS: Final = 200
"""Of lists and objects within each other; orjson writes 254."""
RECEIVED: Final = "received_"

TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A text, also one that does not end, so that none is begun twice; or a bracket."""


class NumberText(str):
    """A number that no column and no JSON reader holds, as it was written."""

    __slots__ = ()


def decode_json(body: bytes) -> Any:
    """The value of a JSON document. Raises ValueError for what is none."""
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
        raise refusal from None  # of the two readers, the first one's word is the usual one


def read_tolerantly(text: str) -> Any:
    return json.loads(
        text,
        strict=False,  # a bare line break within a text
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
    """An object of values that every output can hold; of a name that comes twice, the last value.

    Objects within it were built before.
    """
    built: dict[str, Any] = {}
    received: dict[str, str] = {}
    for name, value in pairs:
        field, kept = escape(name), clean(value)
        built[field] = kept
        if kept is not value:
            is_number = isinstance(value, NumberText)
            received[field] = str(value) if is_number else json.dumps(value, separators=(",", ":"))
    for field, text in received.items():
        name = f"{RECEIVED}{field}"
        while name in built:
            name = f"{RECEIVED}{name}"
        built[name] = text
    return built


def clean(value: Any) -> Any:
    """The value itself, or what is kept in its place."""
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
    """The text itself if UTF-8 can hold it, with its surrogates escaped if not."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def shorten_depths(text: str) -> Iterator[str]:
    """The document in pieces, in which no more than `MAX_LEVELS` are within each other."""
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
