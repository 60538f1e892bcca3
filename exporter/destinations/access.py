"""How a run reaches object stores: by which identity and from which network."""

from collections.abc import Callable, Mapping
from functools import cache

from exporter.api.credentials import Credential, choose_fetch
from exporter.settings.endpoints import check_endpoint
from exporter.settings.settings import Settings
from exporter.stores.url import StoreAccess


def build_store_access(
    settings: Settings, *, region_id: str | None, environ: Mapping[str, str]
) -> StoreAccess:
    """Object stores are reached by the identity, and from the network, of the API calls."""

    @cache
    def choose() -> Callable[[], Credential]:
        # Only when asked: an output outside OSS needs no key, nor an error about half of one.
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
