"""What an output's name means: which store, which kind, where a run keeps its own files."""

import os
import re
import shlex
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeGuard, assert_never, get_args

import orjson

from exporter.catalogs import Catalogs
from exporter.errors import DestinationError, UnusableNameError, UsageError
from exporter.local_files import describe_kind, find_fault
from exporter.messages import quote, shorten
from exporter.sinks import FileCodec, Format, TableFormat, resolve_format
from exporter.stores import Store
from exporter.stores.addresses import StoreAccess, parse_address, scheme_of
from exporter.stores.local import LocalStore
from exporter.stores.opening import open_store
from exporter.stores.partials import make_folders, mode_of, translated
from exporter.stores.pipes import is_pipe_or_device
from exporter.tables.interface import Table, TableRequest
from exporter.tables.registry import find_format, open_table
from exporter.urls import mask_url

Kind = Literal["file", "stream", "dataset", "table"]
"""One file; stdout, a pipe or a device; a folder of parts; what has a log of its own."""

OutputFormat = Format | TableFormat


@dataclass(frozen=True, slots=True)
class Home:
    """Where a run keeps its own files beside the output: a store, and their names in it."""

    store: Store
    manifest: str
    intent: str
    """What a run is about to publish, while it does."""
    lock: str
    journal: str
    """What a run has read so far."""
    state: str | None
    """What the next run builds on; None where runs cannot."""
    manifests: str | None = None
    """The folder of the numbered manifests; None where there are none."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An output as its name and the settings tell it; nothing was written yet."""

    output: str
    """As the user named it."""
    kind: Kind
    file_format: Format
    """Of its files; a table has its own."""
    file_codec: FileCodec
    store: Store
    """Where its files are; for a stream the working folder, where it has none; for a table the
    folder that its own folder is in."""
    name: str
    """Of the file, or the table's folder, in the store; empty for a dataset."""
    table: Table | None = None
    table_format: TableFormat | None = None

    @property
    def format(self) -> OutputFormat:
        return self.table_format or self.file_format

    @property
    def key(self) -> str:
        """The output's name, the same however it was spelled: what a state or a journal is of."""
        path = self.store.path_of(self.name)
        if isinstance(self.store, LocalStore):
            # It becomes JSON, and the working folder's name may be no UTF-8.
            return os.path.realpath(path).encode("utf-8", "backslashreplace").decode()
        return path

    @property
    def home(self) -> Home | None:
        """Where a run keeps its own files; None for a stream, which has no place beside it."""
        match self.kind:
            case "stream":
                return None
            case "file":
                return Home(
                    self.store,
                    manifest=f"{self.name}.manifest.json",
                    intent=f".{self.name}.publishing.json",
                    lock=f".{self.name}.lock",
                    journal=f".{self.name}.journal",
                    state=None,
                )
            case "table":
                return Home(
                    self.store,
                    manifest=f"{self.name}.manifest.json",
                    intent=f".{self.name}.publishing.json",
                    lock=f".{self.name}.lock",
                    journal=f".{self.name}.journal",
                    state=f"{self.name}.state.json",
                )
            case "dataset":
                return Home(
                    self.store,
                    manifest="_manifest.json",
                    intent="_exporter/publishing.json",
                    lock="_exporter/lock",
                    journal="_exporter/journal",
                    state="_exporter/state.json",
                    manifests="_manifests/",
                )
            case _:
                assert_never(self.kind)


def resolve_destination(
    output: str,
    *,
    chosen: OutputFormat | None,
    access: StoreAccess | None = None,
    partition_by: Sequence[str] = (),
    catalogs: Catalogs | None = None,
) -> Destination:
    """What the output is, by its name and by what stands there; blocks.

    A folder, or a name that ends in `/`, is a dataset, Parquet by default; in an object store,
    which has no folders, a name without a suffix is one too. Raises UsageError for what cannot be
    an output, DestinationError for what is there and cannot be replaced.
    """
    table_format = find_format(output, chosen=chosen, access=access)
    if table_format is not None:
        request = TableRequest(
            output=output,
            partition_by=tuple(partition_by),
            access=access or StoreAccess(),
            catalogs=catalogs or {},
        )
        return resolve_table(request, table_format)
    file_format = chosen if is_file_format(chosen) else None
    if access is not None and scheme_of(output) is not None:
        return resolve_object_store(output, chosen=file_format, access=access)
    require_local(output)
    if output == "-" or (not output.endswith("/") and is_pipe_or_device(output)):
        output_format, codec = resolve_format(output, file_format)
        return Destination(output, "stream", output_format, codec, LocalStore(""), output)
    if output.endswith("/") or is_folder(output):
        store = LocalStore(output, makes_folder=True)
        require_dataset(store)
        return Destination(output, "dataset", file_format or "parquet", "none", store, "")
    require_regular(output)
    output_format, codec = resolve_format(output, file_format)
    # A link stays, and what it points to is replaced; the run's own files stand beside the link.
    store, name = LocalStore.holding(output)
    return Destination(output, "file", output_format, codec, store, name)


def is_file_format(chosen: OutputFormat | None) -> TypeGuard[Format]:
    return chosen in get_args(Format)


