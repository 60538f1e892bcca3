"""Commands and flags, signals, exit codes; no logic.

Only the standard library and the settings' table are imported at the top: `--help` must be instant.
"""

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, NoReturn

from exporter import __version__
from exporter.config import Field, Group, Loaded, Settings, load_settings, read_fields, suggest
from exporter.errors import ExporterError, UsageError

SERVICE_GROUPS: tuple[Group, ...] = ("identity and service", "what to list", "speed", "watching")
ALL_GROUPS: tuple[Group, ...] = (
    "identity and service",
    "what to list",
    "output",
    "speed",
    "watching",
)

EXPORT_EPILOG = """\
examples:
  livy-exporter export --region cn-hangzhou --workspace w-1 --output sessions.parquet
  livy-exporter export --config livy.toml --gateway lc-1 --output sessions.ndjson.zst
  livy-exporter export --workspace all --output - | jq -r .sessionId

Every flag is also a key of the TOML file (page_size = 100) and an environment variable
(LIVY_EXPORTER_PAGE_SIZE=100); a flag wins over the environment, that over the file.

exit codes: 0 complete and published, 1 failed, 2 usage or an unknown workspace or gateway,
3 credentials or permission, 4 completeness not proven, 130/143 interrupted"""

TOP_EPILOG = """\
start here:
  livy-exporter demo                            no account needed
  livy-exporter gateways --region cn-hangzhou   what this identity can see
  livy-exporter plan --help                     what an export would take
  livy-exporter export --help                   the main job"""


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are errors like all others: one line and a hint."""

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        if "invalid choice: '" in message:
            word = message.split("invalid choice: '")[1].split("'")[0]
            choices = message.split("(choose from ")[1].rstrip(")").replace("'", "").split(", ")
            message, hint = f"unknown command {word!r}", suggest(word, choices)
        raise UsageError(message, hint=hint)

    def refuse_unknown(self, argument: str) -> NoReturn:
        flag = argument.split("=")[0]
        near = suggest(flag, sorted(self._option_string_actions))
        hint = near if near.startswith("did you mean") else f"see `{self.prog} --help`"
        raise UsageError(f"unknown argument {flag}", hint=hint)


def build_parser() -> Parser:
    parser = Parser(
        prog="livy-exporter",
        description="Complete, concurrent export of Livy Gateway session history.",
        epilog=TOP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"livy-exporter {__version__}")
    parser.add_argument(
        "--show-completion",
        metavar="SHELL",
        help="print the completion script of bash, zsh or tcsh, and exit",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def add(
        name: str, help_text: str, run: Callable[[argparse.Namespace], int], **more: Any
    ) -> Parser:
        command: Parser = commands.add_parser(
            name,
            help=help_text,
            description=help_text[0].upper() + help_text[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
            **more,
        )
        command.set_defaults(run=run, parser=command)
        return command

    add_settings(
        add(
            "export", "export session history to a file or stdout", run_export, epilog=EXPORT_EPILOG
        ),
        ALL_GROUPS,
    )
    plan = add("plan", "ask each gateway for one page and say what an export would take", run_plan)
    add_settings(plan, ALL_GROUPS)
    add_json(plan)
    gateways = add("gateways", "list the gateways that discovery finds", run_gateways)
    add_settings(gateways, SERVICE_GROUPS)
    add_json(gateways)
    add_demo(
        add("demo", "export from a local emulator and show the result; needs no account", run_demo)
    )
    add_emulate(add("emulate", "serve the API locally, for tests and other clients", run_emulate))
    config = add("config", "show the configuration or its JSON Schema", lambda _: config_usage())
    kinds = config.add_subparsers(metavar="KIND", title="kinds", dest="kind")
    show = kinds.add_parser(
        "show", help="the effective configuration, secrets masked", allow_abbrev=False
    )
    show.set_defaults(run=run_config_show, parser=show)
    add_settings(show, ALL_GROUPS)
    schema = kinds.add_parser("schema", help="the JSON Schema of the TOML file", allow_abbrev=False)
    schema.set_defaults(run=run_config_schema, parser=schema)
    return parser


def config_usage() -> NoReturn:
    raise UsageError("config needs a kind", hint="`livy-exporter config show` or `config schema`")


def add_settings(parser: argparse.ArgumentParser, groups: Sequence[Group]) -> None:
    """A flag for each setting of the groups; values stay text, the settings' model reads them."""
    fields = read_fields()
    for title in groups:
        group = parser.add_argument_group(title)
        if title == "identity and service":
            group.add_argument(
                "--config", metavar="FILE", help="TOML file; keys as in config.example.toml"
            )
        for field in fields:
            if field.option.group == title:
                add_flag(group, field)


def add_flag(group: argparse._ArgumentGroup, field: Field) -> None:
    names = [field.flag] if field.option.short is None else ["-" + field.option.short, field.flag]
    help_text = field.option.help.replace("%", "%%")
    missing = argparse.SUPPRESS
    if field.kind == "switch":
        group.add_argument(
            *names,
            dest=field.name,
            action=argparse.BooleanOptionalAction,
            default=missing,
            help=help_text,
        )
        return
    if field.kind == "count":
        group.add_argument(*names, dest=field.name, action="count", default=missing, help=help_text)
        return
    if field.default not in (None, ()):
        shown = ",".join(field.default) if isinstance(field.default, tuple) else field.default
        help_text += f" [{shown:g}s]" if isinstance(shown, float) else f" [{shown}]"
    group.add_argument(
        *names,
        dest=field.name,
        action="append" if field.kind == "list" else "store",
        default=missing,
        metavar=field.option.metavar or "{" + ",".join(field.choices) + "}",
        help=help_text,
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--directory", metavar="DIR", default="livy-demo", help="where to write [livy-demo]"
    )


