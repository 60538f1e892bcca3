"""Every known fault of the service, alone and together: the output is exact, or there is none and
the error says why.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

from exporter.api import calls, retry
from exporter.api.client import Client, open_client
from exporter.api.credentials import Credential, Identity
from exporter.emulator.answers import RefusalStyle
from exporter.emulator.faults import REFUSALS, SURVIVABLE, Fault, FaultRule
from exporter.emulator.quota import THROTTLING_STYLES, Hint, Quota, QuotaKind
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.emulator.server import Emulator, open_emulator
from exporter.emulator.stats import EmulatorStats
from exporter.errors import ExporterError, NetworkError, ServiceError, TokenExpiredError
from exporter.events import Event, RetryScheduled
from exporter.listing.fetch import fetch_sessions
from exporter.listing.full import FullListing
from exporter.listing.interface import PageRequest
from exporter.model import Gateway, ListingQuery, RawSession, SessionPage
from exporter.runs.export import export
from exporter.settings.settings import Settings
from tests.support.examples import thin_out
from tests.support.program import ProgramFor

GATEWAY_IDS = ("lc-1", "lc-2", "lc-empty")
SCENARIO = Scenario(
    seed=11,
    workspaces=(
        EmulatedWorkspace(
            workspace_id="w-1",
            name="one",
            gateways=(
                EmulatedGateway(gateway_id="lc-1", name="one", session_count=394),
                EmulatedGateway(gateway_id="lc-2", name="two", session_count=101),
                EmulatedGateway(gateway_id="lc-empty", name="empty", session_count=0),
            ),
        ),
    ),
)
PAGE_SIZE = 10
PAGE_COUNT = 40 + 11 + 1
SECRET = SCENARIO.access_key_secret

TIMEOUT_S = 60.0
"""Longer than any answer of the emulator on the busiest machine, except one that hangs."""
HANG_TIMEOUT_S = 0.5
"""Short, for answers that hang; on a busy machine other requests may time out too."""


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the waits between attempts, which are tested without a service."""
    monkeypatch.setattr(retry, "BACKOFF_FIRST_S", 0.02)
    monkeypatch.setattr(retry, "MAX_BACKOFF_S", 0.1)
    monkeypatch.setattr(retry, "FIRST_CONTACT_WAIT_S", 0.02)


@dataclass
class Exported:
    """The result of a run over a scenario, and the emulator's view of it."""

    folder: Path
    stats: EmulatorStats
    expected: list[RawSession]
    """Every session of the scenario, as a line of an export."""
    manifest: dict[str, Any] = field(default_factory=dict)
    error: BaseException | None = None
    events: list[Event] = field(default_factory=list)

    @property
    def lines(self) -> list[RawSession]:
        found = [
            json.loads(line) for line in (self.folder / "out.ndjson").read_bytes().splitlines()
        ]
        return [{key: line[key] for key in line if key != "exportedAt"} for line in found]

    @property
    def leaves(self) -> list[ExporterError]:
        """The errors of the run, all of them foreseen."""
        pending: list[BaseException] = [self.error] if self.error is not None else []
        leaves = []
        while pending:
            error = pending.pop()
            if isinstance(error, BaseExceptionGroup):
                pending += error.exceptions
            else:
                assert isinstance(error, ExporterError), error
                leaves.append(error)
        return leaves

    def assert_exact(self) -> None:
        """Each session occurs once, in order, with every value; and the requests add up."""
        requests = self.manifest["requests"]
        assert self.lines == self.expected
        assert self.manifest["status"] == "complete"
        assert self.manifest["session_count"] == len(self.expected)
        assert requests["sent"] == requests["ok"] + requests["throttled"] + requests["failed"]
        assert requests["retried"] == len(self.told_retries)
        assert requests["retried"] <= requests["throttled"] + requests["failed"]
        assert sorted(path.name for path in self.folder.iterdir()) == [
            "out.ndjson",
            "out.ndjson.manifest.json",
        ]

    def assert_nothing_left(self) -> None:
        assert self.error is not None
        assert {path.name for path in self.folder.iterdir()} <= {".out.ndjson.journal"}

    @property
    def told_retries(self) -> list[RetryScheduled]:
        return [event for event in self.events if isinstance(event, RetryScheduled)]


