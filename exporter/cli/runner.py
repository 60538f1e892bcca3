"""The steps that all commands share: settings, signals, exit codes."""

import argparse
import os
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from exporter.settings.fields import read_fields
from exporter.settings.load import Loaded, load_settings
from exporter.ui.errors import ErrorReporter

Run = Callable[[argparse.Namespace, ErrorReporter], int]


def read_settings(arguments: argparse.Namespace, reporter: ErrorReporter) -> Loaded:
    """The settings from flags, environment and file; the reporter follows them from now on."""
    names = {field.name for field in read_fields()}
    flags = {name: value for name, value in vars(arguments).items() if name in names}
    if "verbose" in flags:
        flags["verbose"] = min(flags["verbose"], 2)
    loaded = load_settings(
        flags, environ=os.environ, config_file=getattr(arguments, "config", None)
    )
    reporter.as_json = loaded.settings.log_format == "json"
    reporter.with_traceback = loaded.settings.verbose > 1
    return loaded


def start_run(reporter: ErrorReporter) -> str:
    """A new run's id, which the reporter names from now on."""
    from datetime import UTC, datetime

    from exporter.runs.prepare import build_run_id

    reporter.run_id = build_run_id(datetime.now(UTC))
    return reporter.run_id


def tune_memory() -> None:
    """Settings of the process, so that only the command line makes them, not the library.

    The garbage collector skips modules, and runs less often: pages live for milliseconds. Arrow's
    own allocator retains some 40 MiB while threads share it; malloc does not, at the same speed.
    """
    import gc

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def run_async(
    command: Callable[[], Coroutine[Any, Any, None]], *, on_interrupt: Callable[[], None]
) -> int:
    """Run a command until it ends, or SIGINT or SIGTERM cancels it; returns the exit code."""
    import anyio

    caught: list[signal.Signals] = []
    finished = False

    async def cancel_on_signal(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                caught.append(number)
                scope.cancel()

    async def run() -> None:
        nonlocal finished
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_signal, tasks.cancel_scope)
            await command()
            # A signal from now on changes nothing.
            finished = True
            tasks.cancel_scope.cancel()

    tune_memory()
    anyio.run(run)
    if finished or not caught:
        return 0
    on_interrupt()
    return 128 + caught[0]
