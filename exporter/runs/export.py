"""One run, start to publish: wires identity, client, listing, sink and destination together."""

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from exporter.api import calls
from exporter.api.client import Client
from exporter.api.connect import connect
from exporter.api.discovery import choose_gateways
from exporter.destinations.open import open_output, stage_manifest_copy
from exporter.errors import DeadlineError, LockLostError
from exporter.events import Event, GatewaysDiscovered, RunFinished, RunStarted, SessionsWritten
from exporter.journal.journal import Journal, is_worth_resuming
from exporter.listing.bookmark import Bookmark, Watch, explain_full_listing
from exporter.listing.fetch import fetch_sessions
from exporter.listing.full import FullListing
from exporter.listing.incremental import IncrementalListing
from exporter.listing.interface import Listing, PageRequest
from exporter.listing.replay import NO_ANSWER_LOG, AnswerLog
from exporter.locks.lock import hold_lock
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage
from exporter.records.omit import Omission
from exporter.runs.emptied import find_silent, require_kept
from exporter.runs.manifest import Status, build_manifest, dump_manifest
from exporter.runs.own_task import run_in_own_task
from exporter.runs.prepare import RunContext, prepare
from exporter.runs.previous import (
    PreviousRun,
    build_next_gateways,
    read_previous,
    require_partitions,
)
from exporter.runs.publish import Publisher
from exporter.runs.resume import end_journal, find_beginning, find_time_range, open_journal
from exporter.runs.state import State, dump_state, require_own_state
from exporter.runs.unreadable import UnreadableRows
from exporter.runs.verdict import require_complete
from exporter.settings.settings import Settings
from exporter.sinks.interface import Output
from exporter.stores.interface import StagedFile
from exporter.tables.interface import Commit
from exporter.times import to_ms
from exporter.version import __version__

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seat:
    """What only the holder of the output's lock has: nobody else writes there meanwhile."""

    publisher: Publisher
    previous: PreviousRun
    renew: Callable[[], Awaitable[None]]
    """Raises LockLostError when the lock is held no more."""