RunExport = Callable[..., Awaitable[Exported]]


@pytest.fixture
def run_export(tmp_path: Path) -> RunExport:
    """Exports a scenario in this process: the errors come back instead of being raised."""

    async def run(scenario: Scenario, **changes: Any) -> Exported:
        async with open_emulator(scenario) as emulator:
            exported = Exported(tmp_path, emulator.stats(), expected_lines(emulator))
            settings = Settings(
                endpoint=emulator.endpoint,
                region=scenario.region_id,
                workspace=("all",),
                output=str(tmp_path / "out.ndjson"),
                **{
                    "page_size": PAGE_SIZE,
                    "concurrency": 8,
                    "timeout": HANG_TIMEOUT_S if hangs(scenario) else TIMEOUT_S,
                    "retries": 30,
                    **changes,
                },
            )
            try:
                manifest = await export(
                    settings,
                    run_id="run",
                    environ=environ_of(scenario),
                    emit=exported.events.append,
                )
                exported.manifest = manifest.to_dict()
            except (ExporterError, ExceptionGroup) as exc:
                exported.error = exc
            exported.stats = emulator.stats()
        return exported

    return run


def expected_lines(emulator: Emulator) -> list[RawSession]:
    return [
        {**session, "regionId": "cn-hangzhou", "workspaceId": "w-1"}
        for gateway_id in GATEWAY_IDS
        for session in emulator.sessions("w-1", gateway_id)
    ]


def environ_of(scenario: Scenario) -> dict[str, str]:
    return {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": scenario.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": scenario.access_key_secret,
        "ALIBABA_CLOUD_SECURITY_TOKEN": scenario.security_token or "",
    }


def failing(*rules: FaultRule, **changes: Any) -> Scenario:
    return replace(SCENARIO, faults=rules, **changes)


def hangs(scenario: Scenario) -> bool:
    return any(Fault.HANG in rule.kinds for rule in scenario.faults)


def strike(kinds: Fault | tuple[Fault, ...], **changes: Any) -> FaultRule:
    """A rule with short faults."""
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    return FaultRule(kinds=kinds, **{"hang_s": 30, "slow_s": 0.1, "refuse_s": 0.05, **changes})


def is_throttling(fault: Fault) -> bool:
    return fault in REFUSALS and "Throttling" in REFUSALS[fault].code


def outcome_of(fault: Fault) -> str:
    """The count in the manifest."""
    if is_throttling(fault):
        return "throttled"
    return "ok" if fault is Fault.SLOW_BODY else "failed"


@pytest.mark.parametrize("fault", thin_out(SURVIVABLE, 2), ids=lambda fault: fault.value)
async def test_output_is_exact_whatever_befalls_a_part_of_the_requests(
    fault: Fault, run_export: RunExport
) -> None:
    # A refusal that has nothing to do with the rate slows a run for nothing: few of those will do.
    rate = 0.04 if is_throttling(fault) else 0.15
    scenario = failing(strike(fault, rate=rate, from_request=2))

    exported = await run_export(scenario)

    struck = exported.stats.fault_counts[fault.value]
    requests = exported.manifest["requests"]
    exported.assert_exact()
    assert struck >= (1 if is_throttling(fault) else 4)
    if fault in {Fault.REFUSED_CONNECTIONS, Fault.HANG}:
        # Connections that were refused are requests which nobody saw, and with a short timeout a
        # request may be given up before it is seen.
        assert requests["failed"] >= struck
    else:
        assert requests["sent"] == exported.stats.request_count
        assert requests[outcome_of(fault)] - struck in {0, exported.stats.ok_count}


@pytest.mark.parametrize("fault", thin_out(SURVIVABLE, 4), ids=lambda fault: fault.value)
async def test_output_is_exact_when_one_page_fails_over_and_over(
    fault: Fault, run_export: RunExport
) -> None:
    scenario = failing(strike(fault, page_nums=(7,), times=3))

    exported = await run_export(scenario, gateway=("lc-1",))

    exported.expected = exported.expected[:394]
    exported.assert_exact()
    # A slow answer is one, and nobody asks again.
    assert exported.stats.fault_counts[fault.value] == (1 if fault is Fault.SLOW_BODY else 3)


