"""Routes a path to one of the three calls and builds its answer; performs no I/O."""

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import assert_never
from urllib.parse import unquote

import orjson

from exporter.emulator.answers import RequestRefusedError
from exporter.emulator.generated_list import SessionList
from exporter.emulator.moving_list import ClockedSessions, Truth, build_truth
from exporter.emulator.scenario import EmulatedWorkspace, Scenario
from exporter.model import Gateway

VERSION = "2023-08-08"


class Call(Enum):
    """The value is the call's `x-acs-action`."""

    LIST_WORKSPACES = "ListWorkspaces"
    LIST_GATEWAYS = "ListLivyCompute"
    LIST_SESSIONS = "ListLivyComputeSessions"


@dataclass(frozen=True, slots=True)
class Route:
    call: Call
    workspace_id: str = ""
    """Empty where the path names none."""
    gateway_id: str = ""
    """Empty where the path names none."""


def parse_path(raw_path: str) -> Route | None:
    """None if no call has this path."""
    match raw_path.split("/"):
        case ["", "api", "v1", "workspaces"]:
            return Route(Call.LIST_WORKSPACES)
        case ["", "api", "interactive", "v1", "workspace", workspace, "livycompute"]:
            return Route(Call.LIST_GATEWAYS, unquote(workspace))
        case ["", "api", "v1", "workspaces", workspace, "livycompute", gateway, "session"]:
            return Route(Call.LIST_SESSIONS, unquote(workspace), unquote(gateway))
        case _:
            return None


