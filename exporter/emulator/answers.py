"""The answers of the emulated service, and its error envelope; performs no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import orjson

JSON = "application/json;charset=utf-8"

Casing = Literal["roa", "rpc"]
"""Of an envelope's keys: `requestId` from the calls, `RequestId` from the API gateway."""


class Answer(NamedTuple):
    """An answer without its Date header. A tuple, as each request makes one."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalStyle:
    """Code, status and casing of a refusal, which differ between API gateways."""

    code: str
    status: int
    casing: Casing = "roa"


class RequestRefusedError(Exception):
    """Raised when the emulated service refuses a request; becomes its answer."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        casing: Casing = "roa",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.casing = casing
        self.headers = {} if headers is None else headers


def build_refusal(refusal: RequestRefusedError, *, request_id: str, host: str) -> Answer:
    """The JSON error envelope; `host` is the request's Host header."""
    envelope: dict[str, object] = {
        "requestId": request_id,
        "code": refusal.code,
        "message": refusal.message,
        "httpStatusCode": refusal.status,
        "hostId": host,
        "recommend": f"https://api.aliyun.com/troubleshoot?q={refusal.code}",
    }
    if refusal.casing == "rpc":
        envelope = {key[0].upper() + key[1:]: value for key, value in envelope.items()}
        # In RPC casing only the status line holds the status.
        del envelope["HttpStatusCode"]
    return Answer(refusal.status, orjson.dumps(envelope), headers=refusal.headers)