@pytest.mark.parametrize("seed", thin_out(range(3), 3))
async def test_output_is_exact_when_all_faults_come_at_once(
    seed: int, run_export: RunExport
) -> None:
    scenario = failing(strike(SURVIVABLE, rate=0.3, from_request=2), seed=seed)

    exported = await run_export(scenario)

    exported.assert_exact()
    assert len(exported.stats.fault_counts) >= 8


async def test_output_is_exact_when_all_faults_come_one_after_the_other(
    run_export: RunExport,
) -> None:
    every_other = zip(SURVIVABLE, range(4, 1000, 2), strict=False)
    scenario = failing(*(strike(fault, requests=(number,)) for fault, number in every_other))

    exported = await run_export(scenario, concurrency=1)

    exported.assert_exact()
    assert set(exported.stats.fault_counts) == {fault.value for fault in SURVIVABLE}


async def test_output_is_exact_when_every_first_request_for_a_page_fails(
    run_export: RunExport,
) -> None:
    kinds = (Fault.ERROR_503, Fault.RESET, Fault.CUT_OFF, Fault.GARBAGE)
    scenario = failing(strike(kinds, page_nums=tuple(range(2, 41))))

    exported = await run_export(scenario)

    exported.assert_exact()
    assert sum(exported.stats.fault_counts.values()) == 39 + 10


async def test_output_is_exact_after_an_outage_that_ends(run_export: RunExport) -> None:
    scenario = failing(strike(Fault.ERROR_503, rate=1, from_request=20, until_request=60))

    exported = await run_export(scenario)

    exported.assert_exact()
    assert exported.stats.fault_counts == {"503": 41}


async def test_used_nonce_is_replaced_at_once(run_export: RunExport) -> None:
    exported = await run_export(failing(strike(Fault.NONCE_USED, requests=(1, 2, 3, 20))))

    exported.assert_exact()
    assert [retry.wait_s for retry in exported.told_retries] == [0.0] * 4
    assert exported.stats.nonce_count == exported.stats.request_count


@pytest.mark.parametrize("hours", [-1, 1])
async def test_clock_that_is_off_is_corrected_once(hours: int, run_export: RunExport) -> None:
    exported = await run_export(replace(SCENARIO, clock_offset_s=hours * 3600.0))

    counts = exported.stats.request_counts
    exported.assert_exact()
    assert counts["ListWorkspaces"] == {"InvalidTimeStamp.Expired": 1, "ok": 1}
    assert set(counts["ListLivyComputeSessions"]) == {"ok"}


async def test_clock_that_is_off_by_less_than_the_service_minds_costs_nothing(
    run_export: RunExport,
) -> None:
    exported = await run_export(replace(SCENARIO, clock_offset_s=800.0))

    exported.assert_exact()
    assert exported.manifest["requests"]["failed"] == 0


QUOTA = Quota(rate_per_s=60.0, burst=8)


async def export_under(quota: Quota, run_export: RunExport) -> Exported:
    return await run_export(replace(SCENARIO, quota=quota, latency_s=0.01))


@pytest.mark.parametrize(
    "style",
    thin_out(THROTTLING_STYLES, 4),
    ids=lambda style: f"{style.code}-{style.status}-{style.casing}",
)
async def test_output_is_exact_under_a_hidden_quota_whatever_its_refusals_are_called(
    style: RefusalStyle, run_export: RunExport
) -> None:
    exported = await export_under(replace(QUOTA, style=style), run_export)

    exported.assert_exact()
    assert exported.manifest["requests"]["throttled"] == exported.stats.refused_count
    assert exported.stats.refused_count <= 0.15 * exported.stats.granted_count


