"""How the words of users and servers look in a message: short, and in one line; performs no I/O."""

import re
import reprlib

MAX_SHOWN = 200
"""Characters of a value that a message shows."""
MAX_MESSAGE = 2000
"""Characters of a message, whatever it is made of."""

LONG_VALUES = re.compile(
    rf"(?<![^\s(=:,])'(?:[^'\\]|\\.){{{MAX_SHOWN + 1},}}'(?!\w)"
    rf'|(?<![^\s(=:,])"(?:[^"\\]|\\.){{{MAX_SHOWN + 1},}}"(?!\w)'
    rf"|\S{{{MAX_SHOWN + 1},}}",
    re.DOTALL,
)
"""Values in quotes, and words, that are too long. An apostrophe within a word opens none."""

SHORT_REPR = reprlib.Repr()
SHORT_REPR.maxstring = SHORT_REPR.maxother = SHORT_REPR.maxlong = MAX_SHOWN


def shorten(text: str, most: int = MAX_SHOWN) -> str:
    """A text of at most `most` characters: of a longer one the middle is left out."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 3]}...{text[-tail:]}"


def quote(value: object) -> str:
    """A value as Python writes it, cut."""
    if isinstance(value, str):
        return repr(shorten(value))
    try:
        return shorten(SHORT_REPR.repr(value))
    except (ValueError, RecursionError):  # a number of too many digits, or tables in tables
        return f"a value of type {type(value).__name__}"


def shorten_values(message: str) -> str:
    """A message whose values, and itself, are as long as a reader can take in."""
    return shorten(LONG_VALUES.sub(lambda found: shorten_value(found[0]), message), MAX_MESSAGE)


def shorten_value(text: str) -> str:
    """Quotes stay around what they were around."""
    mark = text[0] if text[0] in "'\"" and text[-1] == text[0] else ""
    return f"{mark}{shorten(text.strip(mark) if mark else text)}{mark}"


def one_line(text: str) -> str:
    """A text that neither steers a terminal nor passes for two lines, and that UTF-8 can hold."""
    if text.isprintable():
        return text
    import unicodedata

    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else escape(char)
        for char in text
    )


def escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
