"""Google Cloud Storage: its client finds the identity itself; begun uploads cannot be listed."""

from typing import TYPE_CHECKING, Final

from exporter.stores.client import DELTA_TIMEOUTS, Clients, build_client_options, build_retry_config
from exporter.stores.error_map import ErrorMap
from exporter.stores.interface import StoreKind
from exporter.stores.objects import ObjectStore
from exporter.stores.url import Address, StoreAccess

if TYPE_CHECKING:
    from obstore.store import GCSConfig


def open_gcs(address: Address, access: StoreAccess) -> ObjectStore:
    from obstore.store import GCSStore

    config: GCSConfig = {} if access.endpoint is None else {"base_url": access.endpoint}
    errors = ErrorMap(
        bucket=address.bucket,
        no_identity="set GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is"
        " attached",
        no_permission="the identity needs the role roles/storage.objectUser on the bucket",
    )

    def build_clients(within_s: float) -> Clients:
        with errors.translated(address.url, doing="open"):
            return Clients(
                GCSStore(
                    address.bucket,
                    config=config,
                    client_options=build_client_options(
                        access.endpoint or "https://", within_s=within_s
                    ),
                    retry_config=build_retry_config(access.retries, within_s=within_s),
                )
            )

    return ObjectStore(address, build_clients=build_clients, errors=errors)


KIND: Final = StoreKind(
    open_store=open_gcs, choose_delta_options=lambda _address, _access: lambda: DELTA_TIMEOUTS
)
