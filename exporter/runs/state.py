"""The state that an incremental run needs of the last published run, as a small JSON document;
performs no I/O.
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
"""Version 1 lacks `full_at_ms`, `head_newest_ms` and `Unfinished.since_ms`; it is still read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """The facts of the last published run, and the bookmarks of its gateways."""

    run_id: str
    exporter_version: str
    exported_at: datetime
    """Of the run's rows; the next run's rows must be newer, whatever its clock says."""
    region_id: str
    output: str
    format_name: str
    gateways: Mapping[Gateway, Bookmark]
    """Without the gateways that must be listed in full."""
    omit: tuple[str, ...] = ()
    """Fields that the published rows omit."""
    filters: Mapping[str, Any] = field(default_factory=dict)
    """The filters of the query that listed the sessions."""


@dataclass(frozen=True, slots=True)
class FullRunNeeded:
    """Returned in place of a state that cannot be used."""

    reason: str
    """For a reader."""


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
            asdict(gateway) | build_entry(bookmark) for gateway, bookmark in state.gateways.items()
        ],
    }
    return orjson.dumps(
        content | {"sha256": sum_content(content)}, option=orjson.OPT_APPEND_NEWLINE
    )


def read_state(
    text: bytes, *, output: str, region_id: str, gateways: Sequence[Gateway]
) -> State | FullRunNeeded:
    """The state of the last run, or why a full run is needed: it is damaged, or of a newer version.

    A gateway that the last run did not list is not in it. Raises UsageError for a valid state of
    another output, of another region, or of none of the `gateways`.
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
    """The output that a state belongs to; None for an invalid state."""
    try:
        content = orjson.loads(text)
        output = content["output"]
    except (ValueError, KeyError, TypeError):
        return None
    return output if isinstance(output, str) else None


def require_own_state(text: bytes, *, output: str) -> None:
    """Raises UsageError for the state of another output, which a publish would overwrite."""
    owner = read_output(text)
    if owner is not None and owner != output:
        raise foreign_state(owner, output)


def foreign_state(owner: str, output: str) -> UsageError:
    return UsageError(f"the state belongs to another output: {owner!r}, not {output!r}", hint=HINT)


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
    """The `exported_at` of a run's rows: `now` in milliseconds, but later than the last run's.

    So the newest version of a session stays the newest even if the clock was set back.
    """
    now = from_ms(floor_ms(now))
    return now if state is None else max(now, state.exported_at + timedelta(milliseconds=1))


def build_entry(bookmark: Bookmark) -> dict[str, Any]:
    return {
        "total_count": bookmark.total_count,
        "expired_count": bookmark.expired_count,
        "slack": bookmark.slack,
        "page_cap": bookmark.page_cap,
        "head": bookmark.head,
        "head_oldest_ms": bookmark.head_oldest_ms,
        "head_newest_ms": bookmark.head_newest_ms,
        "full_at_ms": bookmark.full_at_ms,
        "anchors": [list(astuple(each)) for each in bookmark.anchors],
        "unfinished": [list(astuple(each)) for each in bookmark.unfinished],
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
