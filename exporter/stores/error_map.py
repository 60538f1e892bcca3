"""Errors of an object store's client as one line and a remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from exporter.errors import (
    DestinationError,
    ExporterError,
    StoreRefusedError,
    StoreUnfitError,
    mask_urls,
)

WRONG_KEY: Final = frozenset(
    {
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidSecurityToken",
        "InvalidToken",
        "RequestTimeTooSkewed",
        "SecurityTokenExpired",
        "SignatureDoesNotMatch",
        "TokenRefreshRequired",
    }
)
WRONG_REGION: Final = frozenset(
    {
        "AuthorizationHeaderMalformed",
        "IllegalLocationConstraintException",
        "PermanentRedirect",
        "TemporaryRedirect",
    }
)


@dataclass(slots=True, kw_only=True)
class ErrorMap:
    """Maps the errors of one bucket's client; nothing of a key gets into them.

    A kind of store gives its own hints, and its codes where they differ from those of S3.
    """

    bucket: str
    endpoint: str | None = None
    """None where the client knows its own."""
    no_identity: str
    """The hint where there is no key, or a wrong one."""
    no_permission: str
    """The hint where the identity may not do something."""
    wrong_region: str = "name the bucket's own endpoint with --storage-endpoint"
    """The hint where the bucket is in another region."""
    no_bucket_code: str = "NoSuchBucket"
    wrong_key_codes: frozenset[str] = WRONG_KEY
    wrong_region_codes: frozenset[str] = WRONG_REGION
    identity_error: ExporterError | None = None
    """Why there was no key when the client last asked for one."""

    @contextmanager
    def translated(self, path: str, *, doing: str = "write") -> Iterator[None]:
        """Raises the client's errors as DestinationError, of which StoreRefusedError is one."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as exc:
            if self.identity_error is not None:
                text, hint = str(self.identity_error), self.identity_error.hint
                raise StoreRefusedError(text, hint=hint) from None
            # The client's text holds the store's answer, which may repeat signed headers.
            raise self._explain(exc, path, doing=doing) from None

    def is_bucket_missing(self, exc: FileNotFoundError) -> bool:
        """Whether the bucket is missing, and not only an object."""
        return read_code(str(exc)) == self.no_bucket_code

    def _explain(self, exc: Exception, path: str, *, doing: str) -> DestinationError:
        text = str(exc)
        return (
            self._explain_bucket(text, path, doing=doing)
            or self._explain_refusal(exc, path, doing=doing)
            or self._explain_rest(text, path, doing=doing)
        )

    def _explain_bucket(self, text: str, path: str, *, doing: str) -> DestinationError | None:
        code = read_code(text)
        if code == self.no_bucket_code:
            return DestinationError(
                f"cannot {doing} '{path}': there is no bucket '{self.bucket}'",
                hint=f"make the bucket first, or correct its name{self._asked}",
            )
        if code in self.wrong_region_codes or is_redirect(text):
            return DestinationError(
                f"cannot {doing} '{path}': the bucket '{self.bucket}' is in another region",
                hint=self.wrong_region + self._asked,
            )
        return None

    def _explain_refusal(self, exc: Exception, path: str, *, doing: str) -> DestinationError | None:
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        text = str(exc)
        code, status = read_code(text), read_status(text)
        is_refusal = isinstance(exc, PermissionDeniedError | UnauthenticatedError)
        if code in self.wrong_key_codes:
            return StoreRefusedError(
                f"cannot {doing} '{path}': the key was refused ({code})", hint=self.no_identity
            )
        if asks_metadata(text) or (status is None and is_refusal):
            return StoreRefusedError(f"no credentials for '{path}'", hint=self.no_identity)
        if status in (401, 403) or is_refusal:
            return StoreRefusedError(
                f"no permission to {doing} '{path}': {code or status}", hint=self.no_permission
            )
        return None

    def _explain_rest(self, text: str, path: str, *, doing: str) -> DestinationError:
        code, status = read_code(text), read_status(text)
        if code == "NotImplemented" and doing == "write":
            return StoreUnfitError(
                f"cannot {doing} '{path}': the store does not know conditional writes",
                hint="two runs could write here at once: name a bucket of a store that does"
                + self._asked,
            )
        if status is not None:
            reason = f"the store answered {code or status}"
            hint = "look the word up in the store's documentation"
        elif "HTTP error" in text:
            is_late = "timed out" in text
            reason = (
                f"the store {'gave no whole answer in time' if is_late else 'cannot be reached'}"
            )
            hint = "check the network and the bucket's name"
        else:
            reason = mask_urls(text.strip().partition("\n")[0])[:200]
            hint = "check the output's name and the settings of its store"
        return DestinationError(f"cannot {doing} '{path}': {reason}", hint=hint + self._asked)

    @property
    def _asked(self) -> str:
        return "" if self.endpoint is None else f"; asked was {self.endpoint}"


def read_code(text: str) -> str | None:
    """The store's own word for an error; of several in a bulk answer the first."""
    match = re.search(r"<Code>(\w+)</Code>", text)
    return None if match is None else match[1]


def read_status(text: str) -> int | None:
    match = re.search(r"status code: (\d{3})", text)
    return None if match is None else int(match[1])


def is_redirect(text: str) -> bool:
    """Whether a store named another endpoint, with one of its codes or without."""
    return (
        read_status(text) in (301, 307)
        or "redirect" in text.partition("\n")[0]
        or "must be addressed using the specified endpoint" in text
    )


def asks_metadata(text: str) -> bool:
    """Whether the client failed to find a role of this machine."""
    return "http://169.254." in text or "metadata.google.internal" in text
