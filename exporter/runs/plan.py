"""Estimates before an export: the gateways that exist, and the cost of listing them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import anyio

from exporter.api import calls
from exporter.api.connect import connect, resolve_endpoint
from exporter.api.discovery import ALL, DiscoveredGateway, choose_gateways, discover_gateways
from exporter.events import Event
from exporter.journal.segments import estimate_journal_bytes
from exporter.model import Gateway
from exporter.runs.prepare import build_query, require_workspace
from exporter.settings.settings import Settings


@dataclass(frozen=True, slots=True)
class PlannedListing:
    """The estimated cost of exporting one gateway."""

    gateway: Gateway
    session_count: int
    page_count: int
    request_count: int
    """Pages, and the further requests of the completeness proof."""
    journal_bytes: int
    """Size of the journal, which a run keeps on disk until it has published."""
    latency_s: float
    """Duration of the one request."""


async def plan(
    settings: Settings, *, environ: Mapping[str, str], emit: Callable[[Event], None]
) -> list[PlannedListing]:
    """Estimate the export of each gateway from one of its pages; writes nothing."""
    require_workspace(settings)
    api = resolve_endpoint(settings, environ=environ)
    async with connect(settings, api, emit=emit, environ=environ) as client:
        gateways = await choose_gateways(
            client,
            region_id=api.region_id,
            workspaces=settings.workspace,
            gateways=settings.gateway,
        )
        planned: dict[Gateway, PlannedListing] = {}

        # The service may return fewer rows than requested, so the page count depends on the page.
        async def ask(gateway: Gateway, limiter: anyio.CapacityLimiter) -> None:
            async with limiter:
                started_s = time.monotonic()
                page = await client.send(
                    calls.list_sessions(gateway, build_query(settings), page_num=1)
                )
                latency_s = time.monotonic() - started_s
            page_size = len(page.sessions) or settings.page_size
            pages = max(1, -(-page.total_count // page_size))
            sentinel = 0 if pages == 1 else 1
            planned[gateway] = PlannedListing(
                gateway,
                session_count=page.total_count,
                page_count=pages,
                request_count=pages + sentinel,
                journal_bytes=estimate_journal_bytes(page.total_count, page),
                latency_s=latency_s,
            )

        async with anyio.create_task_group() as tasks:
            limiter = anyio.CapacityLimiter(settings.concurrency)
            for gateway in gateways:
                tasks.start_soon(ask, gateway, limiter)
    return [planned[gateway] for gateway in gateways]


async def find_gateways(
    settings: Settings, *, environ: Mapping[str, str], emit: Callable[[Event], None]
) -> list[DiscoveredGateway]:
    """Discover the gateways of the named workspaces, or of all."""
    api = resolve_endpoint(settings, environ=environ)
    async with connect(settings, api, emit=emit, environ=environ) as client:
        return await discover_gateways(
            client,
            region_id=api.region_id,
            workspaces=settings.workspace or (ALL,),
            gateways=settings.gateway,
        )
