import hashlib
import hmac
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from exporter.emulator.answers import RequestRefusedError
from exporter.emulator.authentication import Authenticator
from exporter.emulator.calls import Call, Route
from exporter.emulator.scenario import Scenario
from exporter.emulator.signature import ReceivedRequest
from exporter.errors import UsageError

NOW = datetime(2026, 7, 1, 12, tzinfo=UTC)
ROUTE = Route(Call.LIST_WORKSPACES)
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


def sign(
    scenario: Scenario,
    *,
    at: datetime = NOW,
    nonce: str = "n1",
    unsigned: tuple[str, ...] = (),
    **more: str,
) -> ReceivedRequest:
    """A request for workspaces; `more` adds or replaces headers, with `_` for `-`."""
    headers = {
        "host": "127.0.0.1:80",
        "x-acs-action": "ListWorkspaces",
        "x-acs-version": "2023-08-08",
        "x-acs-date": at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "x-acs-signature-nonce": nonce,
        "x-acs-content-sha256": EMPTY_SHA256,
    }
    if scenario.security_token is not None:
        headers["x-acs-security-token"] = scenario.security_token
    headers |= {name.replace("_", "-"): value for name, value in more.items()}
    names = sorted(headers.keys() - set(unsigned))
    canonical = "\n".join(
        [
            "GET",
            "/api/v1/workspaces",
            "",
            *(f"{name}:{headers[name]}" for name in names),
            "",
            ";".join(names),
            headers["x-acs-content-sha256"],
        ]
    )
    text = f"ACS3-HMAC-SHA256\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.digest(scenario.access_key_secret.encode(), text.encode(), "sha256").hex()
    headers["authorization"] = (
        f"ACS3-HMAC-SHA256 Credential={scenario.access_key_id},"
        f"SignedHeaders={';'.join(names)},Signature={signature}"
    )
    return ReceivedRequest(
        method="GET",
        raw_path="/api/v1/workspaces",
        raw_query="",
        headers=headers,
        body_sha256=EMPTY_SHA256,
    )


def without(request: ReceivedRequest, name: str) -> ReceivedRequest:
    headers = {other: value for other, value in request.headers.items() if other != name}
    return replace(request, headers=headers)


def refuse(
    request: ReceivedRequest, *, scenario: Scenario | None = None, route: Route | None = ROUTE
) -> RequestRefusedError:
    with pytest.raises(RequestRefusedError) as caught:
        Authenticator(scenario or Scenario()).authenticate(request, route, now_s=NOW.timestamp())
    return caught.value


def test_correctly_signed_request_is_accepted() -> None:
    scenario = Scenario()

    route = Authenticator(scenario).authenticate(sign(scenario), ROUTE, now_s=NOW.timestamp())

    assert route is ROUTE


def test_refusal_of_a_wrong_secret_repeats_what_was_signed_and_no_secret() -> None:
    scenario = Scenario(access_key_secret="the-right-secret")
    request = sign(replace(scenario, access_key_secret="a-wrong-secret"))

    refusal = refuse(request, scenario=scenario)

    assert (refusal.status, refusal.code) == (400, "SignatureDoesNotMatch")
    assert "StringToSign is [ACS3-HMAC-SHA256\n" in refusal.message
    assert "secret" not in refusal.message


def test_changed_header_breaks_the_signature() -> None:
    request = sign(Scenario())
    request = replace(request, headers={**request.headers, "x-acs-signature-nonce": "n2"})

    refusal = refuse(request)

    assert refusal.code == "SignatureDoesNotMatch"


def test_hash_of_another_body_is_refused() -> None:
    refusal = refuse(sign(Scenario(), x_acs_content_sha256="0" * 64))

    assert (refusal.status, refusal.code) == (400, "SignatureDoesNotMatch")


def test_unknown_key_is_refused() -> None:
    refusal = refuse(sign(Scenario(access_key_id="another")))

    assert (refusal.status, refusal.code) == (404, "InvalidAccessKeyId.NotFound")


@pytest.mark.parametrize("minutes", [-16, 16])
def test_date_too_far_from_the_clock_is_refused(minutes: int) -> None:
    refusal = refuse(sign(Scenario(), at=NOW + timedelta(minutes=minutes)))

    assert (refusal.status, refusal.code) == (400, "InvalidTimeStamp.Expired")


