"""What a run asks of a table of a lake: one protocol, one module a format."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Protocol

from exporter.errors import DestinationError, mask_urls, shorten
from exporter.settings import settings
from exporter.settings.catalogs import Catalogs
from exporter.sinks.interface import ParquetCodec
from exporter.stores.interface import NO_LOCK, HeldLock
from exporter.stores.url import StoreAccess

if TYPE_CHECKING:
    import pyarrow as pa

    from exporter.tables.spool import SpilledRows


MAX_REASON: Final = 400
"""Characters of what a library says: the name of a table, or of a file of it, should fit in."""


def show_reason(text: str, most: int = MAX_REASON) -> str:
    """As much of a library's text as may be shown: masked before it is cut, since what is left of a
    URL may be its password.
    """
    return shorten(mask_urls(text), most)


class CommitConflict(DestinationError):  # noqa: N818 - it is answered by another attempt, not reported
    """Raised when somebody else has changed the table since it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRequest:
    """A table as the settings name it."""

    output: str
    partition_by: tuple[str, ...] = ()
    """Empty for the layout that the table has, or for none."""
    access: StoreAccess = field(default_factory=StoreAccess)
    catalogs: Catalogs = field(default_factory=dict, repr=False)
    """As the settings describe them; the environment may add to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """In whose name rows are committed, and how."""

    run_id: str
    exporter_version: str
    codec: ParquetCodec = "zstd"
    """Of data files; a table whose own properties name one keeps to that."""
    lock: HeldLock = NO_LOCK
    """To be made sure of between reading the table and committing on what was read: whatever
    another run commits after that has to make this commit a conflict.
    """


class Table(Protocol):
    """One table, there or yet to be made: its first commit makes it.

    Methods block. They raise UsageError, CredentialsError and DestinationError; `replace` and
    `upsert` also Conflict, which leaves the table as somebody else has made it.
    """

    @property
    def location(self) -> str:
        """The folder of the table, there or yet to be made, without a slash at its end.

        The run's own files stand beside it, and are named after it.
        """

    def find_commit(self, run_id: str) -> str | None:
        """How the table names the commit of a run; None where it has none."""

    def prove_writable(self, run_id: str) -> None:
        """Write a file where data files go, and remove it."""

    def replace(self, rows: "SpilledRows", commit: Commit) -> None:
        """Put the rows in place of all that the table has, as one commit, even if there are none.

        A run that has committed already changes nothing.
        """

    def upsert(self, rows: "SpilledRows", commit: Commit) -> None:
        """Put the rows in place of those with their keys, and add the others, as one commit.

        A run that has committed already changes nothing.
        """

    def compact(self, commit: Commit) -> None:
        """Merge small files where they pile up, in commits that name no run.

        Called after the run was published; what it raises is logged.
        """

    def read_columns(self, names: Sequence[str]) -> "Iterator[pa.RecordBatch]":
        """All rows as they are now, a batch at a time; none where the table is not there."""

    def remove_leftovers(self, run_id: str, *, keep_s: float) -> None:
        """Remove files of a run that ended before its commit, if they are older than `keep_s` or
        the run cannot commit them any more; never raises.

        Only for who holds the output's lock and has read of that run in its intent.
        """


TableFormat = settings.TableFormat


TableMode = Literal["replace", "upsert"]
"""All rows of a table for those of the run; or only the rows of the sessions it has read."""
