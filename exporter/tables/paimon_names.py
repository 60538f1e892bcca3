"""How a Paimon table is named, where its catalog may be, and what errors of its library mean.

Needs no library itself.
"""

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
from exporter.tables.interface import CommitConflict, show_reason


@dataclass(frozen=True, slots=True)
class TableName:
    """A table as the user named it, and its catalog."""

    output: str
    database: str
    table: str
    options: Options = field(repr=False)
    """For the library."""
    home: str | None
    """The folder or URL of the run's own files; None for the warehouse."""

    @property
    def is_local(self) -> bool:
        """Whether its commits go to files of this machine, and to no server."""
        return self.options.get("metastore") != "rest"

    @property
    def location(self) -> str:
        """What the run's own files stand beside: the table's folder, or one that is not there."""
        folder = self.options["warehouse"] if self.home is None else self.home
        return f"{folder.rstrip('/')}/{self.database}.db/{self.table}"


def resolve_name(output: str, catalogs: Catalogs, environ: Mapping[str, str]) -> TableName:
    """The table that `paimon://CATALOG/DATABASE.TABLE` or a folder `…/DATABASE.db/TABLE` names.

    Raises UsageError for what names none, for a catalog that nothing describes, and for one through
    which the commits of two writers could be lost.
    """
    matched = re.fullmatch(rf"paimon://({_NAME})/({_NAME})\.({_NAME})", output)
    if matched is not None:
        options = find_options(matched[1], catalogs, environ)
        return _resolve_catalog(output, matched[1], (matched[2], matched[3]), options)
    folder = re.fullmatch(rf"(.*/)?({_NAME})\.db/({_NAME})/*", output)
    if folder is not None and scheme_of(output) is None:
        warehouse = str(Path(folder[1] or ".").absolute())
        return TableName(output, folder[2], folder[3], {"warehouse": warehouse}, None)
    raise UsageError(
        f"'{shorten(mask_url(output))}' names no Paimon table",
        hint="name it as paimon://catalog/database.table, or, in a local warehouse, by its folder:"
        " warehouse/database.db/table",
    )


_NAME: Final = r"[\w-]+"
"""What needs no quoting anywhere; a `$` would begin the name of a branch or a system table."""


def _resolve_catalog(
    output: str, catalog: str, identifier: tuple[str, str], options: Options
) -> TableName:
    given = {name: value for name, value in options.items() if name != SIDECARS}
    home = options.get(SIDECARS)
    metastore = options.get("metastore", "filesystem")
    if metastore == "rest":
        if home is None:
            raise UsageError(
                f"the catalog '{catalog}' has no '{SIDECARS}': a run keeps its lock, state and"
                " manifest there, since a catalog's server gives it no place for them",
                hint=f"set {SIDECARS} to a folder or a store's URL, such as oss://bucket/livy",
            )
        return TableName(output, *identifier, given, home)
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
    if home is not None:
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
    """Errors of pypaimon-rust as ours, without what is secret in the catalog's options."""
    try:
        yield
    except ExporterError:
        raise
    except BaseException as exc:
        # What panics in Rust is raised as no Exception, and is nothing to die of.
        if not isinstance(exc, _RAISED) and type(exc).__name__ != "PanicException":
            raise
        raise translate(name, exc) from None if _tells_secrets(name, exc) else exc


def _tells_secrets(name: TableName, exc: BaseException) -> bool:
    """A traceback with the cause would show what the message hides."""
    return mask_urls(hide_secrets(str(exc), name.options)) != str(exc)


_NOISE: Final = re.compile(
    r"(External error|Error during planning|Paimon hitting (an )?(unexpected|unsupported) error"
    r"|Paimon hitting invalid config|Paimon data invalid for):? ?"
)
_UNREACHABLE: Final = re.compile(r"http \w+ failed|error sending request", re.IGNORECASE)
_CAUSE: Final = re.compile(r'(?:message|error): "([^"]+)"')
_STORE: Final = re.compile(r"\w+ \((?:permanent|temporary)\) at ")
_STORE_CODE: Final = re.compile(r'code: "(\w+)"', re.IGNORECASE)
_STORE_REFUSES: Final = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})


def describe(exc: BaseException) -> str:
    """What the library says, in one line and without its own layers."""
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    line = _NOISE.sub("", lines[0])
    return re.sub(r": (None|Some\(.*)$", "", line).strip().rstrip(".")


def translate(name: TableName, exc: BaseException) -> ExporterError:
    said = str(exc)
    if _UNREACHABLE.search(said):
        cause = _CAUSE.search(said)
        reason = "no connection" if cause is None else _hide(name, cause[1])
        return DestinationError(
            f"cannot write to '{name.output}': its catalog does not answer: {reason}",
            hint="look at the catalog's uri, and at the network",
        )
    if _STORE.search(said):
        return _translate_store(name, said)
    text = _hide(name, describe(exc))
    for build, pattern, hint in _KINDS:
        if pattern.search(said):
            return build(f"cannot write to '{name.output}': {text}", hint=hint)
    return DestinationError(
        f"cannot write to '{name.output}': {text}",
        hint="look at the options of this catalog, and at what its server says",
    )


def _hide(name: TableName, text: str) -> str:
    return show_reason(hide_secrets(text, name.options))


def _translate_store(name: TableName, said: str) -> ExporterError:
    """An error of the storage that the catalog's tables are in."""
    found = _STORE_CODE.search(said)
    kind = _STORE.search(said)
    code = found[1] if found is not None else kind[0].split()[0] if kind is not None else ""
    message = f"cannot write to '{name.output}': its storage says {code}"
    if code in _STORE_REFUSES or "PermissionDenied" in said:
        return CredentialsError(
            message, hint="the keys of this catalog's storage must be valid and may write to it"
        )
    return DestinationError(
        message, hint="look at the storage of this catalog, and run again: what was read is kept"
    )


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
)