@pytest.mark.parametrize(
    "hint",
    thin_out(
        [
            "x-acs-retry-after",
            "x-ratelimit-user",
            "x-ratelimit-user-api",
            "retry-after",
            "retry-after-date",
        ],
        4,
    ),
)
async def test_output_is_exact_under_a_hidden_quota_whatever_its_refusals_advise(
    hint: Hint, run_export: RunExport
) -> None:
    exported = await export_under(replace(QUOTA, hint=hint), run_export)

    exported.assert_exact()
    assert exported.stats.refused_count <= 0.15 * exported.stats.granted_count


@pytest.mark.parametrize(
    ("kind", "burst"), [("token-bucket", 1), ("token-bucket", 40), ("fixed-window", 1)]
)
async def test_output_is_exact_under_a_hidden_quota_of_any_kind(
    kind: QuotaKind, burst: int, run_export: RunExport
) -> None:
    exported = await export_under(replace(QUOTA, kind=kind, burst=burst), run_export)

    exported.assert_exact()
    assert exported.stats.refused_count <= 0.15 * exported.stats.granted_count


async def test_output_is_exact_under_a_hidden_quota_and_all_faults(run_export: RunExport) -> None:
    scenario = failing(strike(SURVIVABLE, rate=0.1, from_request=2), quota=QUOTA)

    exported = await run_export(scenario)

    exported.assert_exact()


@pytest.mark.parametrize(
    "fault",
    thin_out([Fault.ERROR_503, Fault.HTML_502, Fault.RESET, Fault.GARBAGE], 2),
    ids=lambda fault: fault.value,
)
async def test_outage_ends_the_run_when_nothing_good_was_heard_for_long(
    fault: Fault, run_export: RunExport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "MAX_SILENCE_S", 1.0)
    started_s = anyio.current_time()

    exported = await run_export(failing(strike(fault, rate=1, from_request=20)), retries=100)

    exported.assert_nothing_left()
    assert exported.stats.ok_count == 19
    assert anyio.current_time() - started_s >= 1.0
    assert all(error.exit_code == 1 for error in exported.leaves)
    # A request that failed for the first time when it was over does not say so.
    told = re.compile(r" \(after \d+ attempts, no good answer for \d+s\)$")
    assert any(told.search(str(error)) for error in exported.leaves)


async def test_outage_ends_the_run_when_one_request_was_asked_as_often_as_allowed(
    run_export: RunExport,
) -> None:
    exported = await run_export(
        failing(strike(Fault.ERROR_503, rate=1, from_request=20)), retries=2
    )

    exported.assert_nothing_left()
    assert all(isinstance(error, ServiceError) for error in exported.leaves)
    assert any(str(error).endswith(" (after 3 attempts)") for error in exported.leaves)
    assert exported.leaves[0].hint == "the service is in trouble: try again later"


async def test_service_that_is_gone_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "MAX_SILENCE_S", 0.5)
    rows: list[RawSession] = []
    gone = anyio.Event()

    def note_page() -> None:
        if client.counts.ok == 20:
            gone.set()

    async with anyio.create_task_group() as tasks:
        endpoint = await tasks.start(serve_until, gone)
        async with open_test_client(endpoint, build_identity()) as client:
            with pytest.raises(ExceptionGroup) as caught:
                await list_gateway(client, LC_1, rows, after_page=note_page)

    errors = caught.value.exceptions
    assert all(isinstance(error, NetworkError) for error in errors)
    told = r"cannot connect to .* \(after \d+ attempts, no good answer for \d+s\)$"
    assert any(re.search(told, str(error)) for error in errors)


LC_1 = Gateway("cn-hangzhou", "w-1", "lc-1")


async def serve_until(gone: anyio.Event, *, task_status: TaskStatus[str]) -> None:
    async with open_emulator(replace(SCENARIO, latency_s=0.01)) as emulator:
        task_status.started(emulator.endpoint)
        await gone.wait()


def build_identity() -> Identity:
    return Identity(lambda: Credential(SCENARIO.access_key_id, SECRET), now_s=anyio.current_time)


