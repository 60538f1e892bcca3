"""Where the command line begins: parse it, run its command, report errors, return the exit code.

A command is the module of its name in this folder, and its function `run`. Only the standard
library and the settings' table are imported here: `--help` must be instant.
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
    """The command's `run`; its module is imported for it alone, as such imports take time."""
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
    if sys.stderr is None:  # closed by whoever started us; its number must not become a file's
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 - till the end
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
        reporter.report_interrupt("")
        return 128 + signal.SIGINT
    except BaseException as exc:  # noqa: BLE001 - the last place that can tell the user
        return reporter.report_error(exc)
    return code
