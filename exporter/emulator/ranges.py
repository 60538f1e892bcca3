"""Checks the numbers of a scenario's settings; performs no I/O."""

from exporter.errors import UsageError


def require_min(settings: object, minimum: float, *names: str) -> None:
    """Raises UsageError for the first of these settings that is below the minimum; None is not."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value >= minimum:
            raise UsageError(f"{name} is {value:g}", hint=f"give {minimum:g} or more")


def require_positive(settings: object, *names: str) -> None:
    """Raises UsageError for the first of these settings that is not above 0."""
    for name in names:
        value = getattr(settings, name)
        if not value > 0:
            raise UsageError(f"{name} is {value:g}", hint="give more than 0")
