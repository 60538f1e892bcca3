"""One run, start to publish: wires identity, client, listing, sink and destination together."""

import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import anyio
import anyio.to_thread

from exporter import __version__
from exporter.api import roa
from exporter.api.client import Client, open_client
from exporter.api.credentials import open_identity, read_profile_region
from exporter.api.discovery import choose_gateways
from exporter.config import Settings, build_endpoint, check_endpoint, check_region
from exporter.destinations import Destination, open_destination
from exporter.errors import DeadlineError, IncompleteError, UsageError
from exporter.events import Event, GatewaysDiscovered, RunFinished, RunStarted, SessionsWritten
from exporter.gateway import Gateway
from exporter.listing.coverage import Coverage
from exporter.listing.facts import ListingFacts, PageRequest
from exporter.listing.fetch import fetch_sessions
from exporter.records import RawSession
from exporter.runs.manifest import Status, build_manifest, dump_manifest
from exporter.sinks import Sink, SinkFacts, open_sink, resolve_format


@dataclass(frozen=True, slots=True)
class Service:
    """Where to ask, and about which region."""

    region_id: str
    endpoint: str


def resolve_service(settings: Settings, *, environ: Mapping[str, str]) -> Service:
    """The region and endpoint of a run. Raises UsageError when no source names a region, or one is
    malformed.
    """
    region = (
        settings.region
        or read_profile_region(profile=settings.profile, environ=environ)
        or environ.get("ALIBABA_CLOUD_REGION_ID")
    )
    if not region:
        raise UsageError("no region", hint="name it with --region, such as --region cn-hangzhou")
    check_region(region)
    endpoint = settings.endpoint or build_endpoint(region=region, network=settings.network)
    return Service(region, check_endpoint(endpoint))


@asynccontextmanager
async def open_service(
    settings: Settings,
    service: Service,
    *,
    emit: Callable[[Event], None],
    environ: Mapping[str, str],
) -> AsyncIterator[Client]:
    async with open_client(
        endpoint=service.endpoint,
        identity=open_identity(profile=settings.profile, environ=environ, now_s=time.monotonic),
        concurrency=settings.concurrency,
        max_rps=settings.max_rps,
        retries=settings.retries,
        timeout_s=settings.timeout,
        user_agent=f"livy-exporter/{__version__}",
        environ=environ,
        emit=emit,
    ) as client:
        yield client


def build_run_id(started_at: datetime) -> str:
    """A name for a run that sorts by its start and is not given twice."""
    return f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


