"""The calls of the service and their answers, as values or errors; performs no I/O.

A change of the service's wire format is a change of this module alone. Calls:
https://www.alibabacloud.com/help/en/emr/emr-serverless-spark/developer-reference/api-emr-serverless-spark-2023-08-08-overview
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from exporter.api.error_codes import BAD_PAGE, build_api_error, fold_keys, is_refusal, parse_error
from exporter.errors import BadAnswerError
from exporter.model import Gateway, ListingQuery, SessionPage
from exporter.records.decode import decode_json
from exporter.records.rows import stand_in

API_VERSION = "2023-08-08"
LIST_LIVY_COMPUTE_OK = "1000000"
"""The `code` of a successful ListLivyCompute, which answers HTTP 200 either way."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """One GET of the service, and the function that parses its answer."""

    action: str
    path: str
    """Percent-encoded, as it is signed and sent."""
    query: str
    """Canonical: sorted by name, percent-encoded, as it is signed and sent."""
    label: str
    """Names the request to a reader: `page 17 of w-1/lc-2`."""
    parse: Callable[[Mapping[str, Any], bytes], T]
    """From the decoded body and the received bytes to the value. Raises ValueError."""
    gateway: Gateway | None = None
    """The gateway whose sessions are asked for; None for other calls."""


@dataclass(frozen=True, slots=True)
class Workspace:
    workspace_id: str
    name: str
    status: str


@dataclass(frozen=True, slots=True)
class WorkspacePage:
    workspaces: tuple[Workspace, ...]
    next_token: str | None
    """None at the end of the list."""


@dataclass(frozen=True, slots=True)
class GatewayDescription:
    gateway_id: str
    name: str
    status: str


def list_sessions(gateway: Gateway, query: ListingQuery, *, page_num: int) -> Call[SessionPage]:
    """ListLivyComputeSessions: one page; `page_num` counts from 1."""
    return Call(
        "ListLivyComputeSessions",
        f"/api/v1/workspaces/{encode(gateway.workspace_id)}"
        f"/livycompute/{encode(gateway.gateway_id)}/session",
        build_canonical_query(
            {"pageNum": str(page_num), "regionId": gateway.region_id, **query.parameters}
        ),
        label=f"page {page_num} of {gateway}",
        parse=parse_session_page,
        gateway=gateway,
    )


def list_workspaces(*, region_id: str, next_token: str | None) -> Call[WorkspacePage]:
    """ListWorkspaces: one page; `next_token` is from the page before, None for the first."""
    parameters = {"regionId": region_id, "maxResults": "100"}
    if next_token is not None:
        parameters["nextToken"] = next_token
    return Call(
        "ListWorkspaces",
        "/api/v1/workspaces",
        build_canonical_query(parameters),
        label=f"the workspaces of {region_id}",
        parse=parse_workspace_page,
    )


def list_gateways(*, region_id: str, workspace_id: str) -> Call[tuple[GatewayDescription, ...]]:
    """ListLivyCompute: all gateways of a workspace that are not deleted, without pages."""
    return Call(
        "ListLivyCompute",
        f"/api/interactive/v1/workspace/{encode(workspace_id)}/livycompute",
        build_canonical_query({"regionId": region_id}),
        label=f"the gateways of {workspace_id}",
        parse=parse_gateways,
    )


@lru_cache(maxsize=256)
def encode(text: str) -> str:
    """Percent-encoded by RFC 3986: only unreserved characters stay."""
    return quote(text, safe="-_.~")


def build_canonical_query(parameters: Mapping[str, str]) -> str:
    return "&".join(f"{name}={encode(value)}" for name, value in sorted(parameters.items()))


def parse_answer(
    call: Call[T], *, status: int, headers: Mapping[str, str], body: bytes, now: datetime
) -> T:
    """The call's value. Raises the ApiError that the answer stands for.

    `headers` is a mapping that ignores the case of its keys; `now` turns an HTTP date in
    `Retry-After` into seconds.
    """
    try:
        document = decode_json(body)
    except ValueError:
        document = None
    if not 200 <= status < 300 or not isinstance(document, dict) or is_refusal(document):
        raise parse_error(
            call.label, status=status, headers=headers, body=body, document=document, now=now
        )
    try:
        return call.parse(document, body)
    except ValueError as exc:
        folded = fold_keys(document)
        raise build_api_error(
            BadAnswerError,
            call.label,
            status=status,
            reason=str(exc),
            request_id=folded.get("requestid"),
            hint=BAD_PAGE if "sessions" in folded else None,
        ) from exc


def read_session_page(body: bytes) -> SessionPage:
    """The page whose body was kept."""
    return parse_session_page(decode_json(body), body)


def parse_session_page(document: Mapping[str, Any], body: bytes) -> SessionPage:
    """`{requestId, totalCount, sessions}`; a null list is an empty one.

    Raises ValueError when either field is missing: the official SDK takes that for an empty list
    and loses the page.
    """
    if "sessions" not in document or "totalCount" not in document:
        document = match_keys(document, ("sessions", "totalCount"))
    total_count = parse_count(document["totalCount"])
    sessions = [] if document["sessions"] is None else document["sessions"]
    if not isinstance(sessions, list):
        raise ValueError(f"sessions is {type(sessions).__name__}, not a list")
    try:
        session_ids = [session["sessionId"] for session in sessions]
    except (KeyError, TypeError, IndexError):
        session_ids = [""]
    if set(map(type, session_ids)) <= {str} and "" not in session_ids:
        return SessionPage(total_count, sessions, session_ids, body=body)
    sessions, unreadable = stand_in(sessions)
    session_ids = [session["sessionId"] for session in sessions]
    return SessionPage(total_count, sessions, session_ids, unreadable, body)


def match_keys(document: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The named fields, whatever their case. Raises ValueError for a missing one."""
    folded = fold_keys(document)
    for name in names:
        if name.lower() not in folded:
            raise ValueError(f"{name} is missing")
    return {name: folded[name.lower()] for name in names}


