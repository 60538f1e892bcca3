"""Finds the credential that signs requests: the environment's, a profile's or a role's.

A plain key in the environment is read here. alibabacloud-credentials, imported only then, knows
every other source: profiles, RRSA, ECS roles, SSO, a credentials URI. Its blocking interface is
called in a thread by one task at a time: its async interface holds a thread lock across awaits, and
freezes the loop when two tasks meet.
"""

import asyncio
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import anyio
import orjson

from exporter.api.error_codes import scrub
from exporter.errors import CredentialsError
from exporter.settings.files import read_regular

logger = logging.getLogger(__name__)

REUSE_S = 60.0
"""How long a fetched credential is used before its provider is called again. Providers renew a
token 15 minutes before it expires, so this only saves threads."""

MASKED_FROM = 12
"""A secret is masked wherever so many of its first characters stand; fewer reveal nothing."""

MAX_PROFILES_BYTES = 1 << 20
"""Largest file of profiles that is read; the usual one takes some kilobytes."""

METADATA_SERVER = ("100.100.100.200", 80)
METADATA_PROBE_S = 0.4
"""An ECS instance answers within a few milliseconds; elsewhere nothing answers."""

NO_CREDENTIALS_HINT = (
    "set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, run `aliyun configure`,"
    " or name a profile with --profile"
)


@dataclass(frozen=True, slots=True)
class Credential:
    """A key with its token; the three values belong together."""

    access_key_id: str
    access_key_secret: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    """Only a temporary (STS) key has one."""

    def mask(self, text: str) -> str:
        """`text` without the secret and the token, even where one of them is cut off."""
        for secret in filter(None, (self.access_key_secret, self.security_token)):
            # A message that was shortened may end within a token of a thousand characters.
            start, rest = secret[:MASKED_FROM], secret[MASKED_FROM:]
            first, *others = text.split(start)
            text = "***".join([first, *(remove_common_start(each, rest) for each in others)])
        return text


def remove_common_start(text: str, other: str) -> str:
    """`text` without the characters that it and `other` both begin with."""
    equal = takewhile(lambda pair: pair[0] == pair[1], zip(text, other, strict=False))
    return text[sum(1 for _ in equal) :]


class Identity:
    """A credential that all tasks share, fetched when first needed and again when it ages.

    If fetching again fails, the old one stays in use: the service decides whether it still holds.
    """

    def __init__(self, fetch: Callable[[], Credential], *, now_s: Callable[[], float]) -> None:
        self._fetch = fetch
        self._now_s = now_s
        self._lock = anyio.Lock()
        self._credential: Credential | None = None
        self._fetched_s = 0.0
        self._warned = False

    async def get(self) -> Credential:
        """The current credential. Raises CredentialsError when there is none."""
        if self._is_due:
            async with self._lock:
                if self._is_due:
                    await self._renew_or_keep()
        assert self._credential is not None  # noqa: S101 - _renew sets it or raises
        return self._credential

    async def renew(self, refused: Credential) -> bool:
        """Fetch again unless another task already did; False if that gave the refused one.

        Raises CredentialsError if the fetch fails.
        """
        async with self._lock:
            if self._credential == refused:
                await self._renew()
        return self._credential != refused

    @property
    def _is_due(self) -> bool:
        return self._credential is None or self._now_s() - self._fetched_s >= REUSE_S

    async def _renew_or_keep(self) -> None:
        kept = self._credential
        try:
            await self._renew()
        except CredentialsError as exc:
            if kept is None:
                raise
            self._fetched_s = self._now_s()  # no request calls the provider again for a while
            if not self._warned:
                self._warned = True
                logger.warning("the credential is used on: %s", kept.mask(str(exc)))

    async def _renew(self) -> None:
        self._credential = await asyncio.wrap_future(start_daemon(self._fetch))
        self._fetched_s = self._now_s()
        self._warned = False


def start_daemon(fetch: Callable[[], Credential]) -> Future[Credential]:
    """Fetch in a daemon thread: a provider may wait forever, and the process must still end.

    A worker thread of anyio would keep the process alive.
    """
    future = Future[Credential]()

    def run() -> None:
        # The future is cancelled when nobody waits for it any longer.
        with suppress(InvalidStateError):
            try:
                fetched = fetch()
            except BaseException as exc:  # noqa: BLE001 - the waiting task raises it
                future.set_exception(exc)
            else:
                future.set_result(fetched)

    threading.Thread(target=run, name="identity", daemon=True).start()
    return future


def open_identity(
    *, profile: str | None, environ: Mapping[str, str], now_s: Callable[[], float]
) -> Identity:
    """Fetches nothing yet. Raises CredentialsError for half a key in the environment."""
    return Identity(choose_fetch(profile=profile, environ=environ), now_s=now_s)


def choose_fetch(*, profile: str | None, environ: Mapping[str, str]) -> Callable[[], Credential]:
    """The function that fetches the credential; any thread may call it.

    Raises CredentialsError for half a key in the environment.
    """
    if profile is not None:
        return build_profile_fetch(profile)
    static = read_environment_credential(environ)
    if static is not None:
        return lambda: static
    return build_chain_fetch(environ)


