"""What one run is about, checked before anything is asked for or touched."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from exporter.config import Settings
from exporter.destinations import Destination, hold_file, resolve_destination
from exporter.errors import UsageError
from exporter.events import Event
from exporter.messages import shorten
from exporter.neighbours import require_apart
from exporter.records.omit import resolve_fields
from exporter.service import Service, build_store_access, require_workspace, resolve_service
from exporter.span import Span, resolve_span
from exporter.stores import Store
from exporter.stores.addresses import StoreAccess


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
    omit: tuple[str, ...]
    """The service's names of the fields that are left out."""
    state_at: tuple[Store, str] | None
    """The store and name of the state; None where runs cannot build on each other."""
    environ: Mapping[str, str]
    emit: Callable[[Event], None]

    @property
    def output_key(self) -> str:
        """The output as the state names it: the same however it is spelled."""
        return self.destination.key


def prepare(
    settings: Settings,
    *,
    run_id: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> Run:
    """What can be checked before anything is touched; blocks. Raises UsageError,
    DestinationError and CredentialsError.
    """
    output = require_output(settings)
    require_workspace(settings)
    started_at = datetime.now(UTC)
    service = resolve_service(settings, environ=environ)
    access = build_store_access(settings, region_id=service.region_id, environ=environ)
    destination = resolve_destination(
        output,
        chosen=settings.format,
        access=access,
        partition_by=settings.partition_by,
        catalogs=settings.paimon,
    )
    require_sequel(settings, destination)
    require_folder(settings, destination)
    require_apart(destination)
    return Run(
        settings=settings,
        run_id=run_id,
        started_at=started_at,
        span=resolve_span(settings.since, settings.until, now=started_at),
        service=service,
        destination=destination,
        omit=resolve_fields(settings.omit, partition_by=settings.partition_by),
        state_at=place_state(settings, destination, access=access),
        environ=environ,
        emit=emit,
    )


def require_sequel(settings: Settings, destination: Destination) -> None:
    """Raises UsageError for an incremental run, or a state, of what runs cannot build on."""
    home = destination.home
    if (settings.incremental or settings.state) and (home is None or home.state is None):
        what = "an incremental run" if settings.incremental else "a state"
        raise UsageError(
            f"{what} needs a folder or a table, not '{shorten(destination.output)}'",
            hint="name a folder to add parts to, such as --output sessions/",
        )
    if settings.incremental and (settings.since or settings.until):
        raise UsageError(
            "an incremental run takes no --since and no --until",
            hint="filter by create_time when you query, or leave out --incremental",
        )


def require_folder(settings: Settings, destination: Destination) -> None:
    """Raises UsageError for partitions of what is no folder."""
    if settings.partition_by and destination.kind in {"file", "stream"}:
        raise UsageError(
            f"partitions need a folder, not '{shorten(destination.output)}'",
            hint="name a folder, such as --output sessions/, or leave out --partition-by",
        )


def place_state(
    settings: Settings, destination: Destination, *, access: StoreAccess
) -> tuple[Store, str] | None:
    home = destination.home
    if home is None or home.state is None:
        return None
    if settings.state is None:
        return home.store, home.state
    return hold_file(settings.state, access=access)


def require_output(settings: Settings) -> str:
    if settings.output is None:
        raise UsageError("no output", hint="name a file with --output, or - for stdout")
    return settings.output
