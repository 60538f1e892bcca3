"""Everything a run can fail with, as one tree; performs no I/O.

ExporterError                     1
├── UsageError                    2   flags, file, environment
│   ├── UnknownIdError            2   a workspace or gateway that discovery does not find
│   ├── UnusableNameError         2   no file can have that name; a DestinationError too
│   ├── MissingExtraError         2   an optional dependency is not installed
│   └── StoreUnfitError           2   a store that ignores conditions; a DestinationError too
├── DestinationError              1   the output cannot be written
├── LockHeldError                 5   another run holds the output's lock
├── LockLostError                 5   the output's lock was lost while the run went on
├── VerificationError             1   a published output is not as its manifest says
├── DeadlineError                 1   the run took longer than it may
├── ReplayError                   1   what a killed run left cannot be followed
├── IncompleteError               4   completeness could not be proven
│   └── EmptiedError              4   nothing is shown where the output holds sessions
├── CredentialsError              3   no identity, or one that cannot be read
│   └── StoreRefusedError         3   the output's store refuses it; a DestinationError too
├── NetworkError                  1   no answer: refused, reset, cut off, timed out   (retryable)
│   └── ProxyRefusedError         1   the proxy does not let requests through
└── ApiError                      1   the service answered, and not with a value
    ├── ThrottledError            1   too many requests                               (retryable)
    ├── ServiceError              1   5xx and "busy"                                  (retryable)
    ├── BadAnswerError            1   an answer that cannot be read                   (retryable)
    ├── NonceUsedError            1   the signature's nonce was seen before           (retryable)
    ├── ClockSkewError            1   our clock and the service's differ too much
    ├── TokenExpiredError         3   the STS token is past its life
    ├── AuthenticationError       3   unknown key, wrong secret
    ├── PermissionDeniedError     3   the identity may not do this
    ├── NotFoundError             2   no such workspace or gateway
    └── RefusedError              1   any other refusal

`exit_code` and `retryable` belong to the class: policy reads types, never messages. A message says
what failed with its value and has no full stop; `hint` is the remedy.
"""

from datetime import datetime
from typing import ClassVar

from exporter.gateway import Gateway


class ExporterError(Exception):
    """Base of all errors that livy-exporter raises on purpose."""

    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
        """What the reader can do about it; None when nothing helps but reading the message."""
        self.gateway: Gateway | None = None
        """Which one it is about, for logs; None where it is about none, or several."""


class UsageError(ExporterError):
    """Raised when flags, the TOML file or the environment ask for something that cannot be."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "see `livy-exporter --help`")


class UnknownIdError(UsageError):
    """Raised when a workspace or gateway that was asked for is not among those discovered."""


class MissingExtraError(UsageError):
    """Raised when a feature needs an optional dependency that is not installed."""

    def __init__(self, feature: str, *, extra: str) -> None:
        super().__init__(
            f"{feature} needs the extra '{extra}'",
            hint=f"pip install 'livy-exporter[{extra}]'",
        )


class DestinationError(ExporterError):
    """Raised when the output cannot be created, written or published."""


class UnusableNameError(UsageError, DestinationError):
    """Raised when a name is of no file, or of none that can be written: too long, a device."""


class StoreUnfitError(UsageError, DestinationError):
    """Raised when the output's store overwrites what it was told not to: no lock holds there."""


class LockHeldError(ExporterError):
    """Raised when another run writes the same output, at once or after waiting for its end."""

    exit_code = 5


class LockLostError(ExporterError):
    """Raised when a run finds that it does not hold its output's lock any more."""

    exit_code = 5


class VerificationError(ExporterError):
    """Raised when a published output is not, or not whole, what its manifest says."""


class DeadlineError(ExporterError):
    """Raised when the run as a whole took longer than `--deadline` allows."""


class ReplayError(ExporterError):
    """Raised when the journal of a killed run holds answers to other questions than are asked."""


class IncompleteError(ExporterError):
    """Raised when it cannot be proven that every session is in the output exactly once."""

    exit_code = 4


class EmptiedError(IncompleteError):
    """Raised when the service shows no session where the output to be replaced holds some."""


class CredentialsError(ExporterError):
    """Raised when no identity is found, or the one asked for cannot be read."""

    exit_code = 3


class StoreRefusedError(CredentialsError, DestinationError):
    """Raised when the store of the output refuses the identity, or there is none for it."""


class NetworkError(ExporterError):
    """Raised when a request got no whole answer."""

    retryable = True

    def __init__(self, message: str, *, hint: str | None = None, unreachable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.unreachable = unreachable
        """The endpoint could not even be connected to: refused, unknown host, bad certificate."""


class ProxyRefusedError(NetworkError):
    """Raised when the proxy in between does not let requests through."""

    retryable = False


class ApiError(ExporterError):
    """Raised when the service answered with something else than the value asked for."""

    def __init__(
        self,
        message: str,
        *,
        hint: str | None = None,
        status: int,
        code: str | None = None,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        """HTTP status; not a reliable class by itself."""
        self.code = code
        """The service's own word, such as `Throttling.User`; None when the answer had none."""
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        """How long the service asks to wait, in seconds; None when it does not say."""


class ThrottledError(ApiError):
    """Raised when the service refuses because of too many requests."""

    retryable = True


class ServiceError(ApiError):
    """Raised when the service says that it failed or is busy."""

    retryable = True


class BadAnswerError(ApiError):
    """Raised when an answer is no JSON, is cut off, or lacks what the call promises."""

    retryable = True


class NonceUsedError(ApiError):
    """Raised when the service has seen the signature's nonce before: sign anew and ask again."""

    retryable = True


class ClockSkewError(ApiError):
    """Raised when the signature's date is too far from the service's clock."""

    server_at: datetime | None = None
    """The service's time when it refused; None when the answer did not tell."""


class TokenExpiredError(ApiError):
    """Raised when the STS token has expired."""

    exit_code = 3


class AuthenticationError(ApiError):
    """Raised when the service does not accept the key or its signature."""

    exit_code = 3


class PermissionDeniedError(ApiError):
    """Raised when the identity is known and may not make the call."""

    exit_code = 3


class NotFoundError(ApiError):
    """Raised when the workspace or gateway asked for does not exist."""

    exit_code = 2


class RefusedError(ApiError):
    """Raised when the service refuses a request for any other reason."""
