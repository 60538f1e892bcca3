from typing import Any

import orjson
import pytest

from exporter.emulator.answers import RequestRefusedError
from exporter.emulator.calls import Call, Catalog, Route, parse_path
from exporter.emulator.scenario import Scenario, build_workspaces

SESSIONS = Route(Call.LIST_SESSIONS, "w-emulated-1", "lc-emulated-1-1")
WORKSPACES = Route(Call.LIST_WORKSPACES)


def ask(catalog: Catalog, route: Route, **query: str) -> dict[str, Any]:
    answer = orjson.loads(catalog.build_answer(route, query, request_id="r-1"))
    assert isinstance(answer, dict)
    return answer


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/api/v1/workspaces", WORKSPACES),
        ("/api/interactive/v1/workspace/w%2F1/livycompute", Route(Call.LIST_GATEWAYS, "w/1")),
        (
            "/api/v1/workspaces/w%2A1/livycompute/lc%201/session",
            Route(Call.LIST_SESSIONS, "w*1", "lc 1"),
        ),
        ("/api/v1/workspaces/", None),
        ("/api/v1/workspaces/w/livycompute/lc/sessions", None),
        ("/", None),
        ("", None),
    ],
)
def test_path_names_its_call(path: str, route: Route | None) -> None:
    assert parse_path(path) == route


def test_sessions_come_twenty_at_a_time_unless_asked_otherwise() -> None:
    catalog = Catalog(Scenario())

    default = ask(catalog, SESSIONS)
    asked = ask(catalog, SESSIONS, pageNum="2", pageSize="15")

    assert (len(default["sessions"]), default["totalCount"]) == (20, 12_000)
    assert default["sessions"][15:] == asked["sessions"][:5]
    assert asked["requestId"] == "r-1"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pageSize", "0"),
        ("pageSize", "101"),
        ("pageSize", "-1"),
        ("pageSize", "ten"),
        ("pageSize", ""),
        ("pageNum", "0"),
        ("pageNum", "1.5"),
        ("pageNum", "٣"),
        ("pageNum", "9" * 30),
    ],
)
def test_number_out_of_its_range_is_refused(name: str, text: str) -> None:
    with pytest.raises(RequestRefusedError) as caught:
        Catalog(Scenario()).build_answer(SESSIONS, {name: text}, request_id="r-1")

    assert (caught.value.status, caught.value.code) == (400, "InvalidParameter")
    assert name in caught.value.message


@pytest.mark.parametrize(
    ("route", "code"),
    [
        (Route(Call.LIST_SESSIONS, "w-none", "lc-emulated-1-1"), "InvalidWorkspace.NotFound"),
        (Route(Call.LIST_SESSIONS, "w-emulated-1", "lc-none"), "InvalidLivyCompute.NotFound"),
        (
            Route(Call.LIST_SESSIONS, "w-emulated-1", "lc-emulated-2-1"),
            "InvalidLivyCompute.NotFound",
        ),
        (Route(Call.LIST_GATEWAYS, "w-none"), "InvalidWorkspace.NotFound"),
    ],
)
def test_unknown_workspaces_and_gateways_are_not_found(route: Route, code: str) -> None:
    catalog = Catalog(Scenario(workspaces=build_workspaces(workspace_count=2)))

    with pytest.raises(RequestRefusedError) as caught:
        catalog.build_answer(route, {}, request_id="r-1")

    assert (caught.value.status, caught.value.code) == (404, code)


def test_gateways_come_in_the_calls_own_envelope() -> None:
    answer = ask(Catalog(Scenario()), Route(Call.LIST_GATEWAYS, "w-emulated-1"))

    assert (answer["code"], answer["requestId"]) == ("1000000", "r-1")
    assert [row["computeId"] for row in answer["data"]["livyComputes"]] == [
        "lc-emulated-1-1",
        "lc-emulated-1-2",
    ]


def test_workspaces_are_chained_by_tokens_until_there_is_none() -> None:
    catalog = Catalog(Scenario(workspaces=build_workspaces(workspace_count=5)))

    first = ask(catalog, WORKSPACES, maxResults="2")
    second = ask(catalog, WORKSPACES, maxResults="2", nextToken=first["nextToken"])
    third = ask(catalog, WORKSPACES, maxResults="2", nextToken=second["nextToken"])

    ids = [row["workspaceId"] for page in (first, second, third) for row in page["workspaces"]]
    assert ids == [f"w-emulated-{number}" for number in range(1, 6)]
    assert "nextToken" not in third
    assert first["totalCount"] == 5


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"name": "workspace 2"}, 1),
        ({"state": "running"}, 3),
        ({"state": "STOPPED"}, 0),
        ({"regionId": "cn-hangzhou"}, 3),
        ({"regionId": "cn-beijing"}, 0),
        ({"nextToken": ""}, 3),
    ],
)
def test_workspaces_are_filtered(query: dict[str, str], count: int) -> None:
    catalog = Catalog(Scenario(workspaces=build_workspaces(workspace_count=3)))

    answer = ask(catalog, WORKSPACES, **query)

    assert (len(answer["workspaces"]), answer["totalCount"]) == (count, count)


def test_unknown_page_token_is_refused() -> None:
    with pytest.raises(RequestRefusedError, match="nextToken"):
        Catalog(Scenario()).build_answer(WORKSPACES, {"nextToken": "7"}, request_id="r-1")


def test_account_without_workspaces_answers_with_none() -> None:
    answer = ask(Catalog(Scenario(workspaces=())), WORKSPACES)

    assert (answer["workspaces"], answer["totalCount"]) == ([], 0)
