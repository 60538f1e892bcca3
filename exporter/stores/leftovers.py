"""Uploads that killed runs began and never ended: listed and aborted by requests of our own.

The client library knows only the uploads it began itself. They hold storage that is paid for, and
nothing shows them.
"""

import hashlib
import hmac
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Final
from urllib.parse import quote, urlencode, urlsplit
from xml.etree import ElementTree as ET

from exporter.errors import ExporterError
from exporter.stores.addresses import AccessKey, Address, Endpoint, KeySource

logger = logging.getLogger(__name__)

TIMEOUT_S: Final = 20.0
PAGES_MOST: Final = 100
RUN_ID: Final = r"[0-9]{8}T[0-9]{6}Z-[0-9a-f]{6}"
EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()


@dataclass(frozen=True, slots=True)
class OpenUpload:
    key: str
    upload_id: str


@dataclass(frozen=True, slots=True)
class UploadPage:
    """One answer of a listing of uploads."""

    uploads: tuple[OpenUpload, ...]
    next_markers: dict[str, str] | None
    """What asks for the next page; None after the last."""


class OpenUploads:
    """The uploads of one bucket that are neither completed nor aborted."""

    def __init__(
        self,
        address: Address,
        endpoint: Endpoint,
        *,
        fetch_key: KeySource,
        now: Callable[[], datetime],
    ) -> None:
        self._address = address
        self._endpoint = endpoint
        self._fetch_key = fetch_key
        self._now = now

    def abort(self, *, folder: str, keys: Collection[str] | None, spared: Collection[str]) -> None:
        """Abort the uploads to these keys; without keys those to names in the folder that hold a
        run's id. Never raises: what stays open is said.
        """
        try:
            found = [
                each
                for each in self._list(common_start(folder, keys))
                if each.key not in spared and is_meant(each.key, folder=folder, keys=keys)
            ]
            for each in found:
                self._send("DELETE", each.key, {"uploadId": each.upload_id})
                logger.info(
                    "aborted an upload that was never ended, to '%s://%s/%s'",
                    self._address.scheme,
                    self._address.bucket,
                    each.key,
                )
        except (OSError, HTTPException, ValueError, ET.ParseError, ExporterError) as exc:
            reason = exc.code if isinstance(exc, urllib.error.HTTPError) else type(exc).__name__
            logger.info(
                "cannot abort uploads that were never ended, to '%s' (%s):"
                " let a lifecycle rule of the bucket abort incomplete uploads",
                self._address.url,
                reason,
            )

    def _list(self, prefix: str) -> list[OpenUpload]:
        found: list[OpenUpload] = []
        markers: dict[str, str] | None = {}
        for _ in range(PAGES_MOST):
            if markers is None:
                break
            page = parse_uploads(self._send("GET", "", {"uploads": "", "prefix": prefix} | markers))
            found += page.uploads
            markers = page.next_markers
        return found

    def _send(self, method: str, key: str, query: Mapping[str, str]) -> bytes:
        path = key if self._endpoint.is_virtual else f"{self._address.bucket}/{key}"
        request = build_request(
            method,
            f"{self._endpoint.url}/{quote(path, safe='/-_.~')}",
            query,
            key=self._fetch_key(),
            region=self._endpoint.region,
            at=self._now(),
        )
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:  # noqa: S310 - as configured
            content: bytes = answer.read()
            return content


def common_start(folder: str, keys: Collection[str] | None) -> str:
    if keys is None:
        return f"{folder}/" if folder else ""
    return min(keys, key=len, default="") if len(keys) == 1 else (f"{folder}/" if folder else "")


def is_meant(key: str, *, folder: str, keys: Collection[str] | None) -> bool:
    if keys is not None:
        return key in keys
    start = f"{folder}/" if folder else ""
    return key.startswith(start) and re.search(RUN_ID, key.rpartition("/")[2]) is not None


def parse_uploads(content: bytes) -> UploadPage:
    """Raises ElementTree's ParseError for what is no XML."""
    root = ET.fromstring(content)  # noqa: S314 - from the store that also holds our data
    for each in root.iter():
        each.tag = each.tag.rpartition("}")[2]
    uploads = tuple(
        OpenUpload(each.findtext("Key", ""), each.findtext("UploadId", ""))
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
