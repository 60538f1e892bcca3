"""One signed, retried call over one aiohttp session."""

import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from urllib.parse import urlsplit

import aiohttp
import anyio
import tenacity
from yarl import URL

from exporter.api import roa
from exporter.api.credentials import Credential, Identity
from exporter.errors import (
    ApiError,
    BadAnswerError,
    ExporterError,
    NetworkError,
    NonceUsedError,
    ThrottledError,
)
from exporter.events import Event, Outcome, RequestEnded, RequestStarted, RetryScheduled

T = TypeVar("T")

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 20.0
CONNECT_MOST_S = 10.0
FIRST_CONTACT_RETRIES = 1
"""Before the service has answered once, a refused connection or an unreadable answer means a wrong
endpoint more often than weather: it is tried once more, and then told."""
FIRST_CONTACT_WAIT_S = 0.2


@dataclass(slots=True)
class RequestCounts:
    """Requests of a run by how they ended; `sent` is the sum of `ok`, `throttled` and `failed`."""

    sent: int = 0
    ok: int = 0
    throttled: int = 0
    retried: int = 0
    failed: int = 0


def compute_backoff_s(attempt: int, *, error: BaseException | None, jitter: float) -> float:
    """Seconds to wait after the given attempt (from 1) failed; `jitter` is uniform in [0, 1).

    Full jitter over an exponential ceiling
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/); a wait that the
    service asks for is kept to the full and the jitter comes on top, so that waiting requests do
    not return as one.
    """
    if isinstance(error, NonceUsedError):
        return 0.0
    wait_s = jitter * min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0 ** (attempt - 1))
    asked_s = error.retry_after_s if isinstance(error, ApiError) else None
    return wait_s if asked_s is None else asked_s + wait_s


def is_doubtful_contact(error: BaseException) -> bool:
    """Whether an error looks more like a wrong endpoint than like weather, as long as nothing was
    heard yet.
    """
    if isinstance(error, NetworkError):
        return error.unreachable
    return isinstance(error, BadAnswerError) and error.status < 500


