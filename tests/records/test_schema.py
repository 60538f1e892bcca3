import json
import math
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import ExporterError
from exporter.model import Gateway, RawSession
from exporter.records import schema
from exporter.records.fields import FIELDS
from exporter.records.schema import SCHEMA, build_batch

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
EXPORTED_AT = datetime(2026, 1, 12, 10, 24, 0, 123456, tzinfo=UTC)
CREATED_MS = 1_768_213_240_000


def raw_session(**fields: Any) -> RawSession:
    return {
        "sessionId": "livy-1",
        "name": "nightly",
        "computeId": "lc-1",
        "state": "terminated",
        "info": "null",
        "sparkConf": '{"proxyUser":"test","conf":{"spark.driver.cores":1}}',
        "createTime": CREATED_MS,
        "endTime": CREATED_MS + 1000,
        "queue": "root_queue",
        "cuHours": 322.5,
        "vcoreSeconds": 343,
        "mbSeconds": 1098888,
        "webUI": "http://emr-spark-ui-cn-hangzhou.data.aliyun.com",
        **fields,
    }


def only_row(session: RawSession) -> tuple[dict[str, Any], int]:
    batch = build_batch(GATEWAY, [session], EXPORTED_AT)
    batch.rows.validate(full=True)
    [row] = batch.rows.to_pylist()
    row["extra"] = None if row["extra"] is None else json.loads(row["extra"])
    return row, batch.coerced_value_count


def test_documented_session_fills_every_column_as_is() -> None:
    row, coerced_count = only_row(raw_session())

    assert row == {
        "session_id": "livy-1",
        "name": "nightly",
        "region_id": "cn-hangzhou",
        "workspace_id": "w-1",
        "compute_id": "lc-1",
        "state": "terminated",
        "create_time": datetime(2026, 1, 12, 10, 20, 40, tzinfo=UTC),
        "end_time": datetime(2026, 1, 12, 10, 20, 41, tzinfo=UTC),
        "queue": "root_queue",
        "cu_hours": 322.5,
        "vcore_seconds": 343,
        "mb_seconds": 1098888,
        "info": None,
        "web_ui": "http://emr-spark-ui-cn-hangzhou.data.aliyun.com",
        "spark_conf": '{"proxyUser":"test","conf":{"spark.driver.cores":1}}',
        "exported_at": datetime(2026, 1, 12, 10, 24, 0, 123000, tzinfo=UTC),
        "extra": None,
    }
    assert coerced_count == 0


def test_session_of_nothing_but_its_id_is_a_row() -> None:
    row, coerced_count = only_row({"sessionId": "livy-1"})

    assert {name for name, value in row.items() if value is not None} == {
        "session_id",
        "region_id",
        "workspace_id",
        "compute_id",
        "exported_at",
    }
    assert row["compute_id"] == "lc-1"
    assert coerced_count == 0


def test_no_sessions_are_no_rows() -> None:
    batch = build_batch(GATEWAY, [], EXPORTED_AT)

    assert batch.rows.num_rows == 0
    assert batch.rows.schema == SCHEMA


@pytest.mark.parametrize(
    ("field", "column", "sent", "stored"),
    [
        ("vcoreSeconds", "vcore_seconds", "343", 343),
        ("vcoreSeconds", "vcore_seconds", "-9223372036854775808", -(2**63)),
        ("vcoreSeconds", "vcore_seconds", 343.0, 343),
        ("vcoreSeconds", "vcore_seconds", "9007199254740993.0", 2**53 + 1),
        ("mbSeconds", "mb_seconds", "1e3", 1000),
        ("cuHours", "cu_hours", "322.5", 322.5),
        ("cuHours", "cu_hours", "3", 3.0),
        ("createTime", "create_time", "0", None),
        ("createTime", "create_time", 0.0, None),
        (
            "createTime",
            "create_time",
            str(CREATED_MS),
            datetime(2026, 1, 12, 10, 20, 40, tzinfo=UTC),
        ),
    ],
)
def test_number_in_another_guise_is_converted_and_counted(
    field: str, column: str, sent: Any, stored: Any
) -> None:
    row, coerced_count = only_row(raw_session(**{field: sent}))

    assert row[column] == stored
    assert row["extra"] is None
    assert coerced_count == 1


