"""Sends signed, paced and retried calls over one aiohttp session."""

import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

import aiohttp
import anyio
from yarl import URL

from exporter.api import calls
from exporter.api.body import MAX_BYTES, BodyTooLargeError, read_body
from exporter.api.credentials import Credential, Identity
from exporter.api.error_codes import TOO_LARGE, build_api_error
from exporter.api.error_map import Route, translate
from exporter.api.limiter import Limiter
from exporter.api.pacer import Pacer
from exporter.api.proxy import Proxy, find_proxy
from exporter.api.quota_edges import Ticket
from exporter.api.retry import (
    RetryState,
    Silence,
    compute_wait_s,
    explain_end,
    explain_hint,
    may_retry,
)
from exporter.api.signature import sign
from exporter.errors import (
    ApiError,
    BadAnswerError,
    ClockSkewError,
    ExporterError,
    ThrottledError,
    TokenExpiredError,
)
from exporter.events import Event, Outcome, PaceLearnt, RequestEnded, RequestStarted, RetryScheduled
from exporter.model import RequestCounts

if TYPE_CHECKING:
    import tenacity

logger = logging.getLogger(__name__)

T = TypeVar("T")

MAX_CONNECT_S = 10.0
"""Longest time to connect; a longer `--timeout` is for the answer."""


