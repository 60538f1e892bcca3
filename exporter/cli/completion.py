"""Shell completion scripts, made from the parser with shtab."""

import argparse
from collections.abc import Iterator

import shtab

from exporter.errors import UsageError, quote, suggest
from exporter.settings.fields import read_fields

SHELLS = ("bash", "zsh", "tcsh")

FILES = ("config", "source")
"""Arguments other than settings that name a file."""


def build_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The completion script for a shell; adds choices and file names to the arguments of `parser`.

    Raises UsageError for an unknown shell.
    """
    if shell not in SHELLS:
        raise UsageError(f"no completion for {quote(shell)}", hint=suggest(shell, list(SHELLS)))
    fields = {field.name: field for field in read_fields()}
    for action in walk(parser):
        field = fields.get(action.dest)
        if action.dest == "show_completion":
            action.choices = SHELLS
        elif field is not None and field.choices:
            action.choices = field.choices
        elif action.dest in FILES or (field is not None and field.option.completes == "file"):
            action.complete = shtab.FILE  # type: ignore[attr-defined]  # shtab's interface
        elif action.dest == "directory":
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]  # shtab's interface
    script: str = shtab.complete(parser, shell)
    return script + "\n"


def walk(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Every argument of the parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse has no public way to list them
        yield action
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 - as above
            for command in action.choices.values():
                yield from walk(command)
