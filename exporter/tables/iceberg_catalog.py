"""Catalogs of pyiceberg's own configuration: how a table is named, and what their errors mean."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pyiceberg.catalog import Catalog, load_catalog
from pyiceberg.utils.config import Config

from exporter.errors import (
    CredentialsError,
    DestinationError,
    ExporterError,
    UsageError,
    mask_urls,
    shorten,
)
from exporter.tables.interface import show_reason


@dataclass(frozen=True, slots=True)
class TableName:
    """A table as the user named it."""

    output: str
    catalog: str
    namespace: tuple[str, ...]
    table: str

    @property
    def identifier(self) -> tuple[str, ...]:
        return (*self.namespace, self.table)


def parse_table_name(output: str) -> TableName:
    """Raises UsageError for what names no table."""
    matched = re.fullmatch(r"iceberg://([^/?#@\s]+)/([^/?#\s]+)", output)
    parts = matched[2].split(".") if matched is not None else []
    if matched is None or len(parts) < 2 or not all(parts):
        raise UsageError(
            f"'{shorten(mask_urls(output))}' names no Iceberg table",
            hint="name it as iceberg://catalog/namespace.table",
        )
    return TableName(output, matched[1], tuple(parts[:-1]), parts[-1])


def describe(exc: BaseException) -> str:
    """What a library's error says, in one line and without the password of a URI."""
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return show_reason(lines[0].strip().rstrip("."))


def _root_of(exc: BaseException) -> BaseException:
    """What began it: layers of clients only wrap it in names of their own."""
    while (inner := exc.__cause__ or exc.__context__) is not None:
        exc = inner
    return exc


@contextmanager
def quiet() -> Iterator[None]:
    """Keep what the library warns of from the user's terminal: it is for who writes the code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def translated(output: str) -> Iterator[None]:
    """Errors of pyiceberg, and of what it calls, as ours."""
    try:
        with quiet():
            yield
    except ExporterError:
        raise
    except Exception as exc:
        raise _translate(output, exc) from exc


_REFUSALS: Final = frozenset(
    {"UnauthorizedError", "ForbiddenError", "OAuthError", "AuthorizationExpiredError"}
)
_STORE_REFUSAL: Final = re.compile("ACCESS_DENIED|INVALID_ACCESS_KEY|HTTP status 403|code: 403")
_NOT_INSTALLED: Final = frozenset({"NotInstalledError", "ModuleNotFoundError", "ImportError"})


def _translate(output: str, exc: Exception) -> ExporterError:
    name = type(exc).__name__
    if type(exc).__module__.startswith("requests."):
        return DestinationError(
            f"cannot write to '{output}': its catalog does not answer: {describe(_root_of(exc))}",
            hint="look at the catalog's uri in pyiceberg's configuration, and at the network",
        )
    message = f"cannot write to '{output}': {describe(exc)}"
    if name in _REFUSALS:
        return CredentialsError(
            message, hint="look at the credentials of this catalog in pyiceberg's configuration"
        )
    if name in _NOT_INSTALLED:
        return UsageError(message, hint="install what this kind of catalog or storage needs")
    if isinstance(exc, OSError) and _STORE_REFUSAL.search(str(exc)):
        return CredentialsError(
            message, hint="the keys of this catalog's storage must be valid and may write to it"
        )
    return DestinationError(
        message,
        hint="look at the catalog's uri and warehouse in pyiceberg's configuration",
    )


def open_catalog(catalog: str) -> Catalog:
    # Read anew: the library keeps what was configured when it was imported.
    config = Config()
    found: Any = config.get_catalog_config(catalog)
    if found is None:
        known = ", ".join(sorted(config.get_known_catalogs()))
        variable = catalog.upper().replace("-", "_")
        raise UsageError(
            f"pyiceberg knows no catalog '{catalog}'",
            hint=f"it knows {known}"
            if known
            else f"describe it in ~/.pyiceberg.yaml, or set PYICEBERG_CATALOG__{variable}__URI",
        )
    # The AWS client inside pyarrow signs uploads in a way that OSS refuses; this variable, which it
    # reads when a file system is opened, is the only way to tell it.
    os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
    try:
        return load_catalog(
            catalog, **{key: value for key, value in found.items() if isinstance(value, str)}
        )
    except ValueError as exc:
        raise UsageError(
            f"the catalog '{catalog}' cannot be used: {describe(exc)}",
            hint="look at its type and uri in pyiceberg's configuration",
        ) from exc
