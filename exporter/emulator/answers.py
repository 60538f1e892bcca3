"""What goes back to a client, and how the service says no in it; performs no I/O."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import orjson

JSON = "application/json;charset=utf-8"

Casing = Literal["roa", "rpc"]
"""How an envelope writes its keys: `requestId` as the calls do, `RequestId` as the gateway does."""


class Answer(NamedTuple):
    """A whole answer but for its Date header. A tuple, for each request makes one."""

    status: int
    """HTTP status."""
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class RefusalStyle:
    """The looks of a refusal, which differ from gateway to gateway."""

    code: str
    status: int
    """HTTP status."""
    casing: Casing = "roa"


class RequestRefusedError(Exception):
    """Raised when the emulated service does not give the value asked for; becomes its answer."""

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
        """HTTP status."""
        self.code = code
        self.message = message
        self.casing = casing
        self.headers = {} if headers is None else headers


def build_refusal(refusal: RequestRefusedError, *, request_id: str, host: str) -> Answer:
    """The JSON error envelope; `host` as the request's Host header gave it."""
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
        # An envelope of RPC calls tells the status in the status line alone.
        del envelope["HttpStatusCode"]
    return Answer(refusal.status, orjson.dumps(envelope), headers=refusal.headers)
