from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from exporter.api.error_codes import (
    MAX_RETRY_AFTER_S,
    build_api_error,
    classify,
    parse_error,
    parse_retry_after,
    scrub,
)
from exporter.errors import (
    ApiError,
    AuthenticationError,
    BadAnswerError,
    ClockSkewError,
    NonceUsedError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    ServiceError,
    ThrottledError,
    TokenExpiredError,
)

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOKEN = "CAISexample+token/with==chars" * 20

CODES: list[tuple[str, int, type[ApiError]]] = [
    ("Throttling", 400, ThrottledError),
    ("Throttling.User", 400, ThrottledError),
    ("Throttling.Api", 429, ThrottledError),
    ("Throttling.Unavailable", 503, ThrottledError),
    ("Rejected.Throttling", 400, ThrottledError),
    ("Product.FlowControl", 400, ThrottledError),
    ("ServiceUnavailable", 503, ServiceError),
    ("SystemBusy", 503, ServiceError),
    ("ServiceTemporarilyUnavailable", 503, ServiceError),
    ("InternalError", 500, ServiceError),
    ("InternalError", 400, ServiceError),
    ("Whatever", 502, ServiceError),
    ("Whatever", 504, ServiceError),
    ("SignatureNonceUsed", 400, NonceUsedError),
    ("InvalidTimeStamp.Expired", 400, ClockSkewError),
    ("InvalidTimeStamp.Format", 400, AuthenticationError),
    ("IncompleteSignature", 400, AuthenticationError),
    ("SignatureDoesNotMatch", 400, AuthenticationError),
    ("SignatureDoesNotMatch", 403, AuthenticationError),
    ("InvalidSignatureMethod", 400, AuthenticationError),
    ("InvalidAccessKeyId.NotFound", 404, AuthenticationError),
    ("InvalidAccessKeyId.NotFound", 400, AuthenticationError),
    ("InvalidAccessKeyId.Inactive", 400, AuthenticationError),
    ("InvalidAccessKeyId", 400, AuthenticationError),
    ("Forbidden.AccessKeyDisabled", 403, AuthenticationError),
    ("InvalidSecurityToken.Expired", 400, TokenExpiredError),
    ("SecurityTokenExpired", 400, TokenExpiredError),
    ("InvalidSecurityToken.Malformed", 400, AuthenticationError),
    ("InvalidSecurityToken.MismatchWithAccessKey", 400, AuthenticationError),
    ("MissingSecurityToken", 400, AuthenticationError),
    ("Forbidden.RAM", 403, PermissionDeniedError),
    ("Forbidden", 401, PermissionDeniedError),
    ("NoPermission", 403, PermissionDeniedError),
    ("AccessDenied", 403, PermissionDeniedError),
    ("CCAI.TenantPermission.NoAuth", 429, PermissionDeniedError),
    ("SomethingElse", 403, PermissionDeniedError),
    ("InvalidApi.NotFound", 404, RefusedError),
    ("InvalidAction.NotFound", 404, RefusedError),
    ("InvalidProduct.NotFound", 404, RefusedError),
    ("InvalidParameter", 400, RefusedError),
    ("InvalidParameter.PageSize", 400, RefusedError),
    ("MissingParameter", 400, RefusedError),
    ("InvalidLivyCompute.NotFound", 404, NotFoundError),
    ("WorkspaceNotExist", 400, NotFoundError),
    ("SomethingElse", 429, ThrottledError),
    ("SomethingElse", 408, ServiceError),
    ("SomethingElse", 400, RefusedError),
]

STATUSES: list[tuple[int, type[ApiError]]] = [
    (302, RefusedError),
    (400, RefusedError),
    (403, RefusedError),
    (404, RefusedError),
    (408, ServiceError),
    (429, ThrottledError),
    (500, ServiceError),
    (502, ServiceError),
    (503, ServiceError),
    (504, ServiceError),
]


def read(document: object, *, status: int = 400, headers: dict[str, str] | None = None) -> ApiError:
    return parse_error(
        "page 1 of w-1/lc-1",
        status=status,
        headers=CIMultiDict(headers or {}),
        body=orjson.dumps(document),
        document=document,
        now=NOW,
    )


