"""Injects faults into answers; performs no I/O.

A fault replaces an answer or damages it. The sessions behind it stay as they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import orjson

from exporter.emulator.answers import Answer, RefusalStyle, RequestRefusedError, build_refusal
from exporter.emulator.generated_list import mix64
from exporter.emulator.ranges import require_min
from exporter.errors import UsageError


class Fault(Enum):
    """The values are the names in scenario files and in the outcomes of the stats."""

    THROTTLING_USER_400 = "throttling-user-400"
    THROTTLING_USER_429 = "throttling-user-429"
    THROTTLING_USER_429_RPC = "throttling-user-429-rpc"
    THROTTLING_API_429 = "throttling-api-429"
    THROTTLING_503 = "throttling-503"
    THROTTLING_503_RPC = "throttling-503-rpc"
    REJECTED_THROTTLING_429 = "rejected-throttling-429"
    ERROR_500 = "500"
    ERROR_502 = "502"
    ERROR_503 = "503"
    ERROR_504 = "504"
    HTML_500 = "500-html"
    HTML_502 = "502-html"
    HTML_503 = "503-html"
    HTML_504 = "504-html"
    XML_503 = "503-xml"
    NONCE_USED = "nonce-used"
    NO_PERMISSION_429 = "no-permission-429"
    """A permanent refusal with a status of throttling."""
    GARBAGE = "garbage"
    HTML_200 = "html"
    NULL = "null"
    EMPTY_OBJECT = "empty-object"
    WITHOUT_SESSIONS = "without-sessions"
    WITHOUT_TOTAL = "without-total"
    TOLD_ERROR_200 = "told-error-200"
    """An empty list in a body that says that the service failed."""
    TOLD_THROTTLING_200 = "told-throttling-200"
    NULL_ROW = "null-row"
    """A row in the middle of the page is null."""
    ROW_WITHOUT_ID = "row-without-id"
    LONE_SURROGATE = "lone-surrogate"
    """A row's name holds half a surrogate pair, which JSON can escape and UTF-8 cannot encode."""
    NOT_A_NUMBER = "not-a-number"
    """A row's `cuHours` is NaN."""
    RESET = "reset"
    """The connection is reset before any byte of the answer."""
    CLOSED = "closed"
    """The connection is closed without a reset, before any byte of the answer."""
    CUT_OFF = "cut-off"
    """The connection is closed after half of the body that Content-Length announced."""
    CUT_OFF_CHUNKED = "cut-off-chunked"
    """The connection is closed after half of a chunked body, without the last chunk."""
    HANG = "hang"
    """The right answer, after a long silence."""
    SLOW_BODY = "slow-body"
    """The right answer, its body in many small parts over a while."""
    REFUSED_CONNECTIONS = "refused-connections"
    """The connection is reset, and new ones are refused for a while; other open ones continue."""


BAD_ROWS = frozenset(
    {Fault.NULL_ROW, Fault.ROW_WITHOUT_ID, Fault.LONE_SURROGATE, Fault.NOT_A_NUMBER}
)
"""These answers are valid: a client does not retry them."""

SURVIVABLE = tuple(fault for fault in Fault if fault not in {Fault.NO_PERMISSION_429, *BAD_ROWS})
"""A retried request may succeed after these."""

REFUSALS: Mapping[Fault, RefusalStyle] = {
    Fault.THROTTLING_USER_400: RefusalStyle(code="Throttling.User", status=400),
    Fault.THROTTLING_USER_429: RefusalStyle(code="Throttling.User", status=429),
    Fault.THROTTLING_USER_429_RPC: RefusalStyle(code="Throttling.User", status=429, casing="rpc"),
    Fault.THROTTLING_API_429: RefusalStyle(code="Throttling.Api", status=429),
    Fault.THROTTLING_503: RefusalStyle(code="Throttling", status=503),
    Fault.THROTTLING_503_RPC: RefusalStyle(code="Throttling", status=503, casing="rpc"),
    Fault.REJECTED_THROTTLING_429: RefusalStyle(code="Rejected.Throttling", status=429),
    Fault.ERROR_500: RefusalStyle(code="InternalError", status=500),
    Fault.ERROR_502: RefusalStyle(code="InternalError", status=502),
    Fault.ERROR_503: RefusalStyle(code="ServiceUnavailable", status=503),
    Fault.ERROR_504: RefusalStyle(code="InternalError", status=504),
    Fault.NONCE_USED: RefusalStyle(code="SignatureNonceUsed", status=400),
    Fault.NO_PERMISSION_429: RefusalStyle(code="CCAI.TenantPermission.NoAuth", status=429),
    Fault.TOLD_THROTTLING_200: RefusalStyle(code="Throttling.User", status=200),
}

