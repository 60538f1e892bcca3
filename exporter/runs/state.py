"""What an incremental run needs of the last published one, as a small JSON document; performs no
I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final

import orjson

from exporter.errors import UsageError
from exporter.listing.bookmark import Anchor, Bookmark, Unfinished
from exporter.model import Gateway
from exporter.times import floor_ms, from_ms

STATE_VERSION = 2
"""Version 1 told neither when anything was seen nor how new the head is; it is still read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What was published when, and what is known of each gateway since."""

    run_id: str
    exporter_version: str
    exported_at: datetime
    """Of the rows: what the next run writes has to be newer, whatever its clock says."""
    region_id: str
    output: str
    format_name: str
    gateways: Mapping[Gateway, Bookmark]
    """A gateway that can only be listed in full is not among them."""
    omit: tuple[str, ...] = ()
    """Fields that were left out of what was published."""
    filters: Mapping[str, Any] = field(default_factory=dict)
    """Of the query that listed the sessions."""


@dataclass(frozen=True, slots=True)
class FullRunNeeded:
    """Why a state cannot be gone on from, for a reader."""

    reason: str


DAMAGED = FullRunNeeded("the state of the last run is damaged")


def dump_state(state: State) -> bytes:
    content = {
        "state_version": STATE_VERSION,
        "run_id": state.run_id,
        "exporter_version": state.exporter_version,
        "exported_at_ms": floor_ms(state.exported_at),
        "source": {"region_id": state.region_id},
        "output": state.output,
        "format": state.format_name,
        **({"omit": state.omit} if state.omit else {}),
        **({"filters": dict(state.filters)} if state.filters else {}),
        "gateways": [
            asdict(gateway) | build_entry(known) for gateway, known in state.gateways.items()
        ],
    }
    return orjson.dumps(
        content | {"sha256": sum_content(content)}, option=orjson.OPT_APPEND_NEWLINE
    )


def read_state(
    text: bytes, *, output: str, region_id: str, gateways: Sequence[Gateway]
) -> State | FullRunNeeded:
    """The state of the last run, or why a full one is needed: it is damaged, or from a version that
    is not known yet.

    A gateway that was not asked for in the last run is simply not in it. Raises UsageError where
    the state is sound and of something else: another output, another region, or none of the
    `gateways` (in any order).
    """
    try:
        content = orjson.loads(text)
        version = content["state_version"]
        if isinstance(version, int) and version > STATE_VERSION:
            return FullRunNeeded(f"the state of the last run is of the newer version {version}")
        if content.pop("sha256") != sum_content(content):
            return DAMAGED
        state = parse_content(content)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return DAMAGED
    check_owner(state, output=output, region_id=region_id, gateways=gateways)
    return state


def read_output(text: bytes) -> str | None:
    """Which output a state is of; None for what is no sound state."""
    try:
        content = orjson.loads(text)
        output = content["output"]
    except (ValueError, KeyError, TypeError):
        return None
    return output if isinstance(output, str) else None


def require_own_state(text: bytes, *, output: str) -> None:
    """Raises UsageError for the state of another output: who publishes would write over it."""
    found = read_output(text)
    if found is not None and found != output:
        raise foreign_state(found, output)


def foreign_state(found: str, output: str) -> UsageError:
    return UsageError(f"the state belongs to another output: {found!r}, not {output!r}", hint=HINT)


HINT: Final = "name another --state, or remove it to begin anew with a full run"


def check_owner(state: State, *, output: str, region_id: str, gateways: Sequence[Gateway]) -> None:
    if state.output != output:
        raise foreign_state(state.output, output)
    if state.region_id != region_id:
        raise UsageError(
            f"the state belongs to another region: {state.region_id}, not {region_id}", hint=HINT
        )
    if state.gateways and gateways and state.gateways.keys().isdisjoint(gateways):
        first = next(iter(state.gateways))
        raise UsageError(
            f"the state belongs to other gateways: {first} and not {gateways[0]}", hint=HINT
        )


def next_exported_at(now: datetime, state: State | None) -> datetime:
    """When the rows of a run are exported: now, to the millisecond, but after the last run's, so
    that the newest version of a session stays the newest where the clock was set back.
    """
    now = from_ms(floor_ms(now))
    return now if state is None else max(now, state.exported_at + timedelta(milliseconds=1))


def build_entry(known: Bookmark) -> dict[str, Any]:
    return {
        "total_count": known.total_count,
        "expired_count": known.expired_count,
        "slack": known.slack,
        "page_cap": known.page_cap,
        "head": known.head,
        "head_oldest_ms": known.head_oldest_ms,
        "head_newest_ms": known.head_newest_ms,
        "full_at_ms": known.full_at_ms,
        "anchors": [list(astuple(each)) for each in known.anchors],
        "unfinished": [list(astuple(each)) for each in known.unfinished],
    }


def parse_content(content: Mapping[str, Any]) -> State:
    return State(
        run_id=content["run_id"],
        exporter_version=content["exporter_version"],
        exported_at=from_ms(content["exported_at_ms"]),
        region_id=content["source"]["region_id"],
        output=content["output"],
        format_name=content["format"],
        gateways={
            Gateway(each["region_id"], each["workspace_id"], each["gateway_id"]): parse_entry(each)
            for each in content["gateways"]
        },
        omit=tuple(content.get("omit", ())),
        filters=content.get("filters", {}),
    )


def parse_entry(entry: Mapping[str, Any]) -> Bookmark:
    return Bookmark(
        total_count=entry["total_count"],
        expired_count=entry["expired_count"],
        slack=entry["slack"],
        page_cap=entry["page_cap"],
        head=tuple(entry["head"]),
        head_oldest_ms=entry["head_oldest_ms"],
        head_newest_ms=entry.get("head_newest_ms"),
        full_at_ms=entry.get("full_at_ms", 0),
        anchors=tuple(Anchor(*each) for each in entry["anchors"]),
        unfinished=tuple(Unfinished(*each) for each in entry["unfinished"]),
    )


def sum_content(content: Mapping[str, Any]) -> str:
    return sha256(orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).hexdigest()
