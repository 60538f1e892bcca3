import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import anyio
import orjson
import pytest

from exporter.emulator.faults import SURVIVABLE, Fault, FaultPlan, FaultRule
from exporter.emulator.quota import Quota
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.server import Emulator, open_emulator
from exporter.errors import UsageError
from tests.support.patience import HANG_S

SESSIONS = "ListLivyComputeSessions"
WORKSPACES = "ListWorkspaces"
SESSIONS_PATH = "/api/v1/workspaces/w-emulated-1/livycompute/lc-emulated-1-1/session"
WORKSPACES_PATH = "/api/v1/workspaces"
CALM = Scenario(workspaces=build_workspaces(session_count=250), anonymous=True)

REFUSALS = {
    Fault.THROTTLING_USER_400: (400, "code", "Throttling.User"),
    Fault.THROTTLING_USER_429: (429, "code", "Throttling.User"),
    Fault.THROTTLING_USER_429_RPC: (429, "Code", "Throttling.User"),
    Fault.THROTTLING_API_429: (429, "code", "Throttling.Api"),
    Fault.THROTTLING_503: (503, "code", "Throttling"),
    Fault.THROTTLING_503_RPC: (503, "Code", "Throttling"),
    Fault.REJECTED_THROTTLING_429: (429, "code", "Rejected.Throttling"),
    Fault.ERROR_500: (500, "code", "InternalError"),
    Fault.ERROR_502: (502, "code", "InternalError"),
    Fault.ERROR_503: (503, "code", "ServiceUnavailable"),
    Fault.ERROR_504: (504, "code", "InternalError"),
    Fault.NONCE_USED: (400, "code", "SignatureNonceUsed"),
    Fault.NO_PERMISSION_429: (429, "code", "CCAI.TenantPermission.NoAuth"),
    Fault.TOLD_THROTTLING_200: (200, "code", "Throttling.User"),
}
PAGES_OF_HTML = {
    Fault.HTML_500: 500,
    Fault.HTML_502: 502,
    Fault.HTML_503: 503,
    Fault.HTML_504: 504,
    Fault.HTML_200: 200,
}
PROVEN_ALONE = {
    Fault.XML_503,
    Fault.GARBAGE,
    Fault.NULL,
    Fault.EMPTY_OBJECT,
    Fault.WITHOUT_SESSIONS,
    Fault.WITHOUT_TOTAL,
    Fault.TOLD_ERROR_200,
    Fault.NULL_ROW,
    Fault.ROW_WITHOUT_ID,
    Fault.LONE_SURROGATE,
    Fault.NOT_A_NUMBER,
    Fault.RESET,
    Fault.CLOSED,
    Fault.CUT_OFF,
    Fault.CUT_OFF_CHUNKED,
    Fault.HANG,
    Fault.SLOW_BODY,
    Fault.REFUSED_CONNECTIONS,
}
"""Each has a test of its own below."""


@dataclass(frozen=True)
class Seen:
    """Everything received over one connection."""

    status: int
    """0: no byte was received."""
    headers: dict[str, str]
    body: bytes
    """As sent; a chunked one with its chunks."""
    was_reset: bool


class FakeSleep:
    """Records the waits and returns at once."""

    def __init__(self) -> None:
        self.waits_s: list[float] = []

    async def __call__(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)


class Gate:
    """A sleep that lasts until it is opened."""

    def __init__(self) -> None:
        self.opened = anyio.Event()

    async def __call__(self, wait_s: float) -> None:
        await self.opened.wait()


@contextmanager
def hanging_is_told() -> Iterator[None]:
    with anyio.fail_after(HANG_S):
        yield


