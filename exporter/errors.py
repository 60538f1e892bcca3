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

import re
import reprlib
from datetime import datetime
from typing import ClassVar, Final

from exporter.model import Gateway


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


MAX_SHOWN = 200
"""Characters of a value that a message shows."""


MAX_MESSAGE = 2000
"""Characters of a message, whatever it is made of."""


LONG_VALUES = re.compile(
    rf"(?<![^\s(=:,])'(?:[^'\\]|\\.){{{MAX_SHOWN + 1},}}'(?!\w)"
    rf'|(?<![^\s(=:,])"(?:[^"\\]|\\.){{{MAX_SHOWN + 1},}}"(?!\w)'
    rf"|\S{{{MAX_SHOWN + 1},}}",
    re.DOTALL,
)
"""Values in quotes, and words, that are too long. An apostrophe within a word opens none."""


SHORT_REPR = reprlib.Repr()


def shorten(text: str, most: int = MAX_SHOWN) -> str:
    """A text of at most `most` characters: of a longer one the middle is left out."""
    if len(text) <= most:
        return text
    tail = most // 3
    return f"{text[: most - tail - 3]}...{text[-tail:]}"


def quote(value: object) -> str:
    """A value as Python writes it, cut."""
    if isinstance(value, str):
        return repr(shorten(value))
    try:
        return shorten(SHORT_REPR.repr(value))
    except (ValueError, RecursionError):  # a number of too many digits, or tables in tables
        return f"a value of type {type(value).__name__}"


def shorten_values(message: str) -> str:
    """A message whose values, and itself, are as long as a reader can take in."""
    return shorten(LONG_VALUES.sub(lambda found: shorten_value(found[0]), message), MAX_MESSAGE)


def shorten_value(text: str) -> str:
    """Quotes stay around what they were around."""
    mark = text[0] if text[0] in "'\"" and text[-1] == text[0] else ""
    return f"{mark}{shorten(text.strip(mark) if mark else text)}{mark}"


def one_line(text: str) -> str:
    """A text that neither steers a terminal nor passes for two lines, and that UTF-8 can hold."""
    if text.isprintable():
        return text
    import unicodedata

    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else escape(char)
        for char in text
    )


def escape(char: str) -> str:
    code = ord(char)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


WITH_USER: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@")
"""As far as the last `@` of a word: a password may hold any sign, though it should not."""


def mask_url(url: str) -> str:
    """A URL without what may be a password in it: all before the last `@`, all after a `?`."""
    _, at, host = url.rpartition("@")
    return f"***@{host.partition('?')[0]}" if at else host.partition("?")[0]


def mask_urls(text: str) -> str:
    """A text in which each URL that names a user is without the user and the password."""
    return WITH_USER.sub(r"\1***@", text) if "://" in text else text
