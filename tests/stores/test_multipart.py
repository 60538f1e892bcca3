"""Uploads of dead runs are listed and aborted by requests of our own, to a server of the tests."""

import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from exporter.stores.multipart import OpenUploads, parse_date, parse_uploads
from exporter.stores.url import Address, Endpoint

NOW = datetime(2026, 1, 12, 10, 24, tzinfo=UTC)
RUN_ID = "20260112T102400Z-0a1b2c"


@dataclass(frozen=True)
class Key:
    access_key_id: str = "key"
    access_key_secret: str = "secret"
    security_token: str | None = "token"


@dataclass
class Bucket:
    """Uploads by key, with the time each began; one in a page of their list."""

    uploads: dict[str, datetime | None]
    ended: set[str] = field(default_factory=set)
    """Those that are gone when they are to be aborted."""
    status: int = 200
    aborted: list[str] = field(default_factory=list)
    signed: list[str] = field(default_factory=list)

    def list_uploads(self, prefix: str, marker: str) -> bytes:
        keys = sorted(key for key in self.uploads if key.startswith(prefix) and key > marker)
        rows = [
            f"<Upload><Key>{key}</Key><UploadId>id-{key}</UploadId>{begun(self.uploads[key])}"
            "</Upload>"
            for key in keys[:1]
        ]
        more = f"<IsTruncated>{'true' if len(keys) > 1 else 'false'}</IsTruncated>"
        next_key = f"<NextKeyMarker>{keys[0]}</NextKeyMarker>" if keys else ""
        return f"<R xmlns='urn:s3'>{more}{next_key}{''.join(rows)}</R>".encode()


def begun(at: datetime | None) -> str:
    return "<Initiated>once</Initiated>" if at is None else f"<Initiated>{at:%FT%TZ}</Initiated>"


@pytest.fixture
def bucket() -> Bucket:
    return Bucket(
        {
            "lake/out.parquet": NOW - timedelta(hours=30),
            "lake/young.parquet": NOW - timedelta(hours=1),
            "lake/ageless.parquet": None,
            f"lake/part-{RUN_ID}-0.parquet": NOW - timedelta(hours=30),
            "lake/theirs.bin": NOW - timedelta(hours=30),
        }
    )


@pytest.fixture
def uploads(bucket: Bucket) -> Iterator[OpenUploads]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query)
            prefix, marker = query.get("prefix", [""])[0], query.get("key-marker", [""])[0]
            self._answer(bucket.status, bucket.list_uploads(prefix, marker))

        def do_DELETE(self) -> None:
            key = urlsplit(self.path).path.removeprefix("/bucket/")
            bucket.aborted.append(key)
            self._answer(404 if key in bucket.ended else 204, b"")

        def _answer(self, status: int, content: bytes) -> None:
            bucket.signed.append(self.headers["Authorization"])
            self.send_response_only(status)
            self.send_header("Date", format_datetime(NOW, usegmt=True))
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        endpoint = Endpoint(f"http://127.0.0.1:{server.server_port}", False, "eu-west-1")
        yield OpenUploads(Address("s3", "bucket", "lake"), endpoint, Key)
        server.shutdown()
        thread.join()


def test_uploads_to_the_names_of_runs_are_aborted(bucket: Bucket, uploads: OpenUploads) -> None:
    uploads.abort(folder="lake", keys=None, spared=(), keep_s=0)

    assert bucket.aborted == [f"lake/part-{RUN_ID}-0.parquet"]
    assert all("eu-west-1/s3/aws4_request" in each for each in bucket.signed)
    assert all("x-amz-security-token" in each for each in bucket.signed)


def test_old_uploads_to_the_names_asked_for_are_aborted(
    bucket: Bucket, uploads: OpenUploads
) -> None:
    keys = {"lake/out.parquet", "lake/young.parquet", "lake/ageless.parquet"}

    uploads.abort(folder="lake", keys=keys, spared=(), keep_s=24 * 3600.0)
    at_once = list(bucket.aborted)
    uploads.abort_young("lake/young.parquet")

    assert at_once == ["lake/out.parquet"]
    assert bucket.aborted == ["lake/out.parquet", "lake/young.parquet"]


def test_spared_upload_and_one_that_ended_meanwhile_do_no_harm(
    bucket: Bucket, uploads: OpenUploads
) -> None:
    bucket.ended = {"lake/out.parquet"}
    keys = {"lake/out.parquet", "lake/young.parquet"}

    uploads.abort(folder="lake", keys=keys, spared={"lake/young.parquet"}, keep_s=0)

    assert bucket.aborted == ["lake/out.parquet"]


def test_store_that_refuses_the_list_is_logged(
    bucket: Bucket, uploads: OpenUploads, caplog: pytest.LogCaptureFixture
) -> None:
    bucket.status = 403

    with caplog.at_level(logging.INFO, "exporter"):
        uploads.abort(folder="lake", keys=None, spared=(), keep_s=0)

    assert "cannot abort uploads that were never ended, to 's3://bucket/lake' (403)" in caplog.text


def test_times_that_cannot_be_read_are_none() -> None:
    (upload,) = parse_uploads(b"<R><Upload><Initiated>once</Initiated></Upload></R>").uploads

    assert upload.begun_at is None
    assert parse_date("once") is None
    assert parse_date(None) is None
