"""URLs as they may be shown: without what may be a password in them; performs no I/O."""

import re
from typing import Final

WITH_USER: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)\S*@")
"""As far as the last `@` of a word: a password may hold any sign, though it should not."""


def mask_url(url: str) -> str:
    """A URL without what may be a password in it: all before the last `@`, all after a `?`."""
    _, at, host = url.rpartition("@")
    return f"***@{host.partition('?')[0]}" if at else host.partition("?")[0]


def mask_urls(text: str) -> str:
    """A text in which each URL that names a user is without the user and the password."""
    return WITH_USER.sub(r"\1***@", text) if "://" in text else text
