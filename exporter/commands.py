"""What each command does with the pipeline, and what it prints; stdout carries data alone."""

import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from exporter.api.credentials import read_environment_credential
from exporter.api.proxy import find_proxy
from exporter.catalogs import merge_catalogs
from exporter.config import Settings
from exporter.destinations import resolve_destination
from exporter.errors import CredentialsError, UsageError
from exporter.events import Event, Listener
from exporter.loading import Loaded, build_json_schema, dump_catalogs, dump_toml
from exporter.local_files import require_name
from exporter.pipeline import export
from exporter.planning import PlannedListing, find_gateways, plan
from exporter.runs.journal import MOST_BYTES
from exporter.runs.verifying import Problem, verify
from exporter.service import build_store_access, find_region, resolve_service
from exporter.sinks import Format
from exporter.stores.addresses import is_object_store, scheme_of
from exporter.tables.registry import find_format
from exporter.terminal.logs import configure_logging
from exporter.terminal.printing import print_json, print_line, print_table, print_text, printable
from exporter.terminal.progress import ProgressMode, open_progress
from exporter.terminal.wording import count_of, format_bytes, format_duration

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


async def show_export(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], listen: Listener | None
) -> None:
    """Export, drawing what happens; `listen` hears of it too."""
    with watching(settings, run_id=run_id, environ=environ, quiet=settings.quiet) as draw:

        def emit(event: Event) -> None:
            draw(event)
            if listen is not None:
                listen(event)

        await export(settings, run_id=run_id, environ=environ, emit=emit)


async def show_plan(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], as_json: bool
) -> None:
    with watching(settings, run_id=run_id, environ=environ, quiet=True) as emit:
        planned = await plan(settings, environ=environ, emit=emit)
    session_count = sum(each.session_count for each in planned)
    request_count = sum(each.request_count for each in planned)
    seconds = estimate_s(planned, concurrency=settings.concurrency)
    journal_bytes = estimate_journal(planned, settings)
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
                "journal_bytes": journal_bytes,
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
    if journal_bytes > 0:
        print_line(f"journal: about {format_bytes(journal_bytes)} on disk until it is published")
    if settings.since is not None:
        print_line("this is for all sessions: with --since, fewer may do")
    if settings.incremental:
        print_line("this is for all sessions: a run that goes on from another asks for less")


def estimate_s(planned: Sequence[PlannedListing], *, concurrency: int) -> float:
    """Seconds that an export takes at the latency seen, when nothing throttles it."""
    if not planned:
        return 0.0
    latency_s = sum(each.latency_s for each in planned) / len(planned)
    rounds = math.ceil(sum(each.request_count for each in planned) / concurrency)
    # The first page and the sentinel of the last gateway have nothing to overlap with.
    return latency_s * (rounds + 2)


def estimate_journal(planned: Sequence[PlannedListing], settings: Settings) -> int:
    """Most bytes on disk of what a run has read; none where it could not be resumed."""
    output = settings.output or ""
    has_place = settings.spool is not None or not is_object_store(output)
    if not settings.resume or output == "-" or not has_place:
        return 0
    return min(MOST_BYTES, sum(each.journal_bytes for each in planned))


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


def show_verify(
    settings: Settings, output: str, *, environ: Mapping[str, str], as_json: bool
) -> tuple[Problem, ...]:
    """Read an output again and print what was counted; returns what is wrong with it."""
    # The format is the manifest's to tell: any name will do, such as one that tells none.
    require_name(output, flag="OUTPUT", is_url=scheme_of(output) is not None)
    access = build_store_access(
        settings, region_id=find_region(settings, environ=environ), environ=environ
    )
    is_table = find_format(output, chosen=None, access=access) is not None
    chosen: Format | None = None if is_table else "ndjson"
    destination = resolve_destination(
        output, chosen=chosen, access=access, catalogs=settings.paimon
    )
    found = verify(destination)
    if as_json:
        print_json(
            {
                "output": found.output,
                "is_as_promised": not found.problems,
                "run_id": None if found.promise is None else found.promise.run_id,
                "status": None if found.promise is None else found.promise.status,
                "checked": [asdict(each) for each in found.checked],
                "problems": [each.message for each in found.problems],
            }
        )
    elif found.promise is not None:
        print_table(
            ("CHECKED", "MANIFEST", "FOUND"),
            [(each.what, f"{each.promised:,}", f"{each.found:,}") for each in found.checked],
        )
        if not found.problems:
            print_line(
                f"{printable(output)} is what run {printable(found.promise.run_id)} published:"
                f" {printable(found.promise.status)}"
            )
    return found.problems


def show_config(loaded: Loaded, *, environ: Mapping[str, str]) -> None:
    """The effective settings as TOML, then who would ask and where, secrets masked, as comments."""
    try:
        service = resolve_service(loaded.settings, environ=environ)
    except UsageError as exc:
        where = f"{exc} ({exc.hint})"
    else:
        where = f"{service.endpoint} (region {service.region_id})"
        where += name_proxy(service.endpoint, environ=environ)
    identity = describe_identity(loaded.settings, environ=environ)
    described = dump_catalogs(merge_catalogs(loaded.settings.paimon, environ))
    print_text(
        f"{dump_toml(loaded)}\n# identity: {printable(identity)}\n# endpoint: {printable(where)}\n"
        f"{described}"
    )


def name_proxy(endpoint: str, *, environ: Mapping[str, str]) -> str:
    """What to add to an endpoint for a reader: nothing where there is no proxy."""
    try:
        proxy = find_proxy(endpoint, environ=environ)
    except UsageError as exc:
        return f", {exc}"
    return "" if proxy is None else f", through the proxy {proxy.url} of {proxy.variable}"


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
