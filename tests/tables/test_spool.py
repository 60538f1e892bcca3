"""Rows that wait for their commit: in memory, and on disk beyond it."""

import os
import tempfile
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import DestinationError
from exporter.model import Gateway
from exporter.records.schema import build_batch
from exporter.tables.spool import SPILLED_SCHEMA, SpilledRows, keep_newest

EXPORTED_AT = datetime(2026, 1, 12, tzinfo=UTC)
TEXT = st.text(alphabet="a:1\x00é", max_size=4)
KEY = st.tuples(TEXT, TEXT, TEXT, TEXT)
SIZES = pytest.mark.parametrize("memory_bytes", [1 << 20, 0], ids=["in memory", "on disk"])

Keys = list[tuple[str, str, str, str]]


def build_rows(keys: Keys, *, state: str = "running") -> pa.RecordBatch:
    batches = [
        build_batch(
            Gateway(region, workspace, gateway),
            [{"sessionId": session, "state": state, "createTime": 1_768_213_240_123}],
            EXPORTED_AT,
        ).rows
        for region, workspace, gateway, session in keys
    ]
    whole = pa.Table.from_batches(batches, batches[0].schema)
    return whole.combine_chunks().to_batches()[0]


def fill(*batches: Keys, memory_bytes: int = 0) -> SpilledRows:
    spool = SpilledRows(memory_bytes=memory_bytes)
    for number, keys in enumerate(batches):
        if keys:
            spool.append(build_rows(keys, state=f"of {number}"))
    spool.finish()
    return spool


def keys_of(count: int) -> Keys:
    return [("r", "w", "c", f"livy-{number}") for number in range(count)]


def read_states(spool: SpilledRows) -> dict[tuple[str, str, str, str], str]:
    rows = spool.open_reader().read_all().to_pylist()
    return {
        (row["region_id"], row["workspace_id"], row["compute_id"], row["session_id"]): row["state"]
        for row in rows
    }


@SIZES
def test_rows_come_back_as_often_as_they_are_asked_for(memory_bytes: int) -> None:
    spool = fill(keys_of(3), keys_of(2), memory_bytes=memory_bytes)

    first, second = spool.open_reader().read_all(), spool.open_reader().read_all()

    assert first.schema == SPILLED_SCHEMA
    assert first.equals(second)
    assert first["state"].to_pylist() == ["of 0"] * 3 + ["of 1"] * 2
    assert spool.row_count == 5
    spool.close()
    spool.close()


@SIZES
def test_reader_has_the_columns_and_types_that_are_asked_for(memory_bytes: int) -> None:
    spool = fill(keys_of(1), memory_bytes=memory_bytes)
    schema = pa.schema(
        [
            pa.field("dt", pa.string()),
            pa.field("create_time", pa.timestamp("us", "UTC")),
            pa.field("session_id", pa.string()),
        ]
    )

    reader = spool.open_reader(schema)

    assert reader.schema.names == ["session_id", "create_time", "dt"]
    assert reader.schema.field("session_id").nullable
    [row] = reader.read_all().to_pylist()
    assert row["dt"] == str(date(2026, 1, 12))
    assert row["create_time"] == datetime(2026, 1, 12, 10, 20, 40, 123_000, UTC)
    spool.close()


@SIZES
def test_no_rows_can_be_read(memory_bytes: int) -> None:
    spool = fill(memory_bytes=memory_bytes)

    assert spool.open_reader().read_all().num_rows == 0
    assert keep_newest(spool) is spool


@SIZES
def test_distinct_rows_are_not_written_again(memory_bytes: int) -> None:
    spool = fill(keys_of(4), memory_bytes=memory_bytes)

    assert keep_newest(spool) is spool
    spool.close()


@given(
    batches=st.lists(st.lists(KEY, max_size=4), max_size=4), memory_bytes=st.sampled_from([0, 9])
)
def test_last_row_of_a_key_replaces_those_before(batches: list[Keys], memory_bytes: int) -> None:
    expected = {key: f"of {number}" for number, keys in enumerate(batches) for key in keys}

    kept = keep_newest(fill(*batches, memory_bytes=memory_bytes << 20))

    assert read_states(kept) == expected
    assert kept.row_count == len(expected)
    kept.close()


@pytest.mark.campaign
@given(mine=st.lists(KEY, min_size=1, max_size=6), asked=st.lists(KEY, min_size=1, max_size=6))
def test_keys_are_equal_when_all_four_texts_are(mine: Keys, asked: Keys) -> None:
    from exporter.tables.iceberg_rows import join_keys

    texts, others = join_keys(build_rows(mine)), join_keys(build_rows(asked))

    hits = [text in set(texts.to_pylist()) for text in others.to_pylist()]

    assert hits == [key in set(mine) for key in asked]


def test_nothing_is_left_of_rows_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    spool = fill(keys_of(3))

    assert list(tmp_path.iterdir()) == []
    assert spool.open_reader().read_all().num_rows == 3
    spool.close()


def test_folder_without_room_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))

    with pytest.raises(DestinationError, match="cannot keep rows in") as caught:
        fill(keys_of(3))

    assert str(tmp_path / "gone") in str(caught.value)
    assert caught.value.hint == "let TMPDIR name a folder with more room"
    assert os.listdir(tmp_path) == []  # noqa: PTH208 - that nothing was made