@pytest.mark.parametrize("minutes", [-14, 14])
def test_date_near_the_clock_is_accepted(minutes: int) -> None:
    scenario = Scenario()
    request = sign(scenario, at=NOW + timedelta(minutes=minutes))

    Authenticator(scenario).authenticate(request, ROUTE, now_s=NOW.timestamp())


@pytest.mark.parametrize(
    "text", ["yesterday", "2026-07-01 12:00:00Z", "2026-07-01T12:00:00+00", "2026-13-01T12:00:00Z"]
)
def test_date_in_another_form_is_refused(text: str) -> None:
    refusal = refuse(sign(Scenario(), x_acs_date=text))

    assert (refusal.status, refusal.code) == (400, "InvalidTimeStamp.Format")


def test_nonce_is_accepted_once() -> None:
    scenario = Scenario()
    authenticator = Authenticator(scenario)
    authenticator.authenticate(sign(scenario), ROUTE, now_s=NOW.timestamp())

    with pytest.raises(RequestRefusedError) as caught:
        authenticator.authenticate(sign(scenario), ROUTE, now_s=NOW.timestamp())

    assert (caught.value.status, caught.value.code) == (400, "SignatureNonceUsed")


def test_nonce_of_a_wrongly_signed_request_stays_free() -> None:
    scenario = Scenario()
    authenticator = Authenticator(scenario)
    forged = sign(replace(scenario, access_key_secret="a-wrong-secret"))
    with pytest.raises(RequestRefusedError):
        authenticator.authenticate(forged, ROUTE, now_s=NOW.timestamp())

    authenticator.authenticate(sign(scenario), ROUTE, now_s=NOW.timestamp())


def test_only_the_newest_nonces_are_remembered() -> None:
    scenario = Scenario(nonce_memory=2)
    authenticator = Authenticator(scenario)
    for nonce in ("n1", "n2", "n3"):
        authenticator.authenticate(sign(scenario, nonce=nonce), ROUTE, now_s=NOW.timestamp())

    authenticator.authenticate(sign(scenario, nonce="n1"), ROUTE, now_s=NOW.timestamp())
    with pytest.raises(RequestRefusedError):
        authenticator.authenticate(sign(scenario, nonce="n3"), ROUTE, now_s=NOW.timestamp())


@pytest.mark.parametrize(
    ("headers", "route"),
    [
        ({"x_acs_action": "ListLivyCompute"}, ROUTE),
        ({"x_acs_version": "2014-05-26"}, ROUTE),
        ({}, None),
        ({}, Route(Call.LIST_SESSIONS, "w-1", "lc-1")),
    ],
)
def test_action_must_fit_the_path(headers: dict[str, str], route: Route | None) -> None:
    scenario = Scenario()
    request = sign(scenario)
    renamed = {name.replace("_", "-"): value for name, value in headers.items()}

    refusal = refuse(replace(request, headers={**request.headers, **renamed}), route=route)

    assert (refusal.status, refusal.code) == (404, "InvalidAction.NotFound")


def test_another_method_is_refused() -> None:
    refusal = refuse(replace(sign(Scenario()), method="POST"))

    assert (refusal.status, refusal.code) == (404, "InvalidAction.NotFound")


@pytest.mark.parametrize(
    "name", ["host", "x-acs-date", "x-acs-signature-nonce", "x-acs-content-sha256"]
)
def test_needed_header_must_be_sent_and_signed(name: str) -> None:
    absent = refuse(without(sign(Scenario()), name))
    unsigned = refuse(sign(Scenario(), unsigned=(name,)))

    assert (absent.status, absent.code) == (400, "IncompleteSignature")
    assert (unsigned.status, unsigned.code) == (400, "IncompleteSignature")


def test_any_header_of_the_services_own_must_be_signed() -> None:
    refusal = refuse(sign(Scenario(), x_acs_odd="1", unsigned=("x-acs-odd",)))

    assert refusal.code == "IncompleteSignature"


def test_other_headers_need_no_signature() -> None:
    scenario = Scenario()
    request = sign(scenario, user_agent="u", accept="*/*", unsigned=("user-agent", "accept"))

    Authenticator(scenario).authenticate(request, ROUTE, now_s=NOW.timestamp())


