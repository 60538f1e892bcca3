"""Finds the gateways that a run lists: those that the settings name, or all of the service."""

from collections.abc import Sequence
from dataclasses import dataclass

from exporter.api import calls
from exporter.api.client import Client
from exporter.errors import ExporterError, UnknownIdError
from exporter.model import Gateway

ALL = "all"


@dataclass(frozen=True, slots=True)
class DiscoveredGateway:
    gateway: Gateway
    workspace_name: str
    name: str
    status: str


async def discover_workspaces(client: Client, *, region_id: str) -> list[calls.Workspace]:
    """Every workspace of a region, in the service's order.

    Raises ExporterError if the service returns a page token twice: the list would never end.
    """
    found: list[calls.Workspace] = []
    seen: set[str] = set()
    token: str | None = None
    while True:
        page = await client.send(calls.list_workspaces(region_id=region_id, next_token=token))
        found += page.workspaces
        token = page.next_token
        if token is None:
            return found
        if token in seen:
            raise ExporterError(
                f"the list of workspaces repeats itself at token {token!r}",
                hint="name the workspaces with --workspace",
            )
        seen.add(token)


async def discover_gateways(
    client: Client, *, region_id: str, workspaces: Sequence[str], gateways: Sequence[str]
) -> list[DiscoveredGateway]:
    """The gateways to list, in the order of `workspaces`, then of the service's list.

    Raises UnknownIdError if a named workspace or gateway is not found.
    """
    wanted = list(dict.fromkeys(gateways))
    found: list[DiscoveredGateway] = []
    if ALL in workspaces:
        chosen = await discover_workspaces(client, region_id=region_id)
    else:
        chosen = [calls.Workspace(each, "", "") for each in dict.fromkeys(workspaces)]
    for workspace in chosen:
        descriptions = await client.send(
            calls.list_gateways(region_id=region_id, workspace_id=workspace.workspace_id)
        )
        found += (
            DiscoveredGateway(
                Gateway(region_id, workspace.workspace_id, each.gateway_id),
                workspace.name,
                each.name,
                each.status,
            )
            for each in descriptions
            if ALL in wanted or each.gateway_id in wanted
        )
    found_ids = {each.gateway.gateway_id for each in found}
    missing = [each for each in wanted if each not in {ALL, *found_ids}]
    if missing:
        raise UnknownIdError(
            f"no gateway {missing[0]} in {', '.join(workspaces)}",
            hint="`livy-exporter gateways` lists them; a deleted gateway can still be exported with"
            " its one --workspace named",
        )
    return found


async def choose_gateways(
    client: Client, *, region_id: str, workspaces: Sequence[str], gateways: Sequence[str]
) -> list[Gateway]:
    """The gateways to list; sends no request when one workspace and its gateways are named.

    Raises UnknownIdError if a named workspace or gateway is not found, or no gateway at all.
    """
    if len(workspaces) == 1 and ALL not in workspaces and ALL not in gateways:
        return [Gateway(region_id, workspaces[0], each) for each in dict.fromkeys(gateways)]
    found = await discover_gateways(
        client, region_id=region_id, workspaces=workspaces, gateways=gateways
    )
    if not found:
        raise UnknownIdError(
            f"no Livy gateway in {', '.join(workspaces)} of {region_id}",
            hint="check --region and --workspace; deleted gateways are not found, name them with"
            " --gateway",
        )
    return [each.gateway for each in found]
