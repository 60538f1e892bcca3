import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.api import calls
from exporter.api.calls import Call, GatewayDescription, Workspace, WorkspacePage
from exporter.errors import (
    ApiError,
    AuthenticationError,
    BadAnswerError,
    PermissionDeniedError,
    RefusedError,
    ServiceError,
    ThrottledError,
    TokenExpiredError,
)
from exporter.model import Gateway, ListingQuery, RawSession, SessionPage

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
SESSIONS = calls.list_sessions(GATEWAY, ListingQuery(page_size=100), page_num=3)
WORKSPACES = calls.list_workspaces(region_id="cn-hangzhou", next_token=None)
GATEWAYS = calls.list_gateways(region_id="cn-hangzhou", workspace_id="w-1")

segments = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


def read(
    call: Call[Any], body: bytes | object, *, status: int = 200, headers: Mapping[str, str] = {}
) -> Any:
    raw = body if isinstance(body, bytes) else orjson.dumps(body)
    return calls.parse_answer(call, status=status, headers=headers, body=raw, now=NOW)


def read_refusal(
    call: Call[Any], body: bytes | object, *, status: int = 200, headers: Mapping[str, str] = {}
) -> ApiError:
    with pytest.raises(ApiError) as caught:
        read(call, body, status=status, headers=headers)
    return caught.value


@given(segments)
@pytest.mark.campaign
def test_encoding_equals_the_official_sdks(text: str) -> None:
    from alibabacloud_tea_openapi.utils import Utils

    encoded = calls.encode(text)

    assert encoded == Utils.get_encode_param(text)


@given(segments)
def test_encoding_keeps_only_unreserved_characters(text: str) -> None:
    encoded = calls.encode(text)

    assert re.fullmatch(r"(?:[A-Za-z0-9\-_.~]|%[0-9A-F]{2})*", encoded)


def test_sessions_are_asked_for_by_page_of_the_gateway_in_the_path() -> None:
    call = calls.list_sessions(GATEWAY, ListingQuery(page_size=50), page_num=17)

    assert call.action == "ListLivyComputeSessions"
    assert call.path == "/api/v1/workspaces/w-1/livycompute/lc-1/session"
    assert call.query == "pageNum=17&pageSize=50&regionId=cn-hangzhou"
    assert call.label == "page 17 of w-1/lc-1"


def test_ids_with_reserved_characters_stay_one_segment_of_the_path() -> None:
    call = calls.list_sessions(
        Gateway("cn-x", "w a/b+c*d~e", "lc-é中:1"), ListingQuery(page_size=1), page_num=1
    )

    assert call.path == (
        "/api/v1/workspaces/w%20a%2Fb%2Bc%2Ad~e/livycompute/lc-%C3%A9%E4%B8%AD%3A1/session"
    )


@pytest.mark.parametrize(
    ("token", "query"),
    [
        (None, "maxResults=100&regionId=cn-hangzhou"),
        ("a+b/c==", "maxResults=100&nextToken=a%2Bb%2Fc%3D%3D&regionId=cn-hangzhou"),
    ],
)
def test_workspaces_are_asked_for_a_hundred_at_a_time(token: str | None, query: str) -> None:
    call = calls.list_workspaces(region_id="cn-hangzhou", next_token=token)

    assert (call.action, call.path, call.query) == ("ListWorkspaces", "/api/v1/workspaces", query)


def test_gateways_are_asked_for_under_the_interactive_path() -> None:
    call = calls.list_gateways(region_id="cn-hangzhou", workspace_id="w/1")

    assert call.action == "ListLivyCompute"
    assert call.path == "/api/interactive/v1/workspace/w%2F1/livycompute"
    assert call.query == "regionId=cn-hangzhou"


def test_page_of_sessions_is_read_with_the_rows_untouched() -> None:
    rows: list[RawSession] = [
        {"sessionId": "livy-2", "cuHours": 1.5, "new": [1]},
        {"sessionId": "livy-1"},
    ]

    page = read(SESSIONS, {"requestId": "r", "totalCount": 12, "sessions": rows})

    assert page == SessionPage(12, rows, ["livy-2", "livy-1"])


