"""What an object store's client failed with, as one line and a remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from exporter.errors import (
    DestinationError,
    ExporterError,
    StoreRefusedError,
    StoreUnfitError,
    mask_urls,
)
from exporter.stores.url import Address, Endpoint, Scheme

NEEDED: Final[dict[Scheme, str]] = {
    "s3": "the identity needs s3:PutObject, s3:GetObject, s3:ListBucket, s3:DeleteObject,"
    " s3:AbortMultipartUpload and s3:ListBucketMultipartUploads",
    "oss": "the RAM policy needs oss:PutObject, oss:GetObject, oss:ListObjects, oss:DeleteObject,"
    " oss:AbortMultipartUpload, oss:ListParts and oss:ListMultipartUploads on the bucket and on"
    " its objects",
    "gs": "the identity needs the role roles/storage.objectUser on the bucket",
}

NO_IDENTITY: Final[dict[Scheme, str]] = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached;"
    " profiles of ~/.aws need pip install 'livy-exporter[aws]'",
    "oss": "oss:// uses the identity of the API calls: check its key, or name another with"
    " --profile",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS, or run where a service account is attached",
}

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


class Failures:
    """Tells the failures of one bucket's client; nothing of a key gets into them."""

    def __init__(self, address: Address, endpoint: Endpoint | None) -> None:
        self._scheme = address.scheme
        self._bucket = address.bucket
        self._endpoint = endpoint
        """None where the client knows its own."""
        self.of_identity: ExporterError | None = None
        """Why there was no key when the client asked for one."""

    @contextmanager
    def translated(self, path: str, *, doing: str = "write") -> Iterator[None]:
        """Failures of the client as DestinationError, of which StoreRefusedError is one."""
        from obstore.exceptions import BaseError

        try:
            yield
        except (BaseError, OSError, ValueError) as exc:
            if self.of_identity is not None:
                text, hint = str(self.of_identity), self.of_identity.hint
                raise StoreRefusedError(text, hint=hint) from None
            # The client's text holds the store's answer, which may repeat signed headers.
            raise self._tell(exc, path, doing=doing) from None

    def _tell(self, exc: Exception, path: str, *, doing: str) -> DestinationError:
        text = str(exc)
        return (
            self._tell_of_bucket(text, path, doing=doing)
            or self._tell_of_identity(exc, path, doing=doing)
            or self._tell_of_rest(text, path, doing=doing)
        )

    def _tell_of_bucket(self, text: str, path: str, *, doing: str) -> DestinationError | None:
        code = read_code(text)
        if code == "NoSuchBucket":
            return DestinationError(
                f"cannot {doing} '{path}': there is no bucket '{self._bucket}'",
                hint="make the bucket first, or correct its name" + self._asked(),
            )
        if code in WRONG_REGION or read_status(text) in (301, 307) or is_redirect(text):
            return DestinationError(
                f"cannot {doing} '{path}': the bucket '{self._bucket}' is in another region",
                hint=self._region_remedy() + self._asked(),
            )
        return None

    def _tell_of_identity(
        self, exc: Exception, path: str, *, doing: str
    ) -> DestinationError | None:
        text = str(exc)
        code, status = read_code(text), read_status(text)
        if code in WRONG_KEY:
            return StoreRefusedError(
                f"cannot {doing} '{path}': the key was refused ({code})",
                hint=NO_IDENTITY[self._scheme],
            )
        if asks_metadata(text) or (status is None and is_refusal(exc)):
            return StoreRefusedError(f"no credentials for '{path}'", hint=NO_IDENTITY[self._scheme])
        if status in (401, 403) or is_refusal(exc):
            return StoreRefusedError(
                f"no permission to {doing} '{path}': {code or status}", hint=NEEDED[self._scheme]
            )
        return None

    def _tell_of_rest(self, text: str, path: str, *, doing: str) -> DestinationError:
        code, status = read_code(text), read_status(text)
        if code == "NotImplemented" and doing == "write":
            return StoreUnfitError(
                f"cannot {doing} '{path}': the store does not know conditional writes",
                hint="two runs could write here at once: name a bucket of a store that does"
                + self._asked(),
            )
        if status is not None:
            return DestinationError(
                f"cannot {doing} '{path}': the store answered {code or status}",
                hint="look the word up in the store's documentation" + self._asked(),
            )
        if "HTTP error" in text:
            why = "gave no whole answer in time" if "timed out" in text else "cannot be reached"
            return DestinationError(
                f"cannot {doing} '{path}': the store {why}",
                hint="check the network and the bucket's name" + self._asked(),
            )
        return DestinationError(
            f"cannot {doing} '{path}': {first_line(text)}",
            hint="check the output's name and the settings of its store" + self._asked(),
        )

    def _region_remedy(self) -> str:
        match self._scheme:
            case "s3":
                return "set AWS_REGION to the bucket's region"
            case "oss":
                return "name the bucket's own endpoint with --storage-endpoint"
            case "gs":
                return "name the bucket's own endpoint with --storage-endpoint"

    def _asked(self) -> str:
        return "" if self._endpoint is None else f"; asked was {self._endpoint.url}"


def read_code(text: str) -> str | None:
    """The store's own word for a failure; of several in a bulk answer the first."""
    match = re.search(r"<Code>(\w+)</Code>", text)
    return None if match is None else match[1]


def read_status(text: str) -> int | None:
    match = re.search(r"status code: (\d{3})", text)
    return None if match is None else int(match[1])


def first_line(text: str) -> str:
    return mask_urls(text.strip().partition("\n")[0])[:200]


def is_redirect(text: str) -> bool:
    """Whether a store sent us elsewhere without one of its words for it."""
    return (
        "redirect" in text.partition("\n")[0]
        or "must be addressed using the specified endpoint" in text
    )


def asks_metadata(text: str) -> bool:
    """Whether what failed is the client's search for a role of this machine."""
    return "http://169.254." in text or "metadata.google.internal" in text


def is_refusal(exc: Exception) -> bool:
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    return isinstance(exc, PermissionDeniedError | UnauthenticatedError)
