"""The command `emulate`: its flags as a scenario, served until it is stopped."""

import argparse
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """What `emulate` was told, as text; None where it was not."""

    port: str | None
    source: str | None
    scenario: str | None
    sessions: str | None
    gateways: str | None
    latency: str | None
    jitter: str | None
    anonymous: bool
    seed: str | None


def build_scenario(options: EmulatorOptions) -> Scenario:
    """What the options ask the emulator to be; a file stands for all that it tells itself."""
    refuse_beside(
        options, "scenario", ("source", "seed", "gateways", "sessions", "latency", "jitter")
    )
    refuse_beside(options, "source", ("seed", "gateways", "sessions"))
    if options.scenario is not None:
        scenario = read_scenario(Path(options.scenario))
        return replace(scenario, anonymous=options.anonymous or scenario.anonymous)
    scenario = Scenario(
        seed=read_number(options.seed, flag="--seed", default=1),
        workspaces=build_workspaces(
            gateway_count=read_number(
                options.gateways, flag="--gateways", default=2, most=MAX_GATEWAYS
            ),
            session_count=read_number(options.sessions, flag="--sessions", default=10_000),
        ),
        latency_s=read_seconds(options.latency, flag="--latency", default=0.02),
        jitter_s=read_seconds(options.jitter, flag="--jitter", default=0.0),
        anonymous=options.anonymous,
    )
    return scenario if options.source is None else scenario.serving(Path(options.source))


def refuse_beside(options: EmulatorOptions, file: str, others: tuple[str, ...]) -> None:
    """Raise UsageError when an option stands beside the file that decides it."""
    names = {"source": "from"}
    if getattr(options, file) is None:
        return
    for other in others:
        if getattr(options, other) is not None:
            flag, by = names.get(other, other), names.get(file, file)
            raise UsageError(
                f"--{flag} has no meaning with --{by}",
                hint=f"leave out --{flag}: the file decides it",
            )


async def serve_emulator(options: EmulatorOptions) -> None:
    """Serve until cancelled; what a client needs to know goes to stdout, for a shell to read.

    Raises UsageError for a value that is none, a file that cannot be served, a port that is taken.
    """
    scenario = build_scenario(options)
    port = read_number(options.port, flag="--port", default=0)
    async with open_emulator(scenario, port=port) as emulator:
        lines = [
            *emulator.shell_lines(),
            *(
                # Printable: a shell may run these lines, and the ids may be those of a file.
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


def run(arguments: argparse.Namespace, _: ErrorReporter) -> int:

    options = EmulatorOptions(
        **{name: getattr(arguments, name) for name in EmulatorOptions.__slots__}
    )
    # To be interrupted is how a server ends: there is nothing to tell.
    return run_async(lambda: serve_emulator(options), on_interrupt=lambda: None)
