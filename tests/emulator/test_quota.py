import math
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import pairwise
from typing import get_args

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.emulator.answers import RefusalStyle
from exporter.emulator.quota import (
    NO_END_KNOWN_S,
    THROTTLING_STYLES,
    Hint,
    Meter,
    Quota,
    QuotaKind,
    RateChange,
    build_hint,
)
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.server import Emulator, open_emulator
from exporter.errors import UsageError

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
SESSIONS_PATH = "/api/v1/workspaces/w-emulated-1/livycompute/lc-emulated-1-1/session"
WORKSPACES_PATH = "/api/v1/workspaces"

rates = st.floats(min_value=1.0, max_value=500.0)
gaps = st.lists(st.floats(min_value=0.0, max_value=3.0), min_size=1, max_size=60)


@dataclass
class FakeTime:
    """A clock that stands still until it is set, and a sleep that only records."""

    now_s: float = 1000.0
    waits_s: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)


@dataclass(frozen=True)
class Seen:
    status: int
    headers: Mapping[str, str]
    body: dict[str, object]


def build_scenario(quota: Quota, *, latency_s: float = 0.0) -> Scenario:
    workspaces = build_workspaces(session_count=250)
    return Scenario(workspaces=workspaces, anonymous=True, quota=quota, latency_s=latency_s)


def opened(scenario: Scenario, time: FakeTime) -> AbstractAsyncContextManager[Emulator]:
    return open_emulator(scenario, now_s=NOW.timestamp, monotonic_s=time, sleep=time.sleep)


async def ask(client: aiohttp.ClientSession, emulator: Emulator, path: str = SESSIONS_PATH) -> Seen:
    async with client.get(emulator.endpoint + path) as answer:
        return Seen(answer.status, answer.headers, orjson.loads(await answer.read()))


def count_granted(meter: Meter, *, from_s: float, to_s: float, step_s: float = 0.001) -> int:
    """Permits of a client that asks all the time."""
    steps = round((to_s - from_s) / step_s)
    moments_s = [from_s + step * step_s for step in range(steps)]
    return sum(meter.take("", now_s=now_s) is None for now_s in moments_s)


def test_full_bucket_grants_its_burst_and_then_the_rate() -> None:
    meter = Meter(Quota(rate_per_s=40, burst=5))

    at_once = [meter.take("", now_s=7.0) for _ in range(7)]
    granted = count_granted(meter, from_s=7.0, to_s=17.0)

    assert at_once[:5] == [None] * 5
    assert at_once[5:] == [pytest.approx(0.025)] * 2
    assert granted in (399, 400)


def test_window_grants_its_count_and_then_nothing_until_the_next() -> None:
    meter = Meter(Quota(rate_per_s=4, kind="fixed-window", window_s=2.0))

    first = [meter.take("", now_s=100.5) for _ in range(9)]
    second = [meter.take("", now_s=102.0) for _ in range(9)]

    assert first == [None] * 8 + [1.5]
    assert second == [None] * 8 + [2.0]


@given(
    rate=rates, burst=st.integers(1, 50), gaps_s=gaps, start_s=st.floats(0.0, 1e6), data=st.data()
)
def test_bucket_never_grants_more_than_burst_and_rate_over_any_time(
    rate: float, burst: int, gaps_s: list[float], start_s: float, data: st.DataObject
) -> None:
    meter = Meter(Quota(rate_per_s=rate, burst=burst))
    now_s = start_s
    granted_s: list[float] = []

    for gap_s in gaps_s:
        now_s += gap_s
        asked_count = data.draw(st.integers(1, 5))
        granted_count = sum(meter.take("", now_s=now_s) is None for _ in range(asked_count))
        granted_s += [now_s] * granted_count

    for first in range(0, len(granted_s), 7):
        for last in range(first, len(granted_s)):
            stretch_s = granted_s[last] - granted_s[first]
            assert last - first + 1 <= burst + rate * stretch_s + 1e-6


@given(rate=rates, window_s=st.sampled_from([1.0, 2.0, 60.0]), gaps_s=gaps)
def test_no_window_grants_more_than_its_count(
    rate: float, window_s: float, gaps_s: list[float]
) -> None:
    meter = Meter(Quota(rate_per_s=rate, kind="fixed-window", window_s=window_s))
    now_s = 5.0
    granted: dict[int, int] = {}

    for gap_s in gaps_s:
        now_s += gap_s
        for _ in range(30):
            if meter.take("", now_s=now_s) is None:
                window = math.floor(now_s / window_s)
                granted[window] = granted.get(window, 0) + 1

    assert max(granted.values()) <= rate * window_s + 1e-6


