"""What each command runs, signals, exit codes; no logic.

Only the standard library and the settings' table are imported at the top: `--help` must be instant.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, NoReturn

from exporter import __version__
from exporter.config import read_fields
from exporter.errors import UsageError, VerificationError
from exporter.flags import build_parser
from exporter.loading import Loaded, load_settings
from exporter.terminal.telling import Teller, guess_teller, write_stderr

Run = Callable[[argparse.Namespace, Teller], int]


def read_settings(arguments: argparse.Namespace, teller: Teller) -> Loaded:
    """The settings that flags, environment and file make together; errors are told by them."""
    known = {field.name for field in read_fields()}
    flags = {name: value for name, value in vars(arguments).items() if name in known}
    if "verbose" in flags:
        flags["verbose"] = min(flags["verbose"], 2)
    loaded = load_settings(
        flags, environ=os.environ, config_file=getattr(arguments, "config", None)
    )
    teller.as_json = loaded.settings.log_format == "json"
    teller.with_traceback = loaded.settings.verbose > 1
    return loaded


def run_nothing(arguments: argparse.Namespace, _: Teller) -> int:
    from exporter.terminal.printing import print_line, print_text

    if arguments.version:
        print_line(f"livy-exporter {__version__}")
        return 0
    if arguments.show_completion is not None:
        from exporter.terminal.completion import build_script

        print_text(build_script(arguments.parser, arguments.show_completion))
        return 0
    write_stderr(arguments.parser.format_help())
    return UsageError.exit_code


def run_export(arguments: argparse.Namespace, teller: Teller) -> int:
    settings = read_settings(arguments, teller).settings
    from exporter.commands import show_export
    from exporter.terminal.metrics import open_metrics, run_with_metrics

    run_id = name_run(teller)
    metrics = open_metrics(
        settings.metrics_file, output=settings.output, manifest=settings.manifest
    )
    # What has gone to stdout cannot be taken back.
    fate = "the output is cut short" if settings.output == "-" else "nothing was published"
    return run_with_metrics(
        lambda: run_async(
            lambda: show_export(settings, run_id=run_id, environ=os.environ, listen=metrics),
            on_interrupt=lambda: teller.tell_interrupt(fate),
        ),
        metrics,
        teller=teller,
    )


def run_plan(arguments: argparse.Namespace, teller: Teller) -> int:
    settings = read_settings(arguments, teller).settings
    from exporter.commands import show_plan

    run_id = name_run(teller)
    return run_async(
        lambda: show_plan(settings, run_id=run_id, environ=os.environ, as_json=arguments.json),
        on_interrupt=lambda: teller.tell_interrupt(""),
    )


def run_gateways(arguments: argparse.Namespace, teller: Teller) -> int:
    settings = read_settings(arguments, teller).settings
    from exporter.commands import show_gateways

    run_id = name_run(teller)
    return run_async(
        lambda: show_gateways(settings, run_id=run_id, environ=os.environ, as_json=arguments.json),
        on_interrupt=lambda: teller.tell_interrupt(""),
    )


def run_verify(arguments: argparse.Namespace, teller: Teller) -> int:
    settings = read_settings(arguments, teller).settings
    from exporter.commands import show_verify

    code = 0
    for each in show_verify(settings, arguments.target, environ=os.environ, as_json=arguments.json):
        code = teller.tell_error(VerificationError(each.message, hint=each.hint))
    return code


def run_demo(arguments: argparse.Namespace, teller: Teller) -> int:
    settings = read_settings(arguments, teller).settings
    from exporter.demo import show_demo

    return run_async(
        lambda: show_demo(arguments.directory, watch=settings, environ=os.environ),
        on_interrupt=lambda: teller.tell_interrupt(""),
    )


def run_emulate(arguments: argparse.Namespace, _: Teller) -> int:
    from exporter.emulate import EmulatorOptions, serve_emulator

    options = EmulatorOptions(
        **{name: getattr(arguments, name) for name in EmulatorOptions.__slots__}
    )
    # To be interrupted is how a server ends: there is nothing to tell.
    return run_async(lambda: serve_emulator(options), on_interrupt=lambda: None)


def run_config(arguments: argparse.Namespace, _: Teller) -> NoReturn:
    raise UsageError(
        f"{arguments.parser.prog} needs to know what", hint="say `config show` or `config schema`"
    )


def run_config_show(arguments: argparse.Namespace, teller: Teller) -> int:
    loaded = read_settings(arguments, teller)
    from exporter.commands import show_config

    show_config(loaded, environ=os.environ)
    return 0


def run_config_schema(_: argparse.Namespace, __: Teller) -> int:
    from exporter.commands import show_config_schema

    show_config_schema()
    return 0


RUNS: Mapping[str, Run] = {
    "": run_nothing,
    "export": run_export,
    "plan": run_plan,
    "gateways": run_gateways,
    "verify": run_verify,
    "demo": run_demo,
    "emulate": run_emulate,
    "config": run_config,
    "config show": run_config_show,
    "config schema": run_config_schema,
}


def name_run(teller: Teller) -> str:
    from datetime import UTC, datetime

    from exporter.preparing import build_run_id

    teller.run_id = build_run_id(datetime.now(UTC))
    return teller.run_id


def settle_memory() -> None:
    """Settings of the process that pay for an export; the library leaves its host's alone.

    The collector is spared what cannot be garbage: modules, and pages that live for milliseconds.
    Arrow's own allocator keeps some 40 MiB more than it uses while threads share it; malloc does
    not, at the same speed.
    """
    import gc

    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")


def run_async(
    command: Callable[[], Coroutine[Any, Any, None]], *, on_interrupt: Callable[[], None]
) -> int:
    """Run a command until it ends, or until SIGINT or SIGTERM cancels it; the exit code."""
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
            # A signal that came too late to stop it changes nothing.
            finished = True
            tasks.cancel_scope.cancel()

    settle_memory()
    anyio.run(run)
    if finished or not caught:
        return 0
    on_interrupt()
    return 128 + caught[0]


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code and never raises."""
    if sys.stderr is None:  # closed by whoever started us; its number must not become a file's
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - till the end
    words = sys.argv[1:] if argv is None else argv
    teller = guess_teller(words, environ=os.environ)
    try:
        arguments, unknown = build_parser().parse_known_args(words)
        if unknown:
            arguments.parser.refuse_unknown(unknown[0])
        code = RUNS[arguments.command](arguments, teller)
    except SystemExit as exc:  # argparse's --help
        return exc.code if isinstance(exc.code, int) else 0
    except KeyboardInterrupt:
        teller.tell_interrupt("")
        return 128 + signal.SIGINT
    except BaseException as exc:  # noqa: BLE001 - the last place that can tell the user
        return teller.tell_error(exc)
    return code