def wait_of(**headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return parse_retry_after(CIMultiDict(named), now=NOW)


@pytest.mark.parametrize(("code", "status", "kind"), CODES)
def test_code_decides_the_class(code: str, status: int, kind: type[ApiError]) -> None:
    assert classify(status, code) is kind


@pytest.mark.parametrize(("code", "status", "kind"), CODES)
def test_casing_of_a_code_does_not_matter(code: str, status: int, kind: type[ApiError]) -> None:
    assert classify(status, code.lower()) is kind


@pytest.mark.parametrize(("status", "kind"), STATUSES)
def test_status_decides_where_there_is_no_code(status: int, kind: type[ApiError]) -> None:
    assert classify(status, None) is kind


@pytest.mark.parametrize(
    "names",
    [("code", "message", "requestId"), ("Code", "Message", "RequestId")],
    ids=["ROA casing", "RPC casing"],
)
@pytest.mark.parametrize(("code", "status", "kind"), CODES)
def test_envelope_in_either_casing_is_the_same_error(
    code: str, status: int, kind: type[ApiError], names: tuple[str, str, str]
) -> None:
    error = read(dict(zip(names, (code, "no", "r-1"), strict=True)), status=status)

    assert type(error) is kind
    assert (error.status, error.code, error.request_id) == (status, code, "r-1")
    assert str(error) == f"page 1 of w-1/lc-1: HTTP {status}, {code}, no (request r-1)"


@pytest.mark.parametrize(
    ("kind", "retryable", "exit_code"),
    [
        (ThrottledError, True, 1),
        (ServiceError, True, 1),
        (BadAnswerError, True, 1),
        (NonceUsedError, True, 1),
        (ClockSkewError, False, 1),
        (TokenExpiredError, False, 3),
        (AuthenticationError, False, 3),
        (PermissionDeniedError, False, 3),
        (NotFoundError, False, 2),
        (RefusedError, False, 1),
    ],
)
def test_class_tells_whether_to_retry_and_how_to_exit(
    kind: type[ApiError], retryable: bool, exit_code: int
) -> None:
    assert (kind.retryable, kind.exit_code) == (retryable, exit_code)


@pytest.mark.parametrize(
    ("code", "status", "kind"), [each for each in CODES if each[2] is not NonceUsedError]
)
def test_refusal_has_a_remedy_unless_only_the_message_helps(
    code: str, status: int, kind: type[ApiError]
) -> None:
    error = read({"code": code, "message": "no"}, status=status)

    if kind is RefusedError and not code.endswith(".NotFound"):
        assert error.hint is None
    else:
        assert error.hint is not None


def test_wrong_call_points_to_the_endpoint_and_not_to_a_missing_gateway() -> None:
    error = read({"code": "InvalidAction.NotFound", "message": "no"}, status=404)

    assert error.hint is not None
    assert "--endpoint" in error.hint


@pytest.mark.parametrize(
    "headers",
    [
        {"x_acs_retry_after": "700"},
        {"X_Acs_Retry_After": " 700 "},
        {"x_ratelimit_user_api": "Limit:1,Remain:0,TimeLeft:700,Reset:1234"},
        {"x_ratelimit_user": "Limit:1,Remain:0,TimeLeft: 700,Reset:1234"},
        {"x_ratelimit_user": "TimeLeft:300", "x_ratelimit_user_api": "TimeLeft:700"},
        {"x_ratelimit_user": "TimeLeft:700", "x_ratelimit_user_api": "TimeLeft:300"},
        {"x_acs_retry_after": "0", "x_ratelimit_user": "TimeLeft:700"},
        {"x_acs_retry_after": "700", "retry_after": "9"},
        {"x_acs_retry_after": "soon", "x_ratelimit_user": "TimeLeft:700"},
    ],
)
def test_milliseconds_of_the_services_own_headers_win(headers: dict[str, str]) -> None:
    assert wait_of(**headers) == 0.7


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        pytest.param({"retry_after": "7"}, 7.0, id="seconds"),
        pytest.param({"retry_after": " 7 "}, 7.0, id="seconds with space"),
        pytest.param(
            {"retry_after": format_datetime(NOW + timedelta(seconds=7), usegmt=True)},
            7.0,
            id="date",
        ),
        pytest.param(
            {"retry_after": "Fri, 02 Jan 2026 11:04:12 +0800"}, 7.0, id="date of another zone"
        ),
        pytest.param(
            {"retry_after": "Fri, 02 Jan 2026 03:04:12 -0000"}, 7.0, id="date of no zone is UTC"
        ),
        pytest.param(
            {"x_acs_retry_after": "0", "retry_after": "7"}, 7.0, id="zero ms says nothing"
        ),
        pytest.param({"x_acs_retry_after": "soon", "retry_after": "7"}, 7.0, id="nonsense"),
    ],
)
def test_retry_after_counts_where_the_services_own_headers_say_nothing(
    headers: dict[str, str], wait_s: float
) -> None:
    assert wait_of(**headers) == wait_s


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x_acs_retry_after": "0"},
        {"x_acs_retry_after": "-5"},
        {"x_acs_retry_after": "1.5"},
        {"x_acs_retry_after": ""},
        {"x_ratelimit_user": "Limit:1,Remain:0"},
        {"x_ratelimit_user": "TimeLeft:0"},
        {"x_ratelimit_user_api": "TimeLeft:"},
        {"retry_after": "0"},
        {"retry_after": "-1"},
        {"retry_after": "soon"},
        {"retry_after": "²"},
        {"retry_after": format_datetime(NOW - timedelta(hours=1), usegmt=True)},
        {"retry_after": "Fri, 02 Jan 99999999999999999999 03:04:05 GMT"},
        {"retry_after": "Fri, 02 Jan 2026 03:04:05 +99999999999999999999"},
        {"date": format_datetime(NOW, usegmt=True)},
    ],
)
def test_no_wait_is_read_from_nonsense_zero_or_the_past(headers: dict[str, str]) -> None:
    assert wait_of(**headers) is None


