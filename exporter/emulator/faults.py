"""What goes wrong with answers, and which requests it strikes; performs no I/O.

A fault takes the place of an answer or spoils it. The sessions behind stay what they are.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

import orjson

from exporter.emulator.answers import Answer, RefusalStyle, RequestRefusedError, build_refusal
from exporter.emulator.generated_list import mix64
from exporter.errors import UsageError


class Fault(Enum):
    """The value is the fault's name in scenario files and among the outcomes of the stats."""

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
    """A lasting refusal with the status of throttling."""
    GARBAGE = "garbage"
    HTML_200 = "html"
    NULL = "null"
    EMPTY_OBJECT = "empty-object"
    WITHOUT_SESSIONS = "without-sessions"
    WITHOUT_TOTAL = "without-total"
    TOLD_ERROR_200 = "told-error-200"
    """An empty list that says of itself that the service failed."""
    TOLD_THROTTLING_200 = "told-throttling-200"
    NULL_ROW = "null-row"
    """A row in the middle of the page is null."""
    ROW_WITHOUT_ID = "row-without-id"
    LONE_SURROGATE = "lone-surrogate"
    """A row's name holds half of a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    NOT_A_NUMBER = "not-a-number"
    """A row's `cuHours` is NaN."""
    RESET = "reset"
    """The connection is reset before any byte of the answer."""
    CLOSED = "closed"
    """The connection is closed properly before any byte of the answer."""
    CUT_OFF = "cut-off"
    """Half of the body comes, then the connection is closed; its Content-Length told the whole."""
    CUT_OFF_CHUNKED = "cut-off-chunked"
    """Half of a chunked body comes, then the connection is closed without the last chunk."""
    HANG = "hang"
    """Nothing comes for a while; after that the right answer."""
    SLOW_BODY = "slow-body"
    """The right answer, its body in many small parts over a while."""
    REFUSED_CONNECTIONS = "refused-connections"
    """The connection is reset, and new ones are refused for a while; those that stand go on."""


BAD_ROWS = frozenset(
    {Fault.NULL_ROW, Fault.ROW_WITHOUT_ID, Fault.LONE_SURROGATE, Fault.NOT_A_NUMBER}
)
"""An answer that holds: it is not asked for again."""

SURVIVABLE = tuple(fault for fault in Fault if fault not in {Fault.NO_PERMISSION_429, *BAD_ROWS})
"""Those after which the same question, asked again, may well be answered."""

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

UNSAID = frozenset({Fault.RESET, Fault.CLOSED, Fault.REFUSED_CONNECTIONS})

FALSE_BODIES: Mapping[Fault, bytes] = {
    Fault.GARBAGE: b"\x1f\x8b\x00garbage\xff\xfe{",
    Fault.NULL: b"null",
    Fault.EMPTY_OBJECT: b"{}",
    Fault.TOLD_ERROR_200: b'{"code":"InternalError","success":false,"totalCount":0,"sessions":[]}',
}

MISSING_KEYS: Mapping[Fault, str] = {
    Fault.WITHOUT_SESSIONS: "sessions",
    Fault.WITHOUT_TOTAL: "totalCount",
}
SESSIONS_ALONE = frozenset({*MISSING_KEYS, *BAD_ROWS})
"""No other call is struck by these."""

SESSIONS_CALL = "ListLivyComputeSessions"

