"""Which failures are worth another attempt, how often and after how long; performs no I/O.

A request is asked for again after what may pass: a service in trouble, a connection that broke, an
answer that cannot be read. `--retries` bounds that for each request, and `MAX_SILENCE_S` for all of
them together: when nothing good was heard for so long, the service is down, and every failure is
final.

Throttling is another matter: it says that the service is well and that the account's quota is used
up, perhaps by others. It is waited out however often it is met, until no request at all was granted
for as long as `--patience` allows.
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
MAX_BACKOFF_S = 20.0

MAX_SILENCE_S = 120.0
"""Longest time without one good answer, over all requests of a run, in which retries go on."""

MAX_THROTTLED_WAIT_S = 60.0
MAX_ASKED_WAIT_S = 120.0
"""A longer wait that the service asks for is cut to this: a question a minute harms nobody, and an
odd value must not stop a run for a day.
"""

FIRST_CONTACT_RETRIES = 1
"""Before the service has answered once, a refused connection or an unreadable answer means a wrong
endpoint more often than weather: it is tried once more, and then told.
"""
FIRST_CONTACT_WAIT_S = 0.2


@dataclass(frozen=True, slots=True)
class RetryState:
    """What a failed attempt is judged by, besides its error."""

    attempt: int
    """The attempt that failed, from 1."""
    throttled_count: int
    """How many attempts of the request were throttled; `retries` does not count them."""
    retries: int
    """Most times one request is asked again."""
    answered: bool
    """Whether the service has ever answered in this run."""
    patience_s: float
    """Longest time without a granted request that throttling is waited out."""
    silent_s: float
    """Seconds for which requests have failed without a good or a throttled answer between them."""
    ungranted_s: float
    """Seconds for which requests were asked and none was granted, whatever they met."""


class Silence:
    """How long nothing good was heard, over all requests of a run.

    It begins with a request in vain: while nobody asks, there is none.
    """

    def __init__(self, now_s: float) -> None:
        self._granted_s = now_s
        self._silent_from_s: float | None = None
        self._ungranted_from_s: float | None = None
        self._was_hint_told = False

    def note_end(self, outcome: Outcome, *, started_s: float, ended_s: float) -> None:
        if outcome == "ok":
            self._granted_s = ended_s
            self._silent_from_s = self._ungranted_from_s = None
            self._was_hint_told = False
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
        """Whether nobody asked before since the last granted request; so that it is told once."""
        is_first, self._was_hint_told = not self._was_hint_told, True
        return is_first


def may_retry(error: BaseException, circumstances: RetryState) -> bool:
    """Whether to ask again after an error."""
    if not isinstance(error, ExporterError) or not error.retryable:
        return False
    if isinstance(error, ThrottledError):
        return circumstances.ungranted_s < circumstances.patience_s
    most = circumstances.retries
    if not circumstances.answered and is_doubtful_contact(error):
        most = min(most, FIRST_CONTACT_RETRIES)
    failed_count = circumstances.attempt - circumstances.throttled_count
    return failed_count <= most and circumstances.silent_s < MAX_SILENCE_S


def compute_wait_s(error: BaseException, circumstances: RetryState, *, jitter: float) -> float:
    """Seconds to wait before the next attempt; `jitter` is uniform in [0, 1).

    Full jitter over an exponential ceiling
    (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). A wait that the
    service asks for is kept to the full and the jitter comes on top, so that waiting requests do
    not return as one. A throttled request waits for nothing else than its turn: the pace of all
    requests is lowered for it. A used nonce needs only a new one.
    """
    if isinstance(error, NonceUsedError):
        return 0.0
    if isinstance(error, ThrottledError):
        max_s = min(MAX_THROTTLED_WAIT_S, circumstances.patience_s)
        return min(max_s, error.retry_after_s or 0.0)
    if not circumstances.answered and is_doubtful_contact(error):
        return FIRST_CONTACT_WAIT_S
    steps = circumstances.attempt - circumstances.throttled_count - 1
    ceiling_s = min(MAX_BACKOFF_S, BACKOFF_FIRST_S * 2.0**steps)
    asked_s = error.retry_after_s if isinstance(error, ApiError) else None
    return min(MAX_ASKED_WAIT_S, asked_s or 0.0) + jitter * ceiling_s


def is_doubtful_contact(error: BaseException) -> bool:
    """Whether an error looks more like a wrong endpoint than like weather, as long as nothing was
    heard yet.
    """
    if isinstance(error, NetworkError):
        return error.unreachable
    return isinstance(error, BadAnswerError) and error.status < 500


def explain_end(error: ExporterError, circumstances: RetryState) -> ExporterError:
    """The error as it is told after the last attempt: with how often and how long it was tried."""
    if circumstances.attempt == 1 or not error.retryable:
        return error
    told = f"{error} (after {circumstances.attempt} attempts"
    if isinstance(error, ThrottledError):
        told += f", the quota is used up by others for {format_time(circumstances.ungranted_s)}"
        if error.retry_after_s is not None:
            told += f", the service asks to wait {format_time(error.retry_after_s)}"
        error.hint = "run when fewer others use the account's quota, or raise --patience"
    elif circumstances.silent_s >= MAX_SILENCE_S:
        told += f", no good answer for {circumstances.silent_s:.0f}s"
    error.args = (told + ")",)
    return error


def explain_hint(error: ThrottledError, *, patience_s: float) -> str | None:
    """What is to be said of a wait that the service asks for; None where it is in order."""
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
