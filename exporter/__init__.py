"""Complete, concurrent export of Livy Gateway session history from EMR Serverless Spark."""

import os
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import TYPE_CHECKING, Any

from exporter.errors import (
    ApiError,
    AuthenticationError,
    BadAnswerError,
    ClockSkewError,
    CredentialsError,
    DeadlineError,
    DestinationError,
    EmptiedError,
    ExporterError,
    IncompleteError,
    LockHeldError,
    LockLostError,
    MissingExtraError,
    NetworkError,
    NonceUsedError,
    NotFoundError,
    PermissionDeniedError,
    ProxyRefusedError,
    RefusedError,
    ReplayError,
    ServiceError,
    StoreRefusedError,
    StoreUnfitError,
    ThrottledError,
    TokenExpiredError,
    UnknownIdError,
    UnusableNameError,
    UsageError,
    VerificationError,
)
from exporter.events import (
    Event,
    GatewaysDiscovered,
    Listener,
    ListingFinished,
    ListingStarted,
    PaceLearnt,
    PageRead,
    RequestEnded,
    RequestStarted,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SessionsWritten,
)
from exporter.model import Gateway, ListingFacts
from exporter.settings.settings import Settings
from exporter.version import __version__

if TYPE_CHECKING:
    from exporter.runs.manifest import Manifest
    from exporter.runs.sessions import Sessions

__all__ = [
    "ApiError",
    "AuthenticationError",
    "BadAnswerError",
    "ClockSkewError",
    "CredentialsError",
    "DeadlineError",
    "DestinationError",
    "EmptiedError",
    "Event",
    "ExporterError",
    "Gateway",
    "GatewaysDiscovered",
    "IncompleteError",
    "Listener",
    "ListingFacts",
    "ListingFinished",
    "ListingStarted",
    "LockHeldError",
    "LockLostError",
    "Manifest",
    "MissingExtraError",
    "NetworkError",
    "NonceUsedError",
    "NotFoundError",
    "PaceLearnt",
    "PageRead",
    "PermissionDeniedError",
    "ProxyRefusedError",
    "RefusedError",
    "ReplayError",
    "RequestEnded",
    "RequestStarted",
    "RetryScheduled",
    "RunFinished",
    "RunStarted",
    "ServiceError",
    "Sessions",
    "SessionsWritten",
    "Settings",
    "StoreRefusedError",
    "StoreUnfitError",
    "ThrottledError",
    "TokenExpiredError",
    "UnknownIdError",
    "UnusableNameError",
    "UsageError",
    "VerificationError",
    "__version__",
    "aread_sessions",
    "export",
    "read_sessions",
]


async def export(
    settings: Settings,
    *,
    listener: Listener | None = None,
    environ: Mapping[str, str] | None = None,
) -> "Manifest":
    """Export the sessions that the settings name and publish them; returns the manifest.

    `listener` is called with each event of the run, in order, in the event loop: it must not block.
    Identity, region and proxy may come from `environ`, which is the process's own by default.

    Raises an ExporterError, or an ExceptionGroup of them, with nothing published: `errors` draws
    their tree. A run that is cancelled has published nothing, unless it returns all the same.
    """
    from datetime import UTC, datetime

    from exporter.runs.export import export as run_export
    from exporter.runs.prepare import build_run_id

    return await run_export(
        settings,
        run_id=build_run_id(datetime.now(UTC)),
        environ=os.environ if environ is None else environ,
        emit=listener if listener is not None else lambda _: None,
    )


def read_sessions(
    settings: Settings,
    *,
    spool: str | None = None,
    listener: Listener | None = None,
    environ: Mapping[str, str] | None = None,
) -> "AbstractContextManager[Sessions]":
    """The sessions as an Arrow stream: blocks until they are proven, and raises as `export` does.

    The block's value has `__arrow_c_stream__` and `.manifest`, and may be read any number of times
    while the block lasts. Its rows are in a file in the folder `spool`, by default the one for
    temporary files, and go with the block. It may be called where an event loop runs already, as in
    a notebook. `settings` must name no output.
    """
    from exporter.runs.sessions import read_sessions as read

    emit = listener if listener is not None else lambda _: None
    return read(
        settings, spool=spool, environ=os.environ if environ is None else environ, emit=emit
    )


def aread_sessions(
    settings: Settings,
    *,
    spool: str | None = None,
    listener: Listener | None = None,
    environ: Mapping[str, str] | None = None,
) -> "AbstractAsyncContextManager[Sessions]":
    """`read_sessions` for a program with an event loop of its own, which it does not block."""
    from exporter.runs.sessions import aread_sessions as read

    emit = listener if listener is not None else lambda _: None
    return read(
        settings, spool=spool, environ=os.environ if environ is None else environ, emit=emit
    )


def __getattr__(name: str) -> Any:
    """Imports what needs Arrow or JSON when it is asked for: `--help` must not wait for them."""
    if name == "Manifest":
        from exporter.runs.manifest import Manifest

        return Manifest
    if name == "Sessions":
        from exporter.runs.sessions import Sessions

        return Sessions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