@pytest.mark.parametrize(
    ("body", "page"),
    [
        pytest.param(
            {"totalCount": 0, "sessions": []}, SessionPage(0, [], []), id="an empty list is empty"
        ),
        pytest.param(
            {"totalCount": 7, "sessions": None}, SessionPage(7, [], []), id="null is an empty list"
        ),
        pytest.param(
            {"TotalCount": 1, "Sessions": [{"sessionId": "a"}]},
            SessionPage(1, [{"sessionId": "a"}], ["a"]),
            id="the RPC casing is read as well",
        ),
        pytest.param(
            {"totalCount": "12", "sessions": []},
            SessionPage(12, [], []),
            id="a total that came as text is a number",
        ),
        pytest.param(
            {"code": "200", "success": True, "totalCount": 0, "sessions": []},
            SessionPage(0, [], []),
            id="a code of success beside a value does not matter",
        ),
        pytest.param(
            {"code": None, "success": None, "totalCount": "9" * 18, "sessions": []},
            SessionPage(int("9" * 18), [], []),
            id="no code is no refusal, and a large total no trouble",
        ),
    ],
)
def test_page_of_sessions(body: object, page: SessionPage) -> None:
    assert read(SESSIONS, body) == page


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param({"sessions": []}, "totalCount is missing", id="missing total"),
        pytest.param({"totalCount": 3}, "sessions is missing", id="missing sessions"),
        pytest.param({}, "sessions is missing", id="empty object"),
        pytest.param(
            {"totalCount": -1, "sessions": []}, "totalCount is -1, not a count", id="negative"
        ),
        pytest.param(
            {"totalCount": True, "sessions": []}, "totalCount is True, not a count", id="bool"
        ),
        pytest.param(
            {"totalCount": None, "sessions": []}, "totalCount is None, not a count", id="null total"
        ),
        pytest.param(
            {"totalCount": 1.0, "sessions": []}, "totalCount is 1.0, not a count", id="float"
        ),
        pytest.param(
            {"totalCount": "-3", "sessions": []},
            "totalCount is '-3', not a count",
            id="negative text",
        ),
        pytest.param(
            {"totalCount": "9" * 5000, "sessions": []},
            "",
            id="a text of more digits than int reads",
        ),
        pytest.param(
            {"totalCount": 1, "sessions": {}}, "sessions is dict, not a list", id="sessions object"
        ),
        pytest.param(
            {"totalCount": 1, "sessions": "x"}, "sessions is str, not a list", id="sessions text"
        ),
        pytest.param(
            {"totalCount": 2**63, "sessions": []}, "totalCount is 9223372036854775808", id="huge"
        ),
        pytest.param(
            {"totalCount": "9" * 19, "sessions": []}, "totalCount is 99999", id="huge text"
        ),
        pytest.param(b'{"totalCount":NaN,"sessions":[]}', "totalCount is None", id="not a number"),
        pytest.param(b'{"totalCount":1e999,"sessions":[]}', "totalCount is None", id="infinite"),
        pytest.param({"requestId": "r-1"}, "sessions is missing", id="request id alone"),
    ],
)
def test_answer_without_a_whole_page_is_a_bad_answer(body: bytes | object, reason: str) -> None:
    error = read_refusal(SESSIONS, body)

    assert type(error) is BadAnswerError
    assert str(error).startswith("page 3 of w-1/lc-1: HTTP 200, ")
    assert reason in str(error)
    assert error.retryable
    assert error.hint is not None