@asynccontextmanager
async def open_test_client(endpoint: str, identity: Identity) -> AsyncIterator[Client]:
    async with open_client(
        endpoint=endpoint,
        identity=identity,
        concurrency=8,
        max_rps=None,
        retries=100,
        patience_s=600,
        timeout_s=TIMEOUT_S,
        user_agent="livy-exporter/test",
        environ={},
        emit=lambda event: None,
    ) as client:
        yield client


async def list_gateway(
    client: Client,
    gateway: Gateway,
    rows: list[RawSession],
    *,
    after_page: Callable[[], None] = lambda: None,
) -> None:
    async def fetch_page(request: PageRequest) -> SessionPage:
        page = await client.send(
            calls.list_sessions(
                request.gateway,
                ListingQuery(page_size=request.page_size),
                page_num=request.page_num,
            )
        )
        after_page()
        return page

    async def on_rows(_: Gateway, sessions: list[RawSession]) -> None:
        rows.extend(sessions)

    await fetch_sessions(
        [FullListing(gateway, page_size=PAGE_SIZE)],
        fetch_page=fetch_page,
        on_rows=on_rows,
        page_size=PAGE_SIZE,
        concurrency=8,
        emit=lambda event: None,
    )


TOKENS = replace(
    SCENARIO,
    security_token="CAIS-first",
    next_security_token="CAIS-second",
    security_token_uses=15,
    latency_s=0.01,
)


def key_with(token: str) -> Credential:
    return Credential(TOKENS.access_key_id, SECRET, token)


async def test_token_that_expires_in_mid_run_is_fetched_anew_once() -> None:
    fetched: list[Credential] = []
    rows: list[RawSession] = []

    def fetch() -> Credential:
        fetched.append(key_with("CAIS-first" if len(fetched) == 0 else "CAIS-second"))
        return fetched[-1]

    async with open_emulator(TOKENS) as emulator:
        identity = Identity(fetch, now_s=anyio.current_time)
        async with open_test_client(emulator.endpoint, identity) as client:
            await list_gateway(client, LC_1, rows)
        counts = emulator.stats().request_counts["ListLivyComputeSessions"]
        expected = list(emulator.sessions("w-1", "lc-1"))

    assert rows == expected
    assert len(fetched) == 2
    assert 1 <= counts.pop("InvalidSecurityToken.Expired") <= 8
    assert set(counts) == {"ok"}


async def test_token_that_expires_and_has_no_successor_ends_the_run(run_export: RunExport) -> None:
    exported = await run_export(replace(TOKENS, next_security_token=None))

    exported.assert_nothing_left()
    assert {(type(error), error.exit_code) for error in exported.leaves} == {(TokenExpiredError, 3)}
    assert exported.stats.ok_count == 15
    assert exported.told_retries == []


def test_permission_failure_that_looks_like_throttling_is_told_at_once(
    program_for: "ProgramFor",
) -> None:
    scenario = failing(strike(Fault.NO_PERMISSION_429, rate=1, from_request=10))
    program, emulator = program_for(scenario)

    ended = program.run("export", "--workspace", "all", "-o", "out.parquet", "--page-size", "10")

    denied = emulator.stats().fault_counts["no-permission-429"]
    assert ended.code == 3
    assert "HTTP 429, CCAI.TenantPermission.NoAuth" in ended.stderr_lines[-2]
    assert ended.stderr_lines[-1].startswith("hint: the identity needs emr-serverless-spark:")
    assert denied <= 32
    assert set(program.listing()) <= {".out.parquet.journal"}


def test_wrong_secret_is_asked_about_once(program_for: "ProgramFor") -> None:
    program, emulator = program_for(SCENARIO)

    ended = program.run(
        *("export", "--workspace", "w-1", "--gateway", "lc-1", "--output", "out.parquet"),
        environ={"ALIBABA_CLOUD_ACCESS_KEY_SECRET": "wrong"},
    )

    assert ended.code == 3
    assert "SignatureDoesNotMatch" in ended.stderr_lines[0]
    assert "attempts" not in ended.stderr
    assert emulator.stats().request_count == 1
    assert program.listing() == {}