@given(rate=rates, window_s=st.sampled_from([1.0, 10.0, 60.0]), gaps_s=gaps)
def test_no_sliding_window_grants_more_than_its_count(
    rate: float, window_s: float, gaps_s: list[float]
) -> None:
    meter = Meter(Quota(rate_per_s=rate, kind="sliding-window", window_s=window_s))
    now_s = 5.0
    granted_s: list[float] = []

    for gap_s in gaps_s:
        now_s += gap_s
        granted_s += [now_s for _ in range(30) if meter.take("", now_s=now_s) is None]

    for last_s in granted_s:
        count = sum(last_s - window_s + 1e-6 < each <= last_s for each in granted_s)
        assert count <= rate * window_s + 1e-6


@pytest.mark.parametrize("kind", get_args(QuotaKind))
def test_quota_that_is_taken_away_refuses_everything_until_it_is_given_back(
    kind: QuotaKind,
) -> None:
    changes = (RateChange(rate_per_s=0, at_s=10), RateChange(rate_per_s=40, at_s=70))
    meter = Meter(Quota(rate_per_s=40, burst=5, kind=kind, changes=changes))

    before = count_granted(meter, from_s=0.0, to_s=10.0)
    absent = [meter.take("", now_s=now_s) for now_s in (10.0, 40.0, 69.5)]
    after = count_granted(meter, from_s=70.0, to_s=80.0)

    assert 399 <= before <= 405
    assert absent == [60.0, 30.0, 0.5]
    assert 399 <= after <= 405


def test_quota_taken_away_for_good_states_a_fixed_wait() -> None:
    changes = (RateChange(rate_per_s=0, after_requests=1),)
    meter = Meter(Quota(rate_per_s=40, burst=5, changes=changes))

    assert meter.take("", now_s=0.0) is None
    assert meter.take("", now_s=100.0) == NO_END_KNOWN_S


@pytest.mark.parametrize("kind", get_args(QuotaKind))
@given(rate=rates, burst=st.integers(1, 20), gaps_s=gaps)
def test_request_after_the_stated_wait_is_granted_and_an_earlier_one_is_not(
    kind: QuotaKind, rate: float, burst: int, gaps_s: list[float]
) -> None:
    meter = Meter(Quota(rate_per_s=rate, burst=burst, kind=kind))
    now_s = 0.0

    for gap_s in gaps_s:
        now_s += gap_s
        while (wait_s := meter.take("", now_s=now_s)) is None:
            pass

        if wait_s > 1e-6:  # less is rounding of the clock
            assert meter.take("", now_s=now_s + wait_s / 2) is not None
        now_s += wait_s + 1e-6
        assert meter.take("", now_s=now_s) is None


@pytest.mark.parametrize("kind", get_args(QuotaKind))
def test_refused_requests_cost_no_permit(kind: QuotaKind) -> None:
    quota = Quota(rate_per_s=10, burst=3, kind=kind)
    patient, pushy = Meter(quota), Meter(quota)
    moments_s = [0.0] * 20 + [step / 10 for step in range(1, 40)]

    calm = [patient.take("", now_s=now_s) is None for now_s in moments_s]
    pushed = []
    for before_s, now_s in pairwise([0.0, *moments_s]):
        pushed.append(pushy.take("", now_s=now_s) is None)
        for _ in range(0 if pushed[-1] else 5):
            assert pushy.take("", now_s=max(before_s, now_s)) is not None

    assert pushed == calm


def test_all_calls_share_one_quota_unless_each_has_its_own() -> None:
    shared = Meter(Quota(rate_per_s=1, burst=2))
    separate = Meter(Quota(rate_per_s=1, burst=2, per_call=True))
    calls = ["ListWorkspaces", "ListWorkspaces", "ListLivyCompute", "ListLivyCompute"]

    assert [shared.take(call, now_s=0.0) is None for call in calls] == [True, True, False, False]
    assert [separate.take(call, now_s=0.0) is None for call in calls] == [True] * 4


@pytest.mark.parametrize("kind", get_args(QuotaKind))
def test_quota_is_halved_and_doubled_at_its_times(kind: QuotaKind) -> None:
    changes = (RateChange(rate_per_s=20, at_s=10), RateChange(rate_per_s=80, at_s=20))
    meter = Meter(Quota(rate_per_s=40, burst=5, kind=kind, changes=changes))

    granted = [
        count_granted(meter, from_s=500.0 + start, to_s=510.0 + start) for start in (0, 10, 20)
    ]

    assert granted == [pytest.approx(expected, abs=6) for expected in (400, 200, 800)]


