"""How many examples a property is tried on: few in the short command, all in the campaign."""

from hypothesis import settings

FULL = 100
"""What Hypothesis tries where a property asks for no number, and the full profile does."""


def scale_examples(full: int) -> int:
    """As large a part of `full` as the profile tries of Hypothesis's own number."""
    return max(1, full * settings().max_examples // FULL)
