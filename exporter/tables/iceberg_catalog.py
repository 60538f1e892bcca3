"""Catalogs of pyiceberg's own configuration: names of their tables, and their errors."""

import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
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
from exporter.tables.interface import first_line, mask_reason


def parse_table_name(output: str) -> tuple[str, str]:
    """The catalog and, as `namespace.table`, the table. Raises UsageError for any other name."""
    matched = re.fullmatch(r"iceberg://([^/?#@\s]+)/([^/?#\s]+)", output)
    parts = matched[2].split(".") if matched is not None else []
    if matched is None or len(parts) < 2 or not all(parts):
        raise UsageError(
            f"'{shorten(mask_urls(output))}' names no Iceberg table",
            hint="name it as iceberg://catalog/namespace.table",
        )
    return matched[1], matched[2]


def describe(exc: BaseException) -> str:
    """A library's error in one line, without the password of a URI."""
    return mask_reason(first_line(exc))


@contextmanager
def silenced() -> Iterator[None]:
    """Keep the library's warnings, which are for programmers, from the user's terminal."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def translated(output: str) -> Iterator[None]:
    """Translate errors of pyiceberg, and of the clients that it calls, to ours."""
    try:
        with silenced():
            yield
    except ExporterError:
        raise
    except Exception as exc:
        raise translate(output, exc) from exc


_REFUSALS: Final = frozenset(
    {"UnauthorizedError", "ForbiddenError", "OAuthError", "AuthorizationExpiredError"}
)
_STORE_REFUSAL: Final = re.compile("ACCESS_DENIED|INVALID_ACCESS_KEY|HTTP status 403|code: 403")
_NOT_INSTALLED: Final = frozenset({"NotInstalledError", "ModuleNotFoundError", "ImportError"})


def translate(output: str, exc: Exception) -> ExporterError:
    name = type(exc).__name__
    if type(exc).__module__.startswith("requests."):
        root: BaseException = exc
        while (inner := root.__cause__ or root.__context__) is not None:
            root = inner
        return DestinationError(
            f"cannot write to '{output}': its catalog does not answer: {describe(root)}",
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
    """Raises UsageError for a catalog that is not configured, or of an unknown type."""
    # A new Config: the library's own one is as old as its import.
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
    # The AWS client inside pyarrow signs uploads in a way that OSS refuses. Only this variable
    # changes that; it is read when a file system is opened.
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
