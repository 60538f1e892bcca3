"""Log records of this package as text or JSON lines on a stream; other loggers are left alone."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TextIO, assert_never

from exporter.errors import mask_urls, shorten_values
from exporter.model import Gateway
from exporter.settings.settings import LogFormat
from exporter.ui.errors import format_traceback, show
from exporter.ui.json_text import json_line

WriteLine = Callable[[str], None]
"""Takes a line without its line end."""

EXTRA_FIELDS = ("event", "gateway", "call", "attempt", "wait_s", "error")
"""The only fields of a record's `extra` in a JSON line: the repr of any other object attached to a
record must not end up in a log."""


def configure_logging(
    *, verbosity: int, log_format: LogFormat, stream: TextIO, run_id: str
) -> "LineHandler":
    """Send the records of the `exporter` logger to `stream`, and only there.

    `verbosity` is -1 (errors), 0 (and warnings), 1 (and events such as retries) or 2 (everything,
    with tracebacks). A second call replaces the first one's handler.
    """
    match log_format:
        case "text":
            formatter: logging.Formatter = TextFormatter(verbosity=verbosity)
        case "json":
            formatter = JsonFormatter(verbosity=verbosity, run_id=run_id)
        case _:
            assert_never(log_format)
    handler = LineHandler(line_writer(stream))
    handler.setFormatter(formatter)
    package_logger = logging.getLogger("exporter")
    for previous in [each for each in package_logger.handlers if isinstance(each, LineHandler)]:
        package_logger.removeHandler(previous)
    package_logger.addHandler(handler)
    package_logger.setLevel(level_of(verbosity))
    package_logger.propagate = False
    return handler


def level_of(verbosity: int) -> int:
    if verbosity < 0:
        return logging.ERROR
    return {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)


def line_writer(stream: TextIO) -> WriteLine:
    """A function that writes lines to `stream` and flushes each; a reader that went away changes
    nothing.
    """

    def write_line(line: str) -> None:
        with suppress(OSError):
            stream.write(f"{line}\n")
            stream.flush()

    return write_line


class LineHandler(logging.Handler):
    """Hands each record as a line to the present owner of the terminal."""

    def __init__(self, write_line: WriteLine) -> None:
        super().__init__()
        self._write_line = write_line

    @contextmanager
    def redirect_to(self, write_line: WriteLine) -> Iterator[None]:
        """Within the block, lines go to `write_line`: a bar puts them above itself."""
        previous, self._write_line = self._write_line, write_line
        try:
            yield
        finally:
            self._write_line = previous

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write_line(self.format(record))
        except Exception:  # noqa: BLE001  # logging's contract: a log line never ends the run
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Log the place of the bad call; the standard library would print its arguments too."""
        substitute = logging.makeLogRecord(
            {
                "name": record.name,
                "levelname": "ERROR",
                "msg": f"no log line could be made of line {record.lineno} of {record.filename}",
            }
        )
        with suppress(Exception):
            self._write_line(self.format(substitute))


class TextFormatter(logging.Formatter):
    """`warning: message`; with verbosity 2 also the logger's name and tracebacks."""

    def __init__(self, *, verbosity: int) -> None:
        super().__init__()
        self._is_full = verbosity >= 2

    def format(self, record: logging.LogRecord) -> str:
        parts = [record.levelname.lower(), record.getMessage()]
        if self._is_full:
            parts.insert(1, record.name)
        error = error_of(record)
        if error is not None:
            parts.append(error)
        line = show(mask_urls(": ".join(parts)))
        if self._is_full and record.exc_info is not None:
            return f"{line}\n{traceback_of(record)}"
        return line


class JsonFormatter(logging.Formatter):
    """One object a record; `error` is its exception, `traceback` comes with verbosity 2."""

    def __init__(self, *, verbosity: int, run_id: str) -> None:
        super().__init__()
        self._is_full = verbosity >= 2
        self._run_id = run_id

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, object] = {
            "event": "log",
            "run_id": self._run_id,
            "logger": record.name,
            "message": shorten_values(record.getMessage()),
        }
        error = error_of(record)
        if error is not None:
            fields["error"] = error
        for name in EXTRA_FIELDS:
            extra = getattr(record, name, None)
            if isinstance(extra, Gateway):
                fields |= asdict(extra)
            elif extra is not None:
                fields[name] = extra
        if self._is_full and record.exc_info is not None:
            fields["traceback"] = traceback_of(record)
        at = datetime.fromtimestamp(record.created, UTC)
        return json_line(fields, at=at, level=record.levelname.lower())


def error_of(record: logging.LogRecord) -> str | None:
    """The exception a record carries, as one line."""
    error = exception_of(record)
    return None if error is None else f"{type(error).__name__}: {error}"


def traceback_of(record: logging.LogRecord) -> str:
    error = exception_of(record)
    return "" if error is None else format_traceback(error).rstrip("\n")


def exception_of(record: logging.LogRecord) -> BaseException | None:
    return None if record.exc_info is None else record.exc_info[1]