@pytest.mark.parametrize("call", [SESSIONS, WORKSPACES, GATEWAYS], ids=lambda call: call.action)
@pytest.mark.parametrize(
    ("body", "reason"),
    [
        pytest.param(b"", "an empty body", id="empty"),
        pytest.param(b"<html><body>Welcome</body></html>", "no JSON", id="html"),
        pytest.param(b'{"totalCount":3,"sessions":[{"sess', "no JSON", id="cut off"),
        pytest.param(b"\xff\xfe\x00garbage", "no JSON", id="garbage"),
        pytest.param(b"[]", "JSON, but list", id="list"),
        pytest.param(b'"text"', "JSON, but str", id="text"),
        pytest.param(b"12", "JSON, but int", id="number"),
        pytest.param(b"null", "JSON, but null", id="null"),
    ],
)
def test_body_that_is_no_object_is_a_bad_answer(call: Call[Any], body: bytes, reason: str) -> None:
    error = read_refusal(call, body)

    assert type(error) is BadAnswerError
    assert reason in str(error)
    assert len(str(error).splitlines()) == 1


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, "it has no sessionId"),
        ({"name": "x"}, "it has no sessionId"),
        ({"sessionId": None}, "its sessionId is null"),
        ({"sessionId": ""}, "its sessionId is empty"),
        ({"sessionId": 7.5}, "its sessionId is a number with a fraction"),
        ({"sessionId": True}, "its sessionId is true or false"),
        ({"sessionId": ["a"]}, "its sessionId is a list"),
        ({"sessionId": {}}, "its sessionId is an object"),
        (None, "it is null"),
        (5, "it is a number"),
        (True, "it is true or false"),
        ("text", "it is a text"),
        (["sessionId"], "it is a list"),
    ],
)
def test_row_without_an_id_keeps_its_place_and_gets_an_id_of_its_own(row: Any, reason: str) -> None:
    rows = [{"sessionId": "a"}, row, {"sessionId": "b"}, row]

    page = read(SESSIONS, {"totalCount": 4, "sessions": rows})

    assert [page.session_ids[place] for place in (0, 2)] == ["a", "b"]
    assert [each["sessionId"] for each in page.sessions] == page.session_ids
    assert len(set(page.session_ids)) == 4
    assert [(each.place, each.reason) for each in page.unreadable] == [(1, reason), (3, reason)]
    assert [each.stand_in_id for each in page.unreadable] == page.session_ids[1::2]
    assert read(SESSIONS, {"totalCount": 1, "sessions": [row]}).session_ids == [
        page.session_ids[1]
    ], "the same row has the same stand-in on every page"


def test_stand_in_keeps_the_other_fields_by_which_a_listing_goes() -> None:
    rows = [{"sessionId": None, "createTime": 5, "state": "running"}]

    [session] = read(SESSIONS, {"totalCount": 1, "sessions": rows}).sessions

    assert (session["createTime"], session["state"]) == (5, "running")


def test_number_as_an_id_is_kept_as_text() -> None:
    page = read(SESSIONS, {"totalCount": 2, "sessions": [{"sessionId": 7}, {"sessionId": 2**60}]})

    assert page.session_ids == ["7", str(2**60)]
    assert page.sessions == [{"sessionId": "7"}, {"sessionId": str(2**60)}]
    assert page.unreadable == ()


@pytest.mark.parametrize("call", [SESSIONS, WORKSPACES, GATEWAYS], ids=lambda call: call.action)
@pytest.mark.parametrize(
    ("stated", "kind"),
    [
        ({"code": "InternalError", "success": False}, ServiceError),
        ({"code": "InternalError"}, ServiceError),
        ({"Code": "Throttling.User"}, ThrottledError),
        ({"code": "Forbidden.RAM"}, PermissionDeniedError),
        ({"code": "SecurityTokenExpired"}, TokenExpiredError),
        ({"code": "Odd"}, RefusedError),
        ({"code": 500123}, RefusedError),
        ({"success": False}, ServiceError),
        ({"Success": "False", "code": "1000000"}, ServiceError),
        ({"code": {}}, ServiceError),
    ],
)
def test_error_with_a_success_status_is_an_error_whatever_else_the_body_has(
    call: Call[Any], stated: dict[str, Any], kind: type[ApiError]
) -> None:
    values = {"totalCount": 0, "sessions": [], "workspaces": [], "data": {"livyComputes": []}}

    error = read_refusal(call, {"message": "no", **values, **stated})

    assert type(error) is kind
    assert str(error).startswith(f"{call.label}: HTTP 200, ")


@pytest.mark.parametrize("total", [-1, None, "many", 2**63])
def test_bad_page_of_sessions_does_not_blame_the_endpoint(total: object) -> None:
    error = read_refusal(SESSIONS, {"totalCount": total, "sessions": []})

    assert type(error) is BadAnswerError
    assert error.hint is not None
    assert "endpoint" not in error.hint


