"""The official SDK judges the emulator: its requests are accepted, and it reads the answers."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from alibabacloud_emr_serverless_spark20230808 import models
from alibabacloud_emr_serverless_spark20230808.client import Client
from alibabacloud_tea_openapi.exceptions import ClientException
from alibabacloud_tea_openapi.utils_models import Config

from exporter.emulator.scenario import (
    EmulatedGateway,
    EmulatedWorkspace,
    Scenario,
    build_workspaces,
)
from exporter.emulator.server import Emulator, open_emulator

pytestmark = pytest.mark.campaign

SCENARIO = Scenario(workspaces=build_workspaces(workspace_count=3, session_count=250))
ODD_ID = "a*b/c:~ d@%+ü"
"""Needs escaping in a path; no service id looks like this, but its signature is defined."""


class SyncJudge:
    """The SDK's blocking client, in a thread, because the emulator runs in this one's loop."""

    def __init__(self, config: Config) -> None:
        self._client = Client(config)

    async def list_workspaces(self, **query: Any) -> dict[str, Any]:
        request = models.ListWorkspacesRequest(**query)
        answer = await anyio.to_thread.run_sync(self._client.list_workspaces, request)
        return read_body(answer)

    async def list_gateways(self, workspace_id: str) -> dict[str, Any]:
        request = models.ListLivyComputeRequest(region_id="cn-hangzhou")
        answer = await anyio.to_thread.run_sync(
            self._client.list_livy_compute, workspace_id, request
        )
        return read_body(answer)

    async def list_sessions(
        self, workspace_id: str, gateway_id: str, **query: Any
    ) -> dict[str, Any]:
        request = models.ListLivyComputeSessionsRequest(**query)
        answer = await anyio.to_thread.run_sync(
            self._client.list_livy_compute_sessions, workspace_id, gateway_id, request
        )
        return read_body(answer)


class AsyncJudge:
    """The SDK's asyncio client; it opens a connection for each call."""

    def __init__(self, config: Config) -> None:
        self._client = Client(config)

    async def list_workspaces(self, **query: Any) -> dict[str, Any]:
        request = models.ListWorkspacesRequest(**query)
        return read_body(await self._client.list_workspaces_async(request))

    async def list_gateways(self, workspace_id: str) -> dict[str, Any]:
        request = models.ListLivyComputeRequest(region_id="cn-hangzhou")
        return read_body(await self._client.list_livy_compute_async(workspace_id, request))

    async def list_sessions(
        self, workspace_id: str, gateway_id: str, **query: Any
    ) -> dict[str, Any]:
        request = models.ListLivyComputeSessionsRequest(**query)
        return read_body(
            await self._client.list_livy_compute_sessions_async(workspace_id, gateway_id, request)
        )


Judge = SyncJudge | AsyncJudge


def read_body(answer: Any) -> dict[str, Any]:
    body = answer.body.to_map()
    assert isinstance(body, dict)
    return body


def configure(emulator: Emulator, **changes: str | None) -> Config:
    scenario = emulator.scenario
    known: dict[str, str | None] = {
        "access_key_id": scenario.access_key_id,
        "access_key_secret": scenario.access_key_secret,
        "security_token": scenario.security_token,
        "region_id": scenario.region_id,
        "endpoint": emulator.endpoint.removeprefix("http://"),
        "protocol": "http",
    }
    return Config(**(known | changes))


