"""How the service says no: a code, a status and the envelope around them; performs no I/O."""

import orjson


class RequestRefusedError(Exception):
    """Raised when the emulated service does not give the value asked for; becomes its answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        """HTTP status."""
        self.code = code
        self.message = message


def build_refusal_body(refusal: RequestRefusedError, *, request_id: str, host: str) -> bytes:
    """The JSON error envelope of ROA calls; `host` as the request's Host header gave it."""
    return orjson.dumps(
        {
            "requestId": request_id,
            "code": refusal.code,
            "message": refusal.message,
            "httpStatusCode": refusal.status,
            "hostId": host,
            "recommend": f"https://api.aliyun.com/troubleshoot?q={refusal.code}",
        }
    )