async def export(
    settings: Settings,
    *,
    run_id: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> dict[str, Any]:
    """Export what the settings name and publish it; returns the manifest.

    Raises an ExporterError, or an ExceptionGroup of them, with nothing published: UsageError and
    DestinationError before the first request, LockHeldError when another run writes the same
    output, IncompleteError when completeness could not be proven and `allow_incomplete` is off.
    What was read is kept for the next run, if that may go on from there. Cancelled in any way, it
    has published nothing; where it has, it goes on to its end and returns.
    """
    return await run_in_own_task(
        lambda: prepare_and_export(settings, run_id=run_id, environ=environ, emit=emit)
    )


async def prepare_and_export(
    settings: Settings,
    *,
    run_id: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> dict[str, Any]:
    """Check, take the lock, and run."""
    started_s = anyio.current_time()
    run = await anyio.to_thread.run_sync(
        partial(prepare, settings, run_id=run_id, environ=environ, emit=emit)
    )

    def left_s() -> float | None:
        max_s = settings.deadline
        return None if max_s is None else max(0.0, max_s - (anyio.current_time() - started_s))

    sidecars = run.destination.sidecars
    if sidecars is None:
        return await export_run(run, None, left_s=left_s)
    waits = [each for each in (settings.wait, settings.deadline) if each is not None]
    async with hold_lock(
        sidecars.store,
        sidecars.lock,
        output=run.destination.output,
        run_id=run_id,
        wait_s=None if settings.wait is None else min(waits),
    ) as lock:
        publisher = Publisher(
            run.destination,
            sidecars,
            state_at=run.state_at,
            lock=lock,
            keep_s=settings.keep_leftovers if lock.is_lease else None,
        )
        previous = await anyio.to_thread.run_sync(recover, run, publisher)
        return await export_run(run, Seat(publisher, previous, lock.renew), left_s=left_s)


def recover(run: RunContext, publisher: Publisher) -> PreviousRun:
    """Put right what a killed run left, and tell what this one builds on; blocks."""
    if run.state_at is not None:
        state_store, state_name = run.state_at
        require_own_state(state_store.read(state_name) or b"", output=run.output_key)
    publisher.recover()
    manifest = publisher.read_manifest()
    if not run.settings.incremental or run.state_at is None:
        return PreviousRun(run_id="" if manifest is None else manifest["run_id"])
    if run.destination.kind == "dataset":  # a table knows its own
        publisher.require_manifest()
        require_partitions(manifest, run.settings.partition_by, output=run.destination.output)
    return read_previous(
        run.state_at,
        manifest,
        output=run.output_key,
        region_id=run.api.region_id,
        omit=run.omit,
    )


async def export_run(
    run: RunContext, seat: Seat | None, *, left_s: Callable[[], float | None]
) -> dict[str, Any]:
    """List into the output and publish it; what fails publishes nothing."""
    settings = run.settings
    previous = PreviousRun() if seat is None else seat.previous
    exported_at = previous.exported_at(run.started_at)
    opened = await anyio.to_thread.run_sync(open_outputs, run, exported_at)
    run.emit(RunStarted(run.run_id, run.destination.output, run.started_at))
    journal: AnswerLog | Journal = NO_ANSWER_LOG
    try:
        with limit_time(settings.deadline, left_s()):
            async with connect(settings, run.api, emit=run.emit, environ=run.environ) as client:
                gateways = await choose_gateways(
                    client,
                    region_id=run.api.region_id,
                    workspaces=settings.workspace,
                    gateways=settings.gateway,
                )
                previous.check_gateways(
                    gateways, output=run.output_key, region_id=run.api.region_id
                )
                run.emit(GatewaysDiscovered(len(gateways)))
                if seat is not None:
                    journal = await anyio.to_thread.run_sync(open_journal, run, previous, gateways)
                    run = replace(run, time_range=find_time_range(run, journal))
                began_at = find_beginning(run.started_at, journal)
                listings = [
                    build_listing(run, previous, gateway, began_at=began_at) for gateway in gateways
                ]
                unreadable, omission = UnreadableRows(run.time_range), Omission(run.omit)
                facts = await list_into_output(
                    client,
                    listings,
                    opened.output,
                    run=run,
                    journal=journal,
                    unreadable=unreadable,
                    omission=omission,
                )
        status = require_complete(facts, unreadable, allow_incomplete=settings.allow_incomplete)
        silent: Mapping[Gateway, Bookmark] = {}
        if seat is not None and not settings.allow_empty:
            silent = await anyio.to_thread.run_sync(require_sessions, run, seat, facts)
        if seat is not None:
            await seat.renew()
        state = build_state(run, previous, listings, facts, silent=silent, exported_at=exported_at)
        manifest = await publish(
            run,
            seat,
            opened,
            facts,
            client=client,
            status=status,
            state=state,
            unreadable=unreadable,
            omitted=omission.counts,
        )
    except BaseException as exc:
        # Cancellation included: the partial output goes, whatever stopped the run.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(opened.discard)
            await anyio.to_thread.run_sync(
                partial(end_journal, journal, keep=is_worth_resuming(exc))
            )
        raise
    with anyio.CancelScope(shield=True):  # it is published: to be stopped now changes nothing
        await anyio.to_thread.run_sync(partial(end_journal, journal, keep=False))
    return manifest


def require_sessions(
    run: RunContext, seat: Seat, facts: Sequence[ListingFacts]
) -> dict[Gateway, Bookmark]:
    """Raises EmptiedError where empty lists would take sessions away from the output; blocks.

    A run that adds takes none: which of its gateways were silent, and what was known of them.
    """
    if run.settings.incremental:
        return find_silent(seat.previous.known, facts)
    require_kept(run.destination, seat.publisher.read_manifest(), facts, time_range=run.time_range)
    return {}


def build_listing(
    run: RunContext, previous: PreviousRun, gateway: Gateway, *, began_at: datetime
) -> Listing:
    """How to list a gateway: in full, or on from what is known of it."""
    settings = run.settings
    page_size = settings.page_size
    if run.state_at is None or run.time_range.has_bounds:
        return FullListing(gateway, page_size=page_size, time_range=run.time_range)
    known = previous.known.get(gateway)
    watch = Watch(now_ms=to_ms(began_at), settle_ms=round(settings.settle * 1000))
    full_because = ""
    if known is not None and settings.full_every is not None:
        full_because = explain_full_listing(known, now_ms=watch.now_ms, every_s=settings.full_every)
    return IncrementalListing(
        gateway, known, page_size=page_size, watch=watch, full_because=full_because
    )


def build_state(
    run: RunContext,
    previous: PreviousRun,
    listings: Sequence[Listing],
    facts: Sequence[ListingFacts],
    *,
    silent: Mapping[Gateway, Bookmark],
    exported_at: datetime,
) -> bytes | None:
    """What the next incremental run goes on from; None where it has to begin anew.

    Of a `silent` gateway that is what this one went on from.
    """
    unproven = {each.gateway for each in facts if each.proof == "unproven"}
    found = {
        each.gateway: None if each.gateway in unproven else each.bookmark
        for each in listings
        if isinstance(each, IncrementalListing)
    }
    if len(found) < len(listings) or run.state_at is None:
        return None
    return dump_state(
        State(
            run_id=run.run_id,
            exporter_version=__version__,
            exported_at=exported_at,
            region_id=run.api.region_id,
            output=run.output_key,
            format_name=run.destination.format,
            gateways=build_next_gateways(previous, {**found, **silent}, facts),
            omit=run.omit,
        )
    )


@dataclass(frozen=True, slots=True)
class Opened:
    """What a run writes to while it lists: the output, and the manifest's copy if one is wanted."""

    output: Output
    manifest_copy: StagedFile | None

    def discard(self) -> None:
        self.output.discard()
        if self.manifest_copy is not None:
            self.manifest_copy.discard()


def open_outputs(run: RunContext, exported_at: datetime) -> Opened:
    """Both of them or none. Raises UsageError and DestinationError."""
    manifest_copy = stage_manifest_copy(run.settings.manifest, run.destination, run_id=run.run_id)
    try:
        output = open_output(
            run.destination,
            run_id=run.run_id,
            exporter_version=__version__,
            exported_at=exported_at,
            parquet_codec=run.settings.compression,
            adds=run.settings.incremental,
            partition_by=run.settings.partition_by,
            target_bytes=run.settings.target_file_size,
        )
    except BaseException:
        if manifest_copy is not None:
            manifest_copy.discard()
        raise
    return Opened(output, manifest_copy)


@contextmanager
def limit_time(max_s: float | None, left_s: float | None) -> Iterator[None]:
    """Cancel the block when nothing is left of the time, None for never. Raises DeadlineError
    then.
    """
    try:
        with anyio.fail_after(left_s):
            yield
    except TimeoutError as exc:
        raise DeadlineError(
            f"the run was not finished within {max_s:g}s",
            hint="nothing was published: raise --deadline, or lower the number of gateways",
        ) from exc


async def list_into_output(
    client: Client,
    listings: Sequence[Listing],
    output: Output,
    *,
    run: RunContext,
    journal: AnswerLog,
    unreadable: UnreadableRows,
    omission: Omission,
) -> list[ListingFacts]:
    """Drive the listings and write their rows as they come; one outcome a gateway."""

    async def fetch_page(request: PageRequest) -> SessionPage:
        return await client.send(
            calls.list_sessions(
                request.gateway, page_num=request.page_num, page_size=request.page_size
            )
        )

    async def on_rows(gateway: Gateway, sessions: list[RawSession]) -> None:
        readable = omission.leave_out(unreadable.leave_out(gateway, sessions))
        await anyio.to_thread.run_sync(output.write, gateway, readable)
        run.emit(SessionsWritten(len(readable)))

    def note(_: Listing, request: PageRequest, page: SessionPage) -> None:
        unreadable.note(request, page)
        omission.blank(page.sessions)

    facts = await fetch_sessions(
        listings,
        fetch_page=fetch_page,
        on_rows=on_rows,
        page_size=run.settings.page_size,
        concurrency=run.settings.concurrency,
        emit=lambda event: run.emit(unreadable.amend_event(event)),
        note=note,
        journal=journal,
    )
    return unreadable.amend(facts)


async def publish(
    run: RunContext,
    seat: Seat | None,
    opened: Opened,
    listings: Sequence[ListingFacts],
    *,
    client: Client,
    status: Status,
    state: bytes | None,
    unreadable: UnreadableRows,
    omitted: Mapping[str, int],
) -> dict[str, Any]:
    facts = await anyio.to_thread.run_sync(opened.output.close)
    finished_at = datetime.now(UTC)
    previous = PreviousRun() if seat is None else seat.previous
    manifest = build_manifest(
        run_id=run.run_id,
        exporter_version=__version__,
        status=status,
        started_at=run.started_at,
        finished_at=finished_at,
        output=run.destination.output,
        format_name=run.destination.format,
        partition_by=run.settings.partition_by,
        mode="incremental" if run.settings.incremental else "full",
        full_because=previous.full_because,
        session_count=facts.session_count,
        coerced_value_count=facts.coerced_value_count,
        former_files=() if run.destination.kind == "table" else previous.files,
        files=facts.files,
        listings=listings,
        requests=client.counts,
        learnt_rps=client.learnt_rps,
        time_range=run.time_range,
        unreadable_count=unreadable.count,
        unreadable=unreadable.build_entries(),
        omitted=omitted,
    )

    def act() -> None:
        if seat is None:
            opened.output.publish()
        else:
            seat.publisher.publish(opened.output, manifest, state)
        if opened.manifest_copy is not None:
            opened.manifest_copy.write(dump_manifest(manifest))
            opened.manifest_copy.sync()
            opened.manifest_copy.publish()
        if seat is not None:
            with suppress(LockLostError):  # then they are another run's to remove
                seat.publisher.remove_leftovers()
            seat.publisher.compact(
                Commit(
                    run_id=run.run_id,
                    exporter_version=__version__,
                    codec=run.settings.compression,
                )
            )

    await anyio.to_thread.run_sync(act)
    run.emit(
        RunFinished(
            output=run.destination.output,
            status=status,
            session_count=facts.session_count,
            size_bytes=sum(file.facts.size_bytes for file in facts.files),
            elapsed_s=(finished_at - run.started_at).total_seconds(),
            incremental=run.settings.incremental,
        )
    )
    return manifest
