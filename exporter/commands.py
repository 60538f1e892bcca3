"""What each command does with the pipeline, and what it prints; stdout carries data, stderr the rest."""

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime

import orjson

from exporter.config import (
    Loaded,
    Settings,
    build_json_schema,
    dump_toml,
    parse_duration,
)
from exporter.errors import UsageError
from exporter.events import Event
from exporter.logs import configure_logging
from exporter.pipeline import (
    PlannedListing,
    build_run_id,
    export,
    find_gateways,
    plan,
    resolve_service,
)
from exporter.progress import open_progress


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
            mode=settings.progress,
            log_format=settings.log_format,
            stream=sys.stderr,
            quiet=quiet,
            environ=environ,
        ) as progress,
        handler.writing_through(progress.write_line),
    ):
        yield progress


async def show_export(settings: Settings, *, environ: Mapping[str, str]) -> None:
    run_id = build_run_id(datetime.now(UTC))
    with watching(settings, run_id=run_id, environ=environ, quiet=settings.quiet) as emit:
        await export(settings, run_id=run_id, environ=environ, emit=emit)


async def show_plan(settings: Settings, *, environ: Mapping[str, str], as_json: bool) -> None:
    run_id = build_run_id(datetime.now(UTC))
    with watching(settings, run_id=run_id, environ=environ, quiet=True) as emit:
        planned = await plan(settings, environ=environ, emit=emit)
    seconds = estimate_s(planned, concurrency=settings.concurrency)
    if as_json:
        print_json(
            {
                "gateways": [
                    {
                        **asdict(each.gateway),
                        "session_count": each.session_count,
                        "request_count": each.request_count,
                    }
                    for each in planned
                ],
                "session_count": sum(each.session_count for each in planned),
                "request_count": sum(each.request_count for each in planned),
                "estimated_s": round(seconds, 1),
            }
        )
        return
    print_table(
        ("WORKSPACE", "GATEWAY", "SESSIONS", "REQUESTS"),
        [
            (
                each.gateway.workspace_id,
                each.gateway.gateway_id,
                f"{each.session_count:,}",
                f"{each.request_count:,}",
            )
            for each in planned
        ],
    )
    total = sum(each.session_count for each in planned)
    requests = sum(each.request_count for each in planned)
    sys.stdout.write(
        f"{total:,} sessions, {requests:,} requests, about {seconds:.0f}s with {settings.concurrency}"
        " in flight if the service does not throttle\n"
    )


def estimate_s(planned: Sequence[PlannedListing], *, concurrency: int) -> float:
    """Seconds that an export takes at the latency seen, when nothing throttles it."""
    if not planned:
        return 0.0
    latency_s = sum(each.latency_s for each in planned) / len(planned)
    rounds = math.ceil(sum(each.request_count for each in planned) / concurrency)
    # The first page and the sentinel of the last gateway have nothing to overlap with.
    return latency_s * (rounds + 2)


async def show_gateways(settings: Settings, *, environ: Mapping[str, str], as_json: bool) -> None:
    run_id = build_run_id(datetime.now(UTC))
    with watching(settings, run_id=run_id, environ=environ, quiet=True) as emit:
        found = await find_gateways(settings, environ=environ, emit=emit)
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
        return
    if not found:
        sys.stderr.write("no gateway found\n")
        return
    print_table(
        ("WORKSPACE", "GATEWAY", "NAME", "STATUS"),
        [
            (each.gateway.workspace_id, each.gateway.gateway_id, each.name, each.status)
            for each in found
        ],
    )


def show_config(loaded: Loaded, *, environ: Mapping[str, str]) -> None:
    """The effective settings as TOML, then who would ask and where, secrets masked, as comments."""
    sys.stdout.write(dump_toml(loaded))
    sys.stdout.write(f"\n# identity: {describe_identity(loaded.settings, environ=environ)}\n")
    try:
        service = resolve_service(loaded.settings, environ=environ)
    except UsageError as exc:
        sys.stdout.write(f"# endpoint: {exc} ({exc.hint})\n")
    else:
        sys.stdout.write(f"# endpoint: {service.endpoint} (region {service.region_id})\n")


def describe_identity(settings: Settings, *, environ: Mapping[str, str]) -> str:
    if settings.profile is not None:
        return f"profile {settings.profile} of the aliyun CLI"
    key_id = environ.get("ALIBABA_CLOUD_ACCESS_KEY_ID")
    if not key_id:
        return "the default credential chain (profile, role)"
    token = ", with a security token" if environ.get("ALIBABA_CLOUD_SECURITY_TOKEN") else ""
    return f"access key {key_id[:4]}*** of the environment, secret ***{token}"


def show_config_schema() -> None:
    print_json(build_json_schema())


async def serve_emulator(arguments: argparse.Namespace) -> None:
    """Serve until cancelled; what a client needs to know goes to stdout."""
    from pathlib import Path

    from exporter.emulator.scenario import Scenario, build_workspaces
    from exporter.emulator.server import serve_forever

    scenario = Scenario(
        seed=read_number(arguments.seed, flag="--seed"),
        workspaces=build_workspaces(
            gateway_count=read_number(arguments.gateways, flag="--gateways"),
            session_count=read_number(arguments.sessions, flag="--sessions"),
        ),
        latency_s=read_seconds(arguments.latency, flag="--latency"),
        jitter_s=read_seconds(arguments.jitter, flag="--jitter"),
        anonymous=arguments.anonymous,
    )
    if arguments.source is not None:
        scenario = scenario.serving(Path(arguments.source))
    await serve_forever(
        scenario, port=read_number(arguments.port, flag="--port"), announce=print_line
    )


def read_number(text: str, *, flag: str) -> int:
    if not text.isdecimal():
        raise UsageError(f"{flag} {text!r}: should be a whole number", hint="such as 100")
    return int(text)


def read_seconds(text: str, *, flag: str) -> float:
    try:
        value = parse_duration(text)
    except ValueError as exc:
        raise UsageError(f"{flag} {text!r}: {exc}", hint="such as 20ms") from exc
    assert isinstance(value, float)  # noqa: S101 - a text becomes a number or a ValueError
    return value


def print_json(value: object) -> None:
    sys.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode() + "\n")


def print_line(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def print_table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Columns as wide as their longest cell; numbers keep to the right."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    numeric = [all(row[place][:1].isdigit() for row in rows) for place in range(len(head))]
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
