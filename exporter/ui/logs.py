"""Log records of this package as text or JSON lines on a stream; other loggers are left alone."""

import logging
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal, TextIO, assert_never

from exporter.errors import mask_urls, one_line, shorten_values
from exporter.model import Gateway
from exporter.times import format_instant
from exporter.ui.json_text import dump_json

LogFormat = Literal["text", "json"]
WriteLine = Callable[[str], None]
"""Takes a whole line without its line end."""

EXTRA_FIELDS = ("event", "gateway", "call", "attempt", "wait_s", "error")
"""What a record's `extra` may add to a JSON line. Nothing else of a record is written: an object
attached for another purpose must not end up in a log with whatever its repr shows."""


def configure_logging(
    *, verbosity: int, log_format: LogFormat, stream: TextIO, run_id: str
) -> "LineHandler":
    """Send the records of the `exporter` logger to `stream`, and only there.

    `verbosity` is -1 (errors), 0 (and warnings), 1 (and what happens, such as retries) or 2
    (everything, with tracebacks). A second call replaces the first one's handler.
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
    for former in [each for each in package_logger.handlers if isinstance(each, LineHandler)]:
        package_logger.removeHandler(former)
    package_logger.addHandler(handler)
    package_logger.setLevel(level_of(verbosity))
    package_logger.propagate = False
    return handler


def level_of(verbosity: int) -> int:
    if verbosity < 0:
        return logging.ERROR
    return {0: logging.WARNING, 1: logging.INFO}.get(verbosity, logging.DEBUG)


def line_writer(stream: TextIO) -> WriteLine:
    """Lines straight to `stream`, each flushed; a reader that went away is no reason to fail."""

    def write_line(line: str) -> None:
        with suppress(OSError):
            stream.write(f"{line}\n")
            stream.flush()

    return write_line


def json_line(fields: Mapping[str, object], *, at: datetime, level: str) -> str:
    """One JSON object: the time (RFC 3339, UTC, milliseconds), the level, then `fields`, whose URLs
    show no password.
    """
    shown = {
        name: mask_urls(each) if isinstance(each, str) else each for name, each in fields.items()
    }
    return dump_json({"ts": format_instant(at), "level": level, **shown})


def gateway_fields(gateway: Gateway) -> dict[str, str]:
    """A gateway as JSON lines name it."""
    return asdict(gateway)


class LineHandler(logging.Handler):
    """Gives each record as a line to whoever owns the terminal at the time."""

    def __init__(self, write_line: WriteLine) -> None:
        super().__init__()
        self._write_line = write_line

    @contextmanager
    def writing_through(self, write_line: WriteLine) -> Iterator[None]:
        """While inside, lines go to `write_line`: a bar puts them above itself."""
        former, self._write_line = self._write_line, write_line
        try:
            yield
        finally:
            self._write_line = former

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._write_line(self.format(record))
        except Exception:  # noqa: BLE001  # as logging asks: a log line never ends the run
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  # logging's name
        """Say where the bad call is; the standard library would print its arguments too."""
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
        line = shorten_values(one_line(mask_urls(": ".join(parts))))
        if self._is_full and record.exc_info is not None:
            return f"{line}\n{traceback_of(record)}"
        return line


class JsonFormatter(logging.Formatter):
    """One object a record; `error` names its exception, `traceback` is there with verbosity 2."""

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
                fields |= gateway_fields(extra)
            elif extra is not None:
                fields[name] = extra
        if self._is_full and record.exc_info is not None:
            fields["traceback"] = traceback_of(record)
        at = datetime.fromtimestamp(record.created, UTC)
        return json_line(fields, at=at, level=record.levelname.lower())


def error_of(record: logging.LogRecord) -> str | None:
    """The exception a record carries, in one line; None when it carries none."""
    error = None if record.exc_info is None else record.exc_info[1]
    return None if error is None else f"{type(error).__name__}: {error}"


def traceback_of(record: logging.LogRecord) -> str:
    error = None if record.exc_info is None else record.exc_info[1]
    text = "" if error is None else "".join(traceback.format_exception(error))
    return mask_urls(text.rstrip("\n"))