def test_quota_changes_after_so_many_requests_refused_ones_included() -> None:
    changes = (RateChange(rate_per_s=1, after_requests=4),)
    meter = Meter(Quota(rate_per_s=100, burst=2, changes=changes))

    waits_s = [meter.take("", now_s=0.0) for _ in range(6)]

    assert waits_s == [None, None, 0.01, 0.01, 1.0, 1.0]


def test_bucket_fills_at_the_old_rate_until_a_change() -> None:
    meter = Meter(Quota(rate_per_s=1, burst=50, changes=(RateChange(rate_per_s=10, at_s=5),)))

    at_once = sum(meter.take("", now_s=0.0) is None for _ in range(60))
    later = sum(meter.take("", now_s=6.0) is None for _ in range(60))

    assert (at_once, later) == (50, 5 + 10)


def test_restarted_meter_is_in_its_first_state() -> None:
    quota = Quota(rate_per_s=5, burst=2, changes=(RateChange(rate_per_s=1, after_requests=3),))
    meter = Meter(quota)
    moments_s = [0.0, 0.0, 0.0, 0.1, 0.5, 0.9, 4.0]
    first = [meter.take("", now_s=100 + now_s) for now_s in moments_s]

    meter.restart()

    again = [meter.take("", now_s=200 + now_s) for now_s in moments_s]
    assert again == [None if wait_s is None else pytest.approx(wait_s) for wait_s in first]


@pytest.mark.parametrize("hint", get_args(Hint))
def test_true_hint_is_never_shorter_than_the_wait(hint: Hint) -> None:
    quota = Quota(rate_per_s=3, hint=hint)

    headers = build_hint(quota, wait_s=0.3333, now_s=NOW.timestamp())

    expected: dict[Hint, dict[str, str]] = {
        "none": {},
        "x-acs-retry-after": {"x-acs-retry-after": "334"},
        "x-ratelimit-user": {
            "x-ratelimit-user": f"Limit:1,Remain:0,TimeLeft:334,Reset:{NOW.timestamp() + 1:.0f}"
        },
        "x-ratelimit-user-api": {
            "x-ratelimit-user-api": f"Limit:1,Remain:0,TimeLeft:334,Reset:{NOW.timestamp() + 1:.0f}"
        },
        "retry-after": {"Retry-After": "1"},
        "retry-after-date": {"Retry-After": "Wed, 01 Jul 2026 12:00:01 GMT"},
    }
    assert headers == expected[hint]


def test_fixed_hint_states_its_setting() -> None:
    quota = Quota(rate_per_s=3, hint="x-acs-retry-after", hint_ms=60_000)

    assert build_hint(quota, wait_s=0.01, now_s=0.0) == {"x-acs-retry-after": "60000"}


@pytest.mark.parametrize("style", THROTTLING_STYLES, ids=repr)
async def test_request_without_a_permit_is_refused_in_the_quotas_style(style: RefusalStyle) -> None:
    time = FakeTime()
    quota = Quota(rate_per_s=4, style=style, hint="x-acs-retry-after")
    async with (
        opened(build_scenario(quota), time) as emulator,
        aiohttp.ClientSession() as client,
    ):
        granted = await ask(client, emulator)
        refused = await ask(client, emulator)
        time.now_s += 0.25
        granted_again = await ask(client, emulator)

    body = refused.body
    assert [granted.status, refused.status, granted_again.status] == [200, style.status, 200]
    assert body["Code" if style.casing == "rpc" else "code"] == style.code
    assert ("RequestId" in body, "requestId" in body) == (
        style.casing == "rpc",
        style.casing == "roa",
    )
    assert refused.headers["x-acs-retry-after"] == "250"


async def test_quota_is_one_for_all_connections_and_calls() -> None:
    time = FakeTime()
    async with (
        opened(build_scenario(Quota(rate_per_s=1, burst=2)), time) as emulator,
        aiohttp.ClientSession() as one,
        aiohttp.ClientSession() as other,
    ):
        answers = [
            await ask(one, emulator),
            await ask(other, emulator, WORKSPACES_PATH),
            await ask(one, emulator),
            await ask(other, emulator),
        ]

    assert [answer.status for answer in answers] == [200, 200, 429, 429]
    assert emulator.stats().connection_count == 2


async def test_request_refused_for_its_signature_takes_no_permit() -> None:
    time = FakeTime()
    scenario = Scenario(quota=Quota(rate_per_s=1))
    async with opened(scenario, time) as emulator, aiohttp.ClientSession() as client:
        unsigned = [await ask(client, emulator) for _ in range(3)]

    assert [answer.status for answer in unsigned] == [404] * 3
    assert emulator.stats().quota_seconds == []


