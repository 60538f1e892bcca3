"""The table formats: the one place that lists them, and opens their tables."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final, cast

from exporter.errors import MissingExtraError, UsageError, mask_urls, shorten
from exporter.model import TableFormat
from exporter.stores.registry import is_object_store, open_store, parse_address
from exporter.stores.url import StoreAccess, scheme_of
from exporter.tables.interface import Table, TableRequest


@dataclass(frozen=True, slots=True)
class TableKind:
    """A table format; its extra has the format's name."""

    module: str
    """Has `open_table(TableRequest) -> Table`; imported when a table is opened, not before."""
    noun: str
    scheme: str | None = None
    """Of its outputs, before `://`; None for a format whose tables are folders."""
    log_folder: str | None = None
    """A folder inside the table's folder that marks an existing table."""


TABLES: Final[Mapping[TableFormat, TableKind]] = {
    "delta": TableKind("exporter.tables.delta", "a Delta table", log_folder="_delta_log"),
    "iceberg": TableKind("exporter.tables.iceberg", "an Iceberg table", scheme="iceberg"),
    "paimon": TableKind(
        "exporter.tables.paimon", "a Paimon table", scheme="paimon", log_folder="snapshot"
    ),
}

FOLDER_LOGS: Final = tuple(
    f"{kind.log_folder}/" for kind in TABLES.values() if kind.scheme is None and kind.log_folder
)
"""The logs of formats that need no catalog: each marks a folder as an output of its own."""


def find_format(
    output: str, *, chosen: str | None, access: StoreAccess | None
) -> TableFormat | None:
    """The format of a table, by the output's name, the settings or an existing table; blocks.

    None for an output that is no table. Raises UsageError where name and settings differ.
    """
    scheme = scheme_of(output)
    for table_format, kind in TABLES.items():
        if kind.scheme is not None and scheme == kind.scheme:
            if chosen not in {None, table_format}:
                raise UsageError(
                    f"'{shorten(mask_urls(output))}' is no {chosen}", hint="leave out --format"
                )
            return table_format
    for table_format, kind in TABLES.items():
        if chosen == table_format or (chosen is None and has_log(output, kind, access)):
            return table_format
    return None


def open_table(table_format: TableFormat, request: TableRequest) -> Table:
    """Open a table and check that it can be written.

    Raises UsageError, of which MissingExtraError is one, CredentialsError and DestinationError.
    """
    kind = TABLES[table_format]
    try:
        module = import_module(kind.module)
    except ModuleNotFoundError as exc:
        raise MissingExtraError(kind.noun, extra=table_format) from exc
    return cast("Table", module.open_table(request))


def has_log(output: str, kind: TableKind, access: StoreAccess | None) -> bool:
    """Whether the output is a folder that holds a table: its name need not say so."""
    if kind.log_folder is None:
        return False
    if scheme_of(output) is None:
        is_name = output not in {"", "-"} and "\0" not in output
        return is_name and (Path(output) / kind.log_folder).is_dir()
    # In a store, a catalog's table is named by its catalog, not by its folder.
    if access is None or not is_object_store(output) or kind.scheme is not None:
        return False
    if "." in parse_address(output).key.rpartition("/")[2]:  # named as a file
        return False
    files = open_store(output, access).list_files(f"{kind.log_folder}/")
    return next(iter(files), None) is not None