def test_expired_token_is_told_with_its_own_exit_code(program_for: "ProgramFor") -> None:
    program, emulator = program_for(replace(TOKENS, next_security_token=None))

    ended = program.run(
        *("export", "--workspace", "all", "--output", "out.parquet", "--page-size", "10"),
        environ={"ALIBABA_CLOUD_SECURITY_TOKEN": "CAIS-first"},
    )

    assert ended.code == 3
    assert "InvalidSecurityToken.Expired" in ended.stderr_lines[-2]
    assert ended.stderr_lines[-1] == "hint: renew the STS token and start again"
    assert emulator.stats().ok_count == 15
    assert set(program.listing()) <= {".out.parquet.journal"}


def test_no_retries_end_the_run_with_the_first_failure(program_for: "ProgramFor") -> None:
    program, emulator = program_for(failing(strike(Fault.ERROR_503, requests=(3,))))

    ended = program.run(
        *("export", "--workspace", "w-1", "--gateway", "lc-1", "--output", "out.parquet"),
        *("--retries", "0", "--concurrency", "1"),
    )

    assert ended.code == 1
    assert re.fullmatch(
        r"error: page 2 of w-1/lc-1: HTTP 503, ServiceUnavailable, .* \(request [^ ]+\)",
        ended.stderr_lines[-2],
    )
    assert emulator.stats().request_count == 3
    assert set(program.listing()) <= {".out.parquet.journal"}


def test_retries_that_are_used_up_are_told_with_their_number(program_for: "ProgramFor") -> None:
    program, emulator = program_for(failing(strike(Fault.HTML_502, rate=1, from_request=3)))

    ended = program.run(
        *("export", "--workspace", "w-1", "--gateway", "lc-1", "--output", "out.parquet"),
        *("--retries", "1", "--concurrency", "1"),
    )

    assert ended.code == 1
    assert re.fullmatch(
        r"error: page 2 of w-1/lc-1: HTTP 502, .* \(after 2 attempts\)", ended.stderr_lines[-2]
    )
    assert ended.stderr_lines[-1] == "hint: the service is in trouble: try again later"
    assert emulator.stats().request_count == 4
    assert set(program.listing()) <= {".out.parquet.journal"}


def test_silence_is_told_with_the_seconds_waited(program_for: "ProgramFor") -> None:
    program, _ = program_for(failing(strike(Fault.HANG, rate=1)))

    ended = program.run(
        *("export", "--workspace", "all", "--output", "out.parquet"),
        *("--timeout", "300ms", "--retries", "0"),
    )

    assert ended.code == 1
    assert re.fullmatch(
        r"error: .*: no answer from 127\.0\.0\.1:\d+ within 0\.3s", ended.stderr_lines[-2]
    )
    assert ended.stderr_lines[-1] == "hint: raise --timeout, or check the network"
    assert program.listing() == {}


@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(replace(SCENARIO, latency_s=0.4), id="slow answers"),
        pytest.param(failing(strike(Fault.HANG, rate=1)), id="no answer"),
        pytest.param(failing(strike(Fault.ERROR_503, rate=1)), id="waiting for a retry"),
        pytest.param(
            replace(SCENARIO, quota=Quota(rate_per_s=0.2, hint="x-acs-retry-after")),
            id="waiting for the quota",
        ),
    ],
)
def test_deadline_ends_the_run_with_its_own_message(
    scenario: Scenario, program_for: "ProgramFor"
) -> None:
    program, _ = program_for(scenario)

    ended = program.run(
        *("export", "--workspace", "all", "--output", "out.parquet", "--page-size", "10"),
        *("--deadline", "700ms"),
    )

    assert ended.code == 1
    assert ended.stderr_lines[-2:] == [
        "error: the run was not finished within 0.7s",
        "hint: nothing was published: raise --deadline, or lower the number of gateways",
    ]
    assert program.listing() == {}


def test_deadline_that_is_kept_changes_nothing(program_for: "ProgramFor") -> None:
    program, _ = program_for(SCENARIO)

    ended = program.run("export", "--workspace", "all", "-o", "out.parquet", "--deadline", "1m")

    assert (ended.code, len(program.listing())) == (0, 2)
