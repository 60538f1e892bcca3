"""Plays a scenario: counts, checks, delays and answers each request."""

import hashlib
import random
from collections.abc import Callable, Mapping
from email.utils import formatdate
from functools import lru_cache
from typing import NamedTuple

from aiohttp import web

from exporter.emulator.answers import Answer, RequestRefusedError, build_refusal
from exporter.emulator.authentication import Authenticator
from exporter.emulator.calls import Call, Catalog, Route, parse_path
from exporter.emulator.faults import Fault, FaultPlan, InjectedFault, build_wrong_answer, spoil
from exporter.emulator.quota import Meter, build_quota_refusal
from exporter.emulator.scenario import Scenario
from exporter.emulator.signature import ReceivedRequest
from exporter.emulator.stats import StatsCounter
from exporter.emulator.wire import Listener, Sleep, build_response, send_faulty

STATS_PATH = "/emulator/stats"
"""GET, unsigned: EmulatorStats as JSON."""
RESET_PATH = "/emulator/reset"
"""POST, unsigned: restarts the scenario."""
TRUTH_PATH = "/emulator/truth"
"""GET, unsigned, with `workspace`, `gateway` and `first_answer` (from 1): Truth as JSON."""

_EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class Decision(NamedTuple):
    """The decision about a request at its arrival. A tuple, as each request makes one."""

    wait_s: float
    route: Route | None = None
    """None if it is refused."""
    refusal: RequestRefusedError | None = None
    injected: InjectedFault | None = None