CallName = Literal["ListWorkspaces", "ListLivyCompute", "ListLivyComputeSessions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultRule:
    """Which requests are struck, and by what: by chance, by their number, by the page they ask for.

    Only requests of a good identity that the quota let pass are struck and counted. Raises
    UsageError where a number is out of its range, and for a rule that strikes nothing.
    """

    kinds: tuple[Fault, ...] = SURVIVABLE
    """One of them at a time, by chance."""
    rate: float = 0.0
    """Share of requests, from 0 to 1."""
    from_request: int = 1
    """The first request, counted from 1, to which `rate` applies."""
    until_request: int | None = None
    """The last such request; None: there is no last one."""
    requests: tuple[int, ...] = ()
    """Numbers of requests, counted from 1 in the order of their arrival, over all calls."""
    page_nums: tuple[int, ...] = ()
    """Pages of each gateway's sessions."""
    times: int = 1
    """How often each of `page_nums` is struck before it is answered."""
    calls: tuple[CallName, ...] = ()
    """Calls that `rate` and `requests` apply to; none: to all."""
    hang_s: float = 60.0
    """How long HANG says nothing."""
    slow_s: float = 2.0
    """How long SLOW_BODY takes."""
    refuse_s: float = 0.5
    """How long REFUSED_CONNECTIONS lasts."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise UsageError(f"a fault's rate is {self.rate:g}", hint="give a share from 0 to 1")
        for name in ("hang_s", "slow_s", "refuse_s"):
            if getattr(self, name) < 0:
                raise UsageError(f"{name} is {getattr(self, name):g}", hint="give 0 or more")
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
class Strike:
    fault: Fault
    rule: FaultRule


class FaultPlan:
    """Each request's fate: a function of the seed, its number, and which pages were asked for."""

    def __init__(self, rules: tuple[FaultRule, ...], *, seed: int) -> None:
        self._rules = rules
        self._streams = [mix64((seed << 8 | index) & MASK) for index in range(len(rules))]
        self.restart()

    def restart(self) -> None:
        """As before the first request."""
        self._request_count = 0
        # By rule, gateway and page.
        self._page_strikes: dict[tuple[int, str, int], int] = {}

    def draw(self, call: str, *, gateway: str = "", page_num: int | None = None) -> Strike | None:
        """What strikes the next request; the first rule that does decides.

        `gateway` is any name that tells gateways apart, `page_num` None where no page is asked for.
        """
        self._request_count += 1
        for index, rule in enumerate(self._rules):
            kinds = [
                kind for kind in rule.kinds if call == SESSIONS_CALL or kind not in SESSIONS_ALONE
            ]
            bits = mix64(self._streams[index] + self._request_count * GOLDEN & MASK)
            struck = self._strikes(rule, call, bits=bits) or self._strikes_page(
                index, gateway=gateway, page_num=page_num
            )
            if struck and kinds:
                return Strike(kinds[mix64(bits) % len(kinds)], rule)
        return None

    def _strikes(self, rule: FaultRule, call: str, *, bits: int) -> bool:
        number = self._request_count
        if rule.calls and call not in rule.calls:
            return False
        if number in rule.requests:
            return True
        last = number if rule.until_request is None else rule.until_request
        return rule.from_request <= number <= last and bits < rule.rate * (MASK + 1)

    def _strikes_page(self, index: int, *, gateway: str, page_num: int | None) -> bool:
        rule = self._rules[index]
        if page_num is None or page_num not in rule.page_nums:
            return False
        key = (index, gateway, page_num)
        former = self._page_strikes.get(key, 0)
        self._page_strikes[key] = former + 1
        return former < rule.times


MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
"""The step of splitmix64, whose last step is `mix64`."""


def build_false_answer(fault: Fault, *, request_id: str, host: str) -> Answer | None:
    """What is said instead of the right answer; None where the fault needs that one."""
    if fault in UNSAID:
        return Answer(200, b"")
    if fault in REFUSALS:
        style = REFUSALS[fault]
        refusal = RequestRefusedError(
            style.status, style.code, "The emulator was told to say so.", casing=style.casing
        )
        return build_refusal(refusal, request_id=request_id, host=host)
    if fault in HTML_TITLES:
        status, title = HTML_TITLES[fault]
        html = f"<!DOCTYPE html><html><head><title>{title}</title></head><body></body></html>"
        return Answer(status, html.encode(), content_type="text/html")
    if fault in FALSE_BODIES:
        return Answer(200, FALSE_BODIES[fault])
    if fault is Fault.XML_503:
        xml = (
            f"<?xml version='1.0' encoding='UTF-8'?><Error><RequestId>{request_id}</RequestId>"
            "<Code>ServiceUnavailable</Code><Message>The service is busy.</Message></Error>"
        )
        # Spelled as the official SDK expects it of XML.
        return Answer(503, xml.encode(), content_type="text/xml;charset=utf-8")
    return None


def spoil(answer: Answer, fault: Fault) -> Answer:
    """The right answer without what the fault takes away; whole where only its way is at fault."""
    if fault not in SESSIONS_ALONE:
        return answer
    document = orjson.loads(answer.body)
    if fault in MISSING_KEYS:
        document.pop(MISSING_KEYS[fault], None)
    elif document.get("sessions"):
        rows = document["sessions"]
        rows[len(rows) // 2] = spoil_row(rows[len(rows) // 2], fault)
    # Of what can be wrong with a row, strict JSON cannot say all.
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
