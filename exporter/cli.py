"""Commands and flags, signals, exit codes; no logic.

Only the standard library and the settings' table are imported at the top: `--help` must be instant.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from exporter import __version__
from exporter.config import Field, read_fields
from exporter.errors import UsageError, VerificationError
from exporter.loading import Loaded, load_settings, suggest
from exporter.options import Group
from exporter.terminal.telling import Teller, guess_teller, write_stderr

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

SERVICE_GROUPS: tuple[Group, ...] = ("identity and service", "what to list", "speed", "watching")
ALL_GROUPS: tuple[Group, ...] = (
    "identity and service",
    "what to list",
    "output",
    "run after run",
    "speed",
    "watching",
)

TOP_EPILOG = """\
start here:
  livy-exporter demo                            no account needed
  livy-exporter gateways --region cn-hangzhou   what this identity can see
  livy-exporter plan --help                     what an export would take
  livy-exporter export --help                   the main job"""

SETTINGS_EPILOG = """\
Every flag is also a key of the TOML file (page_size = 100) and an environment
variable (LIVY_EXPORTER_PAGE_SIZE=100). A flag wins over the environment, and
that over the file."""

EXPORT_EPILOG = f"""\
examples:
  livy-exporter export --workspace w-1 --output sessions.parquet
  livy-exporter export --config livy.toml --gateway lc-1 -o sessions.ndjson.zst
  livy-exporter export --workspace all -o - | jq -r .sessionId

{SETTINGS_EPILOG}

exit codes: 0 complete and published, 1 failed, 2 usage, or an unknown
workspace or gateway, 3 credentials or permission, 4 completeness not proven,
5 another run is writing the output, 130/143 interrupted"""

PLAN_EPILOG = f"""\
It takes every flag of export, so that the same file and flags do for both.

{SETTINGS_EPILOG}"""

EMULATE_EPILOG = """\
It prints what points a client at it, and serves until it is interrupted:
  livy-exporter emulate > emulator.env &
  sleep 1; . ./emulator.env
  livy-exporter plan --workspace all"""

Run = Callable[[argparse.Namespace, Teller], int]


class Parser(argparse.ArgumentParser):
    """A parser whose refusals are errors like all others: one line and a hint."""

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        unknown = re.search(r"invalid choice: (.*) \(choose from (.*)\)$", message)
        if unknown is not None:
            word, known = unknown[1], unknown[2].replace("'", "").split(", ")
            message, hint = f"unknown command {word}", suggest(word.strip("'"), known)
        raise UsageError(message, hint=hint)

    def refuse_unknown(self, argument: str) -> NoReturn:
        flag = argument.partition("=")[0]
        known = [name.lstrip("-") for name in self._option_string_actions if name[:2] == "--"]
        near = suggest(flag.lstrip("-"), sorted(known))
        if flag.startswith("--") and near.startswith("did you mean "):
            hint = near.replace("did you mean ", "did you mean --")
        else:
            hint = f"see `{self.prog} --help`"
        raise UsageError(f"unknown argument {flag!r}", hint=hint)

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """To stdout like data: a reader that went away, or a full disk, is noticed."""
        from exporter.terminal.printing import print_text

        if file is None:
            print_text(self.format_help())
        else:
            super().print_help(file)


def build_parser() -> Parser:
    parser = Parser(
        prog="livy-exporter",
        description="Complete, concurrent export of Livy Gateway session history.",
        epilog=TOP_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument(
        "--show-completion",
        metavar="SHELL",
        help="print the completion script of bash, zsh or tcsh, and exit",
    )
    parser.set_defaults(parser=parser, run=run_nothing)
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    export = add_command(
        commands, "export", "export session history to a file or to stdout", run_export
    )
    export.usage = "%(prog)s --workspace ID --output FILE [options]"
    export.epilog = EXPORT_EPILOG
    add_settings(export, ALL_GROUPS)
    plan = add_command(
        commands, "plan", "ask for one page a gateway; say what an export would take", run_plan
    )
    plan.usage = "%(prog)s --workspace ID [options]"
    plan.epilog = PLAN_EPILOG
    add_settings(plan, ALL_GROUPS)
    add_json(plan)
    gateways = add_command(
        commands, "gateways", "list the Livy gateways that this identity can see", run_gateways
    )
    gateways.epilog = SETTINGS_EPILOG
    add_settings(gateways, SERVICE_GROUPS)
    add_json(gateways)
    verify = add_command(commands, "verify", "check an output by its manifest", run_verify)
    verify.usage = "%(prog)s OUTPUT [options]"
    verify.epilog = "exit codes: 0 as the manifest says, 1 not so, 2 usage"
    verify.add_argument("output", metavar="OUTPUT", help="file or folder that an export wrote")
    add_json(verify)
    add_demo(
        add_command(commands, "demo", "export from a local emulator; needs no account", run_demo)
    )
    emulate = add_command(
        commands, "emulate", "serve the API locally, for tests and other clients", run_emulate
    )
    emulate.epilog = EMULATE_EPILOG
    add_emulate(emulate)
    config = add_command(
        commands, "config", "show the configuration, or its JSON Schema", run_config
    )
    config.usage = None  # the names of its kinds are made of it
    kinds = config.add_subparsers(metavar="KIND", title="kinds")
    show = add_command(
        kinds, "show", "print the effective configuration, secrets masked", run_config_show
    )
    add_settings(show, ALL_GROUPS)
    add_command(kinds, "schema", "print the JSON Schema of the TOML file", run_config_schema)
    return parser


def add_command(
    commands: "argparse._SubParsersAction[Parser]", name: str, help_text: str, run: Run
) -> Parser:
    command: Parser = commands.add_parser(
        name,
        help=help_text,
        usage="%(prog)s [options]",
        description=help_text[0].upper() + help_text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(run=run, parser=command)
    return command


def add_settings(parser: argparse.ArgumentParser, groups: Sequence[Group]) -> None:
    """A flag for each setting of the groups; values stay text, the settings' model reads them."""
    fields = read_fields()
    for title in groups:
        group = parser.add_argument_group(title)
        if title == "identity and service":
            group.add_argument(
                "--config",
                metavar="FILE",
                help="TOML file, such as `config show` prints; also LIVY_EXPORTER_CONFIG",
            )
        for field in fields:
            if field.option.group == title:
                add_flag(group, field)


