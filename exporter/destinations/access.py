"""The identity and the network by which a run reaches object stores."""

from collections.abc import Callable, Mapping
from functools import cache

from exporter.api.credentials import Credential, choose_fetch
from exporter.settings.endpoints import check_endpoint
from exporter.settings.settings import Settings
from exporter.stores.url import StoreAccess


def build_store_access(
    settings: Settings, *, region_id: str | None, environ: Mapping[str, str]
) -> StoreAccess:
    """How the run's object stores are reached: by the same identity and from the same network."""

    @cache
    def choose() -> Callable[[], Credential]:
        # Late: an output that is no `oss://` needs no key, and no complaint about half of one.
        return choose_fetch(profile=settings.profile, environ=environ)

    def fetch_key() -> Credential:
        return choose()()

    return StoreAccess(
        region_id=region_id,
        network=settings.network,
        endpoint=None
        if settings.storage_endpoint is None
        else check_endpoint(settings.storage_endpoint),
        addressing=settings.storage_addressing,
        fetch_key=fetch_key,
        retries=settings.retries,
        environ=environ,
    )