async def export(
    settings: Settings,
    *,
    run_id: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> dict[str, Any]:
    """Export what the settings name and publish it; returns the manifest.

    Raises an ExporterError, or an ExceptionGroup of them, with nothing published and nothing left
    behind: UsageError and DestinationError before the first request, IncompleteError when
    completeness could not be proven and `allow_incomplete` is off.
    """
    started_at = datetime.now(UTC)
    output = require_output(settings)
    require_workspace(settings)
    service = resolve_service(settings, environ=environ)
    output_format, file_codec = resolve_format(output, settings.format)
    destination = await anyio.to_thread.run_sync(
        lambda: open_destination(output, run_id=run_id, manifest_path=settings.manifest)
    )
    emit(RunStarted(run_id, output, started_at))
    sink: Sink | None = None
    try:
        sink = open_sink(
            destination.stream,
            output_format=output_format,
            file_codec=file_codec,
            parquet_codec=settings.compression,
            run_id=run_id,
            exporter_version=__version__,
            exported_at=started_at,
        )
        with limit_time(settings.deadline):
            async with open_service(settings, service, emit=emit, environ=environ) as client:
                gateways = await choose_gateways(
                    client,
                    region_id=service.region_id,
                    workspaces=settings.workspace,
                    gateways=settings.gateway,
                )
                emit(GatewaysDiscovered(len(gateways)))
                listings = await list_into_sink(
                    client, gateways, sink, settings=settings, emit=emit
                )
        status = judge(listings, allow_incomplete=settings.allow_incomplete)
        facts = await anyio.to_thread.run_sync(sink.close)
        sink = None
        return await publish(
            destination,
            facts,
            listings,
            client=client,
            output=output,
            status=status,
            run_id=run_id,
            started_at=started_at,
            output_format=output_format,
            emit=emit,
        )
    except BaseException:
        # Cancellation included: the partial output goes, whatever stopped the run. Both calls only
        # drop things.
        if sink is not None:
            sink.abort()
        destination.discard()
        raise


@contextmanager
def limit_time(most_s: float | None) -> Iterator[None]:
    """Cancel the block after so many seconds, None for never. Raises DeadlineError then."""
    try:
        with anyio.fail_after(most_s):
            yield
    except TimeoutError as exc:
        raise DeadlineError(
            f"the run was not finished within {most_s:g}s",
            hint="nothing was published: raise --deadline, or lower the number of gateways",
        ) from exc


def require_output(settings: Settings) -> str:
    if settings.output is None:
        raise UsageError("no output", hint="name a file with --output, or - for stdout")
    return settings.output


def require_workspace(settings: Settings) -> None:
    if not settings.workspace:
        raise UsageError("no workspace", hint="name it with --workspace ID, or --workspace all")


async def list_into_sink(
    client: Client,
    gateways: list[Gateway],
    sink: Sink,
    *,
    settings: Settings,
    emit: Callable[[Event], None],
) -> list[ListingFacts]:
    """List the gateways and write their rows as they come; one outcome a gateway."""

    async def fetch_page(request: PageRequest) -> roa.SessionPage:
        return await client.send(
            roa.list_sessions(
                request.gateway, page_num=request.page_num, page_size=request.page_size
            )
        )

    async def hand_on(gateway: Gateway, sessions: list[RawSession]) -> None:
        await anyio.to_thread.run_sync(sink.write, gateway, sessions)
        emit(SessionsWritten(len(sessions)))

    return await fetch_sessions(
        [Coverage(gateway, page_size=settings.page_size) for gateway in gateways],
        fetch_page=fetch_page,
        hand_on=hand_on,
        page_size=settings.page_size,
        concurrency=settings.concurrency,
        emit=emit,
    )


def judge(listings: list[ListingFacts], *, allow_incomplete: bool) -> Status:
    """The status of the run. Raises IncompleteError when a listing is unproven and that is not
    allowed.
    """
    unproven = [facts for facts in listings if facts.proof == "unproven"]
    if not unproven:
        return "complete"
    if allow_incomplete:
        return "incomplete"
    first = unproven[0]
    more = f", and {len(unproven) - 1} more gateways" if len(unproven) > 1 else ""
    raise IncompleteError(
        f"cannot prove that {first.gateway} is complete: {first.missing};"
        f" {first.session_count:,} distinct sessions seen, the total was"
        f" {first.total_count_first:,} at first and {first.total_count_last:,} at last{more}",
        hint="nothing was published: run again when fewer sessions come and go, or publish as it is"
        " with --allow-incomplete",
    )


async def publish(
    destination: Destination,
    facts: SinkFacts,
    listings: list[ListingFacts],
    *,
    client: Client,
    output: str,
    status: Status,
    run_id: str,
    started_at: datetime,
    output_format: str,
    emit: Callable[[Event], None],
) -> dict[str, Any]:
    file_facts = await anyio.to_thread.run_sync(destination.finish)
    finished_at = datetime.now(UTC)
    manifest = build_manifest(
        run_id=run_id,
        exporter_version=__version__,
        status=status,
        started_at=started_at,
        finished_at=finished_at,
        output=output,
        format_name=output_format,
        session_count=facts.session_count,
        coerced_value_count=facts.coerced_value_count,
        files=[(file_facts, facts.session_count)],
        listings=listings,
        requests=client.counts,
        learnt_rps=client.learnt_rps,
    )
    await anyio.to_thread.run_sync(destination.publish, dump_manifest(manifest))
    emit(
        RunFinished(
            output=output,
            status=status,
            session_count=facts.session_count,
            size_bytes=file_facts.size_bytes,
            elapsed_s=(finished_at - started_at).total_seconds(),
        )
    )
    return manifest
