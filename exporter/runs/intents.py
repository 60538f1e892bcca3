"""Intents: the record of what a run is about to publish, written before it publishes.

Under a lock of the kernel all runs share one intent file. Under a lease each run has its own: a run
that lost its lease without knowing must not overwrite the intent of the run that holds it.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from exporter.destinations.destination import Sidecars
from exporter.runs.manifest import Manifest, parse_document
from exporter.stores.interface import StoredFile


@dataclass(frozen=True, slots=True)
class Intent:
    """The manifest, state and part changes that a run is about to publish."""

    manifest: Manifest
    state: str | None
    number: int | None = None
    """The manifest's number; None where manifests are not numbered."""
    superseded: tuple[str, ...] = ()
    """Parts of the previous output that the publish removes."""

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def own_parts(self) -> list[str]:
        """The paths of the parts that the run itself wrote."""
        return [each.path for each in self.manifest.files if each.run_id == self.run_id]


def name_intent(sidecars: Sidecars, run_id: str, *, is_shared: bool) -> str:
    """The name of a run's intent file; `is_shared` where all runs have the same one."""
    return sidecars.intent if is_shared else f"{sidecars.intent.removesuffix('json')}{run_id}.json"


def find_intents(sidecars: Sidecars) -> list[StoredFile]:
    """The intent files of all runs, including the shared one."""
    start = sidecars.intent.removesuffix("json")
    return [each for each in sidecars.store.list_files(start) if each.name.endswith(".json")]


def read_intents(sidecars: Sidecars) -> dict[str, Intent]:
    """The readable intents by the names of their files."""
    found = {}
    for each in find_intents(sidecars):
        content = sidecars.store.read(each.name)
        intent = None if content is None else parse_intent(content)
        if intent is not None:
            found[each.name] = intent
    return found


def dump_intent(intent: Intent) -> bytes:
    content: dict[str, Any] = {"manifest": intent.manifest.document, "state": intent.state}
    if intent.number is not None:
        content["number"] = intent.number
    if intent.superseded:
        content["superseded"] = intent.superseded
    return orjson.dumps(content)


def parse_intent(content: bytes) -> Intent | None:
    """None for bytes that are no intent."""
    try:
        document = orjson.loads(content)
        manifest = parse_document(document["manifest"])
        state, number = document["state"], document.get("number")
        superseded = document.get("superseded", [])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    is_valid = (
        (state is None or isinstance(state, str))
        and (number is None or isinstance(number, int))
        and isinstance(superseded, list)
        and all(isinstance(each, str) for each in superseded)
    )
    return Intent(manifest, state, number, tuple(superseded)) if is_valid else None
