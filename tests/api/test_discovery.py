from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import orjson
import pytest
from aiohttp import web

from exporter.api.client import Client, open_client
from exporter.api.credentials import Credential, Identity
from exporter.api.discovery import (
    ALL,
    DiscoveredGateway,
    choose_gateways,
    discover_gateways,
    discover_workspaces,
)
from exporter.emulator.scenario import (
    EmulatedGateway,
    EmulatedWorkspace,
    Scenario,
    build_workspaces,
)
from exporter.emulator.server import Emulator, open_emulator
from exporter.errors import ApiError, ExporterError, NotFoundError, UnknownIdError
from exporter.model import Gateway
from tests.support.patience import HANG_S

REGION = "cn-hangzhou"
SCENARIO = Scenario(workspaces=build_workspaces(workspace_count=3, gateway_count=2))


@asynccontextmanager
async def open_test_client(endpoint: str) -> AsyncIterator[Client]:
    credential = Credential(SCENARIO.access_key_id, SCENARIO.access_key_secret)
    async with open_client(
        endpoint=endpoint,
        identity=Identity(lambda: credential, now_s=anyio.current_time),
        concurrency=4,
        retries=0,
        patience_s=600,
        timeout_s=10,
        max_rps=None,
        user_agent="livy-exporter/test",
        environ={},
        emit=lambda event: None,
    ) as client:
        yield client


@asynccontextmanager
async def open_service(scenario: Scenario = SCENARIO) -> AsyncIterator[tuple[Emulator, Client]]:
    async with (
        open_emulator(scenario) as emulator,
        open_test_client(emulator.endpoint) as client,
    ):
        yield emulator, client


@asynccontextmanager
async def serve_workspace_pages(pages: dict[str, str]) -> AsyncIterator[Client]:
    """A client of a service that maps each token to the next one."""

    async def respond(request: web.BaseRequest) -> web.StreamResponse:
        token = request.query.get("nextToken", "")
        workspaces = [{"workspaceId": f"w-{token}"}]
        return web.Response(
            body=orjson.dumps({"workspaces": workspaces, "nextToken": pages[token]})
        )

    runner = web.ServerRunner(web.Server(respond, access_log=None), shutdown_timeout=0.01)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with open_test_client(f"http://127.0.0.1:{runner.addresses[0][1]}") as client:
            yield client
    finally:
        await runner.cleanup()


def names_of(*ids: str) -> list[Gateway]:
    """`1-2` is the second gateway of the first workspace."""
    return [Gateway(REGION, f"w-emulated-{each[0]}", f"lc-emulated-{each}") for each in ids]


async def choose(client: Client, workspaces: list[str], gateways: list[str]) -> list[Gateway]:
    return await choose_gateways(client, region_id=REGION, workspaces=workspaces, gateways=gateways)


async def test_all_of_all_is_every_gateway_in_the_order_of_the_service() -> None:
    async with open_service() as (emulator, client):
        found = await choose(client, [ALL], [ALL])
        counts = emulator.stats().request_counts

    assert found == names_of("1-1", "1-2", "2-1", "2-2", "3-1", "3-2")
    assert counts == {"ListWorkspaces": {"ok": 1}, "ListLivyCompute": {"ok": 3}}


async def test_named_workspaces_are_listed_in_the_order_they_are_named() -> None:
    async with open_service() as (emulator, client):
        found = await choose(client, ["w-emulated-3", "w-emulated-1", "w-emulated-3"], [ALL])
        counts = emulator.stats().request_counts

    assert found == names_of("3-1", "3-2", "1-1", "1-2")
    assert counts == {"ListLivyCompute": {"ok": 2}}


async def test_named_gateways_are_found_in_whichever_workspace_has_them() -> None:
    async with open_service() as (_, client):
        found = await choose(client, [ALL], ["lc-emulated-3-1", "lc-emulated-1-2"])

    assert found == names_of("1-2", "3-1")


async def test_gateways_of_one_named_workspace_are_taken_as_named_and_nothing_is_asked() -> None:
    """A deleted gateway, which the service no longer lists, can still be exported."""
    async with open_service() as (emulator, client):
        found = await choose(client, ["w-emulated-2"], ["lc-gone", "lc-emulated-2-1", "lc-gone"])
        request_count = emulator.stats().request_count

    assert found == [
        Gateway(REGION, "w-emulated-2", "lc-gone"),
        Gateway(REGION, "w-emulated-2", "lc-emulated-2-1"),
    ]
    assert request_count == 0


