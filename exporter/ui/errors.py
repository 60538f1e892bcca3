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


@dataclass(slots=True)
class ErrorReporter:
    """How to tell; guessed from the arguments until the settings are known."""

    as_json: bool
    with_traceback: bool
    run_id: str | None = None
    """Of the run that is being told of; None before there is one."""

    def tell_error(self, error: BaseException) -> int:
        """Tell an error, or those of a group, each kind once; the exit code.

        Says nothing when whoever read our output has gone: that is how `| head` ends.
        """
        leaves = list(flatten(error))
        if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
            return 1
        trace = self._trace(error) if self.with_traceback else None
        for message, hint, about in summarize(leaves):
            if self.as_json:
                facts = {"error": shorten_values(message), "hint": hint and shorten_values(hint)}
                self._tell_json("error", "error", {**about, **facts})
            else:
                told = f"error: {show(message)}\n"
                write_stderr(told + (f"hint: {show(hint)}\n" if hint else ""))
        if trace is not None and self.as_json:
            self._tell_json("error", "traceback", {"traceback": trace})
        elif trace is not None:
            write_stderr(trace)
        return exit_code_of(error)

    def tell_warning(self, message: str) -> None:
        if self.as_json:
            self._tell_json("warning", "log", {"message": shorten_values(message)})
        else:
            write_stderr(f"warning: {show(message)}\n")

    def tell_interrupt(self, consequence: str) -> None:
        message = f"interrupted: {consequence}" if consequence else "interrupted"
        if self.as_json:
            self._tell_json("warning", "interrupted", {"message": message})
        else:
            write_stderr(message + "\n")

    def _tell_json(self, level: str, event: str, facts: Mapping[str, object]) -> None:
        from exporter.ui.logs import json_line

        known = {} if self.run_id is None else {"run_id": self.run_id}
        line = json_line({"event": event, **known, **facts}, at=datetime.now(UTC), level=level)
        write_stderr(line + "\n")

    def _trace(self, error: BaseException) -> str:
        import traceback

        return mask_urls("".join(traceback.format_exception(error)))


def guess_reporter(arguments: Sequence[str], *, environ: Mapping[str, str]) -> ErrorReporter:
    """What the settings would say, for errors that come before them."""
    as_json = "--log-format=json" in arguments or ("--log-format", "json") in pairwise(arguments)
    verbose = sum(each.count("v") for each in arguments if re.fullmatch("-v+", each))
    verbose += list(arguments).count("--verbose")
    return ErrorReporter(
        as_json=as_json or environ.get("LIVY_EXPORTER_LOG_FORMAT") == "json",
        with_traceback=verbose > 1 or environ.get("LIVY_EXPORTER_VERBOSE") == "2",
    )


def exit_code_of(error: BaseException) -> int:
    """Of several, the code that tells most: a wrong key (3) rather than a broken connection (1)."""
    return max(map(exit_code_of_one, flatten(error)))


def exit_code_of_one(error: BaseException) -> int:
    if isinstance(error, KeyboardInterrupt):
        return 128 + signal.SIGINT
    return error.exit_code if isinstance(error, ExporterError) else 1


def summarize(
    errors: Sequence[BaseException],
) -> list[tuple[str, str | None, dict[str, str]]]:
    """Message, hint and gateway of each kind of error; forty requests that fail alike make one
    line.
    """
    alike: dict[tuple[type[BaseException], str | None], dict[str, dict[str, str]]] = {}
    for error in errors:
        message, hint = describe(error)
        alike.setdefault((type(error), hint), {}).setdefault(message, name_gateway(error))
    told = []
    for (_, hint), messages in alike.items():
        first, *others = messages
        about = messages[first] if all(messages[each] == messages[first] for each in others) else {}
        more = f" (and {len(others)} more like it)" if others else ""
        told.append((first + more, hint, about))
    return told


def name_gateway(error: BaseException) -> dict[str, str]:
    """The ids of the gateway that an error is about; none where it is about none."""
    gateway = error.gateway if isinstance(error, ExporterError) else None
    return {} if gateway is None else asdict(gateway)


def describe(error: BaseException) -> tuple[str, str | None]:
    """Message and hint, without the passwords of URLs that a setting or a library put into them."""
    if isinstance(error, ExporterError):
        return mask_urls(str(error)), None if error.hint is None else mask_urls(error.hint)
    return (
        mask_urls(f"internal error, {type(error).__name__}: {error}"),
        "run again with LIVY_EXPORTER_VERBOSE=2 and report the traceback",
    )


def show(text: str) -> str:
    """Part of it is what a user or a server wrote: that must not fill or steer the terminal."""
    return shorten_values(one_line(text))


def flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from flatten(each)
    else:
        yield error


def write_stderr(text: str) -> None:
    """A reader of stderr that went away is no reason to fail otherwise than we do already."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()
