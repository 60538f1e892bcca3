"""The entry point: parse the command line, run the command, report errors, return the exit code.

A command is the function `run` of the module of its name. Only the standard library and the
settings are imported here: `--help` must be instant.
"""

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

from exporter.cli.parser import build_parser
from exporter.cli.runner import Run
from exporter.errors import UsageError
from exporter.ui.errors import ErrorReporter, guess_reporter, write_stderr
from exporter.version import __version__


def load_command(name: str) -> Run:
    """The `run` of a command's module, which is imported only now, as that takes time."""
    if name == "":
        return run_bare
    run: Run = import_module(f"exporter.cli.{name.partition(' ')[0]}").run
    return run


def run_bare(arguments: argparse.Namespace, _: ErrorReporter) -> int:
    """`livy-exporter` without a command: the version, a completion script, or the help."""
    from exporter.ui.stdout import print_line, print_text

    if arguments.version:
        print_line(f"livy-exporter {__version__}")
        return 0
    if arguments.show_completion is not None:
        from exporter.cli.completion import build_script

        print_text(build_script(arguments.parser, arguments.show_completion))
        return 0
    write_stderr(arguments.parser.format_help())
    return UsageError.exit_code


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code and never raises."""
    if sys.stderr is None:  # closed by the parent process; no other file must get its number
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - until the process ends
    words = sys.argv[1:] if argv is None else argv
    reporter = guess_reporter(words, environ=os.environ)
    try:
        arguments, unknown = build_parser().parse_known_args(words)
        if unknown:
            arguments.parser.refuse_unknown(unknown[0])
        code = load_command(arguments.command)(arguments, reporter)
    except SystemExit as exc:  # argparse's --help
        return exc.code if isinstance(exc.code, int) else 0
    except KeyboardInterrupt:
        reporter.report_interrupt()
        return 128 + signal.SIGINT
    except BaseException as exc:  # noqa: BLE001 - the last place that can report it
        return reporter.report_error(exc)
    return code
