import re
from collections import Counter
from datetime import UTC, datetime

import orjson
import pytest

from exporter.emulator.generated_list import GeneratedSessions, PageCache, SessionList
from exporter.emulator.scenario import EmulatedGateway, EmulatedWorkspace, Scenario
from exporter.errors import UsageError
from exporter.model import Gateway

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
NEWEST_MS = 1_782_820_800_000


def generate(
    session_count: int, *, gateway: Gateway = GATEWAY, seed: int = 7, cache_bytes: int = 0
) -> GeneratedSessions:
    return GeneratedSessions(
        gateway,
        seed=seed,
        session_count=session_count,
        newest_created_ms=NEWEST_MS,
        spacing_ms=60_000,
        cache=PageCache(cache_bytes),
    )


def read_rows(session_list: SessionList, page_num: int, page_size: int) -> list[object]:
    rows = orjson.loads(session_list.page(page_num, page_size).rows)
    assert isinstance(rows, list)
    return rows


def test_equal_seeds_give_equal_bytes_and_other_seeds_give_others() -> None:
    first = generate(500).page(2, 100)

    again = generate(500).page(2, 100)
    other_seed = generate(500, seed=8).page(2, 100)
    other_gateway = generate(500, gateway=Gateway("cn-hangzhou", "w-1", "lc-2")).page(2, 100)

    assert first == again
    assert len({first.rows, other_seed.rows, other_gateway.rows}) == 3


def test_session_ids_are_unique_and_look_like_the_services() -> None:
    ids = [session["sessionId"] for session in generate(20_000).sessions()]

    assert len(set(ids)) == 20_000
    assert all(re.fullmatch("livy-[0-9a-f]{16}", session_id) for session_id in ids)


@pytest.mark.parametrize("page_size", [1, 7, 20, 100])
def test_pages_tile_the_list(page_size: int) -> None:
    sessions = generate(203)
    page_count = -(-203 // page_size)

    rows = [
        row
        for page_num in range(1, page_count + 1)
        for row in read_rows(sessions, page_num, page_size)
    ]

    assert rows == list(sessions.sessions())


def test_page_past_the_end_is_empty_and_states_the_total() -> None:
    page = generate(203).page(4, 100)

    assert (page.total_count, page.rows) == (203, b"[]")


def test_empty_gateway_has_an_empty_first_page() -> None:
    page = generate(0).page(1, 100)

    assert (page.total_count, page.rows) == (0, b"[]")


def test_newest_session_comes_first_and_no_create_times_are_equal() -> None:
    times = [session["createTime"] for session in generate(5_000).sessions()]

    assert times == sorted(set(times), reverse=True)
    assert times[0] < NEWEST_MS


def test_only_the_newest_sessions_have_no_end() -> None:
    sessions = list(generate(1_000).sessions())

    states = Counter(session["state"] for session in sessions)
    without_end = [
        position for position, session in enumerate(sessions) if not session.get("endTime")
    ]

    assert without_end == [0, 1, 2, 3]
    assert {session["state"] for session in sessions[:4]} == {"starting", "running"}
    assert set(states) == {"starting", "running", "terminated", "error"}
    assert states["terminated"] > 10 * states["error"] > 0


def test_an_absent_end_is_written_in_all_three_ways() -> None:
    zero, null, absent = list(generate(1_000).sessions())[:3]

    assert zero["endTime"] == 0
    assert null["endTime"] is None
    assert "endTime" not in absent


def test_sessions_are_as_large_and_as_various_as_real_ones() -> None:
    page = generate(10_000).page(2, 1_000)
    sessions = orjson.loads(page.rows)

    assert 500 <= len(page.rows) / 1_000 <= 600
    assert 24 <= len({session["sparkConf"] for session in sessions}) <= 48
    assert all("conf" in orjson.loads(session["sparkConf"]) for session in sessions)
    assert any("驱动程序" in session["info"] for session in sessions)
    assert Counter(session["info"] for session in sessions)["null"] > 900


def test_session_keeps_its_values_when_newer_ones_are_before_it() -> None:
    spacing_ms = 60_000
    short = GeneratedSessions(
        GATEWAY,
        seed=7,
        session_count=100,
        newest_created_ms=NEWEST_MS,
        spacing_ms=spacing_ms,
        cache=PageCache(0),
    )
    grown = GeneratedSessions(
        GATEWAY,
        seed=7,
        session_count=105,
        newest_created_ms=NEWEST_MS + 5 * spacing_ms,
        spacing_ms=spacing_ms,
        cache=PageCache(0),
    )

    assert list(short.sessions())[4:] == list(grown.sessions())[9:]


def test_cache_changes_no_page_and_holds_no_more_than_its_bound() -> None:
    cache = PageCache(100_000)
    for number in range(10):
        cache.write((GATEWAY, number, 100), bytes(30_000))

    kept = [number for number in range(10) if cache.read((GATEWAY, number, 100)) is not None]
    cached = generate(500, cache_bytes=10**6)

    assert kept == [0, 1, 2]
    assert cached.page(1, 100) == cached.page(1, 100) == generate(500).page(1, 100)


def test_scenario_lists_each_gateway_with_its_own_sessions() -> None:
    scenario = Scenario(newest_created_at=datetime(2026, 1, 1, tzinfo=UTC))

    lists = scenario.build_session_lists()

    assert [str(gateway) for gateway in lists] == [
        "w-emulated-1/lc-emulated-1-1",
        "w-emulated-1/lc-emulated-1-2",
    ]
    assert all(sessions.page(1, 1).total_count == 12_000 for sessions in lists.values())


def test_repr_of_a_scenario_hides_its_secrets() -> None:
    scenario = Scenario(access_key_secret="hush", security_token="quiet")

    text = repr(scenario)

    assert "hush" not in text
    assert "quiet" not in text


def test_scenario_refuses_negative_latency() -> None:
    with pytest.raises(UsageError, match="latency_s is -1"):
        Scenario(latency_s=-1)


def test_scenario_refuses_a_page_size_of_zero() -> None:
    with pytest.raises(UsageError, match="max_page_size is 0"):
        Scenario(max_page_size=0)


def test_scenario_refuses_a_negative_number_of_sessions() -> None:
    gateway = EmulatedGateway(gateway_id="lc-1", name="one", session_count=-1)
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one", gateways=(gateway,))

    with pytest.raises(UsageError, match="session_count of lc-1 is -1"):
        Scenario(workspaces=(workspace,))


def test_scenario_refuses_two_workspaces_of_one_id() -> None:
    workspace = EmulatedWorkspace(workspace_id="w-1", name="one")

    with pytest.raises(UsageError, match="'w-1' occurs 2 times"):
        Scenario(workspaces=(workspace, workspace))
