"""All errors, as one tree, and how a message shows a value; performs no I/O.

ExporterError                     1
├── UsageError                    2   flags, file, environment
│   ├── UnknownIdError            2   a workspace or gateway that discovery does not find
│   ├── UnusableNameError         2   no file can have this name; a DestinationError too
│   ├── MissingExtraError         2   an optional dependency is not installed
│   └── StoreUnfitError           2   a store that ignores conditions; a DestinationError too
├── DestinationError              1   the output cannot be written
├── LockHeldError                 5   another run holds the output's lock
├── LockLostError                 5   the output's lock was lost during the run
├── VerificationError             1   a published output differs from its manifest
├── DeadlineError                 1   the run took longer than allowed
├── ReplayError                   1   the journal of a killed run does not fit
├── IncompleteError               4   completeness could not be proven
│   └── EmptiedError              4   the service shows no session, the output has some
├── CredentialsError              3   no identity, or an unreadable one
│   └── StoreRefusedError         3   the output's store refuses it; a DestinationError too
├── NetworkError                  1   no answer: refused, reset, cut off, timed out   (retryable)
│   └── ProxyRefusedError         1   the proxy refuses to forward requests
└── ApiError                      1   the service answered with an error
    ├── ThrottledError            1   too many requests                               (retryable)
    ├── ServiceError              1   5xx and "busy"                                  (retryable)
    ├── BadAnswerError            1   an unreadable answer                            (retryable)
    ├── NonceUsedError            1   the signature's nonce was seen before           (retryable)
    ├── ClockSkewError            1   our clock and the service's differ too much
    ├── TokenExpiredError         3   the STS token has expired
    ├── AuthenticationError       3   unknown key, wrong secret
    ├── PermissionDeniedError     3   the identity may not do this
    ├── NotFoundError             2   no such workspace or gateway
    └── RefusedError              1   any other refusal

`exit_code` and `retryable` belong to the class: policy reads types, never messages. A message says
what failed, with its value and without a full stop; `hint` is the remedy.
"""

import re
import reprlib
from collections.abc import Sequence
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
        """The remedy; None where the message says it all."""
        self.gateway: Gateway | None = None
        """The gateway it is about; None if it is about none or several."""


class UsageError(ExporterError):
    """Raised when flags, the TOML file or the environment are invalid."""

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint or "see `livy-exporter --help`")


class UnknownIdError(UsageError):
    """Raised when discovery does not find a requested workspace or gateway."""


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
    """Raised when no file of this name can be written: too long, or a device."""


class StoreUnfitError(UsageError, DestinationError):
    """Raised when the output's store ignores conditional writes, so that no lock holds there."""


class LockHeldError(ExporterError):
    """Raised when another run holds the output's lock, at once or after `--wait`."""

    exit_code = 5


class LockLostError(ExporterError):
    """Raised when a run no longer holds its output's lock."""

    exit_code = 5


class VerificationError(ExporterError):
    """Raised when a published output differs from its manifest."""


class DeadlineError(ExporterError):
    """Raised when the run takes longer than `--deadline` allows."""


class ReplayError(ExporterError):
    """Raised when the journal of a killed run holds answers to other requests than are made."""


class IncompleteError(ExporterError):
    """Raised when completeness cannot be proven."""

    exit_code = 4


class EmptiedError(IncompleteError):
    """Raised when the service shows no session but the output to be replaced holds some."""


class CredentialsError(ExporterError):
    """Raised when no identity is found, or the requested one cannot be read."""

    exit_code = 3


class StoreRefusedError(CredentialsError, DestinationError):
    """Raised when the output's store refuses the identity, or there is none for it."""


