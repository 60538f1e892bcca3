"""A bucket's folder as a store, by one client library for all kinds of object stores."""

import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from exporter.errors import DestinationError
from exporter.stores.client import Clients
from exporter.stores.error_map import ErrorMap
from exporter.stores.interface import StoredFile
from exporter.stores.multipart import OpenUploads
from exporter.stores.uploads import (
    PART_BYTES,
    PARTS_IN_FLIGHT,
    ObjectRequests,
    Spool,
    StagedObject,
)
from exporter.stores.url import Address

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined] # of Python 3.12

    from obstore import ObjectMeta
    from obstore.store import ObjectStore as Client

READ_BYTES: Final = 1 << 20


class ObjectStore:
    """Objects below a key of a bucket. Folders are parts of names: none is made or removed."""

    def __init__(
        self,
        address: Address,
        *,
        build_clients: Callable[[float], Clients],
        errors: ErrorMap,
        uploads: OpenUploads | None = None,
    ) -> None:
        """`build_clients` takes the longest time of a request with all its attempts, infinite for
        the usual; `uploads` is None where unfinished uploads cannot be listed.
        """
        self.url = address.url
        self._address = address
        self._folder = address.key
        self._build_clients = build_clients
        self._clients = build_clients(math.inf)
        self._client = self._clients.plain
        self._urgent: tuple[float, Clients] | None = None
        """Clients for requests that must end soon, and the longest time of such a request."""
        self._errors = errors
        self._uploads = uploads
        self._spool = Spool()
        self._staged: set[str] = set()

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
                self._uploads.abort_young(key)

        key = self._key_of(name)
        self._staged.add(key)
        requests = ObjectRequests(
            put=put,
            put_version=put_version,
            read_tag=lambda: self.tag_of(name),
            abort_failed=abort_failed,
            abort_others=abort_others,
        )
        # A name with the run's id in it is nobody else's: a late object there is in no manifest.
        return StagedObject(name, requests, is_shared=run_id not in name, spool=self._spool)

    def read(self, name: str) -> bytes | None:
        import obstore

        with self._errors.translated(self.path_of(name), doing="read"):
            try:
                return bytes(obstore.get(self._client, self._key_of(name)).bytes())
            except FileNotFoundError as exc:
                if self._errors.is_bucket_missing(exc):
                    raise
                return None

    def size_of(self, name: str) -> int | None:
        meta = self._head(name)
        return None if meta is None else meta["size"]

    def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        key, clients = self._key_of(name), self._clients_within(within_s)
        with self._errors.translated(self.path_of(name)):
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
        meta = self._head(name)
        return None if meta is None else meta["e_tag"]

    def replace_version(
        self, name: str, content: bytes, *, tag: str | None, within_s: float = math.inf
    ) -> bool:
        import obstore
        from obstore.exceptions import NotSupportedError, PreconditionError

        if tag is None:
            return self.create(name, content, within_s=within_s)
        clients, key = self._clients_within(within_s), self._key_of(name)
        if clients.creator is not None:  # such a store takes no notice of `If-Match` either
            self.replace(name, content, within_s=within_s)
            return True
        with self._errors.translated(self.path_of(name)):
            try:
                obstore.put(clients.plain, key, content, mode={"e_tag": tag}, use_multipart=False)
            except PreconditionError:
                return False
            except NotSupportedError:
                obstore.put(clients.plain, key, content, use_multipart=False)
            return True

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        import obstore

        # The client lists whole folders only.
        folder = self._key_of(prefix.rpartition("/")[0]).rstrip("/")
        start = f"{self._folder}/" if self._folder else ""
        with self._errors.translated(self.path_of(prefix), doing="list"):
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
        with self._errors.translated(self.path_of(names[0]), doing="remove"):
            try:
                obstore.delete(self._client, [self._key_of(name) for name in names])
            except FileNotFoundError as exc:
                if self._errors.is_bucket_missing(exc):
                    raise
                if len(names) > 1:  # a store that misses one may have left the others
                    for name in names:
                        self.remove([name])

    def remove_leftovers(self, names: Sequence[str] | None = None, *, keep_s: float = 0.0) -> None:
        if self._uploads is not None:
            keys = None if names is None else {self._key_of(name) for name in names}
            self._uploads.abort(folder=self._folder, keys=keys, spared=self._staged, keep_s=keep_s)

    def enclosing(self) -> Iterator["ObjectStore"]:
        folder = self._folder
        while folder:
            folder = folder.rpartition("/")[0]
            yield ObjectStore(
                replace(self._address, key=folder),
                build_clients=lambda _: self._clients,
                errors=self._errors,
                uploads=self._uploads,
            )

    def open_input(self, name: str) -> BinaryIO:
        path, meta = self.path_of(name), self._head(name)
        if meta is None:
            raise DestinationError(f"cannot read '{path}': there is no such object")
        opened = ObjectInput(self._client, meta, path=path, errors=self._errors)
        return cast("BinaryIO", io.BufferedReader(opened, buffer_size=READ_BYTES))

    def _key_of(self, name: str) -> str:
        return f"{self._folder}/{name}" if self._folder else name

    def _clients_within(self, within_s: float) -> Clients:
        if within_s == math.inf:
            return self._clients
        if self._urgent is None or self._urgent[0] > within_s:
            # With something to spare, so that the next urgent request can use them too.
            bound_s = within_s * 3 / 4
            self._urgent = bound_s, self._build_clients(bound_s)
        return self._urgent[1]

    def _head(self, name: str) -> "ObjectMeta | None":
        import obstore

        with self._errors.translated(self.path_of(name), doing="read"):
            try:
                return obstore.head(self._client, self._key_of(name))
            except FileNotFoundError:
                return None

    def _put(
        self, name: str, content: bytes | Iterator[bytes], *, within_s: float = math.inf
    ) -> None:
        import obstore

        with self._errors.translated(self.path_of(name)):
            obstore.put(
                self._clients_within(within_s).plain,
                self._key_of(name),
                content,
                use_multipart=not isinstance(content, bytes),
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_IN_FLIGHT,
            )


class ObjectInput(io.RawIOBase):
    """One version of an object for reading: it fails when the object is replaced meanwhile."""

    def __init__(
        self, client: "Client", meta: "ObjectMeta", *, path: str, errors: ErrorMap
    ) -> None:
        self._client = client
        self._meta = meta
        self._path = path
        self._errors = errors
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._meta["size"]}[whence]
        if base + offset < 0:
            raise ValueError("a place before the start")
        self._at = base + offset
        return self._at

    def readinto(self, buffer: "Buffer", /) -> int:
        import obstore

        target = memoryview(buffer).cast("B")
        end = min(self._at + len(target), self._meta["size"])
        if end <= self._at:
            return 0
        with self._errors.translated(self._path, doing="read"):
            found = obstore.get(
                self._client,
                self._meta["path"],
                options={"range": (self._at, end), "if_match": self._meta["e_tag"]},
            ).bytes()
        target[: len(found)] = memoryview(found)
        self._at += len(found)
        return len(found)