def add_emulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", metavar="N", default="0", help="port on 127.0.0.1 [a free one]")
    parser.add_argument(
        "--from", metavar="FILE", dest="source", help="serve an exported NDJSON file"
    )
    parser.add_argument(
        "--sessions", metavar="N", default="10000", help="sessions a gateway [10000]"
    )
    parser.add_argument("--gateways", metavar="N", default="2", help="gateways [2]")
    parser.add_argument("--latency", metavar="DURATION", default="20ms", help="of an answer [20ms]")
    parser.add_argument("--jitter", metavar="DURATION", default="0s", help="at most, on top [0s]")
    parser.add_argument(
        "--anonymous", action="store_true", help="answer unsigned requests too, such as curl's"
    )
    parser.add_argument("--seed", metavar="N", default="1", help="of the made-up sessions [1]")


def read_settings(arguments: argparse.Namespace) -> Loaded:
    """The settings that the flags, the file and the environment make together, kept for reporting."""
    known = {field.name for field in read_fields()}
    flags = {name: value for name, value in vars(arguments).items() if name in known}
    loaded = load_settings(
        flags, environ=os.environ, config_file=getattr(arguments, "config", None)
    )
    arguments.settings = loaded.settings
    return loaded


def run_export(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments).settings
    from exporter.commands import show_export

    return run_async(lambda: show_export(settings, environ=os.environ))


def run_plan(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments).settings
    from exporter.commands import show_plan

    return run_async(lambda: show_plan(settings, environ=os.environ, as_json=arguments.json))


def run_gateways(arguments: argparse.Namespace) -> int:
    settings = read_settings(arguments).settings
    from exporter.commands import show_gateways

    return run_async(lambda: show_gateways(settings, environ=os.environ, as_json=arguments.json))


def run_demo(arguments: argparse.Namespace) -> int:
    from exporter.demo import show_demo

    return run_async(lambda: show_demo(arguments.directory, environ=os.environ))


def run_emulate(arguments: argparse.Namespace) -> int:
    from exporter.commands import serve_emulator

    return run_async(lambda: serve_emulator(arguments))


def run_config_show(arguments: argparse.Namespace) -> int:
    loaded = read_settings(arguments)
    from exporter.commands import show_config

    show_config(loaded, environ=os.environ)
    return 0


def run_config_schema(_: argparse.Namespace) -> int:
    from exporter.commands import show_config_schema

    show_config_schema()
    return 0


def show_completion(shell: str) -> int:
    import shtab

    if shell not in shtab.SUPPORTED_SHELLS:
        raise UsageError(
            f"no completion for {shell!r}", hint="known: " + ", ".join(shtab.SUPPORTED_SHELLS)
        )
    write_stdout(shtab.complete(build_parser(), shell) + "\n")
    return 0


def write_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def run_async(command: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a command until it ends, or until SIGINT or SIGTERM cancels it; the exit code."""
    import anyio

    caught: list[signal.Signals] = []

    async def cancel_on_signal(scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                caught.append(number)
                scope.cancel()

    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(cancel_on_signal, tasks.cancel_scope)
            await command()
            tasks.cancel_scope.cancel()

    anyio.run(run)
    if caught:
        write_stderr("interrupted: nothing was published\n")
        return 128 + caught[0]
    return 0


def write_stderr(text: str) -> None:
    """A reader of stderr that went away is no reason to fail otherwise than we do already."""
    with contextlib.suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code and never raises."""
    arguments = argparse.Namespace()
    try:
        parser = build_parser()
        _, unknown = parser.parse_known_args(argv, namespace=arguments)
        if unknown:
            getattr(arguments, "parser", parser).refuse_unknown(unknown[0])
        if arguments.show_completion is not None:
            return show_completion(arguments.show_completion)
        if arguments.command is None:
            write_stderr(parser.format_help())
            return UsageError.exit_code
        code: int = arguments.run(arguments)
    except SystemExit as exc:  # argparse's --help and --version
        return exc.code if isinstance(exc.code, int) else 0
    except KeyboardInterrupt:
        write_stderr("interrupted: nothing was published\n")
        return 128 + signal.SIGINT
    except BaseException as exc:  # noqa: BLE001 - the last place that can tell the user
        return report(exc, settings=getattr(arguments, "settings", Settings()))
    return code


def report(error: BaseException, *, settings: Settings) -> int:
    """Tell an error, or several that came together, each in one line with its hint; the exit code."""
    leaves = list(flatten(error))
    if any(isinstance(leaf, BrokenPipeError) for leaf in leaves):
        # Whoever read our output has enough. Python would complain once more when it flushes stdout at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    told: set[str] = set()
    for leaf in leaves:
        message, hint = describe(leaf)
        if message not in told:
            told.add(message)
            write_stderr(render_error(message, hint, as_json=settings.log_format == "json"))
    if settings.verbose > 1:
        import traceback

        write_stderr("".join(traceback.format_exception(error)))
    first = leaves[0]
    return first.exit_code if isinstance(first, ExporterError) else 1


def flatten(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for each in error.exceptions:
            yield from flatten(each)
    else:
        yield error


def describe(error: BaseException) -> tuple[str, str | None]:
    if isinstance(error, ExporterError):
        return str(error), error.hint
    name = type(error).__name__
    return f"internal error, {name}: {error}", "run again with -vv and report the traceback"


def render_error(message: str, hint: str | None, *, as_json: bool) -> str:
    if as_json:
        from datetime import UTC, datetime

        from exporter.logs import json_line

        fields = {"event": "error", "error": message, "hint": hint}
        return json_line(fields, at=datetime.now(UTC), level="error") + "\n"
    return f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
