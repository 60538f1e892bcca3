"""Names of Paimon tables, their catalogs, and the errors of their library, which is not needed."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from exporter.errors import (
    CredentialsError,
    DestinationError,
    ExporterError,
    UsageError,
    mask_url,
    mask_urls,
    shorten,
)
from exporter.settings.catalogs import SIDECARS, Catalogs, Options, find_options, hide_secrets
from exporter.stores.url import scheme_of
from exporter.tables.interface import CommitConflict, first_line, mask_reason

_NAME: Final = r"[\w-]+"
"""A name that needs no quotes; a `$` would begin the name of a branch or a system table."""


@dataclass(frozen=True, slots=True)
class TableName:
    """A table as the user named it, and its catalog."""

    output: str
    database: str
    table: str
    options: Options = field(repr=False)
    """For the library."""
    sidecars: str | None
    """The folder or URL of the run's own files; None for the warehouse."""

    @property
    def is_local(self) -> bool:
        """Whether commits go to files of this machine, not to a server."""
        return self.options.get("metastore") != "rest"

    @property
    def location(self) -> str:
        """The folder beside which the run's own files stand. A server's table is elsewhere."""
        folder = self.options["warehouse"] if self.sidecars is None else self.sidecars
        return f"{folder.rstrip('/')}/{self.database}.db/{self.table}"


def resolve_name(output: str, catalogs: Catalogs, environ: Mapping[str, str]) -> TableName:
    """The table that `paimon://CATALOG/DATABASE.TABLE` or a folder `…/DATABASE.db/TABLE` names.

    Raises UsageError for any other name, for an unknown catalog, and for a catalog through which
    the commits of two writers could be lost.
    """
    matched = re.fullmatch(rf"paimon://({_NAME})/({_NAME})\.({_NAME})", output)
    if matched is not None:
        options = find_options(matched[1], catalogs, environ)
        return resolve_catalog_table(output, matched[1], (matched[2], matched[3]), options)
    folder = re.fullmatch(rf"(.*/)?({_NAME})\.db/({_NAME})/*", output)
    if folder is not None and scheme_of(output) is None:
        warehouse = str(Path(folder[1] or ".").absolute())
        return TableName(output, folder[2], folder[3], {"warehouse": warehouse}, None)
    raise UsageError(
        f"'{shorten(mask_url(output))}' names no Paimon table",
        hint="name it as paimon://catalog/database.table, or, in a local warehouse, by its folder:"
        " warehouse/database.db/table",
    )


def resolve_catalog_table(
    output: str, catalog: str, identifier: tuple[str, str], options: Options
) -> TableName:
    given = {name: value for name, value in options.items() if name != SIDECARS}
    sidecars = options.get(SIDECARS)
    metastore = options.get("metastore", "filesystem")
    if metastore == "rest":
        if sidecars is None:
            raise UsageError(
                f"the catalog '{catalog}' has no '{SIDECARS}': a run keeps its lock, state and"
                " manifest there, since a catalog's server gives it no place for them",
                hint=f"set {SIDECARS} to a folder or a store's URL, such as oss://bucket/livy",
            )
        return TableName(output, *identifier, given, sidecars)
    warehouse = options.get("warehouse")
    if metastore != "filesystem" or warehouse is None:
        raise UsageError(
            f"the catalog '{catalog}' has no warehouse"
            if warehouse is None
            else f"the catalog '{catalog}' is of the kind '{metastore}'",
            hint='set metastore to "rest" and uri and warehouse to the server\'s, or warehouse to a'
            " local folder",
        )
    if scheme_of(warehouse) not in {None, "file"}:
        raise UsageError(
            f"the catalog '{catalog}' commits to '{mask_url(warehouse)}' without a server: what two"
            " writers commit at once there can be lost",
            hint='take a REST catalog, such as DLF\'s (metastore = "rest"), or a local warehouse',
        )
    if sidecars is not None:
        raise UsageError(
            f"the catalog '{catalog}' has a local warehouse, and '{SIDECARS}'",
            hint=f"leave {SIDECARS} out: all that write to such a table must find one lock, the"
            " one beside it",
        )
    folder = str(Path(re.sub("^file:/+", "/", warehouse)).absolute())
    return TableName(output, *identifier, {**given, "warehouse": folder}, None)


