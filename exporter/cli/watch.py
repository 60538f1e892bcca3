"""Logs and progress of a command while it runs."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from exporter.events import Event
from exporter.settings.settings import ProgressMode, Settings
from exporter.ui.logs import configure_logging
from exporter.ui.progress import open_progress


@contextmanager
def watch(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], quiet: bool
) -> Iterator[Callable[[Event], None]]:
    """Progress and logs on stderr, by the settings; yields the listener for the run's events."""
    verbosity = -1 if settings.quiet else settings.verbose
    handler = configure_logging(
        verbosity=verbosity, log_format=settings.log_format, stream=sys.stderr, run_id=run_id
    )
    with (
        open_progress(
            mode=choose_progress(settings),
            log_format=settings.log_format,
            stream=sys.stderr,
            quiet=quiet,
            environ=environ,
        ) as progress,
        handler.redirect_to(progress.write_line),
    ):
        yield progress


def choose_progress(settings: Settings) -> ProgressMode:
    """The requested progress, but none if a bar and the sessions would share a terminal."""
    shares_terminal = settings.output == "-" and sys.stdout is not None and sys.stdout.isatty()
    if shares_terminal and settings.progress in {"auto", "bar"}:
        return "none"
    return settings.progress
