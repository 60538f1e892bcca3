"""The facts of one run as a JSON document that stands beside its output; performs no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Literal

import orjson

from exporter.api.client import RequestCounts
from exporter.listing.facts import ListingFacts, Mode
from exporter.sinks import WrittenFile
from exporter.span import ALL_TIME, Span, format_ms

MANIFEST_VERSION = 1

Status = Literal["complete", "incomplete"]


def build_manifest(
    *,
    run_id: str,
    exporter_version: str,
    status: Status,
    started_at: datetime,
    finished_at: datetime,
    output: str,
    format_name: str,
    partition_by: Sequence[str],
    mode: Mode,
    full_because: str,
    session_count: int,
    coerced_value_count: int,
    former_files: Sequence[Mapping[str, Any]],
    files: Sequence[WrittenFile],
    listings: Sequence[ListingFacts],
    requests: RequestCounts,
    learnt_rps: float | None,
    span: Span = ALL_TIME,
    unreadable_count: int = 0,
    unreadable: Sequence[Mapping[str, Any]] = (),
    omitted: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """The manifest as it is written; `span` is what was kept of the lists.

    A run that adds to an output names the files that were there before, too: all that a reader of
    the output has to read. `session_count` is that of the run. `unreadable` names the first of the
    rows that are in no output, `omitted` tells how many values of each field were left out.
    """
    return {
        "manifest_version": MANIFEST_VERSION,
        "run_id": run_id,
        "exporter_version": exporter_version,
        "status": status,
        "started_at": format_instant(started_at),
        "finished_at": format_instant(finished_at),
        "output": output,
        "format": format_name,
        "partition_by": list(partition_by),
        "mode": mode,
        "full_because": full_because or None,
        "since": format_ms(span.since_ms),
        "until": format_ms(span.until_ms),
        "session_count": session_count,
        "coerced_value_count": coerced_value_count,
        "omitted": dict(omitted),
        "unreadable_count": unreadable_count,
        "unreadable": list(unreadable),
        "files": [*former_files, *(build_file_entry(file) for file in files)],
        "gateways": [build_gateway_entry(facts) for facts in listings],
        "requests": asdict(requests),
        "pacing": {"learnt_rps": None if learnt_rps is None else round(learnt_rps, 2)},
    }


def build_file_entry(file: WrittenFile) -> dict[str, Any]:
    return {
        "path": file.facts.path,
        "row_count": file.row_count,
        "size_bytes": file.facts.size_bytes,
        "sha256": file.facts.sha256,
    }


def build_gateway_entry(facts: ListingFacts) -> dict[str, Any]:
    return {
        "region_id": facts.gateway.region_id,
        "workspace_id": facts.gateway.workspace_id,
        "gateway_id": facts.gateway.gateway_id,
        "session_count": facts.session_count,
        "total_count_first": facts.total_count_first,
        "total_count_last": facts.total_count_last,
        "inserted_count": facts.inserted_count,
        "deleted_count": facts.deleted_count,
        "overlap_count": facts.overlap_count,
        "page_count": facts.page_count,
        "repair_page_count": facts.repair_page_count,
        "proof": facts.proof,
        "mode": facts.mode,
        "full_because": facts.full_because or None,
    }


def format_instant(at: datetime) -> str:
    """RFC 3339, UTC, to the millisecond: as `exportedAt` is in the sessions."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def dump_manifest(manifest: dict[str, Any]) -> bytes:
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
