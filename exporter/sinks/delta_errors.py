"""What errors of deltalake mean; needs no library itself."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from exporter.errors import DestinationError, ExporterError
from exporter.urls import mask_urls

_LONGEST_REASON: Final = 200
_ORNAMENT: Final = re.compile("\x1b\\[[0-9;]*m|\u21b3")


@contextmanager
def translated(output: str) -> Iterator[None]:
    """Errors of deltalake as ours."""
    try:
        yield
    except ExporterError:
        raise
    except Exception as exc:
        hint = (
            "check the network and where the table is"
            if isinstance(exc, OSError)
            else "its log in _delta_log is damaged, or made by something newer than the installed"
            " deltalake"
        )
        raise DestinationError(
            f"cannot read the table '{output}': {describe(exc)}", hint=hint
        ) from exc


def describe(exc: BaseException) -> str:
    """What a library's error says, in one line.

    Its text is a chain, one cause a line, with colours. The first says what was done, and the last
    why it failed; a store's answer, which may repeat signed headers, is left out.
    """
    lines = [_ORNAMENT.sub("", line).strip().rstrip(".") for line in str(exc).splitlines()]
    lines = [line for line in lines if line and "<" not in line]
    if not lines:
        return type(exc).__name__
    ends = lines[:1] if len(lines) == 1 else [lines[0], lines[-1]]
    return mask_urls(": ".join(ends))[:_LONGEST_REASON]
