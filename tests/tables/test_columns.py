"""What tables of every format are refused for."""

import pyarrow as pa
import pytest

from exporter.errors import DestinationError, UsageError
from exporter.records.schema import SCHEMA
from exporter.tables.columns import (
    STORED_INSTANT,
    TableColumn,
    build_stored_field,
    require_fit,
    require_partition_columns,
    require_same_partitions,
)

TYPES = {field.name: str(field.type) for field in SCHEMA}
FITTING = [TableColumn(name, text, is_required=False) for name, text in TYPES.items()]


@pytest.mark.parametrize(
    "more",
    [
        [],
        [TableColumn("note", "string", is_required=False)],
        [TableColumn("dt", "date", is_required=False)],
    ],
)
def test_table_with_our_columns_and_others_fits(more: list[TableColumn]) -> None:
    require_fit("t", [*FITTING, *more], TYPES)


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (TableColumn("note", "string", is_required=True), "requires 'note', which no session has"),
        (TableColumn("queue", "int", is_required=False), "its 'queue' is int, not string"),
        (TableColumn("queue", "string", is_required=True), "'queue', which a session may lack"),
        (TableColumn("Queue", "string", is_required=False), "'Queue', and a session has 'queue'"),
    ],
)
def test_column_that_cannot_take_our_rows_is_named(column: TableColumn, reason: str) -> None:
    others = [each for each in FITTING if each.name != column.name]

    with pytest.raises(DestinationError, match=reason):
        require_fit("t", [*others, column], TYPES)


def test_instants_are_stored_in_microseconds() -> None:
    stored = {name: build_stored_field(SCHEMA.field(name), nullable=True) for name in SCHEMA.names}

    assert stored["create_time"].type == STORED_INSTANT
    assert stored["queue"] == pa.field("queue", pa.string(), nullable=True)


@pytest.mark.parametrize(
    ("name", "reason"),
    [("cu_hours", "cannot be partitioned by 'cu_hours'"), ("qeue", "no column 'qeue'")],
)
def test_new_table_is_partitioned_by_what_it_can_be(name: str, reason: str) -> None:
    require_partition_columns(["dt", "queue"], ["queue", "state"])

    with pytest.raises(UsageError, match=reason):
        require_partition_columns(["dt", name], ["queue", "state"])


def test_table_keeps_its_partitions() -> None:
    require_same_partitions("t", ["dt"], ["dt"])
    require_same_partitions("t", ["dt"], [])

    with pytest.raises(UsageError, match="is partitioned by nothing, not by dt"):
        require_same_partitions("t", [], ["dt"])
