"""A bucket's folder as a store: S3, OSS and Google Cloud Storage through one client library."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from exporter.errors import DestinationError
from exporter.stores.error_map import Failures, read_code
from exporter.stores.interface import StoredFile
from exporter.stores.multipart import OpenUploads
from exporter.stores.uploads import PART_BYTES, PARTS_IN_FLIGHT, Spool, StagedObject, Ways
from exporter.stores.url import Address

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined] # of Python 3.12

    from obstore.store import GCSStore, S3Store

READ_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Clients:
    """The ways to one bucket, each of whose requests is over in the same time."""

    plain: "S3Store | GCSStore"
    creator: "S3Store | None"
    """A client whose writes the store refuses where there is an object; None where the store knows
    the usual conditional write, which `If-None-Match` asks for.
    """


class ObjectStore:
    """Objects below a key of a bucket. Folders are parts of names: none is made or removed."""

    def __init__(
        self,
        address: Address,
        *,
        build_clients: Callable[[float], Clients],
        failures: Failures,
        uploads: OpenUploads | None,
    ) -> None:
        """`build_clients` takes the longest that a request may take, all its tries together;
        infinite for the usual.
        """
        self.url = address.url
        self._address = address
        self._folder = address.key
        self._build_clients = build_clients
        self._clients = build_clients(math.inf)
        self._client = self._clients.plain
        self._hurried: tuple[float, Clients] | None = None
        """Clients for what has to be over soon, and how soon their requests are."""
        self._failures = failures
        self._uploads = uploads
        """None where nobody can list what was begun and never ended."""
        self._spool = Spool()
        self._staged: set[str] = set()

    @property
    def tells_versions(self) -> bool:
        return self._clients.creator is None

    def path_of(self, name: str) -> str:
        return f"{self.url}/{name}".rstrip("/")

    def stage(self, name: str, *, run_id: str) -> StagedObject:
        def put(content: bytes | Iterator[bytes]) -> None:
            self._put(name, content)

        def put_version(content: bytes, tag: str | None, within_s: float) -> bool:
            return self.replace_version(name, content, tag=tag, within_s=within_s)

        def abort_failed() -> None:
            if self._uploads is not None:
                self._uploads.abort(folder=self._folder, keys={key}, spared=set(), keep_s=0.0)

        def abort_others() -> None:
            if self._uploads is not None:
                self._uploads.abort_spared(key)

        key = self._key_of(name)
        self._staged.add(key)
        ways = Ways(
            put=put,
            put_version=put_version,
            read_tag=lambda: self.tag_of(name),
            abort_failed=abort_failed,
            abort_others=abort_others,
        )
        # A name with the run's id in it is nobody else's: what comes late there is in no manifest.
        return StagedObject(name, ways, is_shared=run_id not in name, spool=self._spool)

    def read(self, name: str) -> bytes | None:
        import obstore

        with self._failures.translated(self.path_of(name), doing="read"):
            try:
                return bytes(obstore.get(self._client, self._key_of(name)).bytes())
            except FileNotFoundError as exc:
                require_bucket(exc)
                return None

    def size_of(self, name: str) -> int | None:
        import obstore

        with self._failures.translated(self.path_of(name), doing="read"):
            try:
                return obstore.head(self._client, self._key_of(name))["size"]
            except FileNotFoundError:
                return None

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        key, clients = self._key_of(name), self._clients_within(within_s)
        with self._failures.translated(self.path_of(name)):
            try:
                if clients.creator is None:
                    obstore.put(clients.plain, key, content, mode="create", use_multipart=False)
                else:
                    obstore.put(clients.creator, key, content, use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def replace(self, name: str, content: bytes, *, within_s: float = math.inf) -> None:
        self._put(name, content, within_s=within_s)

    def tag_of(self, name: str) -> str | None:
        import obstore

        with self._failures.translated(self.path_of(name), doing="read"):
            try:
                return obstore.head(self._client, self._key_of(name))["e_tag"]
            except FileNotFoundError:
                return None

    def replace_version(
        self, name: str, content: bytes, *, tag: str | None, within_s: float = math.inf
    ) -> bool:
        import obstore
        from obstore.exceptions import NotSupportedError, PreconditionError

        if tag is None:
            return self.create(name, content, within_s=within_s)
        if not self.tells_versions:
            self.replace(name, content, within_s=within_s)
            return True
        client, key = self._clients_within(within_s).plain, self._key_of(name)
        with self._failures.translated(self.path_of(name)):
            try:
                obstore.put(client, key, content, mode={"e_tag": tag}, use_multipart=False)
            except PreconditionError:
                return False
            except NotSupportedError:
                obstore.put(client, key, content, use_multipart=False)
            return True

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        import obstore

        # The client lists whole folders only.
        folder = self._key_of(prefix.rpartition("/")[0]).rstrip("/")
        start = f"{self._folder}/" if self._folder else ""
        with self._failures.translated(self.path_of(prefix), doing="list"):
            for chunk in obstore.list(self._client, prefix=folder or None):
                for each in chunk:
                    name = each["path"].removeprefix(start)
                    if not each["path"].startswith(start) or not name.startswith(prefix):
                        continue
                    if each["size"] == 0 and self.size_of(name) is None:
                        continue  # `NAME/`, which stands for a folder in some tools
                    yield StoredFile(name, each["size"], each["last_modified"])

    def remove(self, names: Sequence[str]) -> None:
        import obstore

        if not names:
            return
        with self._failures.translated(self.path_of(names[0]), doing="remove"):
            try:
                obstore.delete(self._client, [self._key_of(name) for name in names])
            except FileNotFoundError as exc:
                require_bucket(exc)
                if len(names) > 1:  # a store that misses one may have left the others
                    for name in names:
                        self.remove([name])

    def remove_leftovers(self, names: Sequence[str] | None = None, *, keep_s: float = 0.0) -> None:
        if self._uploads is None:
            return
        keys = None if names is None else {self._key_of(name) for name in names}
        self._uploads.abort(folder=self._folder, keys=keys, spared=self._staged, keep_s=keep_s)

    def enclosing(self) -> Iterator["ObjectStore"]:
        folder = self._folder
        while folder:
            folder = folder.rpartition("/")[0]
            yield ObjectStore(
                replace(self._address, key=folder),
                build_clients=lambda _: self._clients,
                failures=self._failures,
                uploads=self._uploads,
            )

    def open_input(self, name: str) -> BinaryIO:
        import obstore

        path = self.path_of(name)
        with self._failures.translated(path, doing="read"):
            try:
                meta = obstore.head(self._client, self._key_of(name))
            except FileNotFoundError:
                raise DestinationError(f"cannot read '{path}': there is no such object") from None
        opened = ObjectInput(
            self._client,
            self._key_of(name),
            path=path,
            size_bytes=meta["size"],
            tag=meta["e_tag"],
            failures=self._failures,
        )
        return cast("BinaryIO", io.BufferedReader(opened, buffer_size=READ_BYTES))

    def _key_of(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    def _clients_within(self, within_s: float) -> Clients:
        if within_s == math.inf:
            return self._clients
        if self._hurried is None or self._hurried[0] > within_s:
            # With something to spare, so that the next request that is in a hurry has them too.
            bound_s = within_s * 3 / 4
            self._hurried = bound_s, self._build_clients(bound_s)
        return self._hurried[1]

    def _put(
        self, name: str, content: bytes | Iterator[bytes], *, within_s: float = math.inf
    ) -> None:
        import obstore

        is_whole = isinstance(content, bytes)
        with self._failures.translated(self.path_of(name)):
            obstore.put(
                self._clients_within(within_s).plain,
                self._key_of(name),
                content,
                use_multipart=not is_whole,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_IN_FLIGHT,
            )


class ObjectInput(io.RawIOBase):
    """One version of an object for reading: it fails when the object is replaced meanwhile."""

    def __init__(
        self,
        client: "S3Store | GCSStore",
        key: str,
        *,
        path: str,
        size_bytes: int,
        tag: str | None,
        failures: Failures,
    ) -> None:
        self._client = client
        self._key = key
        self._path = path
        self._size_bytes = size_bytes
        self._tag = tag
        self._failures = failures
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size_bytes}[whence]
        if base + offset < 0:
            raise ValueError("a place before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "Buffer", /) -> int:
        import obstore

        target = memoryview(buffer).cast("B")
        end = min(self._at + len(target), self._size_bytes)
        if end <= self._at:
            return 0
        with self._failures.translated(self._path, doing="read"):
            found = obstore.get(
                self._client,
                self._key,
                options={"range": (self._at, end), "if_match": self._tag},
            ).bytes()
        target[: len(found)] = memoryview(found)
        self._at += len(found)
        return len(found)


def require_bucket(exc: FileNotFoundError) -> None:
    """Raises what says that not the object is missing but its bucket."""
    if read_code(str(exc)) == "NoSuchBucket":
        raise exc
