"""Publishes one run's sessions to a table, and merges its small files, in a process to be killed.

    python -m tests.support.table_writer FORMAT OUTPUT replace|upsert RUN_ID STATE FIRST END

It prints its progress: before it publishes, after it has published, and after the compaction.
"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from datetime import UTC, datetime
from typing import Any, get_args

from exporter.model import Gateway, RawSession, TableFormat
from exporter.stores.url import StoreAccess
from exporter.tables import registry
from exporter.tables.interface import Commit, Table, TableMode, TableRequest
from exporter.tables.output import TableOutput

PUBLISHING = "publishing"
PUBLISHED = "published"
MERGED = "merged"

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
EXPORTED_AT = datetime(2026, 1, 12, 10, 24, tzinfo=UTC)
CREATED_MS = 1_768_213_240_123

MIN_MERGED = 2
"""Small files that are merged: so few that most runs find them, and are killed merging them."""


@contextmanager
def open_table(table_format: TableFormat, output: str) -> Iterator[Table]:
    """A table whose store, if any, is addressed by path and configured by the environment."""
    access = StoreAccess(environ=os.environ, addressing="path")
    table: Any = registry.open_table(table_format, TableRequest(output=output, access=access))
    with closing(table) if hasattr(table, "close") else nullcontext():
        yield table


def build_sessions(rows: range, state: str) -> list[RawSession]:
    return [
        {"sessionId": f"livy-{each}", "state": state, "createTime": CREATED_MS + each}
        for each in rows
    ]


def open_output(
    table: Table, *, mode: TableMode, commit: Commit, rows: range, state: str
) -> TableOutput:
    """A run's output with all its rows, ready to publish."""
    output = TableOutput(
        table, output="the table", mode=mode, commit=commit, exported_at=EXPORTED_AT
    )
    output.write(GATEWAY, build_sessions(rows, state))
    output.close()
    return output


def merge_early(table_format: TableFormat) -> None:
    """Make this process merge small files sooner than the program does."""
    module: Any = sys.modules[registry.TABLES[table_format].module]
    name = "MAX_FILES" if hasattr(module, "MAX_FILES") else "MAX_SMALL"
    assert getattr(module, name) > MIN_MERGED
    setattr(module, name, MIN_MERGED)


def main(arguments: Sequence[str]) -> None:
    name, place, word, run_id, state, first, end = arguments
    table_format: TableFormat = next(each for each in get_args(TableFormat) if each == name)
    mode: TableMode = next(each for each in get_args(TableMode) if each == word)
    commit = Commit(run_id=run_id, exporter_version="1")
    with open_table(table_format, place) as table:
        merge_early(table_format)
        rows = range(int(first), int(end))
        output = open_output(table, mode=mode, commit=commit, rows=rows, state=state)
        print(PUBLISHING, flush=True)
        output.publish()
        print(PUBLISHED, flush=True)
        table.compact(commit)
        print(MERGED, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