@pytest.fixture(params=[SyncJudge, AsyncJudge], ids=["sync", "async"])
def judging(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Opens an emulator of a scenario and the SDK's client."""
    kind: type[Judge] = request.param

    @asynccontextmanager
    async def judge(
        scenario: Scenario = SCENARIO, **changes: str | None
    ) -> AsyncIterator[tuple[Emulator, Judge]]:
        async with open_emulator(scenario) as emulator:
            yield emulator, kind(configure(emulator, **changes))

    return judge


async def refuse(asking: Awaitable[object]) -> ClientException:
    with pytest.raises(ClientException) as caught:
        await asking
    return caught.value


async def test_rows_read_by_the_sdk_are_the_emulators_own(judging: Callable[..., Any]) -> None:
    async with judging() as (emulator, judge):
        pages = [
            await judge.list_sessions(
                "w-emulated-2",
                "lc-emulated-2-1",
                page_num=page_num,
                page_size=100,
                region_id="cn-hangzhou",
            )
            for page_num in (1, 2, 3)
        ]
        owned = list(emulator.sessions("w-emulated-2", "lc-emulated-2-1"))

    # The SDK leaves out what is null.
    assert [row for page in pages for row in page["sessions"]] == [
        {key: value for key, value in session.items() if value is not None} for session in owned
    ]
    assert {page["totalCount"] for page in pages} == {250}


async def test_sdk_sends_no_paging_unless_asked_and_gets_twenty(
    judging: Callable[..., Any],
) -> None:
    async with judging() as (_, judge):
        page = await judge.list_sessions("w-emulated-1", "lc-emulated-1-1")

    assert len(page["sessions"]) == 20


async def test_workspaces_are_listed_over_several_tokens(judging: Callable[..., Any]) -> None:
    async with judging() as (_, judge):
        first = await judge.list_workspaces(max_results=2, region_id="cn-hangzhou")
        second = await judge.list_workspaces(max_results=2, next_token=first["nextToken"])

    rows = first["workspaces"] + second["workspaces"]
    assert [row["workspaceId"] for row in rows] == ["w-emulated-1", "w-emulated-2", "w-emulated-3"]
    assert {row["regionId"] for row in rows} == {"cn-hangzhou"}
    assert "nextToken" not in second


async def test_gateways_of_a_workspace_are_listed(judging: Callable[..., Any]) -> None:
    async with judging() as (_, judge):
        answer = await judge.list_gateways("w-emulated-3")

    assert answer["code"] == "1000000"
    assert [row["computeId"] for row in answer["data"]["livyComputes"]] == [
        "lc-emulated-3-1",
        "lc-emulated-3-2",
    ]


async def test_ids_that_need_escaping_are_signed_alike(judging: Callable[..., Any]) -> None:
    gateway = EmulatedGateway(gateway_id=ODD_ID, name="odd", session_count=3)
    workspace = EmulatedWorkspace(workspace_id=ODD_ID, name="odd", gateways=(gateway,))

    async with judging(Scenario(workspaces=(workspace,))) as (_, judge):
        gateways = await judge.list_gateways(ODD_ID)
        page = await judge.list_sessions(ODD_ID, ODD_ID)

    assert [row["computeId"] for row in gateways["data"]["livyComputes"]] == [ODD_ID]
    assert page["totalCount"] == 3


@pytest.mark.parametrize("text", ["a b", "a*b", "a/b:c@d~e", "50%", "1+1", "用户 ü", "a&b=c"])
async def test_queries_that_need_escaping_are_signed_alike(
    text: str, judging: Callable[..., Any]
) -> None:
    workspace = EmulatedWorkspace(workspace_id="w-1", name=f"<{text}>")

    async with judging(Scenario(workspaces=(workspace,))) as (_, judge):
        answer = await judge.list_workspaces(name=text)

    assert [row["workspaceId"] for row in answer["workspaces"]] == ["w-1"]


async def test_sts_identity_is_accepted(judging: Callable[..., Any]) -> None:
    scenario = Scenario(security_token="CAIS+token/with=odd letters")

    async with judging(scenario) as (emulator, judge):
        page = await judge.list_sessions("w-emulated-1", "lc-emulated-1-1")

    assert page["totalCount"] == 12_000
    assert emulator.stats().nonce_count == 1


async def test_wrong_secret_is_refused_in_all_three_calls(judging: Callable[..., Any]) -> None:
    async with judging(access_key_secret="wrong") as (emulator, judge):
        refusals = [
            await refuse(judge.list_workspaces()),
            await refuse(judge.list_gateways("w-emulated-1")),
            await refuse(judge.list_sessions("w-emulated-1", "lc-emulated-1-1")),
        ]

    for refusal in refusals:
        assert (refusal.status_code, refusal.code) == (400, "SignatureDoesNotMatch")
        assert SCENARIO.access_key_secret not in str(refusal)
    assert emulator.stats().ok_count == 0


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"access_key_id": "another"}, 404, "InvalidAccessKeyId.NotFound"),
        ({"security_token": None}, 400, "MissingSecurityToken"),
        ({"security_token": "other"}, 400, "InvalidSecurityToken.MismatchWithAccessKey"),
    ],
)
async def test_wrong_identity_is_refused_with_its_own_code(
    changes: dict[str, str | None], status: int, code: str, judging: Callable[..., Any]
) -> None:
    async with judging(Scenario(security_token="token"), **changes) as (_, judge):
        refusal = await refuse(judge.list_workspaces())

    assert (refusal.status_code, refusal.code) == (status, code)
    assert refusal.request_id is not None


@pytest.mark.parametrize(
    ("ids", "query", "status", "code"),
    [
        (("w-emulated-1", "lc-emulated-1-1"), {"page_size": 101}, 400, "InvalidParameter"),
        (("w-emulated-1", "lc-emulated-1-1"), {"page_num": 0}, 400, "InvalidParameter"),
        (("w-none", "lc-emulated-1-1"), {}, 404, "InvalidWorkspace.NotFound"),
        (("w-emulated-1", "lc-none"), {}, 404, "InvalidLivyCompute.NotFound"),
    ],
)
async def test_refused_request_reads_as_an_error_of_the_sdk(
    ids: tuple[str, str],
    query: dict[str, int],
    status: int,
    code: str,
    judging: Callable[..., Any],
) -> None:
    async with judging() as (_, judge):
        refusal = await refuse(judge.list_sessions(*ids, **query))

    assert (refusal.status_code, refusal.code) == (status, code)
