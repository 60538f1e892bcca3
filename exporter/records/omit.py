"""Fields that are left out of every output; performs no I/O."""

import difflib
from collections.abc import Sequence
from typing import Final

from exporter.errors import UsageError
from exporter.model import RawSession
from exporter.records.decode import RECEIVED

COLUMNS: Final = {
    "name": "name",
    "state": "state",
    "createTime": "create_time",
    "endTime": "end_time",
    "queue": "queue",
    "cuHours": "cu_hours",
    "vcoreSeconds": "vcore_seconds",
    "mbSeconds": "mb_seconds",
    "info": "info",
    "webUI": "web_ui",
    "sparkConf": "spark_conf",
    "extra": "extra",
}
"""What can be left out: the service's name and the column's. `extra` is all fields without one."""

KEYS: Final = {
    "sessionId": "session_id",
    "regionId": "region_id",
    "workspaceId": "workspace_id",
    "computeId": "compute_id",
    "exportedAt": "exported_at",
}
NAMED: Final = frozenset({*COLUMNS, "sessionId", "computeId"} - {"extra"})

READ_BY_LISTINGS: Final = frozenset({"createTime", "endTime", "state"})
"""A listing goes by these: they are left out only on the way to the output."""

PARTITIONED_BY: Final = {"dt": "createTime", "state": "state", "queue": "queue"}


def resolve_fields(names: Sequence[str], *, partition_by: Sequence[str]) -> tuple[str, ...]:
    """The service's names of fields that a user names by either, in one order.

    Raises UsageError for a name that is unknown, and for what an output cannot be without.
    """
    by_name = {name: field for field, column in COLUMNS.items() for name in (field, column)}
    for name in names:
        if name in KEYS or name in KEYS.values():
            raise UsageError(
                f"'{name}' cannot be left out", hint="it tells which session a row is of, or when"
            )
        if name not in by_name:
            near = difflib.get_close_matches(name, [*by_name], n=1, cutoff=0.6)
            raise UsageError(
                f"no field '{name:.200}'",
                hint=f"did you mean {near[0]}?" if near else "known: " + ", ".join(COLUMNS),
            )
    fields = tuple(sorted({by_name[name] for name in names}))
    for column in partition_by:
        if PARTITIONED_BY.get(column) in fields:
            raise UsageError(
                f"'{PARTITIONED_BY[column]}' cannot be left out and be a partition",
                hint=f"leave {column} out of --partition-by",
            )
    return fields


class Omission:
    """Leaves fields out of sessions, and counts the values that go."""

    def __init__(self, fields: Sequence[str]) -> None:
        """`fields` by the service's names, as `resolve_fields` gives them."""
        self._fields = {normalize(field): field for field in fields}
        self._known: dict[str, str | None] = {}
        self.counts = dict.fromkeys(fields, 0)
        """Values, but for nulls, by the service's name of their field."""

    def blank(self, sessions: Sequence[RawSession]) -> None:
        """Make no difference between values that will be left out: a session that differs in them
        alone has not changed.
        """
        if not self._fields:
            return
        for session in sessions:
            for name, value in session.items():
                if value is not None and self._find(name) not in {None, *READ_BY_LISTINGS}:
                    session[name] = True

    def leave_out(self, sessions: list[RawSession]) -> list[RawSession]:
        """The sessions as they are to be written."""
        return [self._strip(each) for each in sessions] if self._fields else sessions

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
        """The field that is left out with this one; None where it stays."""
        if name not in self._known:
            bare = name
            while bare.startswith(RECEIVED):
                bare = bare.removeprefix(RECEIVED)
            # In whatever casing: a secret must not slip through as an unknown field.
            field = self._fields.get(normalize(bare))
            if field is None and "extra" in self._fields and name not in NAMED:
                field = "extra"
            self._known[name] = field
        return self._known[name]


def normalize(name: str) -> str:
    return name.replace("_", "").casefold()