_RAISED: Final = (ValueError, RuntimeError, OSError)
"""All that the library, and Arrow on its way there, raise on purpose."""


@contextmanager
def translated(name: TableName) -> Iterator[None]:
    """Translate errors of pypaimon-rust to ours, without the secrets in the catalog's options."""
    try:
        yield
    except ExporterError:
        raise
    except BaseException as exc:
        # A panic in Rust is raised as a BaseException, and must not end the process.
        if not isinstance(exc, _RAISED) and type(exc).__name__ != "PanicException":
            raise
        # A traceback with the cause would show what the message hides.
        has_secrets = mask_urls(hide_secrets(str(exc), name.options)) != str(exc)
        raise translate(name, exc) from None if has_secrets else exc


_NOISE: Final = re.compile(
    r"(External error|Error during planning|Paimon hitting (an )?(unexpected|unsupported) error"
    r"|Paimon hitting invalid config|Paimon data invalid for):? ?"
)
_UNREACHABLE: Final = re.compile(r"http \w+ failed|error sending request", re.IGNORECASE)
_CAUSE: Final = re.compile(r'(?:message|error): "([^"]+)"')
_STORE: Final = re.compile(r"(\w+) \((?:permanent|temporary)\) at ")
_STORE_CODE: Final = re.compile(r'code: "(\w+)"', re.IGNORECASE)
_STORE_REFUSALS: Final = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})

_KINDS: Final[tuple[tuple[Callable[..., ExporterError], re.Pattern[str], str], ...]] = (
    (
        CredentialsError,
        re.compile(r"(^|: )(Not authorized|Forbidden)"),
        "look at the credentials in this catalog's options, and what they may do",
    ),
    (
        UsageError,
        re.compile(r"invalid config:|Missing required option|token(_loader)? must be provided"),
        "look at the options of this catalog",
    ),
    (
        CommitConflict,
        re.compile(r"commit conflicts|deletion conflicts"),
        "run again when nobody else writes to this table",
    ),
    (
        DestinationError,
        re.compile(""),
        "look at the options of this catalog, and at what its server says",
    ),
)
"""The first pattern that a text has decides its class and hint."""


def translate(name: TableName, exc: BaseException) -> ExporterError:
    text = str(exc)
    failed = f"cannot write to '{name.output}'"
    if _UNREACHABLE.search(text):
        cause = _CAUSE.search(text)
        reason = "no connection" if cause is None else hide(name, cause[1])
        return DestinationError(
            f"{failed}: its catalog does not answer: {reason}",
            hint="look at the catalog's uri, and at the network",
        )
    if (store := _STORE.search(text)) is not None:
        code = (_STORE_CODE.search(text) or store)[1]
        if code in _STORE_REFUSALS or "PermissionDenied" in text:
            return CredentialsError(
                f"{failed}: its storage says {code}",
                hint="the keys of this catalog's storage must be valid and may write to it",
            )
        return DestinationError(
            f"{failed}: its storage says {code}",
            hint="look at the storage of this catalog, and run again: what was read is kept",
        )
    build, hint = next((build, hint) for build, pattern, hint in _KINDS if pattern.search(text))
    return build(f"{failed}: {hide(name, describe(exc))}", hint=hint)


def describe(exc: BaseException) -> str:
    """The library's error in one line, without the prefixes of its layers."""
    line = _NOISE.sub("", first_line(exc))
    return re.sub(r": (None|Some\(.*)$", "", line).strip().rstrip(".")


def hide(name: TableName, text: str) -> str:
    return mask_reason(hide_secrets(text, name.options))