def resolve_table(request: TableRequest, table_format: TableFormat) -> Destination:
    """A table; the run's own files stand beside its folder."""
    output = request.output
    if scheme_of(output) is None:
        require_local(output)
    table = open_table(table_format, request)
    store, name = hold_table(table.location, access=request.access)
    return Destination(output, "table", "parquet", "none", store, name, table, table_format)


def hold_table(location: str, *, access: StoreAccess) -> tuple[Store, str]:
    """The store that a table's folder is in, and the folder's name."""
    folder, _, name = location.rstrip("/").rpartition("/")
    scheme = scheme_of(location)
    if scheme is None or scheme == "file":
        folder = folder.removeprefix("file:").replace("///", "/", 1)
        with translated(folder):  # a catalog makes the folders of its warehouse as they are needed
            make_folders(Path(folder))
        return LocalStore(folder), name
    return open_store(folder.replace("s3a://", "s3://", 1), access), name


def resolve_object_store(output: str, *, chosen: Format | None, access: StoreAccess) -> Destination:
    address = parse_address(output)
    name = address.key.rpartition("/")[2]
    if output.endswith("/") or "." not in name:
        store = open_store(output, access)
        require_dataset(store)
        return Destination(output, "dataset", chosen or "parquet", "none", store, "")
    output_format, codec = resolve_format(output, chosen)
    folder = output.rpartition("/")[0]
    return Destination(output, "file", output_format, codec, open_store(folder, access), name)


def hold_file(url: str, *, access: StoreAccess) -> tuple[Store, str]:
    """The store and the name of a small file that a setting names. Raises UsageError."""
    if url.endswith("/") or url == "-":
        raise UsageError(
            f"'{shorten(url)}' names no file", hint="end it in a name, such as state.json"
        )
    if scheme_of(url) is None:
        require_local(url)
        require_regular(url)
        return LocalStore.holding(url)
    folder, _, name = url.rpartition("/")
    return open_store(folder, access), name


def require_local(path: str) -> None:
    """Raises UsageError for what no file of this machine can be called."""
    scheme = scheme_of(path)
    if scheme is not None:
        raise UsageError(
            f"cannot write to '{shorten(mask_url(path))}': '{shorten(scheme)}://' is not supported"
            " here",
            hint="name a local file, a folder, or - for stdout",
        )
    fault = find_fault(path)
    if path == "" or fault is not None:
        raise UsageError(
            f"{quote(path)} names no file" + (f": a name {fault}" if fault else ""),
            hint="name a local file, or - for stdout",
        )


PART_NAME = r"part-[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}-[0-9]{5,}\.(parquet|ndjson)"
"""Files of a dataset that a run wrote: its run id and the part's number.

As narrow as can be, since such files are removed when no manifest names them any more: other
programs call theirs `part-…`, too.
"""


OWN_FOLDERS = ("_exporter/", "_manifests/")
"""Folders of a dataset that hold no data."""


def is_part(name: str) -> bool:
    return re.fullmatch(PART_NAME, name.rpartition("/")[2]) is not None


def require_regular(path: str) -> None:
    """Raises UnusableNameError where something else than a file is in the place of one."""
    with translated(path):
        mode = mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise UnusableNameError(
            f"'{shorten(path)}' is {describe_kind(mode)}, not a file",
            hint="name a regular or a new file",
        )


def is_own(name: str) -> bool:
    """Whether a file of a dataset is one that runs write there."""
    return name == "_manifest.json" or name.startswith(OWN_FOLDERS) or is_part(name)


def require_dataset(store: Store) -> None:
    """Raises DestinationError for a folder that holds something else, UsageError for one that holds
    another output.
    """
    manifest = store.read("_manifest.json")
    if manifest is not None and is_ours(manifest):
        return
    require_unnested(store)
    for each in store.list_files():
        if not each.name.startswith(OWN_FOLDERS) and not is_part(each.name):
            raise DestinationError(
                f"'{store.url}' holds something else than an export: '{each.name}'",
                hint="name a new or an empty folder, or a file in it, such as "
                + shlex.quote(store.path_of("sessions.parquet")),
            )


def require_unnested(store: Store) -> None:
    """Raises UsageError for a folder that has an output of its own somewhere below."""
    inner = next(find_nested(store), None)
    if inner is not None:
        raise UsageError(
            f"'{store.url}' holds another output, '{store.path_of(inner)}'",
            hint="name a folder beside that one: readers of this one would take its rows for"
            " theirs",
        )


def find_nested(store: Store) -> Iterator[str]:
    """The folders below this one that are outputs of their own."""
    for each in store.list_files():
        if each.name.startswith(OWN_FOLDERS):
            continue
        for mark in ("/_exporter/", "/_delta_log/"):
            if mark in each.name:
                yield each.name.partition(mark)[0]
        if each.name.endswith("/_manifest.json") and is_ours(store.read(each.name) or b"null"):
            yield each.name.removesuffix("/_manifest.json")


def is_ours(manifest: bytes) -> bool:
    try:
        read = orjson.loads(manifest)
    except orjson.JSONDecodeError:  # one that was damaged since; the next publish replaces it
        return True
    return isinstance(read, dict) and "manifest_version" in read


def is_folder(path: str) -> bool:
    with translated(path):
        mode = mode_of(path)
    return mode is not None and Path(path).is_dir()
