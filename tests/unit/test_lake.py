"""The keys of sessions, and rows that wait: in memory, and on disk beyond it."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.gateway import Gateway
from exporter.records.schema import SCHEMA, build_batch
from exporter.sinks.lake import Keys, WaitingRows

EXPORTED_AT = datetime(2026, 1, 12, tzinfo=UTC)
TEXT = st.text(alphabet="a:1\x00é", max_size=4)
KEY = st.tuples(TEXT, TEXT, TEXT, TEXT)


def build_rows(*keys: tuple[str, str, str, str], state: str = "running") -> pa.RecordBatch:
    columns = {
        name: pa.array([key[place] for key in keys], pa.string())
        for place, name in enumerate(("region_id", "workspace_id", "compute_id", "session_id"))
    }
    columns["state"] = pa.array([state] * len(keys), pa.string())
    columns["exported_at"] = pa.array([EXPORTED_AT] * len(keys), SCHEMA.field("exported_at").type)
    return pa.RecordBatch.from_arrays(
        [columns.get(field.name, pa.nulls(len(keys), field.type)) for field in SCHEMA],
        schema=SCHEMA,
    )


@given(mine=st.lists(st.lists(KEY, max_size=4), max_size=3), asked=st.lists(KEY, max_size=8))
def test_key_is_hit_when_all_four_texts_are_equal(
    mine: list[list[tuple[str, str, str, str]]], asked: list[tuple[str, str, str, str]]
) -> None:
    keys = Keys()
    for batch in mine:
        keys.add(build_rows(*batch))

    known = {key for batch in mine for key in batch}
    assert keys.hits(build_rows(*asked)).to_pylist() == [key in known for key in asked]


def test_row_without_a_whole_key_is_no_hit() -> None:
    keys = Keys()
    keys.add(build_rows(("r", "w", "c", "s")))
    rows = build_rows(("r", "w", "c", "s"))
    for name in ("workspace_id", "session_id"):
        place = rows.schema.get_field_index(name)
        nulls = rows.set_column(place, name, pa.nulls(1, pa.string()))

        assert keys.hits(nulls).to_pylist() == [False]


@pytest.mark.parametrize("memory_bytes", [0, 2000, 1 << 30])
def test_waiting_rows_come_back_in_order_with_the_last_of_each_session(memory_bytes: int) -> None:
    waiting = WaitingRows(SCHEMA, memory_bytes=memory_bytes)
    waiting.append(build_rows(*(("r", "w", "c", f"{n}") for n in range(30))))
    waiting.append(build_rows(("r", "w", "c", "7"), ("r", "w", "d", "8"), state="error"))
    waiting.append(build_rows(("r", "w", "c", "7"), state="terminated"))

    waiting.finish()

    for _ in range(2):
        rows = pa.Table.from_batches(list(waiting.read()), schema=SCHEMA)
        assert rows.select(["compute_id", "session_id", "state"]).to_pylist() == [
            *(
                {"compute_id": "c", "session_id": f"{n}", "state": "running"}
                for n in range(30)
                if n != 7
            ),
            {"compute_id": "d", "session_id": "8", "state": "error"},
            {"compute_id": "c", "session_id": "7", "state": "terminated"},
        ]
    waiting.close()
    waiting.close()


def test_nothing_waits_when_nothing_came() -> None:
    waiting = WaitingRows(SCHEMA)

    waiting.finish()

    assert list(waiting.read()) == []
    assert waiting.keys.hits(build_rows(("r", "w", "c", "s"))).to_pylist() == [False]


def test_rows_of_real_batches_survive_the_disk() -> None:
    session = {"sessionId": "a", "name": "数据", "createTime": 1_768_213_240_123, "odd": [1]}
    rows = build_batch(Gateway("r", "w", "c"), [session], EXPORTED_AT).rows
    waiting = WaitingRows(SCHEMA, memory_bytes=0)
    waiting.append(rows)

    waiting.finish()

    assert list(waiting.read()) == [rows]
    waiting.close()
