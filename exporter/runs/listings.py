"""The listings of a run: how each gateway is listed, and the state for the next run."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

import anyio
import anyio.to_thread

from exporter.api import calls
from exporter.api.client import Client
from exporter.events import SessionsWritten
from exporter.listing.bookmark import Bookmark, Watch, explain_full_listing
from exporter.listing.fetch import fetch_sessions
from exporter.listing.full import FullListing
from exporter.listing.incremental import IncrementalListing
from exporter.listing.interface import Listing, PageRequest
from exporter.listing.replay import AnswerLog
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage
from exporter.records.omit import Omission
from exporter.runs.prepare import RunContext
from exporter.runs.previous import PreviousRun, update_bookmarks
from exporter.runs.state import State, dump_state
from exporter.runs.unreadable import UnreadableRows
from exporter.sinks.interface import Output
from exporter.times import floor_ms
from exporter.version import __version__


def build_listing(
    run: RunContext, previous: PreviousRun, gateway: Gateway, *, started_at: datetime
) -> Listing:
    """The listing of a gateway: in full, or from its bookmark on.

    `started_at` is the start of the first run whose answers it gets.
    """
    settings = run.settings
    page_size = run.query.page_size
    if run.state_at is None or run.time_range.has_bounds:
        return FullListing(gateway, page_size=page_size, time_range=run.time_range)
    bookmark = previous.bookmarks.get(gateway)
    watch = Watch(now_ms=floor_ms(started_at), settle_ms=round(settings.settle * 1000))
    full_because = ""
    if bookmark is not None and settings.full_every is not None:
        full_because = explain_full_listing(
            bookmark, now_ms=watch.now_ms, every_s=settings.full_every
        )
    return IncrementalListing(
        gateway, bookmark, page_size=page_size, watch=watch, full_because=full_because
    )


def build_state(
    run: RunContext,
    previous: PreviousRun,
    listings: Sequence[Listing],
    facts: Sequence[ListingFacts],
    *,
    emptied: Mapping[Gateway, Bookmark],
    exported_at: datetime,
) -> bytes | None:
    """The state that the next incremental run starts from; None where it must list in full.

    An `emptied` gateway keeps its previous bookmark.
    """
    if run.state_at is None or run.time_range.has_bounds:
        return None
    unproven = {each.gateway for each in facts if each.proof == "unproven"}
    bookmarks = {
        each.gateway: None if each.gateway in unproven else each.bookmark for each in listings
    }
    return dump_state(
        State(
            run_id=run.run_id,
            exporter_version=__version__,
            exported_at=exported_at,
            region_id=run.api.region_id,
            output=run.output_key,
            format_name=run.destination.format,
            gateways=update_bookmarks(previous, {**bookmarks, **emptied}, facts),
            omit=run.omit,
            filters=run.query.filters,
        )
    )


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
    """Drive the listings and write their rows as they come; returns the facts of each gateway."""

    async def fetch_page(request: PageRequest) -> SessionPage:
        query = replace(run.query, page_size=request.page_size)
        return await client.send(
            calls.list_sessions(request.gateway, query, page_num=request.page_num)
        )

    async def on_rows(gateway: Gateway, sessions: list[RawSession]) -> None:
        readable = omission.leave_out(unreadable.leave_out(gateway, sessions))
        await anyio.to_thread.run_sync(output.write, gateway, readable)
        run.emit(SessionsWritten(len(readable)))

    def view(request: PageRequest, page: SessionPage) -> SessionPage:
        unreadable.record(request, page)
        return replace(page, sessions=omission.blank(page.sessions))

    facts = await fetch_sessions(
        listings,
        fetch_page=fetch_page,
        on_rows=on_rows,
        page_size=run.query.page_size,
        concurrency=run.settings.concurrency,
        emit=lambda event: run.emit(unreadable.amend_event(event)),
        view=view,
        journal=journal,
    )
    return unreadable.amend(facts)