def test_request_without_authorization_is_refused() -> None:
    refusal = refuse(without(sign(Scenario()), "authorization"))

    assert (refusal.status, refusal.code) == (400, "IncompleteSignature")


def test_another_algorithm_is_refused() -> None:
    request = sign(Scenario())
    headers = {**request.headers, "authorization": "Basic dXNlcjpwYXNz"}

    refusal = refuse(replace(request, headers=headers))

    assert (refusal.status, refusal.code) == (400, "InvalidSignatureMethod")


def test_security_token_is_accepted_until_it_expires() -> None:
    scenario = Scenario(security_token="t", security_token_expires_at=NOW)
    authenticator = Authenticator(scenario)
    moment = timedelta(seconds=1)
    authenticator.authenticate(sign(scenario), ROUTE, now_s=(NOW - moment).timestamp())

    refusal = refuse(sign(scenario, nonce="n2"), scenario=scenario)

    assert (refusal.status, refusal.code) == (400, "InvalidSecurityToken.Expired")


def test_missing_security_token_is_refused() -> None:
    refusal = refuse(sign(Scenario()), scenario=Scenario(security_token="t"))

    assert (refusal.status, refusal.code) == (400, "MissingSecurityToken")


@pytest.mark.parametrize("owned", ["another", None])
def test_security_token_of_another_key_is_refused(owned: str | None) -> None:
    request = sign(Scenario(security_token="t"))

    refusal = refuse(request, scenario=Scenario(security_token=owned))

    assert (refusal.status, refusal.code) == (400, "InvalidSecurityToken.MismatchWithAccessKey")


def test_security_token_is_valid_for_a_number_of_requests_then_only_the_next_one() -> None:
    scenario = Scenario(security_token="t", next_security_token="u", security_token_uses=2)
    steps = [
        ("u", "InvalidSecurityToken.MismatchWithAccessKey"),
        ("t", None),
        ("t", None),
        ("t", "InvalidSecurityToken.Expired"),
        ("u", None),
        ("u", None),
        ("t", "InvalidSecurityToken.Expired"),
    ]

    codes = play(scenario, [(token, 0.0) for token, _ in steps])

    assert codes == [code for _, code in steps]


def test_security_token_expires_a_time_after_the_first_request() -> None:
    scenario = Scenario(security_token="t", next_security_token="u", security_token_life_s=60)

    codes = play(scenario, [("t", 0.0), ("t", 59.0), ("t", 60.0), ("u", 60.0)])

    assert codes == [None, None, "InvalidSecurityToken.Expired", None]


def test_refused_requests_do_not_use_up_the_security_token() -> None:
    scenario = Scenario(security_token="t", security_token_uses=1)
    authenticator = Authenticator(scenario)
    forged = sign(replace(scenario, access_key_secret="a-wrong-secret"))
    with pytest.raises(RequestRefusedError):
        authenticator.authenticate(forged, ROUTE, now_s=NOW.timestamp())

    authenticator.authenticate(sign(scenario), ROUTE, now_s=NOW.timestamp())


def test_restart_renews_the_first_security_token_and_keeps_nonces() -> None:
    scenario = Scenario(security_token="t", security_token_uses=1)
    authenticator = Authenticator(scenario)
    authenticator.authenticate(sign(scenario), ROUTE, now_s=NOW.timestamp())

    authenticator.restart()

    with pytest.raises(RequestRefusedError, match="nonce"):
        authenticator.authenticate(sign(scenario), ROUTE, now_s=NOW.timestamp())
    authenticator.authenticate(sign(scenario, nonce="n2"), ROUTE, now_s=NOW.timestamp())


def test_next_security_token_needs_a_first_one() -> None:
    with pytest.raises(UsageError, match="without a first one"):
        Scenario(next_security_token="u")


def play(scenario: Scenario, steps: list[tuple[str, float]]) -> list[str | None]:
    """The refusal code, or None, of each request with a token at a second."""
    authenticator = Authenticator(scenario)
    codes: list[str | None] = []
    for number, (token, at_s) in enumerate(steps):
        at = NOW + timedelta(seconds=at_s)
        request = sign(scenario, at=at, nonce=f"n{number}", x_acs_security_token=token)
        try:
            authenticator.authenticate(request, ROUTE, now_s=at.timestamp())
            codes.append(None)
        except RequestRefusedError as refusal:
            codes.append(refusal.code)
    return codes
