"""How errors reach the user: one `error:` line and one `hint:` line each, or one JSON object."""

import re
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise

from exporter.errors import ExporterError, mask_urls, one_line, shorten_values
from exporter.ui.json_text import json_line


@dataclass(slots=True)
class ErrorReporter:
    """Writes errors to stderr, as guessed from the arguments until the settings are known."""

    as_json: bool
    with_traceback: bool
    run_id: str | None = None
    """None until there is a run."""

    def report_error(self, error: BaseException) -> int:
        """Report an error, or each kind of a group's errors once; returns the exit code.

        Reports nothing if the reader of our output has gone: that is how `| head` ends.
        """
        leaves = list(flatten(error))
        if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
            return 1
        for message, hint, gateway_ids in summarize(leaves):
            if self.as_json:
                facts = {"error": shorten_values(message), "hint": hint and shorten_values(hint)}
                self._write_json("error", "error", {**gateway_ids, **facts})
            else:
                hint_line = f"hint: {show(hint)}\n" if hint else ""
                write_stderr(f"error: {show(message)}\n{hint_line}")
        if self.with_traceback and self.as_json:
            self._write_json("error", "traceback", {"traceback": format_traceback(error)})
        elif self.with_traceback:
            write_stderr(format_traceback(error))
        return exit_code_of(error)

    def report_warning(self, message: str) -> None:
        if self.as_json:
            self._write_json("warning", "log", {"message": shorten_values(message)})
        else:
            write_stderr(f"warning: {show(message)}\n")

    def report_interrupt(self, consequence: str = "") -> None:
        message = f"interrupted: {consequence}" if consequence else "interrupted"
        if self.as_json:
            self._write_json("warning", "interrupted", {"message": message})
        else:
            write_stderr(message + "\n")

    def _write_json(self, level: str, event: str, facts: Mapping[str, object]) -> None:
        run = {} if self.run_id is None else {"run_id": self.run_id}
        line = json_line({"event": event, **run, **facts}, at=datetime.now(UTC), level=level)
        write_stderr(line + "\n")


def guess_reporter(arguments: Sequence[str], *, environ: Mapping[str, str]) -> ErrorReporter:
    """The reporter the settings would give, for errors that come before them."""
    as_json = "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)
    verbose = sum(each.count("v") for each in arguments if re.fullmatch("-v+", each))
    verbose += list(arguments).count("--verbose")
    return ErrorReporter(
        as_json=as_json or environ.get("LIVY_EXPORTER_LOG_FORMAT") == "json",
        with_traceback=verbose > 1 or environ.get("LIVY_EXPORTER_VERBOSE") == "2",
    )


def exit_code_of(error: BaseException) -> int:
    """The most specific code of a group: a wrong key (3) rather than a broken connection (1)."""
    return max(map(_exit_code_of_leaf, flatten(error)))


def _exit_code_of_leaf(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return error.exit_code if isinstance(error, ExporterError) else 1


def summarize(
    errors: Sequence[BaseException],
) -> list[tuple[str, str | None, dict[str, str]]]:
    """Message, hint and gateway ids of each kind of error.

    Forty requests that fail alike make one line; it names a gateway only if all are about it.
    """
    kinds: dict[tuple[type[BaseException], str | None], dict[str, dict[str, str]]] = {}
    for error in errors:
        message, hint = describe(error)
        gateway = error.gateway if isinstance(error, ExporterError) else None
        gateway_ids = {} if gateway is None else asdict(gateway)
        kinds.setdefault((type(error), hint), {}).setdefault(message, gateway_ids)
    summary = []
    for (_, hint), messages in kinds.items():
        first, *others = messages
        is_shared = all(messages[each] == messages[first] for each in others)
        more = f" (and {len(others)} more like it)" if others else ""
        summary.append((first + more, hint, messages[first] if is_shared else {}))
    return summary


def describe(error: BaseException) -> tuple[str, str | None]:
    """Message and hint, without passwords that a setting or a library put into a URL."""
    if isinstance(error, ExporterError):
        return mask_urls(str(error)), None if error.hint is None else mask_urls(error.hint)
    return (
        mask_urls(f"internal error, {type(error).__name__}: {error}"),
        "run again with LIVY_EXPORTER_VERBOSE=2 and report the traceback",
    )


def format_traceback(error: BaseException) -> str:
    import traceback

    return mask_urls("".join(traceback.format_exception(error)))


def show(text: str) -> str:
    """The text as one line of limited length: part of it comes from a user or a server."""
    return shorten_values(one_line(text))


def flatten(error: BaseException) -> Iterator[BaseException]:
    """The errors of a group and its groups; any other error itself."""
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from flatten(each)
    else:
        yield error


def write_stderr(text: str) -> None:
    """Write and flush; a reader of stderr that went away changes nothing."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