class Service:
    """Answers requests of aiohttp's low-level server, which costs least."""

    def __init__(
        self,
        scenario: Scenario,
        *,
        now_s: Callable[[], float],
        monotonic_s: Callable[[], float],
        sleep: Sleep,
    ) -> None:
        self.scenario = scenario
        self.catalog = Catalog(scenario, now_s=monotonic_s)
        self.counter = StatsCounter()
        self.listener: Listener | None = None
        """Accepts the connections; None until it is set."""
        self._authenticator = Authenticator(scenario)
        self._meter = None if scenario.quota is None else Meter(scenario.quota)
        self._faults = None
        if scenario.faults:
            self._faults = FaultPlan(scenario.faults, seed=scenario.seed)
        self._machine_s = now_s
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._random = random.Random(scenario.seed)  # noqa: S311  # jitter is no secret
        self._answer_count = 0

    def restart(self) -> None:
        """Return to the state before the first request, but for nonces and jitter."""
        self.counter.reset()
        self.catalog.restart()
        self._authenticator.restart()
        if self._meter is not None:
            self._meter.restart()
        if self._faults is not None:
            self._faults.restart()

    async def respond(self, request: web.BaseRequest) -> web.StreamResponse:
        raw_path, _, raw_query = request.raw_path.partition("?")
        if (request.method, raw_path) == ("GET", STATS_PATH):
            return self._whole(Answer(200, self.counter.stats().to_json()))
        if (request.method, raw_path) == ("POST", RESET_PATH):
            self.restart()
            return self._whole(Answer(200, b"{}"))
        if (request.method, raw_path) == ("GET", TRUTH_PATH):
            return self._whole(self._answer_truth(request.query))

        route = parse_path(raw_path)
        call = "unknown" if route is None else route.call.value
        outcome = "broken"
        self.counter.request_started(request.transport, now_s=self._machine_s())
        try:
            received = await _receive(request, raw_path=raw_path, raw_query=raw_query)
            decision = self._decide(received, route)
            if decision.wait_s > 0:
                await self._sleep(decision.wait_s)
            if decision.injected is None:
                outcome, answer = self._answer(received, decision, self._next_request_id())
                return self._whole(answer)
            outcome = decision.injected.fault.value
            response = await self._send_faulty(request, received, decision, decision.injected)
        finally:
            self.counter.request_ended(call, outcome)
        if decision.injected.fault is Fault.REFUSED_CONNECTIONS and self.listener is not None:
            await self.listener.refuse(decision.injected.rule.refuse_s, sleep=self._sleep)
        return response

    def _decide(self, received: ReceivedRequest, route: Route | None) -> Decision:
        # Drawn even without jitter, so that each request keeps its random number.
        wait_s = self.scenario.latency_s + self.scenario.jitter_s * self._random.random()
        try:
            known_route = self._authenticator.authenticate(received, route, now_s=self._now_s())
        except RequestRefusedError as refusal:
            return Decision(wait_s, refusal=refusal)
        self.counter.request_authenticated()
        if self._meter is not None:
            over_quota = self._ask_quota(self._meter, known_route)
            if over_quota is not None:
                refusal_s = self._meter.quota.refusal_latency_s
                return Decision(wait_s if refusal_s is None else refusal_s, refusal=over_quota)
        return Decision(wait_s, known_route, injected=self._draw_fault(received, known_route))

    def _ask_quota(self, meter: Meter, route: Route) -> RequestRefusedError | None:
        now_s = self._monotonic_s()
        wait_s = meter.take(route.call.value, now_s=now_s)
        self.counter.quota_asked(granted=wait_s is None, now_s=now_s)
        if wait_s is None:
            return None
        return build_quota_refusal(meter.quota, wait_s=wait_s, now_s=self._now_s())

    def _draw_fault(self, received: ReceivedRequest, route: Route) -> InjectedFault | None:
        if self._faults is None:
            return None
        page_num = None
        if route.call is Call.LIST_SESSIONS:
            text = dict(received.query()).get("pageNum", "1")
            page_num = int(text) if text.isdecimal() and len(text) <= 10 else None
        gateway = f"{route.workspace_id}/{route.gateway_id}"
        injected = self._faults.draw(route.call.value, gateway=gateway, page_num=page_num)
        if injected is not None:
            self.counter.fault_injected(injected.fault.value)
        return injected

    def _answer(
        self, received: ReceivedRequest, decision: Decision, request_id: str
    ) -> tuple[str, Answer]:
        """The outcome for the stats, and the answer."""
        refusal = decision.refusal
        if decision.route is not None:
            try:
                query = dict(received.query())
                body = self.catalog.build_answer(decision.route, query, request_id=request_id)
                return "ok", Answer(200, body)
            except RequestRefusedError as exc:
                refusal = exc
        assert refusal is not None  # noqa: S101  # one of the two is set
        host = received.headers.get("host", "")
        return refusal.code, build_refusal(refusal, request_id=request_id, host=host)

    async def _send_faulty(
        self,
        request: web.BaseRequest,
        received: ReceivedRequest,
        decision: Decision,
        injected: InjectedFault,
    ) -> web.StreamResponse:
        host = received.headers.get("host", "")
        request_id = self._next_request_id()
        answer = build_wrong_answer(injected.fault, request_id=request_id, host=host)
        if answer is None:
            answer = spoil(self._answer(received, decision, request_id)[1], injected.fault)
        return await send_faulty(request, injected, answer, date=self._date(), sleep=self._sleep)

    def _answer_truth(self, query: Mapping[str, str]) -> Answer:
        try:
            return Answer(200, self.catalog.build_truth(query))
        except RequestRefusedError as refusal:
            return build_refusal(refusal, request_id=self._next_request_id(), host="")

    def _next_request_id(self) -> str:
        self._answer_count += 1
        return f"00000000-0000-4000-8000-{self._answer_count:012X}"

    def _whole(self, answer: Answer) -> web.Response:
        return build_response(answer, date=self._date())

    def _now_s(self) -> float:
        """The service's clock."""
        return self._machine_s() + self.scenario.clock_offset_s

    def _date(self) -> str:
        return format_date(int(self._now_s()))


@lru_cache(maxsize=1)
def format_date(now_s: int) -> str:
    return formatdate(now_s, usegmt=True)


async def _receive(request: web.BaseRequest, *, raw_path: str, raw_query: str) -> ReceivedRequest:
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        lower = name.lower()
        headers[lower] = f"{headers[lower]},{value}" if lower in headers else value
    body_sha256 = _EMPTY_SHA256
    if request.can_read_body:
        body_sha256 = hashlib.sha256(await request.read()).hexdigest()
    return ReceivedRequest(
        method=request.method,
        raw_path=raw_path,
        raw_query=raw_query,
        headers=headers,
        body_sha256=body_sha256,
    )
