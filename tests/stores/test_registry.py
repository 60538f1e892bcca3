"""The registry lists every kind of object store, and needs one entry for a new one."""

import io
import secrets
from collections.abc import Mapping
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from exporter import Settings, export
from exporter.emulator.server import Emulator
from exporter.errors import LockHeldError, UsageError
from exporter.locks.lock import hold_lock
from exporter.stores.interface import Store, StoreKind
from exporter.stores.registry import STORES, find_kind, is_object_store, open_store, parse_address
from exporter.stores.url import Address, StoreAccess
from tests.stores.test_stores import StoreContract
from tests.support.program import SCENARIO, environ_for


@pytest.fixture(autouse=True)
def kinds(monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """With one more kind in them."""
    more = {**STORES, "mem": "tests.support.memory_kind"}
    monkeypatch.setattr("exporter.stores.registry.STORES", more)
    return more


@pytest.fixture
def url() -> str:
    return f"mem://{secrets.token_hex(4)}/exports"


def test_every_entry_names_a_module_with_its_kind(kinds: Mapping[str, str]) -> None:
    for scheme in kinds:
        assert isinstance(find_kind(Address(scheme, "bucket", "")), StoreKind)


def test_url_of_a_new_kind_is_read_as_any_other() -> None:
    assert parse_address("mem://bucket/a/") == Address("mem", "bucket", "a")
    assert is_object_store("mem://bucket/a")
    with pytest.raises(UsageError) as refused:
        parse_address("hdfs://node/a")
    assert "gs://BUCKET/KEY, mem://BUCKET/KEY" in str(refused.value.hint)


class TestMemoryKind(StoreContract):
    @pytest.fixture
    def store(self, url: str) -> Store:
        return open_store(url, StoreAccess())

    def count_staged(self, store: Store) -> int:
        return 0


def test_only_the_current_version_is_replaced(url: str) -> None:
    store = open_store(url, StoreAccess())
    store.replace("a", b"one")
    tag = store.tag_of("a")
    store.replace("a", b"two")

    replaced = store.replace_version("a", b"late", tag=tag)

    assert not replaced
    assert store.read("a") == b"two"


async def test_output_in_a_new_kind_is_locked(url: str) -> None:
    one, other = open_store(url, StoreAccess()), open_store(url, StoreAccess())

    async with hold_lock(one, "lock", output=url, run_id="r-1", wait_s=None):
        with pytest.raises(LockHeldError, match="r-1"):
            async with hold_lock(other, "lock", output=url, run_id="r-2", wait_s=None):
                pass


@pytest.mark.parametrize("name", ["sessions.parquet", "sessions/"])
async def test_export_to_a_new_kind_is_complete(
    name: str, url: str, emulator: Emulator, tmp_path: Path
) -> None:
    settings = Settings(
        endpoint=emulator.endpoint,
        region=SCENARIO.region_id,
        workspace=("all",),
        output=f"{url}/{name}",
    )

    await export(settings, environ=environ_for(emulator, tmp_path))
    manifest = await export(settings, environ=environ_for(emulator, tmp_path))

    folder = open_store(url, StoreAccess())
    parts = [each.name for each in folder.list_files() if each.name.endswith(".parquet")]
    contents = [folder.read(each) or b"" for each in parts]
    row_count = sum(pq.read_metadata(io.BytesIO(each)).num_rows for each in contents)
    assert row_count == manifest.row_count > 0
