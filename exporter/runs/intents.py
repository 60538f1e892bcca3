"""What a run is about to publish, noted before it does: names and contents; performs no I/O but to
list them.

Where the lock is the kernel's there is one note at a time. Under a lease there is one for each run:
one that lost its lease and does not know must not write over that of the run that has it.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from exporter.destinations.destination import Sidecars
from exporter.runs.manifest import Manifest, parse_document
from exporter.stores.interface import StoredFile


@dataclass(frozen=True, slots=True)
class Intent:
    """What a run is about to publish."""

    manifest: Manifest
    state: str | None
    number: int | None = None
    """Of the manifest, where they have numbers."""
    superseded: tuple[str, ...] = ()
    """Parts that are no longer part of the output then, and go."""

    @property
    def run_id(self) -> str:
        return self.manifest.run_id

    @property
    def own_parts(self) -> list[str]:
        """What the run itself wrote."""
        return [each.path for each in self.manifest.files if each.run_id == self.run_id]


def name_intent(sidecars: Sidecars, run_id: str, *, is_shared: bool) -> str:
    """Where a run notes what it is about to publish; `is_shared` where all runs do in one place."""
    return sidecars.intent if is_shared else f"{sidecars.intent.removesuffix('json')}{run_id}.json"


def find_intents(sidecars: Sidecars) -> list[StoredFile]:
    """Those of all runs, and of those before there was one for each."""
    start = sidecars.intent.removesuffix("json")
    return [each for each in sidecars.store.list_files(start) if each.name.endswith(".json")]


def read_intents(sidecars: Sidecars) -> dict[str, Intent]:
    """Those that can be read, by the names of their files."""
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
    """None for what is no intent."""
    try:
        read = orjson.loads(content)
        manifest = parse_document(read["manifest"])
        state, number, superseded = read["state"], read.get("number"), read.get("superseded", [])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    is_sound = (
        (state is None or isinstance(state, str))
        and (number is None or isinstance(number, int))
        and isinstance(superseded, list)
        and all(isinstance(each, str) for each in superseded)
    )
    return Intent(manifest, state, number, tuple(superseded)) if is_sound else None
