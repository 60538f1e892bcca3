"""Text, tables and JSON on stdout, with an error if it cannot be written."""

import os
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress

from exporter.errors import DestinationError, printable
from exporter.ui.json_text import dump_json


def print_text(text: str) -> None:
    """Write text to stdout and flush it, so that it fails here and not at exit.

    Raises DestinationError, and BrokenPipeError when the reader has gone.
    """
    if sys.stdout is None:  # closed by the parent process
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
    """Drop the unwritten text: Python would try to write it again at exit, and complain."""
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
    """Columns as wide as their widest cell; columns of numbers are aligned to the right."""
    table = [head, *(tuple(map(printable, row)) for row in rows)]
    columns = [align(column) for column in zip(*table, strict=True)]
    return "".join("  ".join(row).rstrip() + "\n" for row in zip(*columns, strict=True))


def align(column: tuple[str, ...]) -> list[str]:
    """The cells padded to the width of the widest."""
    width = max(map(cell_width, column))
    is_numeric = len(column) > 1 and all(map(is_number, column[1:]))
    return [
        f"{space}{cell}" if is_numeric else f"{cell}{space}"
        for cell in column
        for space in [" " * (width - cell_width(cell))]
    ]


def is_number(cell: str) -> bool:
    return cell.replace(",", "").replace(".", "", 1).isdecimal()


def cell_width(text: str) -> int:
    """Columns of a text on a terminal: Chinese characters take two each."""
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text)
