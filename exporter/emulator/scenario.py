"""The account that the emulator plays: its workspaces, gateways, sessions, identity and limits."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from exporter.emulator.churn import Churn
from exporter.emulator.faults import FaultRule
from exporter.emulator.generated_list import GeneratedSessions, PageCache, SessionList
from exporter.emulator.moving_list import ClockedSessions, MovingSessions
from exporter.emulator.quota import Quota
from exporter.emulator.ranges import require_min, require_positive
from exporter.emulator.recorded_list import RecordedSessions, read_ndjson
from exporter.errors import UsageError
from exporter.model import Gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedGateway:
    gateway_id: str
    name: str
    status: str = "RUNNING"
    session_count: int = 12_000
    """Generated sessions; unused with a recording."""
    recording: RecordedSessions | None = field(default=None, repr=False)
    """Served in place of generated sessions; it never moves."""
    churn: Churn | None = None
    """How the generated sessions move; None: they do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedWorkspace:
    workspace_id: str
    name: str
    status: str = "RUNNING"
    gateways: tuple[EmulatedGateway, ...] = ()


def build_workspaces(
    *, workspace_count: int = 1, gateway_count: int = 2, session_count: int = 12_000
) -> tuple[EmulatedWorkspace, ...]:
    """Workspaces `w-emulated-1`, `-2`, …, each with gateways such as `lc-emulated-1-1`."""
    return tuple(
        EmulatedWorkspace(
            workspace_id=f"w-emulated-{workspace}",
            name=f"emulated workspace {workspace}",
            gateways=tuple(
                EmulatedGateway(
                    gateway_id=f"lc-emulated-{workspace}-{gateway}",
                    name=f"emulated gateway {workspace}-{gateway}",
                    session_count=session_count,
                )
                for gateway in range(1, gateway_count + 1)
            ),
        )
        for workspace in range(1, workspace_count + 1)
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Everything that the emulator's answers depend on, besides the clock.

    Raises UsageError for a number out of its range or a repeated id.
    """

    seed: int = 0
    """Of the generated sessions, the jitter and the faults."""
    region_id: str = "cn-hangzhou"
    workspaces: tuple[EmulatedWorkspace, ...] = field(default_factory=build_workspaces)
    newest_created_at: datetime = datetime(2026, 6, 30, 12, tzinfo=UTC)
    """Upper bound of the generated create times."""
    session_spacing_s: float = 60.0
    """Mean time between two create times of one gateway."""
    latency_s: float = 0.0
    """Minimum time of an answer."""
    jitter_s: float = 0.0
    """Added to the latency, uniform from 0 to this."""
    clock_offset_s: float = 0.0
    """How far the service's clock, and so the Date header, is ahead of the machine's."""
    quota: Quota | None = None
    """None: no limit."""
    faults: tuple[FaultRule, ...] = ()
    """Hit requests that the quota granted."""
    max_page_size: int = 100
    max_clock_skew_s: float = 900.0
    anonymous: bool = False
    """Answer requests without checking their signature, for `curl` and the like."""
    access_key_id: str = "emulator-access-key-id"
    access_key_secret: str = field(default="emulator-access-key-secret", repr=False)
    security_token: str | None = field(default=None, repr=False)
    """If set, the key is one of STS and each request must carry this token."""
    security_token_expires_at: datetime | None = None
    """None: never."""
    security_token_life_s: float | None = None
    """Validity after the first request; None: for ever."""
    security_token_uses: int | None = None
    """Requests that the token is valid for; None: any number."""
    next_security_token: str | None = field(default=None, repr=False)
    """Accepted once the first token has expired, not before."""
    nonce_memory: int = 100_000
    """Number of nonces that are remembered."""
    page_cache_bytes: int = 64 * 1024 * 1024
    """Memory for encoded pages of generated sessions, over all gateways."""

    def __post_init__(self) -> None:
        require_min(self, 0, "latency_s", "jitter_s", "page_cache_bytes", "max_clock_skew_s")
        require_positive(self, "session_spacing_s", "max_page_size", "nonce_memory")
        for moment in (self.newest_created_at, self.security_token_expires_at):
            if moment is not None and moment.tzinfo is None:
                raise UsageError(
                    f"{moment} has no offset from UTC", hint="write Z behind it for UTC"
                )
        if self.next_security_token is not None and self.security_token is None:
            raise UsageError(
                "next_security_token without a first one", hint="give security_token, too"
            )
        for workspace in self.workspaces:
            for gateway in workspace.gateways:
                if gateway.session_count < 0:
                    raise UsageError(
                        f"session_count of {gateway.gateway_id} is {gateway.session_count}",
                        hint="give 0 or more",
                    )
            _refuse_twins([gateway.gateway_id for gateway in workspace.gateways])
        _refuse_twins([workspace.workspace_id for workspace in self.workspaces])

    def serving(self, path: Path) -> "Scenario":
        """A copy with the region, workspaces, gateways and sessions of an exported NDJSON file.

        Blocks while it reads. Raises UsageError as `read_ndjson` does, and for several regions, as
        an endpoint serves one.
        """
        recordings = read_ndjson(path)
        region_ids = sorted({gateway.region_id for gateway in recordings})
        if len(region_ids) > 1:
            raise UsageError(
                f"'{path}' holds sessions of several regions: {', '.join(region_ids)}",
                hint="serve a file of one region; the emulator stands for one regional endpoint",
            )
        gateways_by_workspace: dict[str, list[EmulatedGateway]] = {}
        for gateway, recording in recordings.items():
            gateways_by_workspace.setdefault(gateway.workspace_id, []).append(
                EmulatedGateway(
                    gateway_id=gateway.gateway_id,
                    name=gateway.gateway_id,
                    session_count=len(recording),
                    recording=recording,
                )
            )
        workspaces = tuple(
            EmulatedWorkspace(
                workspace_id=workspace_id, name=workspace_id, gateways=tuple(gateways)
            )
            for workspace_id, gateways in gateways_by_workspace.items()
        )
        return replace(self, region_id=region_ids[0], workspaces=workspaces)

    def build_session_lists(
        self, now_s: Callable[[], float] = time.monotonic
    ) -> dict[Gateway, SessionList]:
        """Each gateway's sessions, in the order of `workspaces` and their `gateways`.

        `now_s` is the clock of moving lists.
        """
        cache = PageCache(self.page_cache_bytes)
        lists: dict[Gateway, SessionList] = {}
        for workspace in self.workspaces:
            for emulated in workspace.gateways:
                gateway = Gateway(self.region_id, workspace.workspace_id, emulated.gateway_id)
                if emulated.recording is not None:
                    lists[gateway] = emulated.recording
                    continue
                settings = {
                    "seed": self.seed,
                    "session_count": emulated.session_count,
                    "newest_created_ms": round(self.newest_created_at.timestamp() * 1000),
                    "spacing_ms": max(1, round(self.session_spacing_s * 1000)),
                }
                if emulated.churn is None:
                    lists[gateway] = GeneratedSessions(gateway, cache=cache, **settings)
                else:
                    moving = MovingSessions(
                        gateway, emulated.churn, cache=cache, brief=False, **settings
                    )
                    lists[gateway] = ClockedSessions(moving, now_s=now_s)
        return lists


def _refuse_twins(ids: list[str]) -> None:
    for twin, count in Counter(ids).items():
        if count > 1:
            raise UsageError(f"'{twin}' occurs {count} times", hint="give each one its own id")
