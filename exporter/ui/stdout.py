"""What a command says on stdout: text, tables and JSON, whole or refused."""

import os
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress

from exporter.errors import DestinationError, printable
from exporter.ui.json_text import dump_json


def print_text(text: str) -> None:
    """Write text to stdout at once, so that a failure shows here and not at exit.

    Raises DestinationError, and BrokenPipeError when the reader has gone.
    """
    if sys.stdout is None:  # closed by whoever started us
        raise DestinationError("stdout is closed", hint="redirect it to a file, or to /dev/null")
    encoding = sys.stdout.encoding
    try:
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()
    except OSError as exc:
        drop_stdout()
        if isinstance(exc, BrokenPipeError):
            raise
        raise DestinationError(
            f"cannot write to stdout: {exc.strerror}", hint="redirect it to another place"
        ) from exc


def drop_stdout() -> None:
    """Let what could not be written go: Python would try, and complain, once more at exit."""
    with suppress(OSError):
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, sys.stdout.fileno())
        os.close(sink)


def print_line(line: str = "") -> None:
    print_text(line + "\n")


def print_json(value: object) -> None:
    print_text(dump_json(value, indent=True) + "\n")


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    print_text(build_table(head, rows))


def build_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Columns as wide as their widest cell; numbers keep to the right."""
    table = [head, *(tuple(map(printable, row)) for row in rows)]
    widths = [max(map(cell_width, column)) for column in zip(*table, strict=True)]
    numeric = [
        bool(column[1:]) and all(is_number(cell) for cell in column[1:])
        for column in zip(*table, strict=True)
    ]
    return "".join(
        "  ".join(
            pad(cell, width, right=right)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        + "\n"
        for row in table
    )


def is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdecimal()


def pad(cell: str, width: int, *, right: bool) -> str:
    space = " " * (width - cell_width(cell))
    return space + cell if right else cell + space


def cell_width(text: str) -> int:
    """Columns that a text takes on a terminal: Chinese characters take two each."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
