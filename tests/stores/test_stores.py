"""The contract of all stores: one suite, inherited once a store."""

import hashlib
import io
import logging
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporter.errors import DestinationError, LockLostError, StoreRefusedError
from exporter.stores.interface import StagedFile, Store
from exporter.stores.local import LocalStore
from exporter.stores.registry import open_store
from exporter.stores.url import StoreAccess
from tests.support.object_server import FLAKY_KEY, ObjectServer

RUN_ID = "20260112T102400Z-0a1b2c"
OTHER_RUN_ID = "20260112T102401Z-0a1b2d"
LARGE = 20 << 20
NAMES = (
    "a.txt",
    "dt=2026-01-12/名前 é +%41&=#?.txt",
    "queue=%00%0A%22%23%25%2F%5C%7F%7B/state=}<>|&;!@$()+,~` '/part-1.parquet",
    ".hidden",
    "_exporter/state.json",
)


@dataclass(frozen=True)
class Key:
    access_key_id: str = "key"
    access_key_secret: str = "secret"
    security_token: str | None = None


def stage_whole(store: Store, name: str, content: bytes, *, run_id: str = RUN_ID) -> StagedFile:
    staged = store.stage(name, run_id=run_id)
    view = memoryview(content)
    for start in range(0, len(content), 1 << 18):
        staged.write(bytes(view[start : start + (1 << 18)]))
    staged.sync()
    return staged


def read_names(store: Store, prefix: str = "") -> list[str]:
    return sorted(each.name for each in store.list_files(prefix))


def random_bytes(size_bytes: int) -> bytes:
    return secrets.token_bytes(1 << 10) * (size_bytes >> 10)


