"""The interface of a table format: one protocol, one module a format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

from exporter.errors import DestinationError, mask_urls, shorten
from exporter.model import ParquetCodec
from exporter.settings.catalogs import Catalogs
from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.stores.url import StoreAccess

if TYPE_CHECKING:
    import pyarrow as pa

    from exporter.tables.spool import SpilledRows

TableFormat = Literal["delta", "iceberg", "paimon"]

TableMode = Literal["replace", "upsert"]
"""Replace all rows of a table, or only those of the sessions that the run has read."""

MAX_REASON: Final = 400
"""Characters of a library's text: enough for the name of a table or of one of its files."""


def mask_reason(text: str, max_chars: int = MAX_REASON) -> str:
    """A library's text as it may be shown.

    It is masked before it is cut: half a URL could still show a password.
    """
    return shorten(mask_urls(text), max_chars)


def first_line(exc: BaseException) -> str:
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return lines[0].strip().rstrip(".")


class CommitConflict(DestinationError):  # noqa: N818 - answered by another attempt, not reported
    """Raised when somebody else has changed the table since it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRequest:
    """A table as the settings name it."""

    output: str
    partition_by: tuple[str, ...] = ()
    """Empty to keep the table's layout; a new table is then not partitioned."""
    access: StoreAccess = field(default_factory=StoreAccess)
    catalogs: Catalogs = field(default_factory=dict, repr=False)
    """From the settings; the environment may add to them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """The run that commits, and how."""

    run_id: str
    exporter_version: str
    codec: ParquetCodec = "zstd"
    """For data files, unless the table's own properties name one."""
    lock: HeldLock = NO_LOCK
    """Checked between reading the table and committing to it: anything another run commits after
    that check must make this commit a conflict.
    """


class Table(Protocol):
    """One table, which its first commit creates if it does not exist.

    Methods block. They raise UsageError, CredentialsError and DestinationError; `commit_rows` and
    `compact` also CommitConflict, which leaves the table as it is.
    """

    @property
    def location(self) -> str:
        """The table's folder, which need not exist, without a slash at its end.

        The run's own files stand beside it, and are named after it.
        """

    def find_commit(self, run_id: str) -> str | None:
        """The table's name for the commit of a run; None where it has none."""

    def prove_writable(self, run_id: str) -> None:
        """Write a file where data files go, and remove it."""

    def commit_rows(self, rows: "SpilledRows", commit: Commit, *, mode: TableMode) -> None:
        """Replace all rows, even by none, or upsert by key, as one commit.

        A run that has already committed changes nothing.
        """

    def compact(self, commit: Commit) -> None:
        """Merge small files where many have piled up, in commits that name no run.

        Called after the run was published; the caller logs any error.
        """

    def read_columns(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        """All current rows, a batch at a time; none where the table does not exist."""

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        """Remove files of a run that ended before its commit; never raises.

        A file must be older than `keep_s`, or one that the run can no longer commit. The caller
        holds the output's lock and has found the run in its intent.
        """
