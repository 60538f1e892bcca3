"""moto's S3 server in a process of its own, behind a filter with the refusals of S3 and OSS.

Requests to 127.0.0.1 are S3's, addressed by path. Requests to `BUCKET.localhost` are OSS's,
addressed by host: no resolver knows that name, so that clients reach it by the server as a proxy.
Keys and buckets of certain names are refused, tokens are refused after the time in them.
"""

import re
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

WRONG_KEY = "wrong-key"
READ_ONLY_KEY = "read-only-key"
FLAKY_KEY = "flaky-key"
"""Each request of this key is throttled the first time."""
ELSEWHERE = "elsewhere"
"""A bucket of another region."""
IGNORING = "ignoring-"
"""Buckets with this prefix ignore conditions, as look-alikes and versioned buckets do."""

IN_FLIGHT = "/_in_flight"
"""The path, of no bucket, that answers the number of other unanswered requests."""

StartResponse = Callable[..., Any]
Application = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]


@dataclass(frozen=True)
class Refusal:
    status: str
    code: str
    message: str = "as the store says it"


@dataclass(frozen=True)
class ObjectServer:
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def oss_url(self) -> str:
        return f"http://localhost:{self.port}"

    def environ(self) -> dict[str, str]:
        """Variables by which clients reach both kinds of addresses."""
        return {"HTTP_PROXY": self.url, "http_proxy": self.url, "NO_PROXY": "127.0.0.1"}

    def count_in_flight(self) -> int:
        """Requests that are not answered yet, of living and of dead clients."""
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            f"{self.url}{IN_FLIGHT}"
        ) as answer:
            return int(answer.read())

    def client(self) -> Any:
        """AWS's own client, to check what is stored."""
        from botocore.session import Session

        return Session().create_client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id="judge",
            aws_secret_access_key="secret",
        )


@contextmanager
def serving_objects() -> Iterator[ObjectServer]:
    with subprocess.Popen(
        [sys.executable, __file__], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            yield ObjectServer(int(process.stdout.readline()))
        finally:
            process.terminate()


class Filter:
    """The refusals of the stores that moto lacks; conditional writes are one act here."""

    def __init__(self, application: Application) -> None:
        self._application = application
        self._lock = threading.Lock()
        self._throttled: set[str] = set()
        self._begun_at: dict[bytes, str] = {}

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        host = environ["HTTP_HOST"].partition(":")[0]
        is_oss = host == "localhost" or host.endswith(".localhost")
        if is_oss:
            bucket = host.removesuffix("localhost").removesuffix(".")
            address_by_path(environ, bucket)
            refusal = find_oss_refusal(environ, bucket)
        else:
            bucket = environ["PATH_INFO"].split("/")[1]
            refusal = find_s3_refusal(environ, bucket)
        refusal = refusal or find_key_refusal(environ, is_oss=is_oss)
        refusal = refusal or self._throttle(environ)
        if refusal is not None:
            return refuse(refusal, environ, start_response)
        if is_oss:
            hide_signature(environ)
            environ.pop("HTTP_IF_NONE_MATCH", None)
            if environ["REQUEST_METHOD"] == "PUT":
                environ.pop("HTTP_IF_MATCH", None)
        if bucket.startswith(IGNORING):
            for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH", "HTTP_X_OSS_FORBID_OVERWRITE"):
                environ.pop(name, None)
        with self._lock:
            forbids = environ.get("HTTP_X_OSS_FORBID_OVERWRITE") == "true"
            if is_oss and forbids and self._exists(environ):
                refusal = Refusal("409 Conflict", "FileAlreadyExists")
                return refuse(refusal, environ, start_response)
            content = b"".join(self._application(environ, start_response))
            return [self._date_uploads(environ["REQUEST_METHOD"], environ, content)]

    def _date_uploads(self, method: str, environ: dict[str, Any], content: bytes) -> bytes:
        """Put in when each upload began: moto gives all of them the same time."""
        query = environ["QUERY_STRING"].split("&")
        if not {"uploads", "uploads="} & set(query):
            return content
        if method == "POST" and (found := re.search(rb"<UploadId>([^<]*)</UploadId>", content)):
            self._begun_at[found[1]] = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())

        def date(match: "re.Match[bytes]") -> bytes:
            known = re.search(rb"<UploadId>([^<]*)</UploadId>", match[0])
            begun_at = self._begun_at.get(known[1] if known else b"", "")
            return re.sub(rb"(?<=<Initiated>)[^<]{24}", begun_at.encode() or rb"\g<0>", match[0])

        return re.sub(rb"<Upload>.*?</Upload>", date, content, flags=re.DOTALL)

    def _throttle(self, environ: dict[str, Any]) -> Refusal | None:
        request = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        if f"Credential={FLAKY_KEY}/" not in environ.get("HTTP_AUTHORIZATION", ""):
            return None
        with self._lock:
            if request in self._throttled:
                return None
            self._throttled.add(request)
            return Refusal("503 Service Unavailable", "SlowDown")

    def _exists(self, environ: dict[str, Any]) -> bool:
        statuses: list[str] = []

        def note(status: str, headers: Any, exc_info: Any = None) -> Any:
            statuses.append(status)

        import io

        asked = {k: v for k, v in environ.items() if not k.startswith(("HTTP_X_", "werkzeug."))}
        asked |= {"REQUEST_METHOD": "HEAD", "CONTENT_LENGTH": "0", "wsgi.input": io.BytesIO()}
        for _ in self._application(asked, note):
            pass
        return statuses[0].startswith("200")


