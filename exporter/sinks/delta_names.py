"""What errors of deltalake mean, and what it needs to know of a store; needs no library itself."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from exporter.errors import DestinationError, ExporterError

_LONGEST_REASON: Final = 200


@contextmanager
def translated(output: str) -> Iterator[None]:
    """Errors of deltalake as ours."""
    try:
        yield
    except ExporterError:
        raise
    except Exception as exc:
        raise DestinationError(
            f"cannot read the table '{output}': {describe(exc)}",
            hint="its log in _delta_log is damaged, or made by something newer than the"
            " installed deltalake",
        ) from exc


def describe(exc: BaseException) -> str:
    """What a library's error says, in one line."""
    lines = str(exc).strip().splitlines() or [type(exc).__name__]
    return lines[0].strip().rstrip(".")[:_LONGEST_REASON]


def build_storage_options(
    *,
    endpoint: str,
    region: str,
    is_virtual: bool,
    access_key_id: str | None,
    access_key_secret: str | None,
    security_token: str | None,
) -> dict[str, str]:
    """How deltalake reads a bucket of S3, or of OSS as one of S3; it renews no key by itself.

    Without a key it looks for a role, as the AWS rules say. An endpoint that `is_virtual` has the
    bucket in its host.
    """
    options = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": region,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(is_virtual).lower(),
        # OSS wants a Content-MD5 there, which the client does not send.
        "AWS_DISABLE_BULK_DELETE": "true",
        "timeout": "90s",
        "connect_timeout": "10s",
    }
    if endpoint.startswith("http://"):
        options["AWS_ALLOW_HTTP"] = "true"
    if access_key_id is not None and access_key_secret is not None:
        options["AWS_ACCESS_KEY_ID"] = access_key_id
        options["AWS_SECRET_ACCESS_KEY"] = access_key_secret
        if security_token is not None:
            options["AWS_SESSION_TOKEN"] = security_token
    return options