class Catalog:
    """The workspaces, gateways and sessions of a scenario, and the calls' answers about them."""

    def __init__(self, scenario: Scenario, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._scenario = scenario
        self._workspaces = {workspace.workspace_id: workspace for workspace in scenario.workspaces}
        self._session_lists = scenario.build_session_lists(now_s)
        self._gateway_created_ms = round(scenario.newest_created_at.timestamp() * 1000)

    def session_list(self, workspace_id: str, gateway_id: str) -> SessionList:
        """Raises KeyError for an unknown gateway."""
        return self._session_lists[Gateway(self._scenario.region_id, workspace_id, gateway_id)]

    def truth(self, workspace_id: str, gateway_id: str, *, first_answer: int = 1) -> Truth:
        """The truth about a listing that began with `first_answer`. Raises KeyError."""
        return build_truth(self.session_list(workspace_id, gateway_id), first_answer)

    def build_truth(self, query: Mapping[str, str]) -> bytes:
        """The JSON answer to a request for the truth. Raises RequestRefusedError."""
        workspace_id, gateway_id = query.get("workspace", ""), query.get("gateway", "")
        first_answer = parse_count(query, "first_answer", default=1, most=10**9)
        try:
            return self.truth(workspace_id, gateway_id, first_answer=first_answer).to_json()
        except KeyError as exc:
            raise _no_gateway(gateway_id) from exc

    def restart(self) -> None:
        """Put moving lists back to their state before the first request."""
        for session_list in self._session_lists.values():
            if isinstance(session_list, ClockedSessions):
                session_list.moving.restart()

    def build_answer(self, route: Route, query: Mapping[str, str], *, request_id: str) -> bytes:
        """The JSON body of a 200. Raises RequestRefusedError."""
        match route.call:
            case Call.LIST_WORKSPACES:
                return self._list_workspaces(query, request_id=request_id)
            case Call.LIST_GATEWAYS:
                return self._list_gateways(route, request_id=request_id)
            case Call.LIST_SESSIONS:
                return self._list_sessions(route, query, request_id=request_id)
            case _:
                assert_never(route.call)

    def _list_sessions(self, route: Route, query: Mapping[str, str], *, request_id: str) -> bytes:
        # regionId is optional; the effect of another region than the endpoint's is not documented.
        max_page_size = self._scenario.max_page_size
        page_num = parse_count(query, "pageNum", default=1, most=10**9)
        # 20 is the documented default; a scenario may allow less.
        page_size = parse_count(
            query, "pageSize", default=min(20, max_page_size), most=max_page_size
        )
        self._workspace(route.workspace_id)
        try:
            session_list = self.session_list(route.workspace_id, route.gateway_id)
        except KeyError as exc:
            raise _no_gateway(route.gateway_id) from exc
        page = session_list.page(page_num, page_size)
        return b'{"requestId":"%b","totalCount":%d,"sessions":%b}' % (
            request_id.encode(),
            page.total_count,
            page.rows,
        )

    def _list_gateways(self, route: Route, *, request_id: str) -> bytes:
        workspace = self._workspace(route.workspace_id)
        region_id = self._scenario.region_id
        rows = [
            {
                "computeId": gateway.gateway_id,
                "name": gateway.name,
                "status": gateway.status,
                "queueName": "root_queue",
                "createdBy": "emulator",
                "gmtCreate": self._gateway_created_ms,
                "startTime": self._gateway_created_ms,
                "endpoint": f"{gateway.gateway_id}.livy.{region_id}.example",
                "endpointInner": f"{gateway.gateway_id}.livy-internal.{region_id}.example",
            }
            for gateway in workspace.gateways
        ]
        answer = {
            "code": "1000000",
            "message": "ok",
            "requestId": request_id,
            "data": {"livyComputes": rows},
        }
        return orjson.dumps(answer)

    def _list_workspaces(self, query: Mapping[str, str], *, request_id: str) -> bytes:
        # The service's own bounds of maxResults are not documented.
        max_results = parse_count(query, "maxResults", default=20, most=100)
        found = [
            workspace for workspace in self._workspaces.values() if self._fits(workspace, query)
        ]
        start = 0
        if query.get("nextToken", "") != "":
            start = parse_count(query, "nextToken", default=1, most=max(1, len(found)))
        stop = start + max_results
        answer = {
            "requestId": request_id,
            "maxResults": max_results,
            "totalCount": len(found),
            "workspaces": [self._workspace_row(workspace) for workspace in found[start:stop]],
        }
        if stop < len(found):
            answer["nextToken"] = str(stop)
        return orjson.dumps(answer)

    def _fits(self, workspace: EmulatedWorkspace, query: Mapping[str, str]) -> bool:
        return (
            query.get("name", "") in workspace.name
            and query.get("state", workspace.status).lower() == workspace.status.lower()
            and query.get("regionId", self._scenario.region_id) == self._scenario.region_id
        )

    def _workspace_row(self, workspace: EmulatedWorkspace) -> dict[str, object]:
        return {
            "workspaceId": workspace.workspace_id,
            "workspaceName": workspace.name,
            "workspaceStatus": workspace.status,
            "regionId": self._scenario.region_id,
            "createTime": self._gateway_created_ms,
            "paymentType": "PayAsYouGo",
            "storage": "oss://emulated/",
            "tags": [],
        }

    def _workspace(self, workspace_id: str) -> EmulatedWorkspace:
        workspace = self._workspaces.get(workspace_id)
        if workspace is None:
            # The service's own code for this is not documented.
            raise RequestRefusedError(
                404, "InvalidWorkspace.NotFound", f"There is no workspace {workspace_id}."
            )
        return workspace


def _no_gateway(gateway_id: str) -> RequestRefusedError:
    # The service's own code for this is not documented.
    return RequestRefusedError(
        404, "InvalidLivyCompute.NotFound", f"There is no Livy gateway {gateway_id}."
    )


def parse_count(query: Mapping[str, str], name: str, *, default: int, most: int) -> int:
    """A parameter between 1 and `most`. Raises RequestRefusedError for anything else."""
    text = query.get(name)
    if text is None:
        return default
    if re.fullmatch("[0-9]{1,10}", text) is None or not 1 <= int(text) <= most:
        raise RequestRefusedError(
            400, "InvalidParameter", f"{name} must be between 1 and {most}, not {text}."
        )
    return int(text)