HTML_TITLES: Mapping[Fault, tuple[int, str]] = {
    Fault.HTML_500: (500, "Internal Server Error"),
    Fault.HTML_502: (502, "Bad Gateway"),
    Fault.HTML_503: (503, "Service Temporarily Unavailable"),
    Fault.HTML_504: (504, "Gateway Time-out"),
    Fault.HTML_200: (200, "Welcome"),
}

WITHOUT_ANSWER = frozenset({Fault.RESET, Fault.CLOSED, Fault.REFUSED_CONNECTIONS})

WRONG_BODIES: Mapping[Fault, bytes] = {
    Fault.GARBAGE: b"\x1f\x8b\x00garbage\xff\xfe{",
    Fault.NULL: b"null",
    Fault.EMPTY_OBJECT: b"{}",
    Fault.TOLD_ERROR_200: b'{"code":"InternalError","success":false,"totalCount":0,"sessions":[]}',
}

MISSING_KEYS: Mapping[Fault, str] = {
    Fault.WITHOUT_SESSIONS: "sessions",
    Fault.WITHOUT_TOTAL: "totalCount",
}
SESSIONS_CALL_ONLY = frozenset({*MISSING_KEYS, *BAD_ROWS})
"""These hit no other call."""

SESSIONS_CALL = "ListLivyComputeSessions"

