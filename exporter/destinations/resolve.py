"""Resolves an output's name to a destination: its kind, format and store."""

import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from exporter.destinations.dataset import require_dataset
from exporter.destinations.destination import Destination
from exporter.errors import UnusableNameError, UsageError, mask_url, quote, shorten
from exporter.model import FileFormat, OutputFormat, TableFormat
from exporter.settings.catalogs import Catalogs
from exporter.settings.files import describe_kind, find_fault
from exporter.sinks.formats import DATASET_FORMAT, FORMATS, resolve_format
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore
from exporter.stores.pipe import is_pipe_or_device
from exporter.stores.posix import make_folders, mode_of, translated
from exporter.stores.registry import open_store, parse_address
from exporter.stores.url import StoreAccess, scheme_of
from exporter.tables.interface import TableRequest
from exporter.tables.registry import find_format, open_table


def resolve_destination(
    output: str,
    *,
    chosen: OutputFormat | None,
    access: StoreAccess | None = None,
    partition_by: Sequence[str] = (),
    catalogs: Catalogs | None = None,
) -> Destination:
    """The destination of an output, by its name and by what exists there; blocks.

    A folder, or a name that ends in `/`, is a dataset, Parquet by default; so is a name without a
    suffix in an object store, which has no folders. Raises UsageError for a name of no output,
    DestinationError for something that exists there and cannot be replaced.
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
        return Destination(output, "dataset", file_format or DATASET_FORMAT, "none", store, "")
    require_regular(output)
    output_format, codec = resolve_format(output, file_format)
    # A link stays and its target is replaced; the run's own files stand beside the link.
    store, name = LocalStore.holding(output)
    return Destination(output, "file", output_format, codec, store, name)


def is_file_format(chosen: OutputFormat | None) -> TypeGuard[FileFormat]:
    return chosen in FORMATS


def resolve_table(request: TableRequest, table_format: TableFormat) -> Destination:
    output = request.output
    if scheme_of(output) is None:
        require_local(output)
    table = open_table(table_format, request)
    store, name = locate_table(table.location, access=request.access)
    return Destination(output, "table", DATASET_FORMAT, "none", store, name, table, table_format)


def locate_table(location: str, *, access: StoreAccess) -> tuple[Store, str]:
    """The store that a table's folder is in, and the folder's name."""
    folder, _, name = location.rstrip("/").rpartition("/")
    scheme = scheme_of(location)
    if scheme is None or scheme == "file":
        folder = folder.removeprefix("file:").replace("///", "/", 1)
        with translated(folder):  # a catalog creates the folders of its warehouse when needed
            make_folders(Path(folder))
        return LocalStore(folder), name
    return open_store(folder.replace("s3a://", "s3://", 1), access), name


def resolve_object_store(
    output: str, *, chosen: FileFormat | None, access: StoreAccess
) -> Destination:
    address = parse_address(output)
    name = address.key.rpartition("/")[2]
    if output.endswith("/") or "." not in name:
        store = open_store(output, access)
        require_dataset(store)
        return Destination(output, "dataset", chosen or DATASET_FORMAT, "none", store, "")
    output_format, codec = resolve_format(output, chosen)
    folder = output.rpartition("/")[0]
    return Destination(output, "file", output_format, codec, open_store(folder, access), name)


def locate_file(url: str, *, access: StoreAccess) -> tuple[Store, str]:
    """The store and the name of a small file, such as a state. Raises UsageError."""
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
    """Raises UsageError for a URL, and for a name that no local file can have."""
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


def require_regular(path: str) -> None:
    """Raises UnusableNameError for a name of something that is not a regular file."""
    with translated(path):
        mode = mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):
        raise UnusableNameError(
            f"'{shorten(path)}' is {describe_kind(mode)}, not a file",
            hint="name a regular or a new file",
        )


def is_folder(path: str) -> bool:
    with translated(path):
        mode = mode_of(path)
    return mode is not None and Path(path).is_dir()
