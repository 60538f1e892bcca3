import inspect

import exporter
from exporter import errors, events
from exporter.runs.manifest import Manifest


def classes_of(module: object) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if inspect.isclass(value) and value.__module__ == module.__name__  # type: ignore[attr-defined]
    }


def test_public_names_are_sorted_and_there() -> None:
    assert exporter.__all__ == sorted(exporter.__all__)
    assert all(hasattr(exporter, name) for name in exporter.__all__)


def test_every_error_and_every_event_is_public() -> None:
    assert set(exporter.__all__) >= classes_of(errors) | classes_of(events)


def test_run_and_its_facts_are_public() -> None:
    assert set(exporter.__all__) >= {
        "Event",
        "Gateway",
        "Listener",
        "ListingFacts",
        "Manifest",
        "Settings",
        "export",
    }
    assert exporter.Manifest is Manifest
