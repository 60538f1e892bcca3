"""Commands and flags, for argparse.

Only the standard library and the settings are imported: `--help` must be instant.
"""

import argparse
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, get_args

from exporter.errors import UsageError, quote, suggest
from exporter.settings.annotations import Group
from exporter.settings.fields import Field, read_fields

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

SERVICE_GROUPS: tuple[Group, ...] = ("identity and service", "what to list", "speed", "watching")
ALL_GROUPS: tuple[Group, ...] = get_args(Group)

TOP_EPILOG = """\
start here:
  livy-exporter demo                            no account needed
  livy-exporter gateways --region cn-hangzhou   what this identity can see
  livy-exporter plan --help                     estimate an export
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
  livy-exporter export --workspace all --incremental -o sessions/  # every hour

{SETTINGS_EPILOG}

exit codes: 0 complete and published, 1 failed, 2 usage, or an unknown
workspace or gateway, 3 credentials or permission, 4 completeness not proven,
5 another run is writing the output, 130/143 interrupted"""

PLAN_EPILOG = f"""\
It takes every flag of export, so that the same file and flags do for both.

{SETTINGS_EPILOG}"""

EMULATE_EPILOG = """\
It prints variables for a client, and serves until it is interrupted:
  livy-exporter emulate > emulator.env &
  sleep 1; . ./emulator.env
  livy-exporter plan --workspace all"""


class Parser(argparse.ArgumentParser):
    """A parser that raises UsageError with a hint."""

    def error(self, message: str) -> NoReturn:
        hint = f"see `{self.prog} --help`"
        unknown = re.search(r"invalid choice: (.*) \(choose from (.*)\)$", message)
        if unknown is not None:
            word, known = unknown[1], unknown[2].replace("'", "").split(", ")
            message, hint = f"unknown command {word}", suggest(word.strip("'"), known)
        raise UsageError(message, hint=hint)

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        # `--flag=--` gives the flag this value; the base class takes it for the end of all flags,
        # and would give an empty list.
        if action.option_strings and arg_strings == ["--"]:
            return "--"
        return super()._get_values(action, arg_strings)

    def refuse_unknown(self, argument: str) -> NoReturn:
        flag = argument.partition("=")[0]
        known = [name.lstrip("-") for name in self._option_string_actions if name[:2] == "--"]
        near = suggest(flag.lstrip("-"), sorted(known))
        if flag.startswith("--") and near.startswith("did you mean "):
            hint = near.replace("did you mean ", "did you mean --")
        else:
            hint = f"see `{self.prog} --help`"
        raise UsageError(f"unknown argument {quote(flag)}", hint=hint)

    def print_help(self, file: "SupportsWrite[str] | None" = None) -> None:
        """Print to stdout like data, so that a full disk or a closed pipe is an error."""
        from exporter.ui.stdout import print_text

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
    parser.set_defaults(parser=parser, command="")
    commands = parser.add_subparsers(metavar="COMMAND", title="commands")
    export = add_command(commands, "export", "export session history to files, a table or stdout")
    export.usage = "%(prog)s --workspace ID --output FILE [options]"
    export.epilog = EXPORT_EPILOG
    add_settings(export, ALL_GROUPS)
    plan = add_command(commands, "plan", "read one page of each gateway; estimate an export")
    plan.usage = "%(prog)s --workspace ID [options]"
    plan.epilog = PLAN_EPILOG
    add_settings(plan, ALL_GROUPS)
    add_json(plan)
    gateways = add_command(commands, "gateways", "list the gateways that this identity can see")
    gateways.epilog = SETTINGS_EPILOG
    add_settings(gateways, SERVICE_GROUPS)
    add_json(gateways)
    verify = add_command(commands, "verify", "check an output by its manifest")
    verify.usage = "%(prog)s OUTPUT [options]"
    verify.epilog = "exit codes: 0 as the manifest says, 1 not so, 2 usage"
    verify.add_argument("target", metavar="OUTPUT", help="output of an export")
    add_settings(verify, ("identity and service", "object store", "watching"))
    add_json(verify)
    add_demo(add_command(commands, "demo", "export from a local emulator; needs no account"))
    emulate = add_command(commands, "emulate", "serve the API locally, for tests and other clients")
    emulate.epilog = EMULATE_EPILOG
    add_emulate(emulate)
    config = add_command(commands, "config", "show the configuration, or its JSON Schema")
    config.usage = None  # the names of its kinds are derived from it
    kinds = config.add_subparsers(metavar="KIND", title="kinds")
    show = add_command(kinds, "show", "print the effective configuration, secrets masked")
    add_settings(show, ALL_GROUPS)
    add_command(kinds, "schema", "print the JSON Schema of the TOML file")
    return parser


def add_command(
    commands: "argparse._SubParsersAction[Parser]", name: str, help_text: str
) -> Parser:
    command: Parser = commands.add_parser(
        name,
        help=help_text,
        usage="%(prog)s [options]",
        description=help_text[0].upper() + help_text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.set_defaults(parser=command, command=command.prog.partition(" ")[2])
    return command


def add_settings(parser: argparse.ArgumentParser, groups: Sequence[Group]) -> None:
    """A flag for each setting of the groups; values stay text, for `Settings` to parse."""
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
    # A flag given with its default value differs from one that is not given.
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
