"""What each command does with the pipeline, and what it prints; stdout carries data alone."""

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import anyio

from exporter.api.credentials import read_environment_credential
from exporter.config import Settings
from exporter.errors import CredentialsError, UsageError
from exporter.events import Event
from exporter.loading import Loaded, build_json_schema, dump_toml
from exporter.options import parse_duration
from exporter.pipeline import PlannedListing, export, find_gateways, plan, resolve_service
from exporter.terminal.logs import configure_logging
from exporter.terminal.printing import print_json, print_line, print_table, print_text, printable
from exporter.terminal.progress import ProgressMode, open_progress
from exporter.terminal.wording import count_of, format_duration

logger = logging.getLogger(__name__)


@contextmanager
def watching(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], quiet: bool
) -> Iterator[Callable[[Event], None]]:
    """Progress and logs on stderr as the settings say; yields the listener for the run's events."""
    verbosity = -1 if settings.quiet else settings.verbose
    handler = configure_logging(
        verbosity=verbosity, log_format=settings.log_format, stream=sys.stderr, run_id=run_id
    )
    with (
        open_progress(
            mode=choose_progress(settings),
            log_format=settings.log_format,
            stream=sys.stderr,
            quiet=quiet,
            environ=environ,
        ) as progress,
        handler.writing_through(progress.write_line),
    ):
        yield progress


def choose_progress(settings: Settings) -> ProgressMode:
    """The progress asked for, but no bar where it and the sessions would share a terminal."""
    shares_terminal = settings.output == "-" and sys.stdout is not None and sys.stdout.isatty()
    if shares_terminal and settings.progress in {"auto", "bar"}:
        return "none"
    return settings.progress


async def show_export(settings: Settings, *, run_id: str, environ: Mapping[str, str]) -> None:
    with watching(settings, run_id=run_id, environ=environ, quiet=settings.quiet) as emit:
        await export(settings, run_id=run_id, environ=environ, emit=emit)


async def show_plan(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], as_json: bool
) -> None:
    with watching(settings, run_id=run_id, environ=environ, quiet=True) as emit:
        planned = await plan(settings, environ=environ, emit=emit)
    session_count = sum(each.session_count for each in planned)
    request_count = sum(each.request_count for each in planned)
    seconds = estimate_s(planned, concurrency=settings.concurrency)
    if as_json:
        print_json(
            {
                "gateways": [
                    {
                        **asdict(each.gateway),
                        "session_count": each.session_count,
                        "page_count": each.page_count,
                        "request_count": each.request_count,
                    }
                    for each in planned
                ],
                "session_count": session_count,
                "request_count": request_count,
                "estimated_s": round(seconds, 1),
            }
        )
        return
    print_table(
        ("WORKSPACE", "GATEWAY", "SESSIONS", "PAGES", "REQUESTS"),
        [
            (
                each.gateway.workspace_id,
                each.gateway.gateway_id,
                f"{each.session_count:,}",
                f"{each.page_count:,}",
                f"{each.request_count:,}",
            )
            for each in planned
        ],
    )
    print_line(
        f"{count_of(session_count, 'session')}, {count_of(request_count, 'request')}, about"
        f" {format_duration(seconds)} with {settings.concurrency} in flight and no throttling"
    )


def estimate_s(planned: Sequence[PlannedListing], *, concurrency: int) -> float:
    """Seconds that an export takes at the latency seen, when nothing throttles it."""
    if not planned:
        return 0.0
    latency_s = sum(each.latency_s for each in planned) / len(planned)
    rounds = math.ceil(sum(each.request_count for each in planned) / concurrency)
    # The first page and the sentinel of the last gateway have nothing to overlap with.
    return latency_s * (rounds + 2)


async def show_gateways(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], as_json: bool
) -> None:
    with watching(settings, run_id=run_id, environ=environ, quiet=True) as emit:
        found = await find_gateways(settings, environ=environ, emit=emit)
        if not found:
            logger.warning("no Livy gateway found")
    if as_json:
        print_json(
            [
                {
                    **asdict(each.gateway),
                    "name": each.name,
                    "status": each.status,
                    "workspace_name": each.workspace_name,
                }
                for each in found
            ]
        )
    elif found:
        print_table(
            ("WORKSPACE", "GATEWAY", "NAME", "STATUS"),
            [
                (each.gateway.workspace_id, each.gateway.gateway_id, each.name, each.status)
                for each in found
            ],
        )


def show_config(loaded: Loaded, *, environ: Mapping[str, str]) -> None:
    """The effective settings as TOML, then who would ask and where, secrets masked, as comments."""
    try:
        service = resolve_service(loaded.settings, environ=environ)
    except UsageError as exc:
        where = f"{exc} ({exc.hint})"
    else:
        where = f"{service.endpoint} (region {service.region_id})"
    identity = describe_identity(loaded.settings, environ=environ)
    print_text(
        f"{dump_toml(loaded)}\n# identity: {printable(identity)}\n# endpoint: {printable(where)}\n"
    )


def describe_identity(settings: Settings, *, environ: Mapping[str, str]) -> str:
    if settings.profile is not None:
        return f"profile {settings.profile} of the aliyun CLI"
    try:
        credential = read_environment_credential(environ)
    except CredentialsError as exc:
        return f"{exc} ({exc.hint})"
    if credential is None:
        return "the default credential chain (profile, role)"
    token = "" if credential.security_token is None else ", with a security token"
    return f"access key {credential.access_key_id[:4]}*** of the environment, secret ***{token}"


def show_config_schema() -> None:
    print_json(build_json_schema())


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatorOptions:
    """What `emulate` was told, as text; None where it was not."""

    port: str | None
    source: str | None
    sessions: str | None
    gateways: str | None
    latency: str | None
    jitter: str | None
    anonymous: bool
    seed: str | None


async def serve_emulator(options: EmulatorOptions) -> None:
    """Serve until cancelled; what a client needs to know goes to stdout, for a shell to read.

    Raises UsageError for a value that is none, a file that cannot be served, a port that is taken.
    """
    from exporter.emulator.scenario import Scenario, build_workspaces
    from exporter.emulator.server import open_emulator

    scenario = Scenario(
        seed=read_number(options.seed, flag="--seed", default=1),
        workspaces=build_workspaces(
            gateway_count=read_number(options.gateways, flag="--gateways", default=2),
            session_count=read_number(options.sessions, flag="--sessions", default=10_000),
        ),
        latency_s=read_seconds(options.latency, flag="--latency", default=0.02),
        jitter_s=read_seconds(options.jitter, flag="--jitter", default=0.0),
    )
    if options.source is not None:
        for flag in ("seed", "gateways", "sessions"):
            if getattr(options, flag) is not None:
                raise UsageError(
                    f"--{flag} has no meaning with --from",
                    hint=f"leave out --{flag}: the file tells its gateways and sessions",
                )
        scenario = scenario.serving(Path(options.source))
    scenario = replace(scenario, anonymous=options.anonymous)
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


def read_number(text: str | None, *, flag: str, default: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) <= 12):
        raise UsageError(f"{flag} {text!r}: should be a whole number", hint=f"such as {flag} 100")
    return int(text)


def read_seconds(text: str | None, *, flag: str, default: float) -> float:
    if text is None:
        return default
    try:
        value = parse_duration(text)
    except ValueError as exc:
        raise UsageError(f"{flag} {text!r}: {exc}", hint=f"such as {flag} 20ms") from exc
    assert isinstance(value, float)  # noqa: S101 - a text becomes a number or a ValueError
    return value