class NetworkError(ExporterError):
    """Raised when a request gets no complete answer."""

    retryable = True

    def __init__(self, message: str, *, hint: str | None = None, unreachable: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.unreachable = unreachable
        """No connection at all: refused, unknown host, bad certificate."""


class ProxyRefusedError(NetworkError):
    """Raised when the proxy refuses to forward requests."""

    retryable = False


class ApiError(ExporterError):
    """Raised when the service answers with an error."""

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
        """HTTP status; alone it does not tell the kind of error."""
        self.code = code
        """The service's error code, such as `Throttling.User`; None if the answer has none."""
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        """Seconds the service asks to wait; None if it does not say."""


class ThrottledError(ApiError):
    """Raised when the service throttles a request."""

    retryable = True


class ServiceError(ApiError):
    """Raised when the service reports that it failed or is busy."""

    retryable = True


class BadAnswerError(ApiError):
    """Raised when an answer is no JSON, is cut off, or lacks a field."""

    retryable = True


class NonceUsedError(ApiError):
    """Raised when the service has seen the signature's nonce before: sign and send again."""

    retryable = True


class ClockSkewError(ApiError):
    """Raised when the signature's date is too far from the service's clock."""

    server_at: datetime | None = None
    """The service's time in its answer; None if it has none."""


class TokenExpiredError(ApiError):
    """Raised when the STS token has expired."""

    exit_code = 3


class AuthenticationError(ApiError):
    """Raised when the service rejects the key or its signature."""

    exit_code = 3


class PermissionDeniedError(ApiError):
    """Raised when the identity is not allowed to make the call."""

    exit_code = 3


class NotFoundError(ApiError):
    """Raised when the requested workspace or gateway does not exist."""

    exit_code = 2


class RefusedError(ApiError):
    """Raised when the service refuses a request for any other reason."""


MAX_SHOWN: Final = 200
"""Characters of a value that a message shows."""
MAX_MESSAGE: Final = 2000
"""Characters of a whole message."""

_LONG_VALUE: Final = re.compile(
    rf"(?<![^\s(=:,])'(?:[^'\\]|\\.){{{MAX_SHOWN + 1},}}'(?!\w)"
    rf'|(?<![^\s(=:,])"(?:[^"\\]|\\.){{{MAX_SHOWN + 1},}}"(?!\w)'
    rf"|\S{{{MAX_SHOWN + 1},}}",
    re.DOTALL,
)
"""A value in quotes, or a word, that is too long. An apostrophe within a word opens no quote."""

_USER_OF_URL: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@")
"""Up to the last `@` of a word: a password may hold any character, though it should not."""


def shorten(text: str, max_length: int = MAX_SHOWN) -> str:
    """The text, without its middle if it is longer than `max_length` characters."""
    if len(text) <= max_length:
        return text
    tail = max_length // 3
    return f"{text[: max_length - tail - 3]}...{text[-tail:]}"


def quote(value: object) -> str:
    """A value as Python writes it, shortened."""
    if isinstance(value, str):
        return repr(shorten(value))
    try:
        return shorten(reprlib.repr(value))
    except (ValueError, RecursionError):  # a number of too many digits, or tables in tables
        return f"a value of type {type(value).__name__}"


def suggest(word: str, known: Sequence[str]) -> str:
    """A hint that names the known word nearest to an unknown one, or else all of them."""
    import difflib

    near = difflib.get_close_matches(shorten(word), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else "known: " + ", ".join(known)


def shorten_values(message: str) -> str:
    """The message, with each long value in it shortened, and shortened itself."""
    return shorten(_LONG_VALUE.sub(_shorten_match, message), MAX_MESSAGE)


def _shorten_match(match: re.Match[str]) -> str:
    """The value shortened within its quotes."""
    text = match[0]
    mark = text[0] if text[0] in "'\"" and text[-1] == text[0] else ""
    return f"{mark}{shorten(text.strip(mark) if mark else text)}{mark}"


def one_line(text: str) -> str:
    """The text with escapes for whatever steers a terminal, breaks the line or is no UTF-8."""
    if text.isprintable():
        return text
    import unicodedata

    return "".join(
        char if char.isprintable() or unicodedata.category(char) == "Zs" else _escape(char)
        for char in text
    )


def _escape(char: str) -> str:
    if char.isascii():
        return f"\\x{ord(char):02x}"
    return char.encode("ascii", "backslashreplace").decode()


def printable(text: str) -> str:
    """The text with `?` for whatever steers a terminal or breaks a line."""
    return "".join(char if char.isprintable() else "?" for char in text)


def mask_url(url: str) -> str:
    """A URL without what may be a secret: all before the last `@`, and all after a `?`."""
    _, at, host = url.rpartition("@")
    return f"***@{host.partition('?')[0]}" if at else host.partition("?")[0]


def mask_urls(text: str) -> str:
    """A text without the users and passwords of the URLs in it."""
    return _USER_OF_URL.sub(r"\1***@", text) if "://" in text else text
