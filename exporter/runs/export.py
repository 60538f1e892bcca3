"""One run from start to publish: wires identity, client, listings, sink and destination."""

import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import anyio
import anyio.to_thread

from exporter.api.client import Client
from exporter.api.connect import connect
from exporter.api.discovery import choose_gateways
from exporter.destinations.open import open_output, stage_manifest_copy
from exporter.errors import DeadlineError, LockLostError
from exporter.events import Event, GatewaysDiscovered, RunFinished, RunStarted
from exporter.journal.journal import is_worth_resuming
from exporter.listing.bookmark import Bookmark
from exporter.listing.replay import NO_ANSWER_LOG, AnswerLog
from exporter.locks.lock import hold_lock
from exporter.model import Gateway, ListingFacts
from exporter.records.omit import Omission
from exporter.runs.empty_lists import find_emptied, require_no_loss
from exporter.runs.listings import build_listing, build_state, list_into_output
from exporter.runs.manifest import Manifest, Status, build_manifest
from exporter.runs.null_publisher import NullPublisher
from exporter.runs.own_task import run_in_own_task
from exporter.runs.prepare import RunContext, prepare
from exporter.runs.previous import (
    PreviousRun,
    read_previous,
    require_partitions,
)
from exporter.runs.publish import Publisher
from exporter.runs.resume import end_journal, find_start, find_time_range, open_journal
from exporter.runs.state import require_own_state
from exporter.runs.unreadable import UnreadableRows
from exporter.runs.verdict import require_complete
from exporter.settings.settings import Settings
from exporter.sinks.interface import Output
from exporter.stores.interface import StagedFile
from exporter.tables.interface import Commit
from exporter.version import __version__

logger = logging.getLogger(__name__)


