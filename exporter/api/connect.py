"""Resolves the region and endpoint of a run and opens a client for it."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from exporter.api.client import Client, open_client
from exporter.api.credentials import open_identity, read_profile_region
from exporter.errors import UsageError
from exporter.events import Event
from exporter.settings.endpoints import build_endpoint, check_endpoint, check_region
from exporter.settings.settings import Settings
from exporter.version import __version__


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    region_id: str
    endpoint: str


def resolve_endpoint(settings: Settings, *, environ: Mapping[str, str]) -> ApiEndpoint:
    """Raises UsageError if no source names a region, or if region or endpoint is malformed."""
    region = find_region(settings, environ=environ)
    if not region:
        raise UsageError("no region", hint="name it with --region, such as --region cn-hangzhou")
    check_region(region)
    endpoint = settings.endpoint or build_endpoint(region=region, network=settings.network)
    return ApiEndpoint(region, check_endpoint(endpoint))


def find_region(settings: Settings, *, environ: Mapping[str, str]) -> str | None:
    """From the settings, the profile or the environment, in this order."""
    return (
        settings.region
        or read_profile_region(profile=settings.profile, environ=environ)
        or environ.get("ALIBABA_CLOUD_REGION_ID")
        or None
    )


def connect(
    settings: Settings,
    api: ApiEndpoint,
    *,
    emit: Callable[[Event], None],
    environ: Mapping[str, str],
) -> AbstractAsyncContextManager[Client]:
    return open_client(
        endpoint=api.endpoint,
        identity=open_identity(profile=settings.profile, environ=environ, now_s=time.monotonic),
        concurrency=settings.concurrency,
        max_rps=settings.max_rps,
        retries=settings.retries,
        patience_s=settings.patience,
        timeout_s=settings.timeout,
        user_agent=f"livy-exporter/{__version__}",
        environ=environ,
        emit=emit,
    )