def test_kept_body_gives_the_same_page_again() -> None:
    body = b'{"totalCount":3,"sessions":[{"sessionId":"a","name":"\\ud800"},null,{"sessionId":1}]}'

    page = read(SESSIONS, body)

    assert calls.read_session_page(page.body) == page
    assert page.session_ids[::2] == ["a", "1"]


@pytest.mark.parametrize("call", [SESSIONS, WORKSPACES, GATEWAYS], ids=lambda call: call.action)
@pytest.mark.parametrize(
    ("keys_of", "status"),
    [
        pytest.param(("requestId", "code", "message"), 400, id="the ROA casing"),
        pytest.param(("RequestId", "Code", "Message"), 400, id="the RPC casing"),
        pytest.param(("requestid", "CODE", "MESSAGE"), 429, id="any other casing"),
        pytest.param(("requestId", "code", "message"), 200, id="in HTTP 200"),
    ],
)
def test_envelope_of_a_refusal_is_read_in_every_casing(
    call: Call[Any], keys_of: tuple[str, str, str], status: int
) -> None:
    body = dict(zip(keys_of, ("8FAA8EEC", "Throttling.User", "Slow down"), strict=True))

    error = read_refusal(call, body, status=status, headers={"x-acs-retry-after": "700"})

    assert type(error) is ThrottledError
    assert str(error) == (
        f"{call.label}: HTTP {status}, Throttling.User, Slow down (request 8FAA8EEC)"
    )
    assert (error.status, error.code, error.request_id) == (status, "Throttling.User", "8FAA8EEC")
    assert error.retry_after_s == 0.7


def test_envelope_in_xml_is_read() -> None:
    body = (
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Error>\n<Code>InvalidAccessKeyId.NotFound</Code>'
        b"<Message>Specified access key is not found.</Message>\n"
        b"<RequestId>8FAA8EEC</RequestId><HostId>host</HostId></Error>"
    )

    error = read_refusal(SESSIONS, body, status=404)

    assert type(error) is AuthenticationError
    assert error.code == "InvalidAccessKeyId.NotFound"
    assert error.request_id == "8FAA8EEC"
    assert "Specified access key is not found" in str(error)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize(
    "body",
    [b"<html><h1>Bad Gateway</h1></html>", b"", b"{}", b"[]", b'{"code":', b"upstream timed out"],
)
def test_page_of_a_proxy_in_5xx_is_trouble_of_the_service(status: int, body: bytes) -> None:
    error = read_refusal(SESSIONS, body, status=status)

    assert type(error) is ServiceError
    assert error.code is None
    assert f"HTTP {status}" in str(error)


@pytest.mark.parametrize("status", [301, 302, 307, 404])
def test_page_of_another_host_points_to_the_endpoint(status: int) -> None:
    error = read_refusal(SESSIONS, b"<html>moved</html>", status=status)

    assert type(error) is RefusedError
    assert error.hint is not None
    assert "--endpoint" in error.hint


def test_value_in_an_error_status_is_no_value() -> None:
    error = read_refusal(SESSIONS, {"totalCount": 0, "sessions": []}, status=500)

    assert type(error) is ServiceError


