"""Maps the code, status and headers of an error answer to one typed error; performs no I/O.

The code takes precedence over the status, which the service uses inconsistently: throttling comes
with 400, 429 and 503, and a permission failure was seen with 429. Codes:
https://help.aliyun.com/document_detail/434846.html
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from exporter.errors import (
    ApiError,
    AuthenticationError,
    BadAnswerError,
    ClockSkewError,
    NonceUsedError,
    NotFoundError,
    PermissionDeniedError,
    RefusedError,
    ServiceError,
    ThrottledError,
    TokenExpiredError,
    mask_urls,
)

WRONG_ENDPOINT = "check --endpoint and --region: this host does not offer the call"

BAD_PAGE = "the service's answer is not as documented: report it to its support with the request id"

TOO_LARGE = "check --endpoint; where sessions are that large, lower --page-size"

SUCCESS_CODES = frozenset({"", "0", "200", "1000000", "ok", "success"})
"""Values of `code` in a successful body, lower-case: 1000000 is ListLivyCompute's, the others are
those of related calls."""

CODES: tuple[tuple[str, type[ApiError]], ...] = (
    (r"(.*\.)?(Throttling|FlowControl)\b.*", ThrottledError),
    (r"SignatureNonceUsed", NonceUsedError),
    (r"InvalidTimeStamp\.Expired", ClockSkewError),
    (r"InvalidSecurityToken\.Expired|SecurityTokenExpired", TokenExpiredError),
    (
        (
            r"InvalidTimeStamp\.Format|IncompleteSignature|SignatureDoesNotMatch"
            r"|InvalidSignatureMethod|InvalidAccessKeyId.*|Forbidden\.AccessKeyDisabled"
            r"|InvalidSecurityToken.*|MissingSecurityToken"
        ),
        AuthenticationError,
    ),
    (r"Forbidden.*|NoPermission.*|AccessDenied.*|(.*\.)?NoAuth", PermissionDeniedError),
    (r"Invalid(Api|Action|Product|Version)\.NotFound", RefusedError),
    (
        r"ServiceUnavailable.*|SystemBusy|ServiceTemporarilyUnavailable|InternalError.*",
        ServiceError,
    ),
    (r".*(NotFound|NotExist).*", NotFoundError),
)
"""The first pattern that matches a whole code wins."""

HINTS: dict[type[ApiError], str] = {
    AuthenticationError: "check the access key, its secret and token; `livy-exporter config show`"
    " names the identity in use",
    PermissionDeniedError: "the identity needs emr-serverless-spark:ListLivyComputeSessions,"
    " ListLivyCompute and ListWorkspaces, for instance by AliyunEmrServerlessSparkReadOnlyAccess",
    TokenExpiredError: "renew the STS token and start again",
    ClockSkewError: "set this machine's clock: signatures are valid for 15 minutes",
    NotFoundError: "`livy-exporter gateways --workspace all` lists what this identity can see",
    ThrottledError: "lower --concurrency, or run when fewer others use the account's quota",
    ServiceError: "the service is in trouble: try again later",
    BadAnswerError: WRONG_ENDPOINT,
}


RETRY_HEADERS = (
    ("x-acs-retry-after", r"^\s*(\d+)\s*$"),
    ("x-ratelimit-user-api", r"TimeLeft:\s*(\d+)"),
    ("x-ratelimit-user", r"TimeLeft:\s*(\d+)"),
)
"""Headers that hold a wait, and the pattern of its milliseconds."""

MAX_RETRY_AFTER_S = 86_400.0
"""Longest wait taken from a header, a day. It is reported as it is; the caller decides how much of
it to wait."""


def classify(status: int, code: str | None) -> type[ApiError]:
    """The error class of an error answer; `code` is None when it had none."""
    for pattern, error in CODES:
        if code is not None and re.fullmatch(pattern, code, re.IGNORECASE):
            return error
    if status == 429:
        return ThrottledError
    if status >= 500 or status == 408:
        return ServiceError
    if status in (401, 403) and code is not None:
        return PermissionDeniedError
    return RefusedError


def is_refusal(document: Mapping[str, Any]) -> bool:
    """Whether a body declares an error, whatever its HTTP status."""
    folded = fold_keys(document)
    success = str(folded.get("success")).strip().lower()
    return not is_success_code(folded.get("code")) or success == "false"


def is_success_code(code: object) -> bool:
    return code is None or str(code).strip().lower() in SUCCESS_CODES


def parse_error(
    label: str,
    *,
    status: int,
    headers: Mapping[str, str],
    body: bytes,
    document: Any,
    now: datetime,
) -> ApiError:
    """The error of an answer that holds no value; `document` is the decoded body, None unless it
    was JSON.
    """
    folded = fold_keys(document) if isinstance(document, dict) else parse_xml(body)
    code, message = as_text(folded.get("code")), as_text(folded.get("message"))
    is_success = 200 <= status < 300
    kind: type[ApiError]
    reason: str | None
    if is_success and isinstance(document, dict) and is_refusal(document):
        kind = ServiceError if is_success_code(code) else classify(status, code)
        reason = message or "success is false"
    elif is_success and code is None:
        kind, reason = BadAnswerError, describe_body(body, document=document)
    else:
        kind, reason = classify(status, code), message
        if message is None and code is None:
            reason = describe_body(body, document=document)
    error = build_api_error(
        kind,
        label,
        status=status,
        code=code,
        reason=reason,
        request_id=folded.get("requestid"),
        retry_after_s=parse_retry_after(headers, now=now),
    )
    if isinstance(error, ClockSkewError):
        error.server_at = parse_date(headers.get("date", ""))
    return error


def build_api_error(
    kind: type[ApiError],
    label: str,
    *,
    status: int,
    reason: str | None,
    code: str | None = None,
    request_id: object = None,
    retry_after_s: float | None = None,
    hint: str | None = None,
) -> ApiError:
    """An error of a kind with its message; `hint` replaces the kind's own."""
    known_id = as_text(request_id)
    parts = [f"HTTP {status}", *(scrub(part) for part in (code, reason) if part is not None)]
    message = f"{label}: " + ", ".join(part for part in parts if part)
    if known_id is not None:
        message += f" (request {scrub(known_id)})"
    hint = hint or HINTS.get(kind)
    if kind is RefusedError and (code is None or code.lower().endswith(".notfound")):
        hint = WRONG_ENDPOINT
    return kind(
        message,
        hint=hint,
        status=status,
        code=code,
        request_id=known_id,
        retry_after_s=retry_after_s,
    )


