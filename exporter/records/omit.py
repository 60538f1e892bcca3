"""Fields that are left out of every output; performs no I/O."""

from collections.abc import Sequence
from typing import Final

from exporter.errors import UsageError, suggest
from exporter.model import RawSession
from exporter.records.decode import RECEIVED
from exporter.records.fields import FIELDS

KEYS: Final = {
    "sessionId": "session_id",
    "regionId": "region_id",
    "workspaceId": "workspace_id",
    "computeId": "compute_id",
    "exportedAt": "exported_at",
}
"""Fields and columns that every row needs."""

COLUMNS: Final = {
    **{field: column for field, column in FIELDS.items() if field not in KEYS},
    "extra": "extra",
}
"""Fields and columns that can be left out. `extra` is all fields without a column."""

READ_BY_LISTINGS: Final = frozenset({"createTime", "endTime", "state"})
"""Listings need these: they are left out only on the way to the output."""

PARTITIONED_BY: Final = {"dt": "createTime", "state": "state", "queue": "queue"}


def resolve_fields(names: Sequence[str], *, partition_by: Sequence[str]) -> tuple[str, ...]:
    """The service's names of fields that a user gives by either name, sorted.

    Raises UsageError for an unknown name, and for a field that the output needs.
    """
    by_name = {name: field for field, column in COLUMNS.items() for name in (field, column)}
    for name in names:
        if name in KEYS or name in KEYS.values():
            raise UsageError(
                f"'{name}' cannot be left out", hint="it tells which session a row is of, or when"
            )
        if name not in by_name:
            raise UsageError(f"no field '{name:.200}'", hint=suggest(name, [*by_name]))
    fields = tuple(sorted({by_name[name] for name in names}))
    for column in partition_by:
        if PARTITIONED_BY.get(column) in fields:
            raise UsageError(
                f"'{PARTITIONED_BY[column]}' cannot be left out and be a partition",
                hint=f"leave {column} out of --partition-by",
            )
    return fields


class Omission:
    """Leaves fields out of sessions, and counts the omitted values."""

    def __init__(self, fields: Sequence[str]) -> None:
        """`fields` by the service's names, as `resolve_fields` gives them."""
        self._fields = {normalize(field): field for field in fields}
        self._by_name: dict[str, str | None] = {}
        self.counts = dict.fromkeys(fields, 0)
        """Omitted values other than null, by the service's name of their field."""

    def blank(self, sessions: Sequence[RawSession]) -> Sequence[RawSession]:
        """The sessions with all omitted values equal: one that differs only in them has not
        changed.
        """
        return [self._blank(each) for each in sessions] if self._fields else sessions

    def leave_out(self, sessions: list[RawSession]) -> list[RawSession]:
        """The sessions as they are to be written."""
        return [self._strip(each) for each in sessions] if self._fields else sessions

    def _blank(self, session: RawSession) -> RawSession:
        return {
            name: value if value is None or self._find(name) in {None, *READ_BY_LISTINGS} else True
            for name, value in session.items()
        }

    def _strip(self, session: RawSession) -> RawSession:
        kept: RawSession = {}
        for name, value in session.items():
            field = self._find(name)
            if field is None:
                kept[name] = value
            elif value is not None:
                self.counts[field] += 1
        return kept

    def _find(self, name: str) -> str | None:
        """The omitted field that this name belongs to; None if it is kept."""
        if name not in self._by_name:
            bare = name
            while bare.startswith(RECEIVED):
                bare = bare.removeprefix(RECEIVED)
            # In any casing: a secret must not slip through as an unknown field.
            field = self._fields.get(normalize(bare))
            if field is None and "extra" in self._fields and name not in FIELDS:
                field = "extra"
            self._by_name[name] = field
        return self._by_name[name]


def normalize(name: str) -> str:
    return name.replace("_", "").casefold()