class Client:
    """Sends calls. Use `open_client`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        endpoint: str,
        identity: Identity,
        retries: int,
        timeout_s: float,
        emit: Callable[[Event], None],
        now_s: Callable[[], float],
        utc_now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._host = urlsplit(endpoint).netloc
        self._identity = identity
        self._retries = retries
        self._timeout_s = timeout_s
        self._emit = emit
        self._now_s = now_s
        self._utc_now = utc_now
        self._sleep = sleep
        self._jitter = jitter
        self._answered = False
        self._in_flight = 0
        self.counts = RequestCounts()

    async def send(self, call: roa.Call[T]) -> T:
        """The value of a call, after as many attempts as the settings allow.

        Raises the last attempt's error: ApiError, NetworkError or CredentialsError.
        """
        try:
            # Nearly every call ends here. tenacity's machinery would cost each as much as building
            # the request.
            return await self._attempt(call)
        except ExporterError as exc:
            if not exc.retryable:
                raise
            return await self._retry(call, failure=exc)

    async def _retry(self, call: roa.Call[T], *, failure: ExporterError) -> T:
        """Go on after a first attempt that failed; tenacity is told of that one as its own
        first.
        """
        failures = [failure]

        async def attempt() -> T:
            if failures:
                raise failures.pop()
            return await self._attempt(call)

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(self._may_retry),
            stop=self._must_stop,
            wait=self._wait_s,
            sleep=self._sleep,
            before_sleep=lambda state: self._note_retry(call.label, state),
            reraise=True,
        )
        return await retrying(attempt)

    def _may_retry(self, error: BaseException) -> bool:
        return isinstance(error, ExporterError) and error.retryable

    def _must_stop(self, state: tenacity.RetryCallState) -> bool:
        error = read_failure(state)
        most = self._retries
        if not self._answered and error is not None and is_doubtful_contact(error):
            most = min(most, FIRST_CONTACT_RETRIES)
        return state.attempt_number > most

    def _wait_s(self, state: tenacity.RetryCallState) -> float:
        error = read_failure(state)
        if not self._answered and error is not None and is_doubtful_contact(error):
            return FIRST_CONTACT_WAIT_S
        return compute_backoff_s(state.attempt_number, error=error, jitter=self._jitter())

    def _note_retry(self, label: str, state: tenacity.RetryCallState) -> None:
        self.counts.retried += 1
        wait_s = state.next_action.sleep if state.next_action is not None else 0.0
        self._emit(RetryScheduled(label, state.attempt_number, wait_s, str(read_failure(state))))

    async def _attempt(self, call: roa.Call[T]) -> T:
        credential = await self._identity.get()
        started_s = self._now_s()
        self._in_flight += 1
        self._emit(RequestStarted(self._in_flight))
        outcome: Outcome = "failed"
        try:
            value = await self._exchange(call, credential)
            outcome = "ok"
        except ApiError as exc:
            outcome = "throttled" if isinstance(exc, ThrottledError) else "failed"
            raise
        finally:
            self._in_flight -= 1
            setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)
            self._emit(RequestEnded(outcome, self._in_flight, self._now_s() - started_s))
        return value

    async def _exchange(self, call: roa.Call[T], credential: Credential) -> T:
        sent_count = 0

        async def sign_and_send(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            # As a middleware this also runs when aiohttp itself repeats a GET whose kept-alive
            # connection was gone, so that no signature is ever sent twice; what broke off unseen
            # counts as a failed request of its own.
            nonlocal sent_count
            self.counts.failed += sent_count
            self.counts.sent += 1
            sent_count = 1
            request.headers.update(
                roa.sign(
                    call,
                    host=self._host,
                    credential=credential,
                    signed_at=self._utc_now(),
                    nonce=f"{random.getrandbits(128):032x}",
                )
            )
            return await handler(request)

        url = URL(f"{self._endpoint}{call.path}?{call.query}", encoded=True)
        try:
            async with self._session.get(
                url, middlewares=(sign_and_send,), allow_redirects=False
            ) as response:
                body = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise self._translate(exc, call.label) from exc
        try:
            value = roa.read_answer(
                call,
                status=response.status,
                headers=response.headers,
                body=body,
                now=self._utc_now(),
            )
        except ApiError as exc:
            exc.args = (credential.mask(str(exc)),)
            self._answered = self._answered or not isinstance(exc, BadAnswerError)
            raise
        self._answered = True
        return value

    def _translate(self, error: Exception, label: str) -> NetworkError:
        """A foreign failure in our words; the one place that knows aiohttp's."""
        if isinstance(
            error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError
        ):
            return NetworkError(
                f"{label}: {self._host} shows no valid certificate",
                hint="check --endpoint and this machine's CA certificates",
                unreachable=True,
            )
        if isinstance(error, aiohttp.ClientConnectorDNSError):
            return NetworkError(
                f"{label}: unknown host {self._host}",
                hint="check --region and --endpoint; the VPC host is --network vpc",
                unreachable=True,
            )
        if isinstance(error, TimeoutError):
            return NetworkError(
                f"{label}: no answer from {self._host} within {self._timeout_s:g}s",
                hint="raise --timeout, or check the network",
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            number = error.os_error.errno
            reason = os.strerror(number) if number is not None else str(error.os_error)
            return NetworkError(
                f"{label}: cannot connect to {self._host}: {reason}",
                hint="check --endpoint and the network",
                unreachable=True,
            )
        # The parser's own word for an answer that is no HTTP; in mid-run that is a broken one.
        is_no_http = isinstance(error, aiohttp.ClientResponseError) and error.status == 400
        if is_no_http and not self._answered:
            return NetworkError(
                f"{label}: {self._host} does not speak HTTP",
                hint="check --endpoint: https:// or http://, and the port",
                unreachable=True,
            )
        reason = " ".join(str(error).split()) or type(error).__name__
        return NetworkError(
            f"{label}: the answer of {self._host} broke off: {reason}",
            hint="check the network",
        )


def read_failure(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


@asynccontextmanager
async def open_client(
    *,
    endpoint: str,
    identity: Identity,
    concurrency: int,
    retries: int,
    timeout_s: float,
    user_agent: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> AsyncIterator[Client]:
    """A client over one session of at most `concurrency` kept-alive connections, closed with the
    block.

    `endpoint` is checked already; its proxy, if any, is the environment's.
    """
    connector = aiohttp.TCPConnector(limit=concurrency, keepalive_timeout=60)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, CONNECT_MOST_S)),
        headers={"accept": "application/json", "user-agent": user_agent},
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=find_proxy(endpoint, environ=environ),
    ) as session:
        yield Client(
            session,
            endpoint=endpoint,
            identity=identity,
            retries=retries,
            timeout_s=timeout_s,
            emit=emit,
            now_s=time.monotonic,
            utc_now=lambda: datetime.now(UTC),
            sleep=anyio.sleep,
            jitter=random.random,
        )


def find_proxy(endpoint: str, *, environ: Mapping[str, str]) -> str | None:
    """The environment's proxy for an endpoint, looked up once; aiohttp's own look-up would cost
    each request a thread.
    """
    from urllib.request import proxy_bypass_environment  # type: ignore[attr-defined] # not in typeshed

    parts = urlsplit(endpoint)
    bypass = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
    if parts.scheme == "http" or proxy_bypass_environment(parts.netloc, {"no": bypass}):
        return None
    return environ.get("https_proxy") or environ.get("HTTPS_PROXY") or None
