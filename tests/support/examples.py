"""How much is tried: a part in the short command, all of it in the campaign."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import settings

FULL = 100
"""What Hypothesis tries where a property asks for no number, and the full profile does."""


def scale_examples(full: int) -> int:
    """As large a part of `full` as the profile tries of Hypothesis's own number."""
    return max(1, full * settings().max_examples // FULL)


def thin_out(values: Iterable[object], step: int) -> list[Any]:
    """Parameters, of which the short command takes the first, and one of so many."""
    return [
        pytest.param(value, marks=[pytest.mark.campaign] if number % step else [])
        for number, value in enumerate(values)
    ]