def fold_keys(document: Mapping[str, Any]) -> dict[str, Any]:
    """Lower-case keys: the API gateway's own answers have the RPC casing (`Code`, `RequestId`)."""
    return {key.lower(): value for key, value in document.items()}


def parse_xml(body: bytes) -> dict[str, str]:
    """The flat fields of an `<Error>` document, lower-case; empty for anything else."""
    text = body[:20_000].decode("utf-8", "replace")
    if "<Error>" not in text:
        return {}
    return {
        name.lower(): value.strip()
        for name, value in re.findall(r"<(Code|Message|RequestId)>([^<]*)</\1>", text)
    }


def as_text(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def describe_body(body: bytes, *, document: object) -> str:
    if not body:
        return "an empty body"
    if document is not None or body.strip() == b"null":
        kind = "null" if document is None else type(document).__name__
        return f"JSON, but {kind} and no answer of this call"
    start = body[:60].decode("utf-8", "replace")
    return f"{len(body):,} bytes that are no JSON, starting {start!r}"


def scrub(message: str) -> str:
    """One line of at most 300 characters, without its full stop and the passwords of URLs.

    A SignatureDoesNotMatch message repeats the canonical request and with it the STS token, so the
    line ends before that.
    """
    line = mask_urls(" ".join(message.split()))
    cut = re.search(
        r"server string\s?to\s?sign|StringToSign|CanonicalRequest|x-acs-", line, re.IGNORECASE
    )
    if cut is not None:
        line = line[: cut.start()].rstrip(" ,;:.[('\"")
    return line.rstrip(" .") if len(line) <= 300 else line[:300] + "…"


def parse_retry_after(headers: Mapping[str, str], *, now: datetime) -> float | None:
    """Seconds that the service asks to wait; None when no header holds a positive time.

    `x-acs-retry-after` counts milliseconds (tea-openapi 0.4.5), the older `x-ratelimit-user*` carry
    `TimeLeft:` in milliseconds, `Retry-After` is seconds or an HTTP date (RFC 9110, 10.2.3).
    """
    waits = [
        float(found[1]) / 1000
        for name, pattern in RETRY_HEADERS
        if (found := re.search(pattern, headers.get(name, "")))
    ]
    if not any(wait > 0 for wait in waits):
        waits = [parse_http_retry_after(headers.get("retry-after", ""), now=now)]
    longest = min(max(waits), MAX_RETRY_AFTER_S)
    return longest if longest > 0 else None


def parse_http_retry_after(value: str, *, now: datetime) -> float:
    if value.strip().isdecimal():
        return float(value)
    date = parse_date(value)
    return 0.0 if date is None else (date - now).total_seconds()


def parse_date(value: str) -> datetime | None:
    """An HTTP date (RFC 9110, 5.6.7); None for any other text."""
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    return date.replace(tzinfo=date.tzinfo or UTC)