class StoreContract:
    """Subclasses provide an empty store, as a fixture."""

    def count_staged(self, store: Store) -> int:
        """Staged files, as other processes see them."""
        raise NotImplementedError

    @pytest.mark.parametrize("size_bytes", [0, 1, 100_000, LARGE])
    def test_file_is_there_only_when_published(self, store: Store, size_bytes: int) -> None:
        content = random_bytes(LARGE)[:size_bytes]

        staged = stage_whole(store, "a.bin", content)
        before = store.size_of("a.bin"), store.read("a.bin"), read_names(store)
        staged.publish()

        assert before == (None, None, [])
        assert store.size_of("a.bin") == size_bytes
        assert store.read("a.bin") == content
        assert read_names(store) == ["a.bin"]
        assert self.count_staged(store) == 0

    @pytest.mark.parametrize("size_bytes", [0, 100_000, LARGE])
    def test_discarded_file_leaves_nothing(self, store: Store, size_bytes: int) -> None:
        staged = stage_whole(store, "folder/a.bin", bytes(size_bytes))

        staged.discard()
        staged.discard()

        assert store.read("folder/a.bin") is None
        assert read_names(store) == []
        assert self.count_staged(store) == 0

    def test_file_can_be_discarded_while_it_is_written(self, store: Store) -> None:
        staged = store.stage("a.bin", run_id=RUN_ID)
        staged.write(bytes(LARGE))

        staged.discard()

        assert store.size_of("a.bin") is None
        assert self.count_staged(store) == 0

    @pytest.mark.parametrize("size_bytes", [10, LARGE])
    def test_reader_sees_the_old_file_until_the_new_is_published(
        self, store: Store, size_bytes: int
    ) -> None:
        stage_whole(store, "a.bin", b"old").publish()

        staged = stage_whole(store, "a.bin", bytes(size_bytes), run_id=OTHER_RUN_ID)
        before = store.read("a.bin")
        staged.publish()

        assert before == b"old"
        assert store.size_of("a.bin") == size_bytes

    def test_discard_after_publish_keeps_the_file(self, store: Store) -> None:
        staged = stage_whole(store, "a.bin", b"kept")
        staged.publish()

        staged.discard()

        assert store.read("a.bin") == b"kept"

    def test_many_files_are_staged_at_a_time(self, store: Store) -> None:
        contents = {f"part-{n}.bin": random_bytes(200_000 * n) for n in range(1, 5)}

        staged = [stage_whole(store, name, content) for name, content in contents.items()]
        for each in staged:
            each.publish()

        assert {name: store.read(name) for name in contents} == contents

    @pytest.mark.parametrize("name", NAMES)
    def test_name_is_kept_as_it_is(self, store: Store, name: str) -> None:
        store.replace(name, b"1")
        stage_whole(store, f"{name}.2", b"22").publish()

        assert read_names(store) == [name, f"{name}.2"]
        assert store.read(name) == b"1"
        with store.open_input(f"{name}.2") as stream:
            assert stream.read() == b"22"

    def test_replace_puts_one_content_in_place_of_another(self, store: Store) -> None:
        store.replace("state.json", b"one")
        store.replace("state.json", b"two")

        assert store.read("state.json") == b"two"

    def test_create_writes_once(self, store: Store) -> None:
        written = store.create("_exporter/lock", b"first"), store.create("_exporter/lock", b"late")

        assert written == (True, False)
        assert store.read("_exporter/lock") == b"first"

    def test_one_of_many_creators_wins(self, store: Store) -> None:
        winners: list[bytes] = []
        start = threading.Barrier(8)

        def race(content: bytes) -> None:
            start.wait()
            if store.create("lock", content):
                winners.append(content)

        racers = [threading.Thread(target=race, args=(b"%d" % n,)) for n in range(8)]
        for each in racers:
            each.start()
        for each in racers:
            each.join()

        assert len(winners) == 1
        assert store.read("lock") == winners[0]

    def test_files_are_listed_by_the_start_of_their_names(self, store: Store) -> None:
        for name in ("a/1", "a/2", "ab/3", "b/a/4", "a.txt"):
            store.replace(name, name.encode())

        assert read_names(store) == ["a.txt", "a/1", "a/2", "ab/3", "b/a/4"]
        assert read_names(store, "a/") == ["a/1", "a/2"]
        assert read_names(store, "a") == ["a.txt", "a/1", "a/2", "ab/3"]
        assert read_names(store, "b/a/") == ["b/a/4"]
        assert read_names(store, "c") == []
        assert {each.size_bytes for each in store.list_files("a/")} == {3}

    def test_removed_files_are_gone_and_missing_ones_are_no_error(self, store: Store) -> None:
        for name in ("a/1", "a/2", "b"):
            store.replace(name, b"x")

        store.remove([])
        store.remove(["a/1", "nothing", "b"])
        store.remove(["a/1"])

        assert read_names(store) == ["a/2"]

    def test_input_is_read_from_any_place(self, store: Store) -> None:
        content = random_bytes(3 << 20)
        store.replace("a.bin", content)

        with store.open_input("a.bin") as stream:
            stream.seek(1_500_000)
            middle = stream.read(10)
            stream.seek(-5, io.SEEK_END)
            end = stream.read(), stream.read()
            stream.seek(0)
            digest = hashlib.sha256(stream.read()).hexdigest()

        assert middle == content[1_500_000:1_500_010]
        assert end == (content[-5:], b"")
        assert digest == hashlib.sha256(content).hexdigest()

    def test_arrow_reads_parquet_from_the_input(self, store: Store) -> None:
        table = pa.table({"n": list(range(10_000))})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        stage_whole(store, "a.parquet", buffer.getvalue()).publish()

        with store.open_input("a.parquet") as stream:
            assert pq.read_table(stream).equals(table)

    def test_input_of_a_missing_file_is_refused(self, store: Store) -> None:
        with pytest.raises(DestinationError, match=r"nothing\.bin"):
            store.open_input("nothing.bin")

    def test_remove_leftovers_keeps_what_is_published(self, store: Store) -> None:
        stage_whole(store, f"part-{RUN_ID}-00000.parquet", b"kept").publish()

        store.remove_leftovers()
        store.remove_leftovers([f"part-{RUN_ID}-00000.parquet"])

        assert read_names(store) == [f"part-{RUN_ID}-00000.parquet"]

    def test_remove_leftovers_spares_what_this_store_is_writing(self, store: Store) -> None:
        name = f"part-{RUN_ID}-00000.parquet"
        staged = stage_whole(store, name, bytes(LARGE))

        store.remove_leftovers()
        staged.publish()

        assert store.size_of(name) == LARGE

    def test_path_is_what_the_user_would_write(self, store: Store) -> None:
        assert store.path_of("dt=1/a.txt") == f"{store.url}/dt=1/a.txt"