@pytest.mark.parametrize(
    ("field", "sent"),
    [
        ("vcoreSeconds", "many"),
        ("vcoreSeconds", ""),
        ("vcoreSeconds", "007"),
        ("vcoreSeconds", " 7"),
        ("vcoreSeconds", "0x1f"),
        ("vcoreSeconds", "1_000"),
        ("vcoreSeconds", "٣"),
        ("vcoreSeconds", "NaN"),
        ("vcoreSeconds", "1e999999999"),
        ("vcoreSeconds", "1e-999999999"),
        ("vcoreSeconds", "9" * 5000),
        ("vcoreSeconds", 1.5),
        ("vcoreSeconds", 1e300),
        ("vcoreSeconds", 2**63),
        ("vcoreSeconds", -(2**63) - 1),
        ("vcoreSeconds", True),
        ("vcoreSeconds", [1]),
        ("mbSeconds", {"value": 1}),
        ("cuHours", "a lot"),
        ("cuHours", "inf"),
        ("cuHours", "1e400"),
        ("cuHours", False),
        ("cuHours", 2**53 + 1),
        ("cuHours", "9007199254740993"),
        ("cuHours", 10**400),
        ("createTime", "2026-01-12"),
        ("createTime", True),
        ("endTime", 2**62),
        ("endTime", -(2**62)),
        ("name", 17),
        ("name", "\ud800"),
        ("state", ["terminated"]),
        ("info", {"message": "failed"}),
        ("sparkConf", {"proxyUser": "test"}),
        ("webUI", False),
    ],
)
def test_value_that_does_not_fit_is_null_kept_and_counted(field: str, sent: Any) -> None:
    column = FIELDS[field]

    row, coerced_count = only_row(raw_session(**{field: sent}))

    assert row[column] is None
    assert row["extra"] == {field: sent}
    assert type(row["extra"][field]) is type(sent)
    assert coerced_count == 1


def test_gateway_stands_in_for_a_compute_id_that_is_no_text() -> None:
    row, coerced_count = only_row(raw_session(computeId=7))

    assert row["compute_id"] == "lc-1"
    assert row["extra"] == {"computeId": 7}
    assert coerced_count == 1


@pytest.mark.parametrize(
    "field", ["extra", "regionId", "session_id", "exported_at", "tags", "\ud800"]
)
def test_field_without_a_column_is_kept_and_not_counted(field: str) -> None:
    row, coerced_count = only_row(raw_session(**{field: {"a": [1, None]}}))

    assert row["extra"] == {field: {"a": [1, None]}}
    assert row["region_id"] == "cn-hangzhou"
    assert coerced_count == 0


def test_extra_fields_stand_in_one_order_however_they_were_sent() -> None:
    one_way = build_batch(GATEWAY, [raw_session(b=1, a=2)], EXPORTED_AT)
    other_way = build_batch(GATEWAY, [raw_session(a=2, b=1)], EXPORTED_AT)

    assert one_way.rows.equals(other_way.rows)


def test_deep_nesting_is_kept() -> None:
    nested: list[Any] = []
    for _ in range(400):
        nested = [nested]

    row, _ = only_row(raw_session(tree=nested))

    assert row["extra"] == {"tree": nested}


def test_nesting_that_nothing_can_write_is_an_error_of_ours() -> None:
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]

    with pytest.raises(ExporterError, match="nested too deeply"):
        build_batch(GATEWAY, [raw_session(tree=nested)], EXPORTED_AT)


@pytest.mark.parametrize(
    "sent", [{}, {"sessionId": None}, {"sessionId": 7}, {"sessionId": "\ud800"}]
)
def test_session_without_a_text_id_is_refused_by_name(sent: RawSession) -> None:
    with pytest.raises(ExporterError, match="w-1/lc-1") as caught:
        build_batch(GATEWAY, [raw_session(), sent], EXPORTED_AT)

    assert caught.value.hint is not None


def test_batch_that_cannot_be_written_is_never_half_built() -> None:
    """One odd value must not change its neighbours, whichever way the column was built."""
    plain = [raw_session(sessionId=f"livy-{number}") for number in range(50)]
    odd = [*plain[:25], raw_session(cuHours=True, info=1, endTime="soon"), *plain[25:]]

    rows = build_batch(GATEWAY, odd, EXPORTED_AT).rows.to_pylist()

    assert rows[:25] + rows[26:] == build_batch(GATEWAY, plain, EXPORTED_AT).rows.to_pylist()


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 2**53, 2**53 + 1, 2**63 - 1, 2**63, CREATED_MS, 0.0, -0.0, 1.5, 1e18])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**70), 2**70).map(str)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr)
    | st.sampled_from(
        ["null", "", "0", "1e3", "-0", "1.50", "true", "\x00", "\ud800", "🦆", "e\u0301"]
    )
    | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)
