"""Decides which failures get another attempt, how many and after what wait; performs no I/O.

Transient failures (a service in trouble, a broken connection, an unreadable answer) are retried up
to `--retries` times a request, and by no request once none had a good answer for `MAX_SILENCE_S`.
Throttling is retried until no request at all was granted for `--patience`. README.md of this folder
gives the reasons.
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
from exporter.events import Outcome

BACKOFF_FIRST_S = 0.5
"""Highest wait after a first failure; it doubles with each attempt."""
MAX_BACKOFF_S = 20.0
"""Highest wait of all: the eight retries of the default then fit into `MAX_SILENCE_S`."""

MAX_SILENCE_S = 120.0
"""Longest time without a good answer to any request of a run in which retries continue."""

MAX_THROTTLED_WAIT_S = 60.0
MAX_ASKED_WAIT_S = 120.0
"""The service may ask for longer waits, which are cut to these: a request a minute harms nobody,
and a wrong value must not stop a run for a day."""

FIRST_CONTACT_RETRIES = 1
FIRST_CONTACT_WAIT_S = 0.2
"""Before the service's first answer a refused connection or an unreadable answer means a wrong
endpoint more often than an outage: one quick retry, then the user is told."""


@dataclass(frozen=True, slots=True)
class RetryState:
    """The facts besides the error that decide about another attempt."""

    attempt: int
    """The attempt that failed, from 1."""
    throttled_count: int
    """Attempts of the request that were throttled; `retries` does not count them."""
    retries: int
    """Most retries of one request."""
    answered: bool
    """Whether the service has answered any request of the run."""
    patience_s: float
    """Longest time without a granted request in which throttling is retried."""
    silent_s: float
    """Time in which requests failed, with no good and no throttled answer."""
    ungranted_s: float
    """Time in which requests were sent and none was granted, whatever became of them."""


class Silence:
    """Measures the time without a good answer, over all requests of a run.

    It starts with a request that fails: time in which nobody sends one does not count.
    """

    def __init__(self, now_s: float) -> None:
        self._granted_s = now_s
        self._silent_from_s: float | None = None
        self._ungranted_from_s: float | None = None
        self._was_hint_reported = False

    def note_end(self, outcome: Outcome, *, started_s: float, ended_s: float) -> None:
        if outcome == "ok":
            self._granted_s = ended_s
            self._silent_from_s = self._ungranted_from_s = None
            self._was_hint_reported = False
            return
        from_s = max(started_s, self._granted_s)
        if self._ungranted_from_s is None:
            self._ungranted_from_s = from_s
        if outcome == "throttled":
            # A service that throttles is not down.
            self._silent_from_s = None
        elif self._silent_from_s is None:
            self._silent_from_s = from_s

    def measure_silent_s(self, now_s: float) -> float:
        return 0.0 if self._silent_from_s is None else now_s - self._silent_from_s

    def measure_ungranted_s(self, now_s: float) -> float:
        return 0.0 if self._ungranted_from_s is None else now_s - self._ungranted_from_s

    def is_first_hint(self) -> bool:
        """True once between two granted requests, so that a long wait is reported once."""
        is_first, self._was_hint_reported = not self._was_hint_reported, True
        return is_first


def may_retry(error: BaseException, state: RetryState) -> bool:
    if not isinstance(error, ExporterError) or not error.retryable:
        return False
    if isinstance(error, ThrottledError):
        return state.ungranted_s < state.patience_s
    max_retries = state.retries
    if not state.answered and suggests_wrong_endpoint(error):
        max_retries = min(max_retries, FIRST_CONTACT_RETRIES)
    failed_count = state.attempt - state.throttled_count
    return failed_count <= max_retries and state.silent_s < MAX_SILENCE_S


def compute_wait_s(error: BaseException, state: RetryState, *, jitter: float) -> float:
    """Seconds to wait before the next attempt; `jitter` is uniform in [0, 1).

    Full jitter under an exponential ceiling
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). The jitter is added
    to a wait that the service asks for, so that waiting requests do not return all at once. A
    throttled request waits only for its turn, as the pacer slows all requests down. After a used
    nonce a new one is enough.
    """
    if isinstance(error, NonceUsedError):
        return 0.0
    if isinstance(error, ThrottledError):
        return min(MAX_THROTTLED_WAIT_S, state.patience_s, error.retry_after_s or 0.0)
    if not state.answered and suggests_wrong_endpoint(error):
        return FIRST_CONTACT_WAIT_S
    doublings = state.attempt - state.throttled_count - 1
    ceiling_s = min(MAX_BACKOFF_S, BACKOFF_FIRST_S * 2.0**doublings)
    asked_s = error.retry_after_s if isinstance(error, ApiError) else None
    return min(MAX_ASKED_WAIT_S, asked_s or 0.0) + jitter * ceiling_s


def suggests_wrong_endpoint(error: BaseException) -> bool:
    """Whether an error before the service's first answer rather means a wrong endpoint."""
    if isinstance(error, NetworkError):
        return error.unreachable
    return isinstance(error, BadAnswerError) and error.status < 500


def explain_end(error: ExporterError, state: RetryState) -> ExporterError:
    """The last attempt's error, which then also says how often and how long it was tried."""
    if state.attempt == 1 or not error.retryable:
        return error
    message = f"{error} (after {state.attempt} attempts"
    if isinstance(error, ThrottledError):
        message += f", the quota is used up by others for {format_time(state.ungranted_s)}"
        if error.retry_after_s is not None:
            message += f", the service asks to wait {format_time(error.retry_after_s)}"
        error.hint = "run when fewer others use the account's quota, or raise --patience"
    elif state.silent_s >= MAX_SILENCE_S:
        message += f", no good answer for {state.silent_s:.0f}s"
    error.args = (message + ")",)
    return error


def explain_hint(error: ThrottledError, *, patience_s: float) -> str | None:
    """A warning about a wait that exceeds the patience; None for any other wait."""
    if error.retry_after_s is None or error.retry_after_s <= patience_s:
        return None
    return (
        f"{error}: the service asks to wait {format_time(error.retry_after_s)}, longer than"
        f" --patience {format_time(patience_s)}; asking again sooner, until that is over"
    )


def format_time(seconds: float) -> str:
    """`45s`, `10 minutes` or `2.5 hours`."""
    if seconds < 120:
        return f"{seconds:.3g}s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.3g} hours"