class TestLocalStore(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return LocalStore(f"{tmp_path}/")

    def count_staged(self, store: Store) -> int:
        return sum(1 for each in Path(store.url).rglob("*") if each.is_file()) - len(
            read_names(store)
        )


class ObjectStoreContract(StoreContract):
    @pytest.fixture(autouse=True)
    def reachable(self, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in object_server.environ().items():
            monkeypatch.setenv(name, value)

    @pytest.fixture
    def access(self, object_server: ObjectServer) -> StoreAccess:
        raise NotImplementedError

    @pytest.fixture
    def store(self, bucket: str, access: StoreAccess, judge: Any) -> Store:
        self.judge, self.bucket_name = judge, bucket
        return open_store(f"{self.scheme}://{bucket}/exports/名前", access)

    scheme = "s3"

    def count_staged(self, store: Store) -> int:
        return len(self.judge.list_multipart_uploads(Bucket=self.bucket_name).get("Uploads", []))

    def begin_upload(self, key: str) -> None:
        self.judge.create_multipart_upload(Bucket=self.bucket_name, Key=key)

    def test_large_object_is_sent_while_it_is_written(self, store: Store) -> None:
        staged = store.stage("a.bin", run_id=RUN_ID)
        staged.write(bytes(LARGE))

        while self.count_staged(store) == 0:
            time.sleep(0.01)
        staged.discard()

        assert self.count_staged(store) == 0

    def test_upload_of_a_killed_run_is_aborted(self, store: Store) -> None:
        self.begin_upload("exports/名前/sessions.parquet")
        self.begin_upload(f"exports/名前/dt=1/part-{RUN_ID}-00000.parquet")

        store.remove_leftovers(["sessions.parquet"])
        after_one = self.count_staged(store)
        store.remove_leftovers()

        assert after_one == 1
        assert self.count_staged(store) == 0

    def test_upload_of_others_is_left_alone(self, store: Store) -> None:
        self.begin_upload("exports/名前/theirs.bin")
        self.begin_upload(f"elsewhere/part-{RUN_ID}-00000.parquet")

        store.remove_leftovers()
        store.remove_leftovers(["mine.bin"])

        assert self.count_staged(store) == 2

    def test_upload_of_another_run_waits_until_it_is_old(
        self, store: Store, bucket: str, access: StoreAccess
    ) -> None:
        other = open_store(store.url, access)
        stage_whole(store, "a.bin", bytes(LARGE))
        while self.count_staged(store) == 0:
            time.sleep(0.01)

        other.remove_leftovers(["a.bin"], keep_s=3600.0)
        after_one = self.count_staged(store)
        other.remove_leftovers(["a.bin"], keep_s=0.0)

        assert (after_one, self.count_staged(store)) == (1, 0)

    def test_older_upload_cannot_complete_after_the_next_publish(
        self, store: Store, access: StoreAccess
    ) -> None:
        """A run began to send an object in parts, lost its lock and does not know it."""
        late = stage_whole(store, "a.bin", bytes(LARGE))
        while self.count_staged(store) == 0:
            time.sleep(0.01)
        other = open_store(store.url, access)
        other.remove_leftovers(["a.bin"], keep_s=3600.0)

        stage_whole(other, "a.bin", b"theirs", run_id=OTHER_RUN_ID).publish()
        with pytest.raises(DestinationError):
            late.publish()

        late.discard()
        assert store.read("a.bin") == b"theirs"

    def test_marker_of_a_folder_is_no_file(self, store: Store) -> None:
        for key in ("exports/名前/", "exports/名前/dt=1/", "exports/名前/_exporter/"):
            self.judge.put_object(Bucket=self.bucket_name, Key=key, Body=b"")
        store.replace("dt=1/empty", b"")

        assert read_names(store) == ["dt=1/empty"]

    def test_enclosing_folders_are_listed_outwards(self, store: Store) -> None:
        start = f"{self.scheme}://{self.bucket_name}"

        assert [each.url for each in store.enclosing()] == [f"{start}/exports", start]

    def test_neighbour_of_the_folder_is_not_listed(self, store: Store) -> None:
        for key in ("exports/名前2/a", "exports/b", "exports/名前"):
            self.judge.put_object(Bucket=self.bucket_name, Key=key, Body=b"theirs")
        store.replace("a", b"mine")

        assert read_names(store) == ["a"]

    def test_whole_bucket_is_a_store(self, bucket: str, access: StoreAccess) -> None:
        store = open_store(f"{self.scheme}://{bucket}", access)

        store.replace("a/b", b"1")

        assert store.url == f"{self.scheme}://{bucket}"
        assert read_names(store, "a/") == ["a/b"]
        store.remove_leftovers()

    def test_object_replaced_while_it_is_read_is_refused(self, store: Store) -> None:
        store.replace("a.bin", bytes(4 << 20))

        with store.open_input("a.bin") as stream:
            stream.read(10)
            store.replace("a.bin", b"1" * (4 << 20))

            with pytest.raises(DestinationError):
                stream.read()

    def test_memory_of_finished_objects_is_bounded(self, store: Store) -> None:
        import tracemalloc

        tracemalloc.start()
        staged = [stage_whole(store, f"{n}.bin", bytes(4 << 20)) for n in range(8)]
        held = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        for each in staged:
            each.publish()

        assert held < 4 << 20
        assert {store.size_of(f"{n}.bin") for n in range(8)} == {4 << 20}


class TestS3Store(ObjectStoreContract):
    def test_only_the_current_version_is_replaced(self, store: Store) -> None:
        written = [store.replace_version("a", b"one", tag=None)]
        tag = store.tag_of("a")
        written.append(store.replace_version("a", b"two", tag=tag))
        written.append(store.replace_version("a", b"late", tag=tag))
        written.append(store.replace_version("a", b"late", tag=None))
        written.append(store.replace_version("b", b"late", tag=tag))

        assert written == [True, True, False, False, False]
        assert store.read("a") == b"two"

    @pytest.mark.parametrize("there", [None, b"old"])
    def test_object_that_another_run_wrote_after_the_last_look_at_the_lock_stays(
        self, store: Store, there: bytes | None
    ) -> None:
        if there is not None:
            store.replace("a.bin", there)
        staged = stage_whole(store, "a.bin", b"late")

        class LostMeanwhile:
            """Held when it is checked, and another run's before the request is sent."""

            count = 0

            def ensure_held(self) -> float:
                self.count += 1
                store.replace("a.bin", b"theirs, %d" % self.count)
                return 30.0

        with pytest.raises(LockLostError, match=r"another run wrote 'a\.bin'"):
            staged.publish(LostMeanwhile())

        assert store.read("a.bin") == b"theirs, 2"

    def test_write_is_over_within_its_time(self, bucket: str, access: StoreAccess) -> None:
        with socket.create_server(("127.0.0.1", 0)) as deaf:
            environ = {
                **access.environ,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{deaf.getsockname()[1]}",
            }
            silent = open_store(f"s3://{bucket}", StoreAccess(environ=environ, retries=8))
            began_s = time.monotonic()

            with pytest.raises(DestinationError):
                silent.create("a", b"x", within_s=3.0)

        assert time.monotonic() - began_s < 30

    @pytest.fixture
    def access(self, object_server: ObjectServer) -> StoreAccess:
        environ = {
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_ENDPOINT_URL": object_server.url,
        }
        return StoreAccess(environ=environ, retries=1)

    def test_throttled_requests_are_sent_again(self, bucket: str, access: StoreAccess) -> None:
        environ = {**access.environ, "AWS_ACCESS_KEY_ID": FLAKY_KEY}
        store = open_store(f"s3://{bucket}/a", StoreAccess(environ=environ, retries=3))

        stage_whole(store, "a.bin", bytes(LARGE)).publish()
        created = store.create("lock", b"1")

        assert store.size_of("a.bin") == LARGE
        assert created
        assert read_names(store) == ["a.bin", "lock"]


class TestOssStore(ObjectStoreContract):
    scheme = "oss"

    @pytest.fixture
    def access(self, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch) -> StoreAccess:
        # What is set up for S3 is not for OSS.
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "wrong-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws")
        return StoreAccess(
            region_id="cn-hangzhou", endpoint=object_server.oss_url, fetch_key=Key, retries=1
        )

    def test_upload_outlives_the_token_it_began_with(
        self, bucket: str, access: StoreAccess, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from dataclasses import replace
        from datetime import timedelta

        monkeypatch.setattr("exporter.stores.client.KEY_REUSE", timedelta(seconds=0.5))
        first_until_s = time.time() + 6
        fetched: list[Key] = []

        def fetch() -> Key:
            until_s = first_until_s if not fetched else first_until_s + 3600
            fetched.append(Key(security_token=f"until-{until_s}"))
            return fetched[-1]

        store = open_store(f"oss://{bucket}", replace(access, fetch_key=fetch))
        staged = store.stage("a.bin", run_id=RUN_ID)
        staged.write(bytes(9 << 20))
        time.sleep(max(0.0, first_until_s + 0.1 - time.time()))
        staged.write(bytes(18 << 20))
        staged.publish()

        assert store.size_of("a.bin") == 27 << 20
        assert len(fetched) > 1

    def test_upload_that_lost_its_key_fails_and_leaves_nothing(
        self, bucket: str, access: StoreAccess, monkeypatch: pytest.MonkeyPatch, judge: Any
    ) -> None:
        from dataclasses import replace
        from datetime import timedelta

        monkeypatch.setattr("exporter.stores.client.KEY_REUSE", timedelta(0))
        keys = [Key()]
        store = open_store(f"oss://{bucket}/a", replace(access, fetch_key=lambda: keys[0]))
        staged = store.stage("a.bin", run_id=RUN_ID)
        staged.write(bytes(9 << 20))
        while "Uploads" not in judge.list_multipart_uploads(Bucket=bucket):
            time.sleep(0.01)

        keys[0] = Key(security_token="until-1")
        with pytest.raises(StoreRefusedError, match="SecurityTokenExpired"):  # noqa: PT012 - either
            staged.write(bytes(40 << 20))
            staged.publish()
        keys[0] = Key()
        staged.discard()

        assert "Uploads" not in judge.list_multipart_uploads(Bucket=bucket)
        assert store.size_of("a.bin") is None

    def test_uploads_that_cannot_be_listed_are_logged(
        self,
        bucket: str,
        access: StoreAccess,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        from dataclasses import replace

        store = open_store(
            f"oss://{bucket}/x", replace(access, fetch_key=lambda: Key("wrong-key", "s3cret-value"))
        )

        with caplog.at_level(logging.INFO):
            store.remove_leftovers()

        assert "let a lifecycle rule" in caplog.text
        assert "s3cret-value" not in caplog.text