def add_flag(group: argparse._ArgumentGroup, field: Field) -> None:
    names = [field.flag] if field.option.short is None else ["-" + field.option.short, field.flag]
    help_text = field.option.help.replace("%", "%%")
    # What was not given must be told from what was given as the default is.
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
    if field.default_text is not None:
        help_text += f" [{field.default_text}]"
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
    add_settings(parser, ("watching",))


def add_emulate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", metavar="N", help="port on 127.0.0.1 [a free one]")
    parser.add_argument(
        "--from", metavar="FILE", dest="source", help="serve an exported NDJSON file"
    )
    parser.add_argument(
        "--scenario",
        metavar="FILE",
        help="TOML file of everything the emulator can do: quota, faults, churn",
    )
    parser.add_argument("--sessions", metavar="N", help="sessions of a gateway [10000]")
    parser.add_argument("--gateways", metavar="N", help="gateways [2]")
    parser.add_argument("--latency", metavar="DURATION", help="of an answer [20ms]")
    parser.add_argument("--jitter", metavar="DURATION", help="at most, on top [0s]")
    parser.add_argument(
        "--anonymous", action="store_true", help="answer unsigned requests too, such as curl's"
    )
    parser.add_argument("--seed", metavar="N", help="of the made-up sessions [1]")


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
    from exporter.commands import show_verify

    code = 0
    for each in show_verify(arguments.output, as_json=arguments.json):
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
        code: int = arguments.run(arguments, teller)
    except SystemExit as exc:  # argparse's --help
        return exc.code if isinstance(exc.code, int) else 0
    except KeyboardInterrupt:
        teller.tell_interrupt("")
        return 128 + signal.SIGINT
    except BaseException as exc:  # noqa: BLE001 - the last place that can tell the user
        return teller.tell_error(exc)
    return code