@pytest.mark.parametrize(
    "headers",
    [
        {"x_acs_retry_after": "86400000"},
        {"x_acs_retry_after": "9" * 400},
        {"x_ratelimit_user": "TimeLeft:86400000"},
        {"retry_after": "86400"},
        {"retry_after": "9" * 400},
        {"retry_after": "Fri, 31 Dec 2027 23:59:59 GMT"},
    ],
)
def test_wait_is_never_longer_than_the_official_sdks(headers: dict[str, str]) -> None:
    assert wait_of(**headers) == MAX_RETRY_AFTER_S == 86_400.0


@given(
    st.dictionaries(
        st.sampled_from(
            ["x-acs-retry-after", "x-ratelimit-user", "x-ratelimit-user-api", "retry-after"]
        ),
        st.text(max_size=40)
        | st.from_regex(r"TimeLeft: ?[0-9]+")
        | st.from_regex(
            r"[A-Z][a-z]{2}, \d{1,3} [A-Z][a-z]{2} \d{1,20} \d\d:\d\d:\d\d [+-]?\w{1,9}"
        ),
    )
)
def test_any_header_is_a_bounded_wait_or_none(headers: dict[str, str]) -> None:
    wait_s = parse_retry_after(headers, now=NOW)

    assert wait_s is None or 0 < wait_s <= MAX_RETRY_AFTER_S


@pytest.mark.parametrize(
    "echo",
    [
        f". server StringToSign is [A\nb], CanonicalRequest is [x-acs-security-token:{TOKEN}]",
        f"; x-acs-security-token:{TOKEN}",
        f": CanonicalRequest [{TOKEN}]",
        f". server string to sign is:GET {TOKEN}",
    ],
    ids=["both", "header", "request", "spelled apart"],
)
def test_message_that_repeats_the_request_is_cut_before_it(echo: str) -> None:
    message = f"Specified signature is not matched with our calculation{echo}"

    error = read({"code": "SignatureDoesNotMatch", "message": message})

    assert TOKEN[:8] not in str(error)
    assert str(error) == (
        "page 1 of w-1/lc-1: HTTP 400, SignatureDoesNotMatch,"
        " Specified signature is not matched with our calculation"
    )


def test_message_that_is_nothing_but_the_request_leaves_the_code() -> None:
    error = read({"code": "SignatureDoesNotMatch", "message": f"StringToSign: {TOKEN}"})

    assert str(error) == "page 1 of w-1/lc-1: HTTP 400, SignatureDoesNotMatch"


def test_xml_that_repeats_the_request_is_cut_before_it() -> None:
    body = (
        f"<Error><Code>SignatureDoesNotMatch</Code><Message>Not matched. server StringToSign is"
        f" [x-acs-security-token:{TOKEN}]</Message></Error>"
    ).encode()

    error = parse_error("p", status=400, headers={}, body=body, document=None, now=NOW)

    assert str(error) == "p: HTTP 400, SignatureDoesNotMatch, Not matched"


@pytest.mark.parametrize(
    ("message", "scrubbed"),
    [
        ("Slow down.", "Slow down"),
        ("Slow\r\n\tdown", "Slow down"),
        (" Slow down ... ", "Slow down"),
        ("", ""),
        ("x" * 301, "x" * 300 + "…"),
        ("x" * 300, "x" * 300),
    ],
)
def test_message_is_one_short_line_without_full_stop(message: str, scrubbed: str) -> None:
    assert scrub(message) == scrubbed


@given(
    message=st.text(max_size=400),
    code=st.none() | st.text(max_size=400),
    request_id=st.none() | st.text(max_size=400),
)
def test_error_is_one_bounded_line_whatever_the_service_says(
    message: str, code: str | None, request_id: str | None
) -> None:
    error = build_api_error(
        RefusedError, "label", status=400, code=code, reason=message, request_id=request_id
    )

    assert len(str(error).splitlines()) == 1
    assert not str(error).endswith(".")
    assert len(str(error)) < 1000


@pytest.mark.parametrize(
    "document",
    [
        {"code": None, "message": None},
        {"code": {}, "message": []},
        {"code": "", "message": ""},
        {"message": 7, "requestId": {"a": 1}},
    ],
)
def test_envelope_of_wrong_types_is_still_an_error_of_its_status(document: object) -> None:
    error = read(document, status=503)

    assert type(error) is ServiceError
    assert error.code is None


def test_number_as_a_code_is_its_text() -> None:
    assert read({"code": 1000001, "message": "no"}).code == "1000001"