async def export(
    settings: Settings,
    *,
    run_id: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> Manifest:
    """Export the sessions that the settings name and publish them; returns the manifest.

    Raises an ExporterError, or an ExceptionGroup of them, with nothing published: UsageError and
    DestinationError before the first request, LockHeldError when another run writes the same
    output, IncompleteError when completeness could not be proven and `allow_incomplete` is off.
    The journal is kept if the next run can resume from it. A cancelled run has published nothing;
    one that has begun to publish completes it and returns.
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
) -> Manifest:
    """Check the settings, take the output's lock, and run."""
    started_s = anyio.current_time()
    run = await anyio.to_thread.run_sync(
        partial(prepare, settings, run_id=run_id, environ=environ, emit=emit)
    )
    async with open_publisher(run) as publisher:
        previous = await anyio.to_thread.run_sync(recover, run, publisher)
        return await export_run(run, publisher, previous, started_s=started_s)


@asynccontextmanager
async def open_publisher(run: RunContext) -> AsyncIterator[Publisher | NullPublisher]:
    """The publisher of the run's output; the output's lock is held until the context ends."""
    settings, sidecars = run.settings, run.destination.sidecars
    if sidecars is None:
        yield NullPublisher()
        return
    waits = [each for each in (settings.wait, settings.deadline) if each is not None]
    async with hold_lock(
        sidecars.store,
        sidecars.lock,
        output=run.destination.output,
        run_id=run.run_id,
        wait_s=None if settings.wait is None else min(waits),
    ) as lock:
        yield Publisher(
            run.destination,
            sidecars,
            state_at=run.state_at,
            lock=lock,
            keep_s=settings.keep_leftovers if lock.is_lease else None,
        )


def recover(run: RunContext, publisher: Publisher | NullPublisher) -> PreviousRun:
    """Recover from a killed run, and read the previous run; blocks."""
    if run.state_at is not None:
        state_store, state_name = run.state_at
        require_own_state(state_store.read(state_name) or b"", output=run.output_key)
    publisher.recover()
    manifest = publisher.read_manifest()
    if not run.settings.incremental or run.state_at is None:
        return PreviousRun(run_id="" if manifest is None else manifest.run_id)
    if run.destination.kind == "dataset":  # a table knows its own partitions
        publisher.require_manifest()
        require_partitions(manifest, run.settings.partition_by, output=run.destination.output)
    return read_previous(
        run.state_at,
        manifest,
        output=run.output_key,
        region_id=run.api.region_id,
        omit=run.omit,
        filters=run.query.filters,
    )


async def export_run(
    run: RunContext,
    publisher: Publisher | NullPublisher,
    previous: PreviousRun,
    *,
    started_s: float,
) -> Manifest:
    """List into the output and publish it; a failed run publishes nothing."""
    settings = run.settings
    exported_at = previous.exported_at(run.started_at)
    opened = await anyio.to_thread.run_sync(open_outputs, run, exported_at)
    run.emit(RunStarted(run.run_id, run.destination.output, run.started_at))
    journal: AnswerLog = NO_ANSWER_LOG
    try:
        with limit_time(settings.deadline, started_s=started_s):
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
                journal = await anyio.to_thread.run_sync(open_journal, run, previous, gateways)
                run = replace(run, time_range=find_time_range(run, journal))
                started_at = find_start(run.started_at, journal)
                listings = [
                    build_listing(run, previous, gateway, started_at=started_at)
                    for gateway in gateways
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
        emptied = await anyio.to_thread.run_sync(require_sessions, run, publisher, previous, facts)
        await anyio.to_thread.run_sync(publisher.ensure_held)
        state = build_state(
            run, previous, listings, facts, emptied=emptied, exported_at=exported_at
        )
        manifest = await publish(
            run,
            publisher,
            previous,
            opened,
            facts,
            client=client,
            status=status,
            state=state,
            unreadable=unreadable,
            omitted=omission.counts,
        )
    except BaseException as exc:
        # On cancellation too: a run that did not finish leaves no partial output.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(opened.discard)
            await anyio.to_thread.run_sync(
                partial(end_journal, journal, keep=is_worth_resuming(exc))
            )
        raise
    with anyio.CancelScope(shield=True):  # published: cancellation changes nothing now
        await anyio.to_thread.run_sync(partial(end_journal, journal, keep=False))
    return manifest


def require_sessions(
    run: RunContext,
    publisher: Publisher | NullPublisher,
    previous: PreviousRun,
    facts: Sequence[ListingFacts],
) -> dict[Gateway, Bookmark]:
    """Raises EmptiedError where empty lists would remove sessions from the output; blocks.

    A run that adds removes none. It returns the bookmarks of the gateways that were emptied.
    """
    if run.settings.allow_empty:
        return {}
    if run.settings.incremental:
        return find_emptied(previous.bookmarks, facts)
    require_no_loss(run.destination, publisher.read_manifest(), facts, time_range=run.time_range)
    return {}


@dataclass(frozen=True, slots=True)
class OpenOutputs:
    """The output that a run writes while it lists, and the manifest's copy if one is wanted."""

    output: Output
    manifest_copy: StagedFile | None

    def publish_copy(self, manifest: Manifest) -> None:
        if self.manifest_copy is not None:
            self.manifest_copy.write(manifest.dump())
            self.manifest_copy.sync()
            self.manifest_copy.publish()

    def discard(self) -> None:
        self.output.discard()
        if self.manifest_copy is not None:
            self.manifest_copy.discard()


def open_outputs(run: RunContext, exported_at: datetime) -> OpenOutputs:
    """Opens both or none. Raises UsageError and DestinationError."""
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
    return OpenOutputs(output, manifest_copy)


@contextmanager
def limit_time(deadline_s: float | None, *, started_s: float) -> Iterator[None]:
    """Cancel the block at the deadline, which counts from the start of the run; None for never.

    Raises DeadlineError then.
    """
    elapsed_s = anyio.current_time() - started_s
    try:
        with anyio.fail_after(None if deadline_s is None else max(0.0, deadline_s - elapsed_s)):
            yield
    except TimeoutError as exc:
        raise DeadlineError(
            f"the run was not finished within {deadline_s:g}s",
            hint="nothing was published: raise --deadline, or lower the number of gateways",
        ) from exc


async def publish(
    run: RunContext,
    publisher: Publisher | NullPublisher,
    previous: PreviousRun,
    opened: OpenOutputs,
    listings: Sequence[ListingFacts],
    *,
    client: Client,
    status: Status,
    state: bytes | None,
    unreadable: UnreadableRows,
    omitted: Mapping[str, int],
) -> Manifest:
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
        partition_by=run.settings.partition_by,
        mode="incremental" if run.settings.incremental else "full",
        full_because=previous.full_because,
        session_count=facts.session_count,
        coerced_value_count=facts.coerced_value_count,
        previous_files=() if run.destination.kind == "table" else previous.files,
        files=facts.files,
        listings=listings,
        requests=client.counts,
        learnt_rps=client.learnt_rps,
        time_range=run.time_range,
        unreadable_count=unreadable.count,
        unreadable=unreadable.build_entries(),
        omitted=omitted,
    )

    def publish_outputs() -> None:
        publisher.publish(opened.output, manifest, state)
        opened.publish_copy(manifest)
        with suppress(LockLostError):  # another run removes them then
            publisher.remove_leftovers()
        publisher.compact(
            Commit(run_id=run.run_id, exporter_version=__version__, codec=run.settings.compression)
        )

    await anyio.to_thread.run_sync(publish_outputs)
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