@pytest.mark.parametrize(
    ("body", "page"),
    [
        pytest.param(
            {
                "nextToken": "2",
                "workspaces": [
                    {"workspaceId": "w-1", "workspaceName": "one", "workspaceStatus": "RUNNING"},
                    {"workspaceId": "w-2"},
                ],
            },
            WorkspacePage((Workspace("w-1", "one", "RUNNING"), Workspace("w-2", "", "")), "2"),
            id="token leads on",
        ),
        pytest.param({"workspaces": []}, WorkspacePage((), None), id="absent token ends"),
        pytest.param(
            {"workspaces": [], "nextToken": ""}, WorkspacePage((), None), id="empty token ends"
        ),
        pytest.param(
            {"workspaces": [], "nextToken": None}, WorkspacePage((), None), id="null token ends"
        ),
        pytest.param(
            {"workspaces": [], "nextToken": 3}, WorkspacePage((), "3"), id="number is a token"
        ),
        pytest.param({"workspaces": None}, WorkspacePage((), None), id="null is no workspace"),
        pytest.param(
            {"Workspaces": [{"workspaceId": "w-1", "workspaceName": None}], "NextToken": "x"},
            WorkspacePage((Workspace("w-1", "", ""),), "x"),
            id="RPC casing",
        ),
    ],
)
def test_page_of_workspaces(body: object, page: WorkspacePage) -> None:
    assert read(WORKSPACES, body) == page


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"workspaces": {}},
        {"workspaces": "w-1"},
        {"workspaces": ["w-1"]},
        {"workspaces": [None]},
        {"workspaces": [{}]},
        {"workspaces": [{"workspaceId": 7}]},
        {"workspaces": [{"workspaceId": ""}]},
    ],
)
def test_answer_without_workspaces_is_a_bad_answer(body: object) -> None:
    assert type(read_refusal(WORKSPACES, body)) is BadAnswerError


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param(
            {
                "code": "1000000",
                "message": "ok",
                "data": {
                    "livyComputes": [
                        {"computeId": "lc-1", "name": "one", "status": "RUNNING"},
                        {"computeId": "lc-2", "name": None},
                    ]
                },
            },
            (GatewayDescription("lc-1", "one", "RUNNING"), GatewayDescription("lc-2", "", "")),
            id="order of the service",
        ),
        pytest.param({"code": "1000000", "data": None}, (), id="null data is no gateway"),
        pytest.param({"code": "1000000"}, (), id="absent data is no gateway"),
        pytest.param({"code": "1000000", "data": {"livyComputes": None}}, (), id="null list"),
        pytest.param({"code": 1000000, "data": {}}, (), id="code as a number"),
        pytest.param({"Code": "1000000", "Data": {"livyComputes": []}}, (), id="RPC casing"),
    ],
)
def test_list_of_gateways(body: object, found: tuple[GatewayDescription, ...]) -> None:
    assert read(GATEWAYS, body) == found


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"data": {"livyComputes": []}},
        {"code": None, "data": {"livyComputes": []}},
        {"code": "200", "data": {"livyComputes": []}},
        {"code": "1000000", "data": []},
        {"code": "1000000", "data": "x"},
        {"code": "1000000", "data": {"livyComputes": {}}},
        {"code": "1000000", "data": {"livyComputes": [None]}},
        {"code": "1000000", "data": {"livyComputes": [{"name": "one"}]}},
        {"code": "1000000", "data": {"livyComputes": [{"computeId": 1}]}},
    ],
)
def test_answer_without_gateways_is_a_bad_answer(body: object) -> None:
    assert type(read_refusal(GATEWAYS, body)) is BadAnswerError


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("1000001", RefusedError),
        (1000001, RefusedError),
        ("Throttling.User", ThrottledError),
        ("InternalError", ServiceError),
    ],
)
def test_code_other_than_success_in_the_list_of_gateways_is_a_refusal(
    code: str | int, kind: type[ApiError]
) -> None:
    body = {"code": code, "message": "no", "data": {"livyComputes": [{"computeId": "lc-1"}]}}

    error = read_refusal(GATEWAYS, body)

    assert type(error) is kind
    assert error.code == str(code)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**31), 2**31) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "sessions",
                    "totalCount",
                    "sessionId",
                    "code",
                    "Code",
                    "data",
                    "livyComputes",
                    "computeId",
                    "workspaces",
                    "workspaceId",
                    "nextToken",
                    "message",
                    "requestId",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(
    call=st.sampled_from([SESSIONS, WORKSPACES, GATEWAYS]),
    body=json_values.map(orjson.dumps) | st.binary(max_size=200),
    status=st.sampled_from([200, 302, 400, 403, 404, 429, 500, 503]),
)
def test_every_answer_is_a_value_or_an_api_error(call: Call[Any], body: bytes, status: int) -> None:
    try:
        value = read(call, body, status=status)
    except ApiError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - a value is as good an end
    else:
        assert isinstance(value, SessionPage | WorkspacePage | tuple)
        assert status == 200
