"""Complete, concurrent export of Livy Gateway session history from EMR Serverless Spark."""

import os
from collections.abc import Mapping
from typing import Any

from exporter.errors import (
    ApiError,
    CredentialsError,
    DestinationError,
    ExporterError,
    IncompleteError,
    NetworkError,
    UsageError,
)
from exporter.events import Listener
from exporter.settings.settings import Settings

__all__ = [
    "ApiError",
    "CredentialsError",
    "DestinationError",
    "ExporterError",
    "IncompleteError",
    "NetworkError",
    "Settings",
    "UsageError",
    "__version__",
    "export",
]


async def export(
    settings: Settings,
    *,
    listener: Listener | None = None,
    environ: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Export what the settings name and publish it; returns the manifest.

    `listener` is called with each event of the run. Identity, region and proxy may come from
    `environ`, which is the process's own by default. Raises an ExporterError, or an ExceptionGroup
    of them, with nothing published.
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