class Client:
    """Sends calls. Use `open_client`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        *,
        endpoint: str,
        identity: Identity,
        pacer: Pacer,
        retries: int,
        patience_s: float,
        timeout_s: float,
        emit: Callable[[Event], None],
        now_s: Callable[[], float],
        utc_now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        jitter: Callable[[], float],
        proxy: Proxy | None = None,
    ) -> None:
        self._session = session
        self._endpoint = endpoint
        self._host = urlsplit(endpoint).netloc
        self._route = Route(self._host, proxy, timeout_s)
        self._proxy_headers = None if proxy is None else proxy.headers
        self._large_lock = anyio.Lock()
        self._identity = identity
        self._retries = retries
        self._patience_s = patience_s
        self._emit = emit
        self._now_s = now_s
        self._utc_now = utc_now
        self._sleep = sleep
        self._jitter = jitter
        self._limiter = Limiter(pacer, now_s=now_s)
        self._clock_offset = timedelta()
        self._answered = False
        self._silence = Silence(now_s())
        self.counts = RequestCounts()

    @property
    def learnt_rps(self) -> float | None:
        """The quota in requests a second, as far as it is known; None while it is not."""
        return self._limiter.pacer.learnt_rps

    async def send(self, call: calls.Call[T]) -> T:
        """The value of a call, after as many attempts as the settings allow.

        Raises the last attempt's error: ApiError, NetworkError or CredentialsError.
        """
        try:
            # Nearly every call ends here: tenacity would cost as much as building the request.
            return await self._attempt(call)
        except ExporterError as exc:
            return await self._retry(call, failure=exc)

    async def _retry(self, call: calls.Call[T], *, failure: ExporterError) -> T:
        """Continue after a failed first attempt, which tenacity counts as its own first."""
        # Imported here: most runs never need it.
        import tenacity

        attempt_count = throttled_count = 0

        async def attempt() -> T:
            nonlocal attempt_count, throttled_count
            attempt_count += 1
            try:
                if attempt_count == 1:
                    raise failure
                return await self._attempt(call)
            except ThrottledError:
                throttled_count += 1
                raise

        def build_state() -> RetryState:
            now_s = self._now_s()
            return RetryState(
                attempt=attempt_count,
                throttled_count=throttled_count,
                retries=self._retries,
                patience_s=self._patience_s,
                answered=self._answered,
                silent_s=self._silence.measure_silent_s(now_s),
                ungranted_s=self._silence.measure_ungranted_s(now_s),
            )

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception(lambda error: may_retry(error, build_state())),
            wait=lambda state: compute_wait_s(
                read_failure(state), build_state(), jitter=self._jitter()
            ),
            sleep=self._sleep,
            before_sleep=lambda state: self._note_retry(
                call, attempt_count, read_failure(state), state.upcoming_sleep
            ),
            reraise=True,
        )
        try:
            return await retrying(attempt)
        except ExporterError as exc:
            error = explain_end(exc, build_state())
            error.gateway = call.gateway
            raise error from exc.__cause__

    def _note_retry(
        self, call: calls.Call[T], attempt: int, error: BaseException, wait_s: float
    ) -> None:
        self.counts.retried += 1
        self._emit(RetryScheduled(call.label, attempt, wait_s, str(error), call.gateway))

    async def _attempt(self, call: calls.Call[T]) -> T:
        """One attempt, or two if the first fails for our clock or token and that is corrected."""
        credential = await self._identity.get()
        try:
            return await self._ask(call, credential)
        except (ClockSkewError, TokenExpiredError) as exc:
            if not await self._correct(exc, credential):
                raise
            self._note_retry(call, 1, exc, 0.0)
        return await self._ask(call, await self._identity.get())

    async def _correct(self, error: ApiError, credential: Credential) -> bool:
        """Adopt the service's clock, or fetch a new token; False if that changed nothing."""
        if isinstance(error, ClockSkewError):
            if error.server_at is None:
                return False
            self._clock_offset = error.server_at - self._utc_now()
            return True
        return await self._identity.renew(credential)

    async def _ask(self, call: calls.Call[T], credential: Credential) -> T:
        """One request: wait for the limiter, send, and count the outcome."""
        ticket = await self._limiter.enter()
        started_s = self._now_s()
        self._emit(RequestStarted(self._limiter.pacer.in_flight))
        outcome: Outcome = "failed"
        retry_after_s = None
        try:
            value = await self._exchange(call, credential)
            outcome = "ok"
        except ThrottledError as exc:
            outcome = "throttled"
            if exc.retry_after_s is not None:
                retry_after_s = min(exc.retry_after_s, self._patience_s)
            warning = explain_hint(exc, patience_s=self._patience_s)
            if warning is not None and self._silence.is_first_hint():
                logger.warning("%s", warning)
            raise
        finally:
            self._note_end(ticket, outcome, started_s=started_s, retry_after_s=retry_after_s)
        return value

    def _note_end(
        self, ticket: Ticket, outcome: Outcome, *, started_s: float, retry_after_s: float | None
    ) -> None:
        self._limiter.leave(ticket, throttled=outcome == "throttled", retry_after_s=retry_after_s)
        setattr(self.counts, outcome, getattr(self.counts, outcome) + 1)
        ended_s = self._now_s()
        self._emit(RequestEnded(outcome, self._limiter.pacer.in_flight, ended_s - started_s))
        if outcome == "throttled" and self.learnt_rps is not None:
            self._emit(PaceLearnt(self.learnt_rps))
        if outcome == "ok":
            self._answered = True
        self._silence.note_end(outcome, started_s=started_s, ended_s=ended_s)

    async def _exchange(self, call: calls.Call[T], credential: Credential) -> T:
        sent_count = 0

        async def sign_and_send(
            request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
        ) -> aiohttp.ClientResponse:
            # aiohttp repeats a GET itself when a kept-alive connection was gone. As a middleware
            # this signs the repetition anew, since no signature may be sent twice, and counts the
            # request that broke off as failed.
            nonlocal sent_count
            self.counts.failed += sent_count
            self.counts.sent += 1
            sent_count = 1
            request.headers.update(
                sign(
                    call,
                    host=self._host,
                    credential=credential,
                    signed_at=self._utc_now() + self._clock_offset,
                    nonce=f"{random.getrandbits(128):032x}",
                )
            )
            return await handler(request)

        url = URL(f"{self._endpoint}{call.path}?{call.query}", encoded=True)
        try:
            async with self._session.get(
                url,
                middlewares=(sign_and_send,),
                allow_redirects=False,
                proxy_headers=self._proxy_headers,
            ) as response:
                body = await self._read(response, call.label)
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            raise translate(
                exc, label=call.label, route=self._route, answered=self._answered
            ) from exc
        try:
            return calls.parse_answer(
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

    async def _read(self, response: aiohttp.ClientResponse, label: str) -> bytes:
        try:
            return await read_body(response.content.iter_any(), large_lock=self._large_lock)
        except BodyTooLargeError as exc:
            raise build_api_error(
                BadAnswerError,
                label,
                status=response.status,
                reason=f"an answer of more than {MAX_BYTES >> 20} MiB",
                hint=TOO_LARGE,
            ) from exc


def read_failure(state: "tenacity.RetryCallState") -> BaseException:
    """The error of the attempt that tenacity is about to repeat."""
    error = None if state.outcome is None else state.outcome.exception()
    assert error is not None  # noqa: S101 - tenacity waits only after a failure
    return error


@asynccontextmanager
async def open_client(
    *,
    endpoint: str,
    identity: Identity,
    concurrency: int,
    max_rps: float | None,
    retries: int,
    patience_s: float,
    timeout_s: float,
    user_agent: str,
    environ: Mapping[str, str],
    emit: Callable[[Event], None],
) -> AsyncIterator[Client]:
    """A client with at most `concurrency` kept-alive connections, closed at the end of the block.

    `endpoint` is checked already. Raises UsageError if the environment names a malformed proxy.
    """
    proxy = find_proxy(endpoint, environ=environ)
    connector = aiohttp.TCPConnector(limit=concurrency, keepalive_timeout=60)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=timeout_s, sock_connect=min(timeout_s, MAX_CONNECT_S)),
        headers={"accept": "application/json", "user-agent": user_agent},
        cookie_jar=aiohttp.DummyCookieJar(),
        proxy=None if proxy is None else proxy.url,
    ) as session:
        yield Client(
            session,
            endpoint=endpoint,
            identity=identity,
            pacer=Pacer(max_in_flight=concurrency, max_rps=max_rps),
            retries=retries,
            patience_s=patience_s,
            timeout_s=timeout_s,
            emit=emit,
            now_s=time.monotonic,
            utc_now=lambda: datetime.now(UTC),
            sleep=anyio.sleep,
            jitter=random.random,
            proxy=proxy,
        )
