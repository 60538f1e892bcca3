"""Uploads that dead runs began and never ended: listed and aborted by requests of our own.

The client library knows only the uploads it began itself. Unfinished ones hold storage that is paid
for, and no listing of objects shows them.
"""

import hashlib
import hmac
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from typing import Final
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from exporter.errors import ExporterError
from exporter.stores.interface import RUN_ID
from exporter.stores.url import AccessKey, Address, Endpoint, KeySource
from exporter.times import parse_rfc3339

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 20.0
MAX_PAGES: Final = 100
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class OpenUpload:
    key: str
    upload_id: str
    begun_at: datetime | None = None
    """By the store's clock; None when it does not say."""

    def is_older(self, keep_s: float, *, listed_at: datetime) -> bool:
        """One of unknown age is older only than nothing."""
        if keep_s <= 0:
            return True
        return self.begun_at is not None and (listed_at - self.begun_at).total_seconds() > keep_s


@dataclass(frozen=True, slots=True)
class UploadPage:
    """One answer of a listing of uploads."""

    uploads: tuple[OpenUpload, ...]
    next_markers: dict[str, str] | None
    """The query of the next page; None after the last."""


class OpenUploads:
    """The uploads of one bucket that are neither completed nor aborted."""

    def __init__(self, address: Address, endpoint: Endpoint, fetch_key: KeySource) -> None:
        self._address = address
        self._endpoint = endpoint
        self._fetch_key = fetch_key
        self._young: list[OpenUpload] = []
        """Those that were too young to be aborted."""

    def abort(
        self,
        *,
        folder: str,
        keys: Collection[str] | None,
        spared: Collection[str],
        keep_s: float,
    ) -> None:
        """Abort the uploads to these keys that began longer than `keep_s` ago; without keys those
        to names in the folder that hold a run's id. Never raises: failures are logged.
        """
        start = f"{folder}/" if folder else ""
        with self._logged():
            prefix = start if keys is None or len(keys) != 1 else next(iter(keys))
            found, listed_at = self._list(prefix)
            matching = [
                each
                for each in found
                if each.key not in spared
                and (each.key in keys if keys is not None else is_of_a_run(each.key, start=start))
            ]
            due = [each for each in matching if each.is_older(keep_s, listed_at=listed_at)]
            self._young = [each for each in matching if each not in due]
            self._abort(due)

    def abort_young(self, key: str) -> None:
        """Abort the uploads to a key that were too young before; never raises.

        Called right before that object is published: a run that began an upload and does not know
        that it lost its lock would complete it later. Uploads begun since belong to a run that has
        the lock now.
        """
        with self._logged():
            self._abort(each for each in self._young if each.key == key)

    def _abort(self, uploads: Iterable[OpenUpload]) -> None:
        for each in uploads:
            try:
                self._send("DELETE", each.key, {"uploadId": each.upload_id})
            except urllib.error.HTTPError as exc:
                if exc.code == 404:  # it was ended meanwhile
                    continue
                raise
            logger.info(
                "aborted an upload that was never ended, to '%s://%s/%s'",
                self._address.scheme,
                self._address.bucket,
                each.key,
            )

    @contextmanager
    def _logged(self) -> Iterator[None]:
        try:
            yield
        except (OSError, HTTPException, ValueError, ET.ParseError, ExporterError) as exc:
            reason = exc.code if isinstance(exc, urllib.error.HTTPError) else type(exc).__name__
            logger.info(
                "cannot abort uploads that were never ended, to '%s' (%s):"
                " let a lifecycle rule of the bucket abort incomplete uploads",
                self._address.url,
                reason,
            )

    def _list(self, prefix: str) -> tuple[list[OpenUpload], datetime]:
        """The open uploads, and the store's time."""
        found: list[OpenUpload] = []
        markers: dict[str, str] | None = {}
        listed_at = datetime.now(UTC)
        for _ in range(MAX_PAGES):
            if markers is None:
                break
            content, answered_at = self._send(
                "GET", "", {"uploads": "", "prefix": prefix} | markers
            )
            listed_at = answered_at or listed_at
            page = parse_uploads(content)
            found += page.uploads
            markers = page.next_markers
        return found, listed_at

    def _send(
        self, method: str, key: str, query: Mapping[str, str]
    ) -> tuple[bytes, datetime | None]:
        """The answer, and the time that the store gives with it."""
        path = key if self._endpoint.is_virtual else f"{self._address.bucket}/{key}"
        request = build_request(
            method,
            f"{self._endpoint.url}/{quote(path, safe='/-_.~')}",
            query,
            key=self._fetch_key(),
            region=self._endpoint.region,
            at=datetime.now(UTC),
        )
        # Not `urlopen`, which keeps the proxies of the process's first call.
        with urllib.request.build_opener().open(request, timeout=TIMEOUT_S) as answer:
            return answer.read(), parse_date(answer.headers.get("Date"))


def is_of_a_run(key: str, *, start: str) -> bool:
    return key.startswith(start) and re.search(RUN_ID, key.rpartition("/")[2]) is not None


def parse_date(text: str | None) -> datetime | None:
    """The time in a header; None for one that cannot be read."""
    try:
        return None if text is None else parsedate_to_datetime(text).astimezone(UTC)
    except ValueError:
        return None


def parse_begin(text: str) -> datetime | None:
    try:
        return parse_rfc3339(text)
    except ValueError:
        return None


def parse_uploads(content: bytes) -> UploadPage:
    """Raises ElementTree's ParseError for other content than XML."""
    root = ET.fromstring(content)  # noqa: S314 - from the store that also holds our data
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
    uploads = tuple(
        OpenUpload(
            each.findtext("Key", ""),
            each.findtext("UploadId", ""),
            parse_begin(each.findtext("Initiated", "")),
        )
        for each in root.iter("Upload")
    )
    if root.findtext("IsTruncated") != "true":
        return UploadPage(uploads, None)
    markers = {
        "key-marker": root.findtext("NextKeyMarker", ""),
        "upload-id-marker": root.findtext("NextUploadIdMarker", ""),
    }
    return UploadPage(uploads, markers)


def build_request(
    method: str,
    url: str,
    query: Mapping[str, str],
    *,
    key: AccessKey,
    region: str,
    at: datetime,
) -> urllib.request.Request:
    """A request without a body, signed as AWS Signature Version 4.

    https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
    """
    parts = urlsplit(url)
    stamp = f"{at.astimezone(UTC):%Y%m%dT%H%M%SZ}"
    query_text = urlencode(sorted(query.items()), quote_via=quote, safe="-_.~")
    headers = {
        "host": parts.netloc,
        "x-amz-content-sha256": EMPTY_SHA256,
        "x-amz-date": stamp,
    }
    if key.security_token:
        headers["x-amz-security-token"] = key.security_token
    signed = ";".join(sorted(headers))
    canonical = "\n".join(
        [
            method,
            parts.path,
            query_text,
            *(f"{name}:{headers[name]}" for name in sorted(headers)),
            "",
            signed,
            EMPTY_SHA256,
        ]
    )
    scope = f"{stamp[:8]}/{region}/s3/aws4_request"
    to_sign = "\n".join(
        ["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()]
    )
    secret = f"AWS4{key.access_key_secret}".encode()
    for each in (*scope.split("/"), to_sign):
        secret = hmac.digest(secret, each.encode(), "sha256")
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key.access_key_id}/{scope},"
        f"SignedHeaders={signed},Signature={secret.hex()}"
    )
    return urllib.request.Request(f"{url}?{query_text}", headers=headers, method=method)  # noqa: S310 - as configured