def address_by_path(environ: dict[str, Any], bucket: str) -> None:
    raw = environ.get("RAW_URI", "")
    raw = re.sub(r"^http://[^/?]*", "", raw) or "/"
    if bucket:
        environ["PATH_INFO"] = f"/{bucket}{environ['PATH_INFO']}"
        raw = f"/{bucket}{raw}"
    environ["RAW_URI"] = environ["REQUEST_URI"] = raw
    environ["HTTP_HOST"] = f"127.0.0.1:{environ['SERVER_PORT']}"


def hide_signature(environ: dict[str, Any]) -> None:
    """OSS's own signature is base64. One with four slashes has the five parts of AWS's credential:
    moto would take the fourth for the name of a service, and answer 500.
    """
    scheme, _, credential = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme == "OSS":
        environ["HTTP_AUTHORIZATION"] = f"{scheme} {credential.partition(':')[0]}"


def find_oss_refusal(environ: dict[str, Any], bucket: str) -> Refusal | None:
    if not bucket:
        return Refusal("403 Forbidden", "SecondLevelDomainForbidden")
    # OSS's own API has a signature of another kind, which says nothing of the content.
    is_native = environ.get("HTTP_AUTHORIZATION", "").startswith("OSS ")
    payload = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "0" * 64 if is_native else "")
    if "aws-chunked" in environ.get("HTTP_CONTENT_ENCODING", "") or not re.fullmatch(
        r"[0-9a-f]{64}", payload
    ):
        return Refusal("400 Bad Request", "InvalidArgument", "aws-chunked encoding not supported")
    is_bulk_delete = environ["REQUEST_METHOD"] == "POST" and environ["QUERY_STRING"] == "delete"
    if is_bulk_delete and "HTTP_CONTENT_MD5" not in environ:
        return Refusal("400 Bad Request", "MissingArgument")
    if bucket == ELSEWHERE:
        return Refusal(
            "403 Forbidden",
            "AccessDenied",
            "The bucket you are attempting to access must be addressed using the specified"
            " endpoint. Please send all future requests to this endpoint.",
        )
    return None


def find_s3_refusal(environ: dict[str, Any], bucket: str) -> Refusal | None:
    if bucket == ELSEWHERE:
        return Refusal("301 Moved Permanently", "PermanentRedirect")
    return None


def find_key_refusal(environ: dict[str, Any], *, is_oss: bool) -> Refusal | None:
    match = re.search(r"(?:Credential=|OSS )([^/:]+)[/:]", environ.get("HTTP_AUTHORIZATION", ""))
    key_id = "" if match is None else match[1]
    token = environ.get("HTTP_X_AMZ_SECURITY_TOKEN", "")
    token = environ.get("HTTP_X_OSS_SECURITY_TOKEN", token)
    if key_id == WRONG_KEY:
        # Real stores repeat what they were sent.
        return Refusal("403 Forbidden", "InvalidAccessKeyId", f"x-amz-security-token:{token}")
    if key_id == READ_ONLY_KEY and environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return Refusal("403 Forbidden", "AccessDenied")
    until = re.fullmatch(r"until-([0-9.]+)", token)
    if until is not None and time.time() > float(until[1]):
        code = "SecurityTokenExpired" if is_oss else "ExpiredToken"
        return Refusal("403 Forbidden" if is_oss else "400 Bad Request", code)
    return None


def refuse(
    refusal: Refusal, environ: dict[str, Any], start_response: StartResponse
) -> Iterable[bytes]:
    environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    content = (
        f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{refusal.code}</Code>'
        f"<Message>{refusal.message}</Message></Error>"
    ).encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(content)))]
    start_response(refusal.status, headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def build_server() -> Any:
    from moto.moto_server.werkzeug_app import (
        DomainDispatcherApplication,
        MotoRequestHandler,
        create_backend_app,
    )
    from werkzeug.serving import ThreadedWSGIServer

    store = Filter(DomainDispatcherApplication(create_backend_app))

    class CountingServer(ThreadedWSGIServer):
        """Connections are accepted one by one, each with one request: the count of a request
        includes every earlier one.
        """

        open_count = 0
        lock = threading.Lock()

        def process_request(self, request: Any, client_address: Any) -> None:
            with self.lock:
                self.open_count += 1
            super().process_request(request, client_address)

        def shutdown_request(self, request: Any) -> None:
            super().shutdown_request(request)
            with self.lock:
                self.open_count -= 1

    def answer(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] != IN_FLIGHT:
            return store(environ, start_response)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(server.open_count - 1).encode()]

    server = CountingServer("127.0.0.1", 0, answer, MotoRequestHandler)
    return server


def main() -> None:
    server = build_server()
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