def read_environment_credential(environ: Mapping[str, str]) -> Credential | None:
    """The key in the environment; None when there is none.

    Raises CredentialsError for half a key: the default chain would skip it and take some other
    identity.
    """
    key_id = environ.get("ALIBABA_CLOUD_ACCESS_KEY_ID", "")
    secret = environ.get("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "")
    if bool(key_id) != bool(secret):
        given, missing = ("ID", "SECRET") if key_id else ("SECRET", "ID")
        raise CredentialsError(
            f"ALIBABA_CLOUD_ACCESS_KEY_{given} is set and"
            f" ALIBABA_CLOUD_ACCESS_KEY_{missing} is not",
            hint="set both, or neither and use a profile or role",
        )
    if not key_id:
        return None
    token = environ.get("ALIBABA_CLOUD_SECURITY_TOKEN") or None
    return build_credential(key_id, secret, token, source="the environment")


def build_credential(key_id: str, secret: str, token: str | None, *, source: str) -> Credential:
    """Raises CredentialsError for characters that no key has and no header can carry."""
    for name, value in (("ID", key_id), ("secret", secret), ("token", token or "")):
        if not re.fullmatch(r"[!-~]*", value):
            raise CredentialsError(
                f"the access key's {name} in {source} holds more than plain ASCII letters",
                hint="copy it again, without spaces or the end of its line",
            )
    return Credential(key_id, secret, token)


def build_profile_fetch(profile: str) -> Callable[[], Credential]:
    hint = (
        "`aliyun configure list` shows the profiles;"
        f" `aliyun configure --profile {profile}` makes one"
    )

    @cache
    def build_provider() -> Any:
        from alibabacloud_credentials.provider import CLIProfileCredentialsProvider

        silence_library()
        return CLIProfileCredentialsProvider(profile_name=profile)

    return lambda: fetch_credential(build_provider(), source=f"profile {profile!r}", hint=hint)


def build_chain_fetch(environ: Mapping[str, str]) -> Callable[[], Credential]:
    @cache
    def build_provider() -> Any:
        from alibabacloud_credentials.provider import DefaultCredentialsProvider

        silence_library()
        return DefaultCredentialsProvider()

    def fetch() -> Credential:
        if not chain_has_a_source(environ):
            raise CredentialsError("no credentials found", hint=NO_CREDENTIALS_HINT)
        return fetch_credential(
            build_provider(), source="the default credential chain", hint=NO_CREDENTIALS_HINT
        )

    return fetch


def chain_has_a_source(environ: Mapping[str, str]) -> bool:
    """Whether the default chain can find anything.

    Otherwise it would spend seconds on a metadata server that is not there.
    """
    home = Path(environ.get("HOME") or Path.home())
    variables = ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "ALIBABA_CLOUD_CREDENTIALS_URI")
    files = (
        home / ".aliyun" / "config.json",
        Path(
            environ.get("ALIBABA_CLOUD_CREDENTIALS_FILE") or home / ".alibabacloud/credentials.ini"
        ),
    )
    if any(environ.get(name) for name in variables) or any(map(os.path.isfile, files)):
        return True
    disabled = environ.get("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "").lower() == "true"
    return not disabled and metadata_server_answers()


def metadata_server_answers() -> bool:
    """Whether an HTTP server answers, rather than a gateway that accepts any connection."""
    import socket

    try:
        with socket.create_connection(METADATA_SERVER, timeout=METADATA_PROBE_S) as connection:
            connection.settimeout(METADATA_PROBE_S)
            connection.sendall(b"GET /latest/meta-data/ HTTP/1.0\r\n\r\n")
            return connection.recv(5) == b"HTTP/"
    except OSError:
        return False


def fetch_credential(provider: Any, *, source: str, hint: str) -> Credential:
    """The current credential of a library's provider, whose errors quote files but no secrets."""
    try:
        found = provider.get_credentials()
    except Exception as exc:
        raise CredentialsError(
            f"no credentials from {source}: {scrub(str(exc))}", hint=hint
        ) from exc
    key_id, secret = found.get_access_key_id(), found.get_access_key_secret()
    if not key_id or not secret:
        raise CredentialsError(f"no access key in {source}", hint=hint)
    return build_credential(key_id, secret, found.get_security_token() or None, source=source)


def silence_library() -> None:
    """Remove the stderr handlers that the library's modules attach to their loggers on import.

    Its failures come back as exceptions, which are shown once.
    """
    for name in ("credentials", "alibabacloud-tea", "darabonba-core"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.addHandler(logging.NullHandler())
        logger.propagate = False


def read_profile_region(*, profile: str | None, environ: Mapping[str, str]) -> str | None:
    """The region of a profile in the aliyun CLI's file, None if it has none.

    The profile is the named one, else the environment's, else the file's current one.
    """
    path = Path(environ.get("HOME") or Path.home()) / ".aliyun" / "config.json"
    try:
        document = orjson.loads(read_regular(path, max_bytes=MAX_PROFILES_BYTES))
    except (OSError, orjson.JSONDecodeError):
        return None
    if not isinstance(document, dict):
        return None
    name = profile or environ.get("ALIBABA_CLOUD_PROFILE") or document.get("current")
    profiles = document.get("profiles")
    for each in profiles if isinstance(profiles, list) else []:
        if isinstance(each, dict) and each.get("name") == name:
            region_id = each.get("region_id")
            return region_id if isinstance(region_id, str) and region_id else None
    return None
