"""Which failures are worth another attempt, how often and after how long; performs no I/O.

A request is asked for again after what may pass: throttling, a service in trouble, a connection
that broke, an answer that cannot be read. `--retries` bounds that for each request, and
`PATIENCE_S` for all of them together: when nothing good was heard for so long, the service is down,
and every failure is final.
"""

from dataclasses import dataclass

from exporter.errors import (
    ApiError,
    BadAnswerError,
    ExporterError,
    NetworkError,
    NonceUsedError,
    ThrottledError,
)

BACKOFF_FIRST_S = 0.5
BACKOFF_MOST_S = 20.0

PATIENCE_S = 120.0
"""Longest time without one good answer, over all requests of a run, in which retries go on."""

FIRST_CONTACT_RETRIES = 1
"""Before the service has answered once, a refused connection or an unreadable answer means a wrong
endpoint more often than weather: it is tried once more, and then told.
"""
FIRST_CONTACT_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What a failed attempt is judged by, besides its error."""

    attempt: int
    """The attempt that failed, from 1."""
    retries: int
    """Most times one request is asked again."""
    answered: bool
    """Whether the service has ever answered in this run."""
    silent_s: float
    """Seconds for which requests have failed without one good answer between them."""


def may_retry(error: BaseException, circumstances: Circumstances) -> bool:
    """Whether to ask again after an error."""
    if not isinstance(error, ExporterError) or not error.retryable:
        return False
    most = circumstances.retries
    if not circumstances.answered and is_doubtful_contact(error):
        most = min(most, FIRST_CONTACT_RETRIES)
    return circumstances.attempt <= most and circumstances.silent_s < PATIENCE_S


def compute_wait_s(error: BaseException, circumstances: Circumstances, *, jitter: float) -> float:
    """Seconds to wait before the next attempt; `jitter` is uniform in [0, 1).

    Full jitter over an exponential ceiling
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A wait that the
    service asks for is kept to the full and the jitter comes on top, so that waiting requests do
    not return as one. A request that was throttled once waits for nothing else than its turn: the
    pace of all requests was lowered already. A used nonce needs only a new one.
    """
    if isinstance(error, NonceUsedError):
        return 0.0
    if not circumstances.answered and is_doubtful_contact(error):
        return FIRST_CONTACT_WAIT_S
    steps = circumstances.attempt - 1
    ceiling_s = min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2.0**steps)
    if isinstance(error, ThrottledError):
        ceiling_s = ceiling_s / 2 if steps > 0 else 0.0
    asked_s = error.retry_after_s if isinstance(error, ApiError) else None
    return (asked_s or 0.0) + jitter * ceiling_s


def is_doubtful_contact(error: BaseException) -> bool:
    """Whether an error looks more like a wrong endpoint than like weather, as long as nothing was
    heard yet.
    """
    if isinstance(error, NetworkError):
        return error.unreachable
    return isinstance(error, BadAnswerError) and error.status < 500


def explain_end(error: ExporterError, circumstances: Circumstances) -> ExporterError:
    """The error as it is told after the last attempt: with how often and how long it was tried."""
    if circumstances.attempt == 1 or not error.retryable:
        return error
    told = f"{error} (after {circumstances.attempt} attempts"
    if circumstances.silent_s >= PATIENCE_S:
        told += f", no good answer for {circumstances.silent_s:.0f}s"
    error.args = (told + ")",)
    return error