def parse_count(value: object) -> int:
    # The length is checked first: int() of a million digits would take minutes.
    if isinstance(value, str) and value.isdecimal() and len(value) < 20:
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 63:
        raise ValueError(f"totalCount is {value!r:.40}, not a count")
    return value


def parse_workspace_page(document: Mapping[str, Any], _body: bytes) -> WorkspacePage:
    found = parse_objects(match_keys(document, ("workspaces",))["workspaces"], "workspaceId")
    token = fold_keys(document).get("nexttoken")
    return WorkspacePage(
        tuple(
            Workspace(
                workspace_id=each["workspaceId"],
                name=str(each.get("workspaceName") or ""),
                status=str(each.get("workspaceStatus") or ""),
            )
            for each in found
        ),
        str(token) if token not in (None, "") else None,
    )


def parse_gateways(document: Mapping[str, Any], _body: bytes) -> tuple[GatewayDescription, ...]:
    folded = fold_keys(document)
    if str(folded.get("code")) != LIST_LIVY_COMPUTE_OK:
        raise ValueError(f"code is {folded.get('code')!r}")
    body = folded.get("data")
    if body is not None and not isinstance(body, dict):
        raise ValueError(f"data is {type(body).__name__}, not an object")
    found = parse_objects((body or {}).get("livyComputes"), "computeId")
    return tuple(
        GatewayDescription(
            gateway_id=each["computeId"],
            name=str(each.get("name") or ""),
            status=str(each.get("status") or ""),
        )
        for each in found
    )


def parse_objects(value: object, key: str) -> list[dict[str, Any]]:
    """A list of objects that each have a text under `key`; null is an empty list."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"a list was expected, not {type(value).__name__}")
    for each in value:
        if not isinstance(each, dict) or not isinstance(each.get(key), str) or not each[key]:
            raise ValueError(f"an entry has no {key}")
    return value
