"""One run, start to publish: wires identity, client, listing, sink and destination together."""

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from exporter import __version__
from exporter.api import roa
from exporter.api.client import Client
from exporter.api.discovery import choose_gateways
from exporter.config import Settings
from exporter.destinations import Destination, require_local, resolve_destination
from exporter.errors import DeadlineError, IncompleteError, UsageError
from exporter.events import Event, GatewaysDiscovered, RunFinished, RunStarted, SessionsWritten
from exporter.gateway import Gateway
from exporter.listing.coverage import Coverage
from exporter.listing.facts import ListingFacts, PageRequest
from exporter.listing.fetch import fetch_sessions
from exporter.outputs import open_output
from exporter.records import RawSession
from exporter.runs.manifest import Status, build_manifest, dump_manifest
from exporter.runs.publishing import Publisher
from exporter.service import (
    Service,
    build_store_access,
    open_service,
    require_workspace,
    resolve_service,
)
from exporter.sinks import Output
from exporter.span import Span, resolve_span
from exporter.stores import StagedFile
from exporter.stores.local import LocalStore


def build_run_id(started_at: datetime) -> str:
    """A name for a run that sorts by its start and is not given twice."""
    return f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What one run is about, from its start to its end."""

    settings: Settings
    run_id: str
    started_at: datetime
    span: Span
    service: Service
    destination: Destination
    environ: Mapping[str, str]
    emit: Callable[[Event], None]


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
    output = require_output(settings)
    require_workspace(settings)
    started_at = datetime.now(UTC)
    service = resolve_service(settings, environ=environ)
    destination = await anyio.to_thread.run_sync(
        partial(
            resolve_destination,
            output,
            chosen=settings.format,
            access=build_store_access(settings, service, environ=environ),
        )
    )
    run = Run(
        settings=settings,
        run_id=run_id,
        started_at=started_at,
        span=resolve_span(settings.since, settings.until, now=started_at),
        service=service,
        destination=destination,
        environ=environ,
        emit=emit,
    )
    home = run.destination.home
    publisher = None if home is None else Publisher(run.destination, home, state_at=None)
    if publisher is not None:
        await anyio.to_thread.run_sync(publisher.recover)
    opened = await anyio.to_thread.run_sync(open_outputs, run)
    emit(RunStarted(run_id, output, run.started_at))
    try:
        with limit_time(settings.deadline):
            async with open_service(settings, run.service, emit=emit, environ=environ) as client:
                gateways = await choose_gateways(
                    client,
                    region_id=run.service.region_id,
                    workspaces=settings.workspace,
                    gateways=settings.gateway,
                )
                emit(GatewaysDiscovered(len(gateways)))
                listings = await list_into_output(client, gateways, opened.output, run=run)
        status = judge(listings, allow_incomplete=settings.allow_incomplete)
        return await publish(run, publisher, opened, listings, client=client, status=status)
    except BaseException:
        # Cancellation included: the partial output goes, whatever stopped the run.
        opened.discard()
        raise


@dataclass(frozen=True, slots=True)
class Opened:
    """What a run writes to while it lists: the output, and the manifest's copy if one is wanted."""

    output: Output
    manifest_copy: StagedFile | None

    def discard(self) -> None:
        self.output.discard()
        if self.manifest_copy is not None:
            self.manifest_copy.discard()


def open_outputs(run: Run) -> Opened:
    """Both of them or none. Raises UsageError and DestinationError."""
    manifest_copy = stage_manifest_copy(run)
    try:
        output = open_output(
            run.destination,
            run_id=run.run_id,
            exporter_version=__version__,
            exported_at=run.started_at,
            parquet_codec=run.settings.compression,
            adds=False,
        )
    except BaseException:
        if manifest_copy is not None:
            manifest_copy.discard()
        raise
    return Opened(output, manifest_copy)


def stage_manifest_copy(run: Run) -> StagedFile | None:
    """The file of `--manifest`; None where that is the manifest's own place, or none is named."""
    path, destination = run.settings.manifest, run.destination
    if path is None:
        return None
    require_local(path)
    home = destination.home
    if path == "-" or os.path.realpath(path) == os.path.realpath(destination.output):
        raise UsageError(
            f"the manifest of '{destination.output}' cannot go to '{path}'",
            hint="give --manifest the name of another file",
        )
    if home is not None:
        beside = home.store.path_of(home.manifest)
        if os.path.realpath(path) == os.path.realpath(beside):
            return None
    store, name = LocalStore.holding(path)
    return store.stage(name, run_id=run.run_id)


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


async def list_into_output(
    client: Client, gateways: list[Gateway], output: Output, *, run: Run
) -> list[ListingFacts]:
    """List the gateways and write their rows as they come; one outcome a gateway."""

    async def fetch_page(request: PageRequest) -> roa.SessionPage:
        return await client.send(
            roa.list_sessions(
                request.gateway, page_num=request.page_num, page_size=request.page_size
            )
        )

    async def hand_on(gateway: Gateway, sessions: list[RawSession]) -> None:
        await anyio.to_thread.run_sync(output.write, gateway, sessions)
        run.emit(SessionsWritten(len(sessions)))

    return await fetch_sessions(
        [
            Coverage(gateway, page_size=run.settings.page_size, span=run.span)
            for gateway in gateways
        ],
        fetch_page=fetch_page,
        hand_on=hand_on,
        page_size=run.settings.page_size,
        concurrency=run.settings.concurrency,
        emit=run.emit,
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
    error = IncompleteError(
        f"cannot prove that {first.gateway} is complete: {first.missing};"
        f" {first.session_count:,} distinct sessions seen, the total was"
        f" {first.total_count_first:,} at first and {first.total_count_last:,} at last{more}",
        hint="nothing was published: run again when fewer sessions come and go, or publish as it is"
        " with --allow-incomplete",
    )
    error.gateway = first.gateway if not more else None
    raise error


async def publish(
    run: Run,
    publisher: Publisher | None,
    opened: Opened,
    listings: list[ListingFacts],
    *,
    client: Client,
    status: Status,
) -> dict[str, Any]:
    facts = await anyio.to_thread.run_sync(opened.output.close)
    finished_at = datetime.now(UTC)
    manifest = build_manifest(
        run_id=run.run_id,
        exporter_version=__version__,
        status=status,
        started_at=run.started_at,
        finished_at=finished_at,
        output=run.destination.output,
        format_name=run.destination.format,
        session_count=facts.session_count,
        coerced_value_count=facts.coerced_value_count,
        files=facts.files,
        listings=listings,
        requests=client.counts,
        learnt_rps=client.learnt_rps,
        span=run.span,
    )

    def act() -> None:
        if publisher is None:
            opened.output.publish()
        else:
            publisher.publish(opened.output, manifest, None)
        if opened.manifest_copy is not None:
            opened.manifest_copy.write(dump_manifest(manifest))
            opened.manifest_copy.sync()
            opened.manifest_copy.publish()
        if publisher is not None:
            publisher.remove_leftovers()

    await anyio.to_thread.run_sync(act)
    run.emit(
        RunFinished(
            output=run.destination.output,
            status=status,
            session_count=facts.session_count,
            size_bytes=sum(file.facts.size_bytes for file in facts.files),
            elapsed_s=(finished_at - run.started_at).total_seconds(),
        )
    )
    return manifest
