from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.model import Gateway
from exporter.records.schema import build_batch, build_column
from exporter.sinks.hive import NO_VALUE, empty_folder, escape_value, group_rows

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
TEXTS = st.none() | st.sampled_from(["", "a", "b", "ü", "a/b", NO_VALUE]) | st.text(max_size=3)


@pytest.mark.parametrize(
    ("value", "escaped"),
    [
        ("root_queue", "root_queue"),
        ("a/b=c%d", "a%2Fb%3Dc%25d"),
        ("\x01\n\x1f\x7f", "%01%0A%1F%7F"),
        ("\"#'*:?\\{[]^", "%22%23%27%2A%3A%3F%5C%7B%5B%5D%5E"),
        ("}<>|& ;!@$()+,-._~`", "}<>|& ;!@$()+,-._~`"),
        ("数据 🦆", "数据 🦆"),
        ("nul\x00", "nul%00"),
        ("..", ".."),
        ("x" * 200, "x" * 200),
        ("x" * 201, NO_VALUE),
        ("%" * 67, NO_VALUE),
        ("", NO_VALUE),
        (None, NO_VALUE),
    ],
)
def test_values_are_escaped_as_by_hive(value: str | None, escaped: str) -> None:
    assert escape_value(value) == escaped


def test_folder_of_nothing_has_all_columns() -> None:
    assert empty_folder(["dt", "queue"]) == f"dt={NO_VALUE}/queue={NO_VALUE}/"


@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1))
def test_rows_are_grouped_as_one_by_one(pairs: list[tuple[str | None, str | None]]) -> None:
    expected: dict[str, list[int]] = {}
    for row, (queue, state) in enumerate(pairs):
        folder = f"queue={escape_value(queue)}/state={escape_value(state)}/"
        expected.setdefault(folder, []).append(row)

    keys = [pa.array(values, pa.string()) for values in zip(*pairs, strict=True)]
    found = group_rows(["queue", "state"], keys)

    assert [(folder, rows.to_pylist()) for folder, rows in found] == list(expected.items())


@given(st.lists(st.none() | st.datetimes(), min_size=1))
def test_date_is_that_of_utc_in_any_year(times: list[datetime | None]) -> None:
    keys = [pa.array(times, pa.timestamp("us")).cast(pa.timestamp("ms"), safe=False)]

    found = group_rows(["dt"], [keys[0].cast(pa.timestamp("ms", "UTC"))])

    by_row = {row: folder for folder, rows in found for row in rows.to_pylist()}
    assert [by_row[row] for row in range(len(times))] == [
        f"dt={NO_VALUE}/" if each is None else f"dt={each.date().isoformat()}/" for each in times
    ]


def test_last_instant_of_a_day_belongs_to_it() -> None:
    midnight = datetime(2026, 11, 22, tzinfo=UTC)
    times = [midnight - timedelta(milliseconds=1), midnight]

    found = group_rows(["dt"], [pa.array(times, pa.timestamp("ms", "UTC"))])

    assert [folder for folder, _ in found] == ["dt=2026-11-21/", "dt=2026-11-22/"]


def test_more_combinations_than_an_integer_holds_are_told_apart() -> None:
    count = 4000
    keys = [pa.array([f"{row}" for row in range(count)]) for _ in range(6)]

    found = group_rows(["a", "b", "c", "d", "e", "f"], keys)

    assert len(found) == count


ODD_VALUES = st.none() | st.text(max_size=2) | st.integers() | st.sampled_from(["\ud800", "12", {}])


@given(
    st.lists(
        st.fixed_dictionaries(
            {"sessionId": st.just("livy-1")},
            optional=dict.fromkeys(("state", "queue", "computeId", "createTime"), ODD_VALUES),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_column_alone_is_that_of_the_table(sessions: list[dict[str, Any]]) -> None:
    rows = build_batch(GATEWAY, sessions, datetime(2026, 1, 1, tzinfo=UTC)).rows

    for name in ("region_id", "workspace_id", "compute_id", "state", "queue", "create_time"):
        assert build_column(name, GATEWAY, sessions).equals(rows.column(name))
