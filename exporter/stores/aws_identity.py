"""The identity of AWS: the key in the environment, a profile's, or a role that the client finds."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from exporter.errors import CredentialsError, MissingExtraError, mask_urls
from exporter.stores.url import KeySource

NO_IDENTITY: Final = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role is attached;"
    " profiles of ~/.aws need pip install 'livy-exporter[aws]'"
)

METADATA_SERVER: Final = ("169.254.169.254", 80)
METADATA_PROBE_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class AwsKey:
    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


def choose_aws_identity(environ: Mapping[str, str]) -> tuple[KeySource | None, str | None]:
    """The key of `s3://` by the AWS rules, and the region that belongs to it.

    No key source: the client finds a role by itself (web identity, container, instance). Raises
    CredentialsError when there is nothing to find, MissingExtraError for a profile without the
    library that reads them.
    """
    region = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID"), environ.get("AWS_SECRET_ACCESS_KEY")
    if key_id and secret:
        key = AwsKey(key_id, secret, environ.get("AWS_SESSION_TOKEN") or None)
        require_ascii(key)
        return (lambda: key), region
    if not environ.get("AWS_PROFILE"):
        if has_role_variable(environ):
            return None, region
        if not has_profile_file(environ):
            require_metadata_server(environ)
            return None, region
    try:
        from botocore.session import Session
    except ImportError as exc:
        if environ.get("AWS_PROFILE"):
            raise MissingExtraError("AWS_PROFILE", extra="aws") from exc
        require_metadata_server(environ)
        return None, region
    session = Session(profile=environ.get("AWS_PROFILE") or None)
    return build_session_fetch(session), region or read_session_region(session)


def require_ascii(key: AwsKey) -> None:
    """Raises CredentialsError for a key that no header could carry."""
    parts = (key.access_key_id, key.access_key_secret, key.security_token or "")
    if not all(re.fullmatch(r"[!-~]*", part) for part in parts):
        raise CredentialsError(
            "the AWS key in the environment holds more than plain ASCII letters",
            hint="copy it again, without spaces or the end of its line",
        )


def has_role_variable(environ: Mapping[str, str]) -> bool:
    names = (
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_METADATA_ENDPOINT",
        "AWS_SKIP_SIGNATURE",
    )
    return any(environ.get(name) for name in names)


def has_profile_file(environ: Mapping[str, str]) -> bool:
    folder = Path(environ.get("HOME") or Path.home()) / ".aws"
    files = (
        environ.get("AWS_SHARED_CREDENTIALS_FILE") or folder / "credentials",
        environ.get("AWS_CONFIG_FILE") or folder / "config",
    )
    return any(os.path.isfile(each) for each in files)  # noqa: PTH113 - never raises


def require_metadata_server(environ: Mapping[str, str]) -> None:
    """Raises CredentialsError where this is no instance with a role.

    The client would otherwise wait minutes for a metadata server that is not there.
    """
    import socket

    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() != "true":
        try:
            socket.create_connection(METADATA_SERVER, timeout=METADATA_PROBE_S).close()
        except OSError:
            pass
        else:
            return
    raise CredentialsError("no AWS credentials found", hint=NO_IDENTITY)


def build_session_fetch(session: Any) -> KeySource:
    """The key of a session of AWS's own library, which renews it in time."""

    def fetch() -> AwsKey:
        from botocore.exceptions import BotoCoreError

        try:
            found = session.get_credentials()
            frozen = None if found is None else found.get_frozen_credentials()
        except BotoCoreError as exc:
            raise CredentialsError(
                f"no AWS credentials: {mask_urls(str(exc))}", hint=NO_IDENTITY
            ) from exc
        if frozen is None or not frozen.access_key or not frozen.secret_key:
            raise CredentialsError("no AWS credentials found", hint=NO_IDENTITY)
        return AwsKey(frozen.access_key, frozen.secret_key, frozen.token)

    return fetch


def read_session_region(session: Any) -> str | None:
    from botocore.exceptions import BotoCoreError

    try:
        region = session.get_config_variable("region")
    except BotoCoreError as exc:
        raise CredentialsError(
            f"no AWS credentials: {mask_urls(str(exc))}",
            hint="correct AWS_PROFILE, or the files in ~/.aws",
        ) from exc
    return region if isinstance(region, str) and region else None
