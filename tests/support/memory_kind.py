"""A kind of object store that a newcomer adds: one module, and one entry in the registry."""

from functools import cache

from obstore.store import MemoryStore

from exporter.stores.client import Clients
from exporter.stores.error_map import ErrorMap
from exporter.stores.interface import StoreKind
from exporter.stores.objects import ObjectStore
from exporter.stores.url import Address, StoreAccess


@cache
def bucket_of(name: str) -> MemoryStore:
    return MemoryStore()


def open_memory(address: Address, access: StoreAccess) -> ObjectStore:
    errors = ErrorMap(bucket=address.bucket, no_identity="", no_permission="")
    clients = Clients(bucket_of(address.bucket))
    return ObjectStore(address, build_clients=lambda _: clients, errors=errors)


KIND = StoreKind(open_store=open_memory, choose_delta_options=lambda _address, _access: dict)
