"""The command `emulate`: a scenario from its flags, served until it is interrupted."""

import argparse
from dataclasses import replace
from pathlib import Path

import anyio

from exporter.cli.runner import run_async
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.scenario_file import read_scenario
from exporter.emulator.server import open_emulator
from exporter.errors import UsageError, printable, quote
from exporter.settings.annotations import parse_duration
from exporter.ui.errors import ErrorReporter
from exporter.ui.stdout import print_text
from exporter.ui.text import count_of

MAX_NUMBER = 10**9
MAX_GATEWAYS = 10_000
MAX_SECONDS = 86_400.0


def run(arguments: argparse.Namespace, _: ErrorReporter) -> int:
    # A server ends by being interrupted: there is nothing to report.
    return run_async(lambda: serve_emulator(arguments), on_interrupt=lambda: None)


def build_scenario(arguments: argparse.Namespace) -> Scenario:
    """The scenario that the arguments describe; a file takes the place of other arguments."""
    refuse_beside(
        arguments, "scenario", ("source", "seed", "gateways", "sessions", "latency", "jitter")
    )
    refuse_beside(arguments, "source", ("seed", "gateways", "sessions"))
    if arguments.scenario is not None:
        scenario = read_scenario(Path(arguments.scenario))
        return replace(scenario, anonymous=arguments.anonymous or scenario.anonymous)
    scenario = Scenario(
        seed=read_number(arguments.seed, flag="--seed", default=1),
        workspaces=build_workspaces(
            gateway_count=read_number(
                arguments.gateways, flag="--gateways", default=2, most=MAX_GATEWAYS
            ),
            session_count=read_number(arguments.sessions, flag="--sessions", default=10_000),
        ),
        latency_s=read_seconds(arguments.latency, flag="--latency", default=0.02),
        jitter_s=read_seconds(arguments.jitter, flag="--jitter", default=0.0),
        anonymous=arguments.anonymous,
    )
    return scenario if arguments.source is None else scenario.serving(Path(arguments.source))


def refuse_beside(arguments: argparse.Namespace, file: str, others: tuple[str, ...]) -> None:
    """Raise UsageError for an argument beside the file that decides it."""
    names = {"source": "from"}
    if getattr(arguments, file) is None:
        return
    for other in others:
        if getattr(arguments, other) is not None:
            flag, by = names.get(other, other), names.get(file, file)
            raise UsageError(
                f"--{flag} has no meaning with --{by}",
                hint=f"leave out --{flag}: the file decides it",
            )


async def serve_emulator(arguments: argparse.Namespace) -> None:
    """Serve until cancelled; prints shell variables that point a client at it.

    Raises UsageError for a wrong value, a file that cannot be served, or a port that is taken.
    """
    scenario = build_scenario(arguments)
    port = read_number(arguments.port, flag="--port", default=0)
    async with open_emulator(scenario, port=port) as emulator:
        lines = [
            *emulator.shell_lines(),
            *(
                # A shell may run these lines, and the ids may come from a file.
                printable(
                    f"# --workspace {workspace.workspace_id} --gateway {gateway.gateway_id}:"
                    f" {count_of(gateway.session_count, 'session')}"
                )
                for workspace in scenario.workspaces
                for gateway in workspace.gateways
            ),
        ]
        print_text("".join(f"{line}\n" for line in lines))
        await anyio.sleep_forever()


def read_number(text: str | None, *, flag: str, default: int, most: int = MAX_NUMBER) -> int:
    if text is None:
        return default
    hint = f"such as {flag} 100"
    if not (text.isascii() and text.isdecimal()):
        raise UsageError(f"{flag} {quote(text)}: should be a whole number", hint=hint)
    if len(text) > len(str(most)) or int(text) > most:
        raise UsageError(f"{flag} {quote(text)}: should be at most {most}", hint=hint)
    return int(text)


def read_seconds(text: str | None, *, flag: str, default: float) -> float:
    if text is None:
        return default
    try:
        value = parse_duration(text)
    except ValueError as exc:
        raise UsageError(f"{flag} {quote(text)}: {exc}", hint=f"such as {flag} 20ms") from exc
    assert isinstance(value, float)  # noqa: S101 - a text becomes a number or a ValueError
    if value > MAX_SECONDS:
        raise UsageError(
            f"{flag} {quote(text)}: should be at most {MAX_SECONDS:g}s", hint=f"such as {flag} 20ms"
        )
    return value
