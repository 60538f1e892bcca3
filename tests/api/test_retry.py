"""Which failures are retried, how often and after what wait, as tables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.api.retry import (
    BACKOFF_FIRST_S,
    FIRST_CONTACT_RETRIES,
    FIRST_CONTACT_WAIT_S,
    MAX_ASKED_WAIT_S,
    MAX_BACKOFF_S,
    MAX_SILENCE_S,
    MAX_THROTTLED_WAIT_S,
    RetryState,
    Silence,
    compute_wait_s,
    explain_end,
    explain_hint,
    format_time,
    may_retry,
)
from exporter.errors import (
    ApiError,
    AuthenticationError,
    BadAnswerError,
    ClockSkewError,
    CredentialsError,
    DeadlineError,
    DestinationError,
    EmptiedError,
    ExporterError,
    IncompleteError,
    LockHeldError,
    LockLostError,
    MissingExtraError,
    NetworkError,
    NonceUsedError,
    NotFoundError,
    PermissionDeniedError,
    ProxyRefusedError,
    RefusedError,
    ReplayError,
    ServiceError,
    StoreRefusedError,
    StoreUnfitError,
    ThrottledError,
    TokenExpiredError,
    UnknownIdError,
    UnusableNameError,
    UsageError,
    VerificationError,
)


def build_state(
    *,
    attempt: int = 1,
    throttled_count: int = 0,
    retries: int = 8,
    patience_s: float = 600.0,
    answered: bool = True,
    silent_s: float = 0.0,
    ungranted_s: float = 0.0,
) -> RetryState:
    return RetryState(
        attempt=attempt,
        throttled_count=throttled_count,
        retries=retries,
        patience_s=patience_s,
        answered=answered,
        silent_s=silent_s,
        ungranted_s=ungranted_s,
    )


def throttled(*, retry_after_s: float | None = None) -> ThrottledError:
    return ThrottledError("too many", status=429, retry_after_s=retry_after_s)


def unavailable(*, retry_after_s: float | None = None) -> ServiceError:
    return ServiceError("busy", status=503, retry_after_s=retry_after_s)


BROKE_OFF = NetworkError("broke off")
UNREACHABLE = NetworkError("refused", unreachable=True)
UNREADABLE = BadAnswerError("no JSON", status=200)
UNREADABLE_502 = BadAnswerError("no JSON", status=502)
NONCE_USED = NonceUsedError("used", status=400)

FAILING: list[ExporterError] = [
    unavailable(),
    BROKE_OFF,
    UNREACHABLE,
    UNREADABLE,
    UNREADABLE_502,
    NONCE_USED,
]
"""One of each transient failure but throttling."""

PASSING: list[ExporterError] = [throttled(), *FAILING]

LASTING: list[BaseException] = [
    UsageError("no"),
    UnknownIdError("no"),
    MissingExtraError("it", extra="x"),
    UnusableNameError("no"),
    DestinationError("no"),
    LockHeldError("no"),
    LockLostError("no"),
    StoreUnfitError("no"),
    EmptiedError("no"),
    ProxyRefusedError("no"),
    ReplayError("no"),
    DeadlineError("no"),
    VerificationError("a byte was flipped"),
    IncompleteError("no"),
    CredentialsError("no"),
    StoreRefusedError("no"),
    ClockSkewError("no", status=400),
    TokenExpiredError("no", status=400),
    AuthenticationError("no", status=400),
    PermissionDeniedError("no", status=429),
    NotFoundError("no", status=404),
    RefusedError("no", status=400),
    ValueError("a bug"),
    KeyboardInterrupt(),
]


def name(value: object) -> str | None:
    if not isinstance(value, BaseException):
        return None
    unreachable = getattr(value, "unreachable", False)
    status = getattr(value, "status", "")
    return f"{type(value).__name__}{status}{'-unreachable' if unreachable else ''}"


def leaves(kind: type[ExporterError]) -> set[type[ExporterError]]:
    below = [each for each in kind.__subclasses__() if each.__module__ == "exporter.errors"]
    return {kind} if not below else set[type[ExporterError]]().union(*map(leaves, below))


def test_tables_below_name_every_error_there_is() -> None:
    named = {type(error) for error in [*PASSING, *LASTING] if isinstance(error, ExporterError)}

    assert leaves(ExporterError) - named == set()


@pytest.mark.parametrize("error", FAILING, ids=name)
@pytest.mark.parametrize(
    ("attempt", "retries", "again"),
    [
        (1, 0, False),
        (1, 1, True),
        (2, 1, False),
        (2, 8, True),
        (8, 8, True),
        (9, 8, False),
        (100, 100, True),
        (101, 100, False),
    ],
)
def test_transient_failure_is_retried_as_often_as_the_settings_say(
    attempt: int, retries: int, again: bool, error: ExporterError
) -> None:
    assert may_retry(error, build_state(attempt=attempt, retries=retries)) == again


@pytest.mark.parametrize("error", FAILING, ids=name)
@given(failed_count=st.integers(1, 10), throttled_count=st.integers(0, 1000))
def test_throttled_attempts_are_not_counted_against_the_retries(
    error: ExporterError, failed_count: int, throttled_count: int
) -> None:
    state = build_state(attempt=failed_count + throttled_count, throttled_count=throttled_count)

    assert may_retry(error, state) == (failed_count <= 8)


@given(
    attempt=st.integers(1, 10_000),
    retries=st.integers(0, 100),
    answered=st.booleans(),
    ungranted_s=st.floats(0, 2000),
    patience_s=st.floats(0.001, 2000),
)
def test_throttling_is_waited_out_by_time_whatever_the_count(
    *, attempt: int, retries: int, answered: bool, ungranted_s: float, patience_s: float
) -> None:
    state = build_state(
        attempt=attempt,
        throttled_count=attempt,
        retries=retries,
        answered=answered,
        patience_s=patience_s,
        ungranted_s=ungranted_s,
    )

    assert may_retry(throttled(), state) == (ungranted_s < patience_s)


@pytest.mark.parametrize("error", LASTING, ids=name)
@pytest.mark.parametrize("answered", [True, False])
def test_permanent_failure_is_never_retried(answered: bool, error: BaseException) -> None:
    assert not may_retry(error, build_state(retries=100, answered=answered))


@pytest.mark.parametrize("error", FAILING, ids=name)
@pytest.mark.parametrize(
    ("silent_s", "again"),
    [(0.0, True), (MAX_SILENCE_S - 0.1, True), (MAX_SILENCE_S, False), (10 * MAX_SILENCE_S, False)],
)
def test_no_failure_is_retried_after_a_long_time_without_a_good_answer(
    silent_s: float, again: bool, error: ExporterError
) -> None:
    assert may_retry(error, build_state(silent_s=silent_s)) == again


@pytest.mark.parametrize(
    ("error", "attempts"),
    [
        (UNREACHABLE, 1 + FIRST_CONTACT_RETRIES),
        (UNREADABLE, 1 + FIRST_CONTACT_RETRIES),
        (BROKE_OFF, 9),
        (UNREADABLE_502, 9),
        (unavailable(), 9),
        (NONCE_USED, 9),
    ],
    ids=name,
)
def test_suspected_wrong_endpoint_is_reported_soon_before_any_answer(
    error: ExporterError, attempts: int
) -> None:
    made = 1
    while may_retry(error, build_state(attempt=made, answered=False)):
        made += 1

    assert made == attempts


def test_no_retries_are_none_at_first_contact_either() -> None:
    assert not may_retry(UNREACHABLE, build_state(retries=0, answered=False))


@pytest.mark.parametrize("error", [unavailable(), BROKE_OFF, UNREADABLE, UNREACHABLE], ids=name)
def test_highest_wait_doubles_from_attempt_to_attempt_up_to_a_limit(error: ExporterError) -> None:
    waits_s = [compute_wait_s(error, build_state(attempt=n), jitter=1.0) for n in range(1, 9)]

    assert waits_s == [0.5, 1, 2, 4, 8, 16, 20, 20]


@given(attempt=st.integers(1, 100), jitter=st.floats(0, 1, exclude_max=True))
def test_throttled_request_waits_only_for_its_turn(attempt: int, jitter: float) -> None:
    state = build_state(attempt=attempt, throttled_count=attempt)

    assert compute_wait_s(throttled(), state, jitter=jitter) == 0


@given(asked_s=st.floats(0.001, 1e9), patience_s=st.floats(0.001, 1e5))
def test_throttled_request_is_retried_within_a_minute_whatever_the_service_asks(
    asked_s: float, patience_s: float
) -> None:
    error, state = throttled(retry_after_s=asked_s), build_state(patience_s=patience_s)

    wait_s = compute_wait_s(error, state, jitter=0.5)

    assert wait_s == min(asked_s, patience_s, MAX_THROTTLED_WAIT_S)


def test_throttled_attempts_do_not_lengthen_the_wait_after_a_failure() -> None:
    state = build_state(attempt=1001, throttled_count=1000)

    assert compute_wait_s(unavailable(), state, jitter=1.0) == BACKOFF_FIRST_S


@given(attempt=st.integers(1, 100), jitter=st.floats(0, 1, exclude_max=True))
def test_wait_is_anywhere_between_nothing_and_its_ceiling(attempt: int, jitter: float) -> None:
    ceiling_s = min(MAX_BACKOFF_S, BACKOFF_FIRST_S * 2.0 ** (attempt - 1))

    assert compute_wait_s(unavailable(), build_state(attempt=attempt), jitter=jitter) == (
        jitter * ceiling_s
    )


@given(
    attempt=st.integers(1, 100),
    jitter=st.floats(0, 1, exclude_max=True),
    asked_s=st.floats(0.001, 1000),
)
def test_wait_that_the_service_asks_for_is_kept_in_full_and_the_jitter_comes_on_top(
    attempt: int, jitter: float, asked_s: float
) -> None:
    asked, unasked = unavailable(retry_after_s=asked_s), unavailable()
    state = build_state(attempt=attempt)

    wait_s = compute_wait_s(asked, state, jitter=jitter)

    backoff_s = compute_wait_s(unasked, state, jitter=jitter)
    assert wait_s == min(MAX_ASKED_WAIT_S, asked_s) + backoff_s


@given(
    attempt=st.integers(1, 100), answered=st.booleans(), jitter=st.floats(0, 1, exclude_max=True)
)
def test_used_nonce_is_replaced_at_once(attempt: int, answered: bool, jitter: float) -> None:
    state = build_state(attempt=attempt, answered=answered)

    assert compute_wait_s(NONCE_USED, state, jitter=jitter) == 0


@pytest.mark.parametrize("error", [UNREACHABLE, UNREADABLE], ids=name)
@pytest.mark.parametrize("jitter", [0.0, 0.99])
def test_second_try_of_a_suspected_endpoint_comes_soon(jitter: float, error: ExporterError) -> None:
    wait_s = compute_wait_s(error, build_state(answered=False), jitter=jitter)

    assert wait_s == FIRST_CONTACT_WAIT_S


@pytest.mark.parametrize("error", PASSING, ids=name)
def test_all_retries_that_the_default_allows_fit_into_the_silence(error: ExporterError) -> None:
    waits_s = [compute_wait_s(error, build_state(attempt=n), jitter=1.0) for n in range(1, 9)]

    assert sum(waits_s) < MAX_SILENCE_S


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (build_state(attempt=1), "HTTP 503"),
        (build_state(attempt=2), "HTTP 503 (after 2 attempts)"),
        (build_state(attempt=9, silent_s=71.0), "HTTP 503 (after 9 attempts)"),
        (
            build_state(attempt=5, silent_s=MAX_SILENCE_S + 3.4),
            "HTTP 503 (after 5 attempts, no good answer for 123s)",
        ),
    ],
)
def test_last_error_tells_how_often_and_how_long_it_was_tried(
    state: RetryState, expected: str
) -> None:
    error = ServiceError("HTTP 503", hint="later", status=503)

    ended = explain_end(error, state)

    assert ended is error
    assert str(ended) == expected
    assert ended.hint == "later"


@pytest.mark.parametrize(
    "error", [each for each in LASTING if isinstance(each, ApiError)], ids=name
)
def test_permanent_failure_after_transient_ones_is_reported_as_it_is(error: ApiError) -> None:
    ended = explain_end(error, build_state(attempt=4, silent_s=2 * MAX_SILENCE_S))

    assert ended is error
    assert str(ended) == "no"


@pytest.mark.parametrize(
    ("retry_after_s", "expected"),
    [
        (None, ""),
        (3600.0, ", the service asks to wait 60 minutes"),
    ],
)
def test_end_of_the_patience_says_that_the_quota_is_used_up_and_not_that_the_service_is_down(
    retry_after_s: float | None, expected: str
) -> None:
    error = throttled(retry_after_s=retry_after_s)
    state = build_state(attempt=14, throttled_count=14, silent_s=700, ungranted_s=601)

    ended = explain_end(error, state)

    assert str(ended) == (
        f"too many (after 14 attempts, the quota is used up by others for 10 minutes{expected})"
    )
    assert ended.hint == "run when fewer others use the account's quota, or raise --patience"


@pytest.mark.parametrize("asked_s", [None, 0.5, 600.0])
def test_wait_within_the_patience_is_not_reported(asked_s: float | None) -> None:
    assert explain_hint(throttled(retry_after_s=asked_s), patience_s=600.0) is None


def test_wait_longer_than_the_patience_is_reported() -> None:
    assert explain_hint(throttled(retry_after_s=9000.0), patience_s=600.0) == (
        "too many: the service asks to wait 2.5 hours, longer than --patience 10 minutes;"
        " asking again sooner, until that is over"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.7, "0.7s"), (119, "119s"), (120, "2 minutes"), (7200, "2 hours")]
)
def test_time_is_reported_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


def test_throttled_answer_ends_the_silent_time_and_not_the_ungranted_time() -> None:
    silence = Silence(0.0)

    silence.note_end("failed", started_s=10.0, ended_s=11.0)
    silent_s = silence.measure_silent_s(100.0)
    silence.note_end("throttled", started_s=100.0, ended_s=101.0)
    silence.note_end("failed", started_s=200.0, ended_s=201.0)

    assert silent_s == 90.0
    assert silence.measure_silent_s(210.0) == 10.0
    assert silence.measure_ungranted_s(210.0) == 200.0
    silence.note_end("ok", started_s=210.0, ended_s=211.0)
    assert silence.measure_silent_s(500.0) == silence.measure_ungranted_s(500.0) == 0.0


def test_time_without_requests_does_not_count_as_ungranted() -> None:
    silence = Silence(0.0)
    silence.note_end("ok", started_s=1.0, ended_s=2.0)

    silence.note_end("throttled", started_s=5000.0, ended_s=5001.0)

    assert silence.measure_ungranted_s(5002.0) == 2.0


def test_long_wait_is_reported_once_until_a_request_is_granted() -> None:
    silence = Silence(0.0)

    first = [silence.is_first_hint() for _ in range(3)]
    silence.note_end("ok", started_s=1.0, ended_s=2.0)

    assert first == [True, False, False]
    assert silence.is_first_hint()
