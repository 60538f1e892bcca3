"""Checks a request's action, identity, clock, signature and nonce; performs no I/O.

Codes and statuses follow the public error tables of Alibaba Cloud's API gateway, or the likeliest
where those disagree or have none. The order of the checks is not documented.
"""

from collections import OrderedDict
from datetime import datetime

from exporter.emulator.answers import RequestRefusedError
from exporter.emulator.calls import VERSION, Route
from exporter.emulator.scenario import Scenario
from exporter.emulator.signature import (
    ALGORITHM,
    Authorization,
    ReceivedRequest,
    build_canonical_request,
    build_string_to_sign,
    parse_authorization,
    signature_holds,
)

REQUIRED_HEADERS = (
    "host",
    "x-acs-action",
    "x-acs-version",
    "x-acs-date",
    "x-acs-signature-nonce",
    "x-acs-content-sha256",
)


class Authenticator:
    """Checks the requests of one account and remembers the nonces of correctly signed ones."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario = scenario
        # Oldest first. A nonce may be forgotten once its date is no longer accepted.
        self._nonces: OrderedDict[str, None] = OrderedDict()
        self.restart()

    def restart(self) -> None:
        """Make the first security token new again; nonces stay known."""
        self._first_request_s: float | None = None
        self._first_token_uses = 0

    def authenticate(self, request: ReceivedRequest, route: Route | None, *, now_s: float) -> Route:
        """The route to answer; `now_s` since 1970. Raises RequestRefusedError."""
        if self._scenario.anonymous and route is not None:
            return route
        known_route = check_action(request, route)
        authorization = check_form(request)
        if authorization.access_key_id != self._scenario.access_key_id:
            raise RequestRefusedError(
                404, "InvalidAccessKeyId.NotFound", "Specified access key is not found."
            )
        check_date(request, now_s=now_s, max_skew_s=self._scenario.max_clock_skew_s)
        check_signature(request, authorization, secret=self._scenario.access_key_secret)
        self._check_security_token(request.headers.get("x-acs-security-token"), now_s=now_s)
        self._check_nonce(request.headers["x-acs-signature-nonce"])
        self._first_token_uses += 1
        return known_route

    def _check_security_token(self, token: str | None, *, now_s: float) -> None:
        scenario = self._scenario
        if self._first_request_s is None:
            self._first_request_s = now_s
        if scenario.security_token is None and token is None:
            return
        if token is None:
            raise RequestRefusedError(
                400, "MissingSecurityToken", "The access key needs a security token."
            )
        expired = self._first_token_expired(now_s - self._first_request_s, now_s=now_s)
        if token == scenario.security_token:
            if expired:
                raise RequestRefusedError(
                    400, "InvalidSecurityToken.Expired", "The security token has expired."
                )
        elif token != scenario.next_security_token or not expired:
            raise RequestRefusedError(
                400,
                "InvalidSecurityToken.MismatchWithAccessKey",
                "The security token does not belong to the access key.",
            )

    def _first_token_expired(self, elapsed_s: float, *, now_s: float) -> bool:
        scenario = self._scenario
        expires_at = scenario.security_token_expires_at
        life_s = scenario.security_token_life_s
        uses = scenario.security_token_uses
        return (
            (expires_at is not None and now_s >= expires_at.timestamp())
            or (life_s is not None and elapsed_s >= life_s)
            or (uses is not None and self._first_token_uses >= uses)
        )

    def _check_nonce(self, nonce: str) -> None:
        if nonce in self._nonces:
            raise RequestRefusedError(
                400, "SignatureNonceUsed", "Specified signature nonce was used already."
            )
        self._nonces[nonce] = None
        if len(self._nonces) > self._scenario.nonce_memory:
            self._nonces.popitem(last=False)


def check_action(request: ReceivedRequest, route: Route | None) -> Route:
    action = request.headers.get("x-acs-action", "")
    version = request.headers.get("x-acs-version", "")
    if route is None or (request.method, action, version) != ("GET", route.call.value, VERSION):
        raise RequestRefusedError(
            404,
            "InvalidAction.NotFound",
            f"{request.method} {request.raw_path} is no call '{action}' of version '{version}'.",
        )
    return route


def check_form(request: ReceivedRequest) -> Authorization:
    """Require that the signature covers the common headers and any `x-acs-*`."""
    text = request.headers.get("authorization", "")
    if text != "" and not text.startswith(ALGORITHM):
        raise RequestRefusedError(
            400, "InvalidSignatureMethod", f"The signature method must be {ALGORITHM}."
        )
    authorization = parse_authorization(text)
    if authorization is None:
        raise RequestRefusedError(
            400, "IncompleteSignature", "The Authorization header is missing or malformed."
        )
    present = [name for name in request.headers if name.startswith("x-acs-")]
    for name in (*REQUIRED_HEADERS, *present):
        if request.headers.get(name, "") == "" or name not in authorization.signed_headers:
            raise RequestRefusedError(
                400, "IncompleteSignature", f"The header {name} is missing or not signed."
            )
    return authorization


def check_date(request: ReceivedRequest, *, now_s: float, max_skew_s: float) -> None:
    text = request.headers["x-acs-date"]
    try:
        if len(text) != len("2026-01-02T03:04:05Z") or text[10] + text[-1] != "TZ":
            raise ValueError(text)  # noqa: TRY301  # fromisoformat knows more forms than the service
        date_s = datetime.fromisoformat(text).timestamp()
    except ValueError as exc:
        raise RequestRefusedError(
            400, "InvalidTimeStamp.Format", "x-acs-date must look like 2026-01-02T03:04:05Z."
        ) from exc
    if abs(date_s - now_s) > max_skew_s:
        raise RequestRefusedError(
            400, "InvalidTimeStamp.Expired", "Specified time stamp or date value is expired."
        )


def check_signature(request: ReceivedRequest, authorization: Authorization, *, secret: str) -> None:
    if request.headers["x-acs-content-sha256"] != request.body_sha256:
        raise RequestRefusedError(
            400, "SignatureDoesNotMatch", f"The SHA-256 of the body is {request.body_sha256}."
        )
    canonical_request = build_canonical_request(request, authorization.signed_headers)
    string_to_sign = build_string_to_sign(canonical_request)
    if not signature_holds(authorization.signature, string_to_sign=string_to_sign, secret=secret):
        # The service repeats what it signed, including a security token: the client must not log
        # this message as it is.
        raise RequestRefusedError(
            400,
            "SignatureDoesNotMatch",
            "Specified signature is not matched with our calculation. "
            f"server StringToSign is [{string_to_sign}], "
            f"server CanonicalRequest is [{canonical_request}]",
        )