CallName = Literal["ListWorkspaces", "ListLivyCompute", "ListLivyComputeSessions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """The requests that are hit, at random, by number or by page, and the faults that hit them.

    Only authenticated requests that the quota granted are hit and counted. Raises UsageError for a
    number out of its range, and for a rule that hits nothing.
    """

    kinds: tuple[Fault, ...] = SURVIVABLE
    """Each hit draws one of them."""
    rate: float = 0.0
    """Random share of requests, from 0 to 1."""
    from_request: int = 1
    """First request that `rate` applies to, from 1."""
    until_request: int | None = None
    """Last such request; None: no end."""
    requests: tuple[int, ...] = ()
    """Numbers of requests by arrival, from 1, over all calls."""
    page_nums: tuple[int, ...] = ()
    """Pages of each gateway's sessions."""
    times: int = 1
    """How often each of `page_nums` is hit."""
    calls: tuple[CallName, ...] = ()
    """Calls that `rate` and `requests` apply to; empty: all."""
    hang_s: float = 60.0
    """Duration of HANG."""
    slow_s: float = 2.0
    """Duration of SLOW_BODY."""
    refuse_s: float = 0.5
    """Duration of REFUSED_CONNECTIONS."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(f"a fault's rate is {self.rate:g}", hint="give a share from 0 to 1")
        require_min(self, 0, "hang_s", "slow_s", "refuse_s")
        if min(self.from_request, self.times, *self.requests, *self.page_nums) < 1:
            raise UsageError(
                "a fault counts from 1",
                hint="give 1 or more as from_request, times, requests and page_nums",
            )
        if not self.kinds or (self.rate == 0 and not self.requests and not self.page_nums):
            raise UsageError(
                "a fault that strikes nothing", hint="give kinds, and a rate, requests or page_nums"
            )


@dataclass(frozen=True, slots=True)
class InjectedFault:
    fault: Fault
    rule: FaultRule


class FaultPlan:
    """Draws the faults of requests: a function of the seed, their numbers and their pages."""

    def __init__(self, rules: tuple[FaultRule, ...], *, seed: int) -> None:
        self._rules = rules
        self._streams = [mix64((seed << 8 | index) & MASK) for index in range(len(rules))]
        self.restart()

    def restart(self) -> None:
        """Return to the state before the first request."""
        self._request_count = 0
        # Hits by rule, gateway and page.
        self._page_hits: dict[tuple[int, str, int], int] = {}

    def draw(
        self, call: str, *, gateway: str = "", page_num: int | None = None
    ) -> InjectedFault | None:
        """The fault of the next request, from the first rule that hits it; None: no fault.

        `gateway` is any unique name; `page_num` is None for calls without pages.
        """
        self._request_count += 1
        for index, rule in enumerate(self._rules):
            kinds = [
                kind
                for kind in rule.kinds
                if call == SESSIONS_CALL or kind not in SESSIONS_CALL_ONLY
            ]
            bits = mix64(self._streams[index] + self._request_count * GOLDEN & MASK)
            hit = self._hits(rule, call, bits=bits) or self._hits_page(
                index, gateway=gateway, page_num=page_num
            )
            if hit and kinds:
                return InjectedFault(kinds[mix64(bits) % len(kinds)], rule)
        return None

    def _hits(self, rule: FaultRule, call: str, *, bits: int) -> bool:
        number = self._request_count
        if rule.calls and call not in rule.calls:
            return False
        if number in rule.requests:
            return True
        last = number if rule.until_request is None else rule.until_request
        return rule.from_request <= number <= last and bits < rule.rate * (MASK + 1)

    def _hits_page(self, index: int, *, gateway: str, page_num: int | None) -> bool:
        rule = self._rules[index]
        if page_num is None or page_num not in rule.page_nums:
            return False
        key = (index, gateway, page_num)
        hit_count = self._page_hits.get(key, 0)
        self._page_hits[key] = hit_count + 1
        return hit_count < rule.times


MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
"""The step of splitmix64, whose last step is `mix64`."""


def build_wrong_answer(fault: Fault, *, request_id: str, host: str) -> Answer | None:
    """The answer that replaces the right one; None if the fault needs that one."""
    if fault in WITHOUT_ANSWER:
        return Answer(200, b"")
    if fault in REFUSALS:
        style = REFUSALS[fault]
        refusal = RequestRefusedError(
            style.status,
            style.code,
            "This fault was injected by the emulator.",
            casing=style.casing,
        )
        return build_refusal(refusal, request_id=request_id, host=host)
    if fault in HTML_TITLES:
        status, title = HTML_TITLES[fault]
        html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body></body></html>"
        return Answer(status, html.encode(), content_type="text/html")
    if fault in WRONG_BODIES:
        return Answer(200, WRONG_BODIES[fault])
    if fault is Fault.XML_503:
        xml = (
            f"<?xml version='1.0' encoding='UTF-8'?><Error><RequestId>{request_id}</RequestId>"
            "<Code>ServiceUnavailable</Code><Message>The service is busy.</Message></Error>"
        )
        # The content type by which the official SDK recognises XML.
        return Answer(503, xml.encode(), content_type="text/xml;charset=utf-8")
    return None


def spoil(answer: Answer, fault: Fault) -> Answer:
    """The right answer, its body damaged if the fault is one of the body."""
    if fault not in SESSIONS_CALL_ONLY:
        return answer
    document = orjson.loads(answer.body)
    if fault in MISSING_KEYS:
        document.pop(MISSING_KEYS[fault], None)
    elif document.get("sessions"):
        rows = document["sessions"]
        rows[len(rows) // 2] = spoil_row(rows[len(rows) // 2], fault)
    # orjson writes strict JSON only, without NaN and lone surrogates.
    return answer._replace(body=json.dumps(document, separators=(",", ":")).encode())


def spoil_row(row: dict[str, Any], fault: Fault) -> dict[str, Any] | None:
    match fault:
        case Fault.NULL_ROW:
            return None
        case Fault.ROW_WITHOUT_ID:
            return {name: value for name, value in row.items() if name != "sessionId"}
        case Fault.LONE_SURROGATE:
            return {**row, "name": "half of \ud83e"}
        case Fault.NOT_A_NUMBER:
            return {**row, "cuHours": float("nan")}
        case _:
            return row