@pytest.mark.parametrize(
    ("refusal_latency_s", "waits_s"), [(None, [0.5, 0.5]), (0.0, [0.5]), (0.1, [0.5, 0.1])]
)
async def test_refusal_has_the_latency_of_the_quota(
    refusal_latency_s: float | None, waits_s: list[float]
) -> None:
    time = FakeTime()
    quota = Quota(rate_per_s=1, refusal_latency_s=refusal_latency_s)
    scenario = build_scenario(quota, latency_s=0.5)
    async with opened(scenario, time) as emulator, aiohttp.ClientSession() as client:
        await ask(client, emulator)
        await ask(client, emulator)

    assert time.waits_s == waits_s


async def test_permits_are_granted_at_arrival_and_not_when_the_answer_is_due() -> None:
    time = FakeTime()

    async def advance(wait_s: float) -> None:
        time.now_s += wait_s

    scenario = build_scenario(Quota(rate_per_s=1), latency_s=0.9)
    emulating = open_emulator(scenario, now_s=NOW.timestamp, monotonic_s=time, sleep=advance)
    async with emulating as emulator, aiohttp.ClientSession() as client:
        statuses = [(await ask(client, emulator)).status for _ in range(3)]

    assert statuses == [200, 429, 200]


async def test_date_hint_is_by_the_services_clock() -> None:
    time = FakeTime()
    quota = Quota(rate_per_s=0.1, hint="retry-after-date")
    scenario = Scenario(anonymous=True, quota=quota, clock_offset_s=3600)
    async with opened(scenario, time) as emulator, aiohttp.ClientSession() as client:
        await ask(client, emulator)
        refused = await ask(client, emulator)

    date = parsedate_to_datetime(refused.headers["Date"])
    retry_at = parsedate_to_datetime(refused.headers["Retry-After"])
    assert (retry_at - date).total_seconds() == 10
    assert (date - NOW).total_seconds() == 3600


async def test_stats_have_each_seconds_permits_and_refusals() -> None:
    time = FakeTime()
    async with (
        opened(build_scenario(Quota(rate_per_s=2, burst=2)), time) as emulator,
        aiohttp.ClientSession() as client,
    ):
        for now_s, request_count in ((1000.0, 3), (1000.9, 1), (1002.5, 4)):
            time.now_s = now_s
            for _ in range(request_count):
                await ask(client, emulator)
        stats = emulator.stats()

    assert stats.quota_seconds == [(0, 3, 1), (2, 2, 2)]
    assert (stats.granted_count, stats.refused_count) == (5, 3)
    assert stats.count_quota(from_s=1) == (2, 2)
    assert stats.count_quota(until_s=2) == (3, 1)
    assert stats.request_counts == {"ListLivyComputeSessions": {"ok": 5, "Throttling.User": 3}}


async def test_reset_refills_the_quota_and_restarts_its_changes() -> None:
    time = FakeTime()
    quota = Quota(rate_per_s=1, burst=3, changes=(RateChange(rate_per_s=100, after_requests=5),))
    async with (
        opened(build_scenario(quota), time) as emulator,
        aiohttp.ClientSession() as client,
    ):
        for _ in range(5):
            await ask(client, emulator)
        emulator.reset()
        time.now_s += 0.1
        statuses = [(await ask(client, emulator)).status for _ in range(4)]

    assert statuses == [200, 200, 200, 429]
    assert emulator.stats().quota_seconds == [(0, 3, 1)]


@pytest.mark.parametrize(
    "settings",
    [
        {"rate_per_s": 0},
        {"rate_per_s": 1, "burst": 0},
        {"rate_per_s": 1, "window_s": 0},
        {"rate_per_s": 1, "hint_ms": -1},
        {"rate_per_s": 1, "refusal_latency_s": -1},
        {"rate_per_s": 1, "style": RefusalStyle(code="Throttling", status=200)},
        {"rate_per_s": 0.5, "kind": "fixed-window"},
    ],
    ids=str,
)
def test_impossible_quota_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        Quota(**settings)  # type: ignore[arg-type]  # wrong on purpose

    assert caught.value.hint is not None


@pytest.mark.parametrize("moments", [{}, {"at_s": 1.0, "after_requests": 1}], ids=str)
def test_change_of_the_quota_has_exactly_one_time(moments: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="one moment"):
        RateChange(rate_per_s=1, **moments)  # type: ignore[arg-type]  # wrong on purpose
