"""Prepares a run: checks its settings before any request or write."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.api.connect import ApiEndpoint, resolve_endpoint
from exporter.destinations.access import build_store_access
from exporter.destinations.destination import Destination
from exporter.destinations.neighbours import require_apart
from exporter.destinations.resolve import locate_file, resolve_destination
from exporter.errors import UsageError, quote, shorten
from exporter.events import Event
from exporter.model import ListingQuery, TimeRange
from exporter.records.omit import resolve_fields
from exporter.settings.annotations import EXAMPLES, parse_instant
from exporter.settings.settings import Settings
from exporter.stores.interface import Store
from exporter.stores.url import StoreAccess
from exporter.times import ceil_ms, format_ms


def build_run_id(started_at: datetime) -> str:
    """A unique run id that sorts by the start of the run."""
    return f"{started_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """The settings of one run, resolved and checked; constant while it runs."""

    settings: Settings
    run_id: str
    started_at: datetime
    time_range: TimeRange
    api: ApiEndpoint
    query: ListingQuery
    destination: Destination
    omit: tuple[str, ...]
    """The service's names of the omitted fields."""
    state_at: tuple[Store, str] | None
    """The store and name of the state; None for an output without incremental runs."""
    environ: Mapping[str, str]
    emit: Callable[[Event], None]

    @property
    def output_key(self) -> str:
        """The output's name in the state: the same for all its spellings."""
        return self.destination.key


def prepare(
    settings: Settings,
    *,
    run_id: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> RunContext:
    """Resolve and check the settings, without a request or a write; blocks.

    Raises UsageError, DestinationError and CredentialsError.
    """
    output = require_output(settings)
    require_workspace(settings)
    started_at = datetime.now(UTC)
    api = resolve_endpoint(settings, environ=environ)
    access = build_store_access(settings, region_id=api.region_id, environ=environ)
    destination = resolve_destination(
        output,
        chosen=settings.format,
        access=access,
        partition_by=settings.partition_by,
        catalogs=settings.paimon,
    )
    require_incremental_output(settings, destination)
    require_folder(settings, destination)
    require_apart(destination)
    return RunContext(
        settings=settings,
        run_id=run_id,
        started_at=started_at,
        time_range=resolve_time_range(settings.since, settings.until, now=started_at),
        api=api,
        query=build_query(settings),
        destination=destination,
        omit=resolve_fields(settings.omit, partition_by=settings.partition_by),
        state_at=place_state(settings, destination, access=access),
        environ=environ,
        emit=emit,
    )


def build_query(settings: Settings) -> ListingQuery:
    return ListingQuery(page_size=settings.page_size)


def require_incremental_output(settings: Settings, destination: Destination) -> None:
    """Raises UsageError for an incremental run, or a state, of an output that allows neither."""
    sidecars = destination.sidecars
    if (settings.incremental or settings.state) and (sidecars is None or sidecars.state is None):
        subject = "an incremental run" if settings.incremental else "a state"
        raise UsageError(
            f"{subject} needs a folder or a table, not '{shorten(destination.output)}'",
            hint="name a folder to add parts to, such as --output sessions/",
        )
    if settings.incremental and (settings.since or settings.until):
        raise UsageError(
            "an incremental run takes no --since and no --until",
            hint="filter by create_time when you query, or leave out --incremental",
        )


def require_folder(settings: Settings, destination: Destination) -> None:
    """Raises UsageError for partitions of an output that is not a folder."""
    if settings.partition_by and destination.kind in {"file", "stream"}:
        raise UsageError(
            f"partitions need a folder, not '{shorten(destination.output)}'",
            hint="name a folder, such as --output sessions/, or leave out --partition-by",
        )


def place_state(
    settings: Settings, destination: Destination, *, access: StoreAccess
) -> tuple[Store, str] | None:
    sidecars = destination.sidecars
    if sidecars is None or sidecars.state is None:
        return None
    if settings.state is None:
        return sidecars.store, sidecars.state
    return locate_file(settings.state, access=access)


def require_output(settings: Settings) -> str:
    if settings.output is None:
        raise UsageError("no output", hint="name a file with --output, or - for stdout")
    return settings.output


def require_workspace(settings: Settings) -> None:
    if not settings.workspace:
        raise UsageError("no workspace", hint="name it with --workspace ID, or --workspace all")


def resolve_time_range(since: str | None, until: str | None, *, now: datetime) -> TimeRange:
    """The time range of the two settings, for a run that starts `now`.

    Raises UsageError for an invalid instant, and for a range that no session can be in.
    """
    since_ms, until_ms = (
        None if text is None else read_setting(flag, text, now=now)
        for flag, text in (("--since", since), ("--until", until))
    )
    if since_ms is not None and since_ms > ceil_ms(now):
        raise UsageError(
            f"--since {since} is in the future: {format_ms(since_ms)}",
            hint=f"no session was created since; give an earlier one, such as {EXAMPLES}",
        )
    if since_ms is not None and until_ms is not None and since_ms >= until_ms:
        raise UsageError(
            f"--since {since} is not before --until {until}:"
            f" {format_ms(since_ms)}, {format_ms(until_ms)}",
            hint="sessions are kept that were created at --since or later, and before --until",
        )
    return TimeRange(since_ms, until_ms)


def read_setting(flag: str, text: str, *, now: datetime) -> int:
    try:
        return parse_instant(text, now=now)
    except ValueError as exc:
        raise UsageError(f"{flag} {quote(text)} {exc}", hint=f"give {EXAMPLES}") from exc
