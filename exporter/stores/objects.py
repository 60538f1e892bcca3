"""A bucket's folder as a store: S3, OSS and Google Cloud Storage through one client library."""

import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, BinaryIO, Final, cast

from exporter.errors import DestinationError
from exporter.stores import StoredFile
from exporter.stores.addresses import Address
from exporter.stores.failures import Failures, read_code
from exporter.stores.leftovers import OpenUploads
from exporter.stores.uploading import PART_BYTES, PARTS_IN_FLIGHT, Spool, StagedObject

if TYPE_CHECKING:
    from collections.abc import Buffer  # type: ignore[attr-defined] # of Python 3.12

    from obstore.store import GCSStore, S3Store

READ_BYTES: Final = 1 << 20


class ObjectStore:
    """Objects below a key of a bucket. Folders are parts of names: none is made or removed.

    `creator` is a client whose writes the store refuses where there is an object; None where the
    store knows the usual conditional write, which `If-None-Match` asks for.
    """

    def __init__(
        self,
        address: Address,
        *,
        client: "S3Store | GCSStore",
        creator: "S3Store | None",
        failures: Failures,
        uploads: OpenUploads | None,
    ) -> None:
        self.url = address.url
        self._folder = address.key
        self._client = client
        self._creator = creator
        self._failures = failures
        self._uploads = uploads
        """None where nobody can list what was begun and never ended."""
        self._spool = Spool()
        self._staged: set[str] = set()

    def path_of(self, name: str) -> str:
        return f"{self.url}/{name}".rstrip("/")

    def stage(self, name: str, *, run_id: str) -> StagedObject:  # noqa: ARG002 - nothing to tell apart
        def put(content: bytes | Iterator[bytes]) -> None:
            self._put(name, content)

        def abort_failed() -> None:
            if self._uploads is not None:
                self._uploads.abort(folder=self._folder, keys={key}, spared=set())

        key = self._key_of(name)
        self._staged.add(key)
        return StagedObject(name, put=put, abort_failed=abort_failed, spool=self._spool)

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

    def create(self, name: str, content: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError

        key = self._key_of(name)
        # The creator's header is the store's own: where a gateway drops it, this is all there is.
        if self._creator is not None and self.size_of(name) is not None:
            return False
        with self._failures.translated(self.path_of(name)):
            try:
                if self._creator is None:
                    obstore.put(self._client, key, content, mode="create", use_multipart=False)
                else:
                    obstore.put(self._creator, key, content, use_multipart=False)
            except AlreadyExistsError:
                return False
            return True

    def replace(self, name: str, content: bytes) -> None:
        self._put(name, content)

    def list_files(self, prefix: str = "") -> Iterator[StoredFile]:
        import obstore

        # The client lists whole folders only.
        folder = self._key_of(prefix.rpartition("/")[0]).rstrip("/")
        start = f"{self._folder}/" if self._folder else ""
        with self._failures.translated(self.path_of(prefix), doing="list"):
            for chunk in obstore.list(self._client, prefix=folder or None):
                for each in chunk:
                    name = each["path"].removeprefix(start)
                    if each["path"].startswith(start) and name.startswith(prefix):
                        yield StoredFile(name, each["size"])

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

    def remove_leftovers(self, names: Sequence[str] | None = None) -> None:
        if self._uploads is None:
            return
        keys = None if names is None else {self._key_of(name) for name in names}
        self._uploads.abort(folder=self._folder, keys=keys, spared=self._staged)

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

    def _put(self, name: str, content: bytes | Iterator[bytes]) -> None:
        import obstore

        is_whole = isinstance(content, bytes)
        with self._failures.translated(self.path_of(name)):
            obstore.put(
                self._client,
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