DOCUMENTED = {
    schema._TEXT: st.text() | st.just("null"),
    schema._TIME: st.sampled_from([0, CREATED_MS, -1]),
    schema._COUNT: st.integers(-(2**63), 2**63 - 1),
    schema._FLOAT: st.floats(allow_nan=False, allow_infinity=False) | st.integers(0, 99),
}
OTHER_FIELDS = ["extra", "regionId", "session_id", "exportedAt", "weird \ud800"]


@st.composite
def raw_sessions(draw: Callable[[st.SearchStrategy[Any]], Any]) -> RawSession:
    """Mostly as documented, so that many columns are built in one sweep, and many are not."""
    session: RawSession = {}
    for field, column in FIELDS.items():
        kind = schema._KINDS.get(column, schema._TEXT)
        choice = draw(st.sampled_from("ddddddddoa"))
        if choice != "a":
            session[field] = draw(DOCUMENTED[kind] if choice == "d" else JSON_VALUES)
    for field in draw(st.sets(st.sampled_from(OTHER_FIELDS))):
        session[field] = draw(JSON_VALUES)
    session["sessionId"] = draw(st.text())
    return session


def rebuilt(row: dict[str, Any]) -> dict[str, Any]:
    """What the service sent, as far as a row tells it."""
    session = {}
    for field, column in FIELDS.items():
        value = row[column]
        if isinstance(value, datetime):
            value = round((value - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 1000)
        if value is not None:
            session[field] = value
    extra = {} if row["extra"] is None else json.loads(row["extra"])
    return session | extra


def as_number(value: str) -> Any:
    try:
        return orjson.loads(value) if len(value) <= 64 else value
    except orjson.JSONDecodeError:
        return value


def same(sent: Any, kept: Any, field: str) -> bool:
    """Equal, or normalised in a way that `build_batch` documents."""
    is_time = field in {"createTime", "endTime"}
    if kept is None:
        return (
            sent is None
            or (is_time and as_number(str(sent)) == 0)
            or (field, sent) == ("info", "null")
        )
    if type(sent) is type(kept):
        return bool(sent == kept)
    if isinstance(kept, int | float) and not isinstance(kept, bool):
        if isinstance(sent, str):
            # Beyond 2**53 a float cannot tell whether the integer is right; a decimal can.
            return bool(as_number(sent) == kept) or Decimal(sent) == kept
        return not isinstance(sent, bool) and bool(sent == kept)
    return False


@given(st.lists(raw_sessions(), max_size=5))
def test_every_value_sent_can_be_rebuilt_from_its_row(sessions: list[RawSession]) -> None:
    batch = build_batch(GATEWAY, sessions, EXPORTED_AT)

    batch.rows.validate(full=True)
    for sent, row in zip(sessions, batch.rows.to_pylist(), strict=True):
        kept = rebuilt(row)
        if sent.get("computeId") is None and kept["computeId"] == "lc-1":
            del kept["computeId"]
        assert kept.keys() <= sent.keys()
        for field, value in sent.items():
            assert same(value, kept.get(field), field), (field, value, kept.get(field))


@given(st.sampled_from([schema._TEXT, schema._COUNT, schema._TIME, schema._FLOAT]), st.data())
def test_one_step_and_value_by_value_agree(kind: schema._Kind, choices: st.DataObject) -> None:
    values = choices.draw(st.lists(st.none() | DOCUMENTED[kind] | JSON_VALUES, max_size=4))

    whole = schema._convert_all(kind, values)
    stepped, misfits, converted_count = schema._convert_each(kind, values)

    assert whole is None or (whole.equals(stepped) and misfits == {} and converted_count == 0)


@given(st.sampled_from([schema._TEXT, schema._COUNT, schema._TIME]), st.data())
def test_documented_values_need_no_second_look(kind: schema._Kind, choices: st.DataObject) -> None:
    values = choices.draw(st.lists(st.none() | DOCUMENTED[kind]))

    assert schema._convert_all(kind, values) is not None


@pytest.mark.parametrize("values", [[1.5, True], [True], [math.pi, "1"]])
def test_float_column_refuses_values_that_arrow_would_convert(values: list[Any]) -> None:
    assert schema._convert_all(schema._FLOAT, values) is None


def test_schema_has_utc_times_and_a_key_without_nulls() -> None:
    required = {field.name for field in SCHEMA if not field.nullable}

    assert required == {"session_id", "region_id", "workspace_id", "compute_id", "exported_at"}
    assert {field.type for field in SCHEMA if field.name.endswith(("_time", "_at"))} == {
        pa.timestamp("ms", tz="UTC")
    }
