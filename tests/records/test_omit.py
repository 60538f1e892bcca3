import re
from typing import Any

import pytest

from exporter.errors import UsageError
from exporter.listing.bookmark import digest_of
from exporter.records import schema
from exporter.records.omit import COLUMNS, KEYS, Omission, resolve_fields


def session(**fields: Any) -> dict[str, Any]:
    return {
        "sessionId": "livy-1",
        "createTime": 5,
        "state": "running",
        "sparkConf": "{}",
        "queue": None,
        **fields,
    }


def test_all_columns_can_be_named_but_those_of_the_key() -> None:
    assert {*COLUMNS.values(), *KEYS.values()} == set(schema.SCHEMA.names)


@pytest.mark.parametrize(
    ("names", "fields"),
    [
        ((), ()),
        (("sparkConf",), ("sparkConf",)),
        (("spark_conf", "webUI"), ("sparkConf", "webUI")),
        (("web_ui", "webUI", "extra"), ("extra", "webUI")),
    ],
)
def test_field_is_named_as_the_service_or_as_the_column_does(
    names: tuple[str, ...], fields: tuple[str, ...]
) -> None:
    assert resolve_fields(names, partition_by=()) == fields


@pytest.mark.parametrize("name", [*KEYS, *KEYS.values()])
def test_field_of_the_key_cannot_be_left_out(name: str) -> None:
    with pytest.raises(UsageError, match=f"'{name}' cannot be left out"):
        resolve_fields([name], partition_by=())


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("sparkConfig", "did you mean sparkConf?"),
        ("spark_confs", "did you mean spark_conf?"),
        ("%", "known: name, state"),
    ],
)
def test_unknown_field_is_refused_with_the_nearest_name(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"no field '{re.escape(name)}'") as caught:
        resolve_fields([name], partition_by=())

    assert caught.value.hint is not None
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(("column", "field"), [("dt", "create_time"), ("queue", "queue")])
def test_column_of_a_partition_cannot_be_left_out(column: str, field: str) -> None:
    with pytest.raises(UsageError, match="be a partition") as caught:
        resolve_fields([field], partition_by=["region_id", column])

    assert caught.value.hint == f"leave {column} out of --partition-by"


def test_field_is_gone_from_a_session_and_its_values_are_counted() -> None:
    omission = Omission(["queue", "sparkConf"])

    left = omission.leave_out([session(), session(sparkConf=None)])

    assert left == [{"sessionId": "livy-1", "createTime": 5, "state": "running"}] * 2
    assert omission.counts == {"queue": 0, "sparkConf": 1}


@pytest.mark.parametrize(
    "name",
    ["sparkConf", "SparkConf", "spark_conf", "received_sparkConf", "received_received_sparkConf"],
)
def test_field_does_not_slip_through_in_another_spelling(name: str) -> None:
    omission = Omission(["sparkConf"])

    assert omission.leave_out([{"sessionId": "s", name: "secret"}]) == [{"sessionId": "s"}]
    assert omission.counts == {"sparkConf": 1}


def test_extra_is_every_field_without_a_column() -> None:
    omission = Omission(["extra"])

    left = omission.leave_out([session(tags=[1], SparkConf="x", received_name="y")])

    assert left == [session()]
    assert omission.counts == {"extra": 3}


def test_session_that_differs_only_in_omitted_fields_has_not_changed() -> None:
    omission = Omission(["sparkConf", "extra"])
    versions = [session(sparkConf=conf, tags=conf) for conf in ("a", "b")]
    other = session(sparkConf="a", tags="a", name="x")

    first, second, third = omission.blank([*versions, other])

    assert digest_of(first) == digest_of(second)
    assert digest_of(first) != digest_of(third)
    plain = {name: value for name, value in session().items() if name != "sparkConf"}
    assert omission.leave_out(versions) == [plain] * 2
    assert omission.counts == {"sparkConf": 2, "extra": 2}


def test_listing_still_sees_the_fields_it_needs() -> None:
    omission = Omission(["createTime", "state", "endTime", "queue"])
    seen = session(endTime=7, queue="q")

    (seen,) = omission.blank([seen])

    assert (seen["createTime"], seen["state"], seen["endTime"]) == (5, "running", 7)
    assert omission.leave_out([seen]) == [{"sessionId": "livy-1", "sparkConf": "{}"}]
    assert omission.counts == {"createTime": 1, "state": 1, "endTime": 1, "queue": 1}


def test_nothing_is_done_where_nothing_is_left_out() -> None:
    sessions = [session()]

    assert Omission([]).leave_out(sessions) is sessions