@asynccontextmanager
async def connected(
    emulator: Emulator,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    parts = urlsplit(emulator.endpoint)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110  # the emulator tells nobody when it counts
        await anyio.sleep(0.01)


async def ask(emulator: Emulator, path: str = SESSIONS_PATH) -> Seen:
    """Send one request over its own connection and read to the end of it."""
    received, was_reset = b"", False
    async with connected(emulator) as (reader, writer):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        try:
            while part := await reader.read(65_536):
                received += part
        except ConnectionResetError:
            was_reset = True
    if not received:
        return Seen(0, {}, b"", was_reset)
    head, _, body = received.partition(b"\r\n\r\n")
    status_line, *lines = head.decode().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return Seen(int(status_line.split()[1]), headers, body, was_reset)


def striking(fault: Fault, scenario: Scenario = CALM, **settings: float) -> Scenario:
    """The first request is hit, the next one answered."""
    rule = FaultRule(kinds=(fault,), requests=(1,), **settings)  # type: ignore[arg-type]  # only durations
    return replace(scenario, faults=(rule,))


async def ask_struck(fault: Fault) -> Seen:
    """The answer to the hit request, after a check that the next one is right."""
    with hanging_is_told():
        async with open_emulator(striking(fault)) as emulator:
            hit = await ask(emulator)
            right = await ask(emulator)
            stats = emulator.stats()

        assert len(orjson.loads(right.body)["sessions"]) == 20
        assert stats.request_counts == {SESSIONS: {fault.value: 1, "ok": 1}}
        assert stats.fault_counts == {fault.value: 1}
        assert stats.in_flight == 0
    return hit


async def right_body() -> bytes:
    async with open_emulator(CALM) as emulator:
        return (await ask(emulator)).body


def without_request_id(body: bytes) -> dict[str, object]:
    document = orjson.loads(body)
    assert isinstance(document, dict)
    del document["requestId"]
    return document


def test_every_fault_is_proven_on_the_wire() -> None:
    assert {*REFUSALS, *PAGES_OF_HTML, *PROVEN_ALONE} == set(Fault)


@pytest.mark.parametrize("fault", REFUSALS)
async def test_refusal_has_its_status_code_and_casing(fault: Fault) -> None:
    seen = await ask_struck(fault)

    status, key, code = REFUSALS[fault]
    assert seen.status == status
    assert seen.headers["content-type"].startswith("application/json")
    assert orjson.loads(seen.body)[key] == code


@pytest.mark.parametrize("fault", PAGES_OF_HTML)
async def test_page_of_html_comes_instead_of_json(fault: Fault) -> None:
    seen = await ask_struck(fault)

    assert seen.status == PAGES_OF_HTML[fault]
    assert seen.headers["content-type"] == "text/html"
    assert seen.body.startswith(b"<!DOCTYPE html>")


async def test_xml_error_is_typed_as_the_official_sdk_expects() -> None:
    seen = await ask_struck(Fault.XML_503)

    assert seen.status == 503
    assert seen.headers["content-type"] == "text/xml;charset=utf-8"
    assert b"<Error>" in seen.body
    assert b"<Code>ServiceUnavailable</Code>" in seen.body


async def test_garbage_is_a_200_that_is_neither_text_nor_json() -> None:
    seen = await ask_struck(Fault.GARBAGE)

    assert seen.status == 200
    with pytest.raises(UnicodeDecodeError):
        seen.body.decode()


@pytest.mark.parametrize(("fault", "body"), [(Fault.NULL, b"null"), (Fault.EMPTY_OBJECT, b"{}")])
async def test_empty_json_is_a_200_without_fields(fault: Fault, body: bytes) -> None:
    seen = await ask_struck(fault)

    assert (seen.status, seen.body) == (200, body)


@pytest.mark.parametrize(
    ("fault", "key"), [(Fault.WITHOUT_SESSIONS, "sessions"), (Fault.WITHOUT_TOTAL, "totalCount")]
)
async def test_answer_lacks_one_key_and_is_right_otherwise(fault: Fault, key: str) -> None:
    seen = await ask_struck(fault)

    right = without_request_id(await right_body())
    del right[key]
    assert seen.status == 200
    assert without_request_id(seen.body) == right


async def test_error_may_come_as_an_empty_list_with_a_success_status() -> None:
    seen = await ask_struck(Fault.TOLD_ERROR_200)

    answer = orjson.loads(seen.body)
    assert seen.status == 200
    assert (answer["code"], answer["success"], answer["sessions"]) == ("InternalError", False, [])


@pytest.mark.parametrize(
    ("fault", "field", "value"),
    [
        (Fault.NULL_ROW, None, None),
        (Fault.ROW_WITHOUT_ID, "sessionId", None),
        (Fault.LONE_SURROGATE, "name", "half of \ud83e"),
        (Fault.NOT_A_NUMBER, "cuHours", pytest.approx(float("nan"), nan_ok=True)),
    ],
)
async def test_one_row_in_the_middle_is_bad_and_the_others_are_right(
    fault: Fault, field: str | None, value: object
) -> None:
    seen = json.loads((await ask_struck(fault)).body)["sessions"]

    right = orjson.loads(await right_body())["sessions"]
    bad = seen.pop(10)
    was = right.pop(10)
    assert seen == right
    if field is None:
        assert bad is None
    else:
        assert bad.get(field) == value
        assert {**bad, field: was[field]} == was


async def test_reset_connection_brings_no_byte() -> None:
    seen = await ask_struck(Fault.RESET)

    assert seen == Seen(0, {}, b"", was_reset=True)


async def test_closed_connection_brings_no_byte() -> None:
    seen = await ask_struck(Fault.CLOSED)

    assert seen == Seen(0, {}, b"", was_reset=False)


async def test_cut_off_body_is_shorter_than_its_length_says() -> None:
    seen = await ask_struck(Fault.CUT_OFF)

    right = await right_body()
    assert seen.status == 200
    assert int(seen.headers["content-length"]) == len(right)
    assert seen.body == right[: len(right) // 2]


async def test_cut_off_chunked_body_has_no_last_chunk() -> None:
    seen = await ask_struck(Fault.CUT_OFF_CHUNKED)

    right = await right_body()
    half = right[: len(right) // 2]
    assert seen.headers["transfer-encoding"] == "chunked"
    assert seen.body == b"%x\r\n%b\r\n" % (len(half), half)


async def test_hanging_request_is_answered_right_after_its_time() -> None:
    sleep = FakeSleep()
    scenario = striking(Fault.HANG, hang_s=30)
    async with open_emulator(scenario, sleep=sleep) as emulator:
        seen = await ask(emulator)

    assert sum(sleep.waits_s) == pytest.approx(30)
    assert without_request_id(seen.body) == without_request_id(await right_body())


async def test_hanging_request_ends_when_its_client_is_gone() -> None:
    with hanging_is_told():
        async with open_emulator(striking(Fault.HANG, hang_s=3600)) as emulator:
            async with connected(emulator) as (_, writer):
                writer.write(f"GET {SESSIONS_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await until(lambda: emulator.stats().fault_counts == {"hang": 1})
                during = emulator.stats().in_flight
            await until(lambda: emulator.stats().in_flight == 0)

    assert during == 1
    assert emulator.stats().request_counts == {SESSIONS: {"hang": 1}}


async def test_slow_body_is_right_and_comes_in_parts_over_its_time() -> None:
    sleep = FakeSleep()
    async with open_emulator(striking(Fault.SLOW_BODY, slow_s=4), sleep=sleep) as emulator:
        seen = await ask(emulator)

    assert len(sleep.waits_s) == 10
    assert sum(sleep.waits_s) == pytest.approx(4)
    assert without_request_id(seen.body) == without_request_id(await right_body())


async def test_client_that_leaves_a_slow_body_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with hanging_is_told():
        async with open_emulator(striking(Fault.SLOW_BODY, slow_s=0.5)) as emulator:
            async with connected(emulator) as (reader, writer):
                writer.write(f"GET {SESSIONS_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                await reader.readuntil(b"\r\n\r\n")
            await until(lambda: emulator.stats().in_flight == 0)

            seen = await ask(emulator)

    assert seen.status == 200
    assert caplog.records == []


async def test_connections_are_refused_for_a_while_and_then_accepted_on_the_same_port() -> None:
    gate = Gate()
    scenario = striking(Fault.REFUSED_CONNECTIONS, refuse_s=0.1)
    with hanging_is_told():
        async with open_emulator(scenario, sleep=gate) as emulator:
            async with connected(emulator) as (reader, writer):
                hit = await ask(emulator)
                with pytest.raises(ConnectionRefusedError):
                    await ask(emulator)
                writer.write(f"GET {SESSIONS_PATH} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
                head_of_standing = await reader.readuntil(b"\r\n")
            gate.opened.set()
            seen = await ask_until_accepted(emulator)

    assert hit == Seen(0, {}, b"", was_reset=True)
    assert head_of_standing == b"HTTP/1.1 200 OK\r\n"
    assert seen.status == 200
    assert emulator.stats().request_counts == {SESSIONS: {"refused-connections": 1, "ok": 2}}


async def ask_until_accepted(emulator: Emulator) -> Seen:
    while True:
        try:
            return await ask(emulator)
        except ConnectionRefusedError:
            await anyio.sleep(0.01)


async def test_emulator_closes_while_connections_are_refused() -> None:
    with hanging_is_told():
        async with open_emulator(striking(Fault.REFUSED_CONNECTIONS, refuse_s=3600)) as emulator:
            await ask(emulator)

    with pytest.raises(ConnectionRefusedError):
        await ask(emulator)


async def test_every_session_is_read_although_half_of_all_answers_are_broken() -> None:
    rule = FaultRule(rate=0.5, hang_s=0.01, slow_s=0.01, refuse_s=0.01)
    scenario = replace(CALM, seed=3, faults=(rule,), quota=Quota(rate_per_s=1e6, burst=1000))
    sessions: list[object] = []
    with hanging_is_told():
        async with open_emulator(scenario) as emulator:
            for page_num in range(1, 26):
                path = f"{SESSIONS_PATH}?pageSize=10&pageNum={page_num}"
                sessions += await ask_until_right(emulator, path)
            right = list(emulator.sessions("w-emulated-1", "lc-emulated-1-1"))

    stats = emulator.stats()
    assert sessions == right
    assert 10 <= sum(stats.fault_counts.values()) <= 50
    assert stats.granted_count == stats.request_count


async def ask_until_right(emulator: Emulator, path: str) -> list[object]:
    while True:
        try:
            seen = await ask(emulator, path)
            document = orjson.loads(seen.body)
            if seen.status == 200 and document["totalCount"] == 250:
                return list(document["sessions"])
        except (ConnectionRefusedError, orjson.JSONDecodeError, KeyError, TypeError):
            await anyio.sleep(0.005)


async def test_requests_refused_by_quota_or_authentication_are_not_hit() -> None:
    rule = FaultRule(kinds=(Fault.ERROR_500,), rate=1.0)
    scenario = replace(CALM, faults=(rule,), quota=Quota(rate_per_s=0.001, burst=2))
    async with open_emulator(scenario) as emulator:
        statuses = [(await ask(emulator)).status for _ in range(3)]
        unknown = await ask(emulator, "/nowhere")

    assert statuses == [500, 500, 429]
    assert unknown.status == 404
    assert emulator.stats().fault_counts == {"500": 2}


async def test_reset_restarts_the_faults() -> None:
    async with open_emulator(striking(Fault.ERROR_500)) as emulator:
        before = [(await ask(emulator)).status for _ in range(2)]
        emulator.reset()
        after = [(await ask(emulator)).status for _ in range(2)]

    assert before == after == [500, 200]


def draw_all(plan: FaultPlan, count: int, call: str = SESSIONS) -> list[Fault | None]:
    strikes = [plan.draw(call) for _ in range(count)]
    return [None if injected is None else injected.fault for injected in strikes]


def test_rate_hits_its_share_with_every_kind_alike() -> None:
    plan = FaultPlan((FaultRule(rate=0.1),), seed=5)

    hit = Counter(draw_all(plan, 30_000))

    assert hit[None] == pytest.approx(27_000, rel=0.01)
    assert {kind: hit[kind] for kind in SURVIVABLE} == {
        kind: pytest.approx(3_000 / len(SURVIVABLE), rel=0.5) for kind in SURVIVABLE
    }


def test_fault_of_a_request_depends_only_on_seed_and_number() -> None:
    rules = (FaultRule(rate=0.3),)

    first, again = (draw_all(FaultPlan(rules, seed=5), 200) for _ in range(2))
    other = draw_all(FaultPlan(rules, seed=6), 200)
    mixed_plan = FaultPlan(rules, seed=5)
    mixed = [
        mixed_plan.draw(SESSIONS, gateway=str(number), page_num=number) for number in range(200)
    ]

    assert first == again
    assert first != other
    assert [None if injected is None else injected.fault for injected in mixed] == first


def test_rules_of_one_plan_hit_independently() -> None:
    rule = FaultRule(kinds=(Fault.RESET,), rate=0.5)
    other = FaultRule(kinds=(Fault.HANG,), rate=0.5)

    hit = Counter(draw_all(FaultPlan((rule, other), seed=1), 10_000))

    assert hit[Fault.RESET] == pytest.approx(5_000, rel=0.05)
    assert hit[Fault.HANG] == pytest.approx(2_500, rel=0.05)


def test_only_listed_requests_are_hit() -> None:
    plan = FaultPlan((FaultRule(kinds=(Fault.RESET,), requests=(2, 5)),), seed=1)

    assert [number for number, fault in enumerate(draw_all(plan, 9), start=1) if fault] == [2, 5]


def test_rate_applies_from_its_first_to_its_last_request() -> None:
    rule = FaultRule(kinds=(Fault.ERROR_503,), rate=1.0, from_request=4, until_request=6)
    plan = FaultPlan((rule,), seed=1)

    assert [number for number, fault in enumerate(draw_all(plan, 9), start=1) if fault] == [4, 5, 6]


def test_listed_page_is_hit_its_number_of_times_in_each_gateway() -> None:
    plan = FaultPlan((FaultRule(kinds=(Fault.RESET,), page_nums=(3,), times=2),), seed=1)
    asked = [("a", 3), ("a", 2), ("b", 3), ("a", 3), ("a", 3), ("b", 3), ("b", 3)]

    hit = [
        plan.draw(SESSIONS, gateway=gateway, page_num=page_num) is not None
        for gateway, page_num in asked
    ]

    assert hit == [True, False, True, True, False, True, False]


def test_rule_of_one_call_leaves_the_others_alone() -> None:
    rule = FaultRule(kinds=(Fault.RESET,), rate=1.0, calls=("ListWorkspaces",))
    plan = FaultPlan((rule,), seed=1)

    assert draw_all(plan, 1, SESSIONS) == [None]
    assert draw_all(plan, 1, WORKSPACES) == [Fault.RESET]


@pytest.mark.parametrize("fault", [Fault.WITHOUT_SESSIONS, Fault.WITHOUT_TOTAL])
def test_faults_of_session_pages_hit_no_other_call(fault: Fault) -> None:
    plan = FaultPlan((FaultRule(kinds=(fault,), rate=1.0),), seed=1)

    assert draw_all(plan, 2, WORKSPACES) == [None, None]


async def test_other_calls_are_hit_too() -> None:
    async with open_emulator(striking(Fault.ERROR_502)) as emulator:
        seen = await ask(emulator, WORKSPACES_PATH)

    assert seen.status == 502
    assert emulator.stats().request_counts == {WORKSPACES: {"502": 1}}


async def test_unreadable_page_number_is_refused_as_usual() -> None:
    rule = FaultRule(kinds=(Fault.RESET,), page_nums=(1,))
    async with open_emulator(replace(CALM, faults=(rule,))) as emulator:
        seen = await ask(emulator, f"{SESSIONS_PATH}?pageNum=one")

    assert orjson.loads(seen.body)["code"] == "InvalidParameter"


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"rate": 1.1},
        {"rate": -0.1},
        {"rate": 0.1, "kinds": ()},
        {"rate": 0.1, "hang_s": -1},
        {"requests": (0,)},
        {"page_nums": (0,)},
        {"page_nums": (1,), "times": 0},
        {"rate": 0.1, "from_request": 0},
    ],
    ids=str,
)
def test_impossible_rule_is_refused(settings: dict[str, object]) -> None:
    with pytest.raises(UsageError) as caught:
        FaultRule(**settings)  # type: ignore[arg-type]  # wrong on purpose

    assert caught.value.hint is not None