@pytest.mark.parametrize(
    ("workspaces", "gateways"),
    [
        ([ALL], ["lc-gone"]),
        ([ALL], ["lc-emulated-1-1", "lc-gone"]),
        ([ALL], [ALL, "lc-gone"]),
        (["w-emulated-1", "w-emulated-2"], ["lc-gone"]),
        (["w-emulated-1", "w-emulated-2"], ["lc-emulated-3-1"]),
    ],
)
async def test_gateway_that_is_nowhere_is_refused_by_name(
    workspaces: list[str], gateways: list[str]
) -> None:
    async with open_service() as (_, client):
        with pytest.raises(UnknownIdError) as caught:
            await choose(client, workspaces, gateways)

    assert f"no gateway {gateways[-1]} in " in str(caught.value)
    assert caught.value.exit_code == 2
    assert caught.value.hint is not None


@pytest.mark.parametrize("workspaces", [["w-gone"], ["w-emulated-1", "w-gone"]])
async def test_workspace_that_is_nowhere_is_refused(workspaces: list[str]) -> None:
    async with open_service() as (_, client):
        with pytest.raises(NotFoundError, match="w-gone") as caught:
            await choose(client, workspaces, [ALL])

    assert caught.value.exit_code == 2
    assert caught.value.hint is not None


@pytest.mark.parametrize(
    "workspaces",
    [(), (EmulatedWorkspace(workspace_id="w-empty", name="empty"),)],
    ids=["no workspace", "no gateway"],
)
async def test_account_without_a_gateway_is_refused(
    workspaces: tuple[EmulatedWorkspace, ...],
) -> None:
    async with open_service(Scenario(workspaces=workspaces)) as (_, client):
        with pytest.raises(UnknownIdError, match="no Livy gateway in all of cn-hangzhou") as caught:
            await choose(client, [ALL], [ALL])

    assert caught.value.exit_code == 2
    assert caught.value.hint is not None


async def test_workspaces_of_all_pages_are_found_in_order() -> None:
    scenario = Scenario(workspaces=build_workspaces(workspace_count=250, gateway_count=0))

    async with open_service(scenario) as (emulator, client):
        found = await discover_workspaces(client, region_id=REGION)
        counts = emulator.stats().request_counts

    assert [each.workspace_id for each in found] == [f"w-emulated-{n}" for n in range(1, 251)]
    assert counts == {"ListWorkspaces": {"ok": 3}}


@pytest.mark.parametrize(
    "pages", [{"": "a", "a": "a"}, {"": "a", "a": "b", "b": "a"}], ids=["at once", "in a circle"]
)
async def test_list_of_workspaces_that_goes_in_a_circle_is_refused(pages: dict[str, str]) -> None:
    async with serve_workspace_pages(pages) as client:
        with (
            anyio.fail_after(HANG_S),
            pytest.raises(ExporterError, match="repeats itself") as caught,
        ):
            await discover_workspaces(client, region_id=REGION)

    assert not isinstance(caught.value, ApiError)
    assert caught.value.hint is not None
    assert "--workspace" in caught.value.hint


async def test_tokens_lead_from_page_to_page_until_an_empty_one() -> None:
    async with serve_workspace_pages({"": "a+b/c==", "a+b/c==": "2", "2": ""}) as client:
        found = await discover_workspaces(client, region_id=REGION)

    assert [each.workspace_id for each in found] == ["w-", "w-a+b/c==", "w-2"]


async def test_discovered_gateway_comes_with_what_the_service_tells_about_it() -> None:
    workspace = EmulatedWorkspace(
        workspace_id="w 1/é*",
        name="one",
        gateways=(EmulatedGateway(gateway_id="lc-1", name="first", status="STOPPED"),),
    )

    async with open_service(Scenario(workspaces=(workspace,))) as (_, client):
        found = await discover_gateways(client, region_id=REGION, workspaces=[ALL], gateways=[ALL])

    assert found == [
        DiscoveredGateway(Gateway(REGION, "w 1/é*", "lc-1"), "one", "first", "STOPPED")
    ]
