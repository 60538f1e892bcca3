"""The facts of one run as a JSON document that stands beside its output; performs no I/O."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, get_args

import orjson

from exporter.api.client import RequestCounts
from exporter.model import ALL_TIME, ListingFacts, Mode, TimeRange
from exporter.sinks.interface import Format, WrittenFile
from exporter.tables.interface import TableFormat
from exporter.times import format_instant, format_ms

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
    time_range: TimeRange = ALL_TIME,
    unreadable_count: int = 0,
    unreadable: Sequence[Mapping[str, Any]] = (),
    omitted: Mapping[str, int] = MappingProxyType({}),
) -> dict[str, Any]:
    """The manifest as it is written; `time_range` is what was kept of the lists.

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
        "since": format_ms(time_range.since_ms),
        "until": format_ms(time_range.until_ms),
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


def dump_manifest(manifest: dict[str, Any]) -> bytes:
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


@dataclass(frozen=True, slots=True)
class PromisedFile:
    path: str
    row_count: int
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Promise:
    run_id: str
    status: str
    format: Format | TableFormat
    session_count: int
    files: tuple[PromisedFile, ...]

    @property
    def row_count(self) -> int:
        return sum(each.row_count for each in self.files)

    @property
    def own_row_count(self) -> int:
        """Rows in the parts of the manifest's own run, and in files that are no parts."""
        return sum(
            each.row_count for each in self.files if run_of(each.path) in {None, self.run_id}
        )


def run_of(path: str) -> str | None:
    """The run that wrote a part, by the part's name; None for any other file."""
    match = re.fullmatch(r"part-(.+)-[0-9]{5}\.[a-z]+", path.rpartition("/")[2])
    return None if match is None else match[1]


def parse_promise(content: bytes) -> Promise:
    """Raises ValueError with what is wrong."""
    document = orjson.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    version = take(document, "manifest_version", int)
    if version > MANIFEST_VERSION:
        raise ValueError(
            f"its version {version} is of a newer livy-exporter, this one knows {MANIFEST_VERSION}"
        )
    format_name = take(document, "format", str)
    known: dict[str, Format | TableFormat] = {
        each: each for each in (*get_args(Format), *get_args(TableFormat))
    }
    if format_name not in known:
        raise ValueError(f"its format {format_name!r} is unknown")
    return Promise(
        run_id=take(document, "run_id", str),
        status=take(document, "status", str),
        format=known[format_name],
        session_count=take(document, "session_count", int),
        files=tuple(parse_file(each) for each in take(document, "files", list)),
    )


def parse_file(entry: Any) -> PromisedFile:
    if not isinstance(entry, dict):
        raise ValueError("an entry of 'files' is no JSON object")
    return PromisedFile(
        path=take(entry, "path", str),
        row_count=take(entry, "row_count", int),
        size_bytes=take(entry, "size_bytes", int),
        sha256=take(entry, "sha256", str),
    )


def take(document: Mapping[str, Any], key: str, kind: type) -> Any:
    """The value of a key. Raises ValueError where it is absent, negative or of another type."""
    value: Any = document.get(key)
    is_fit = type(value) is kind
    if not is_fit or (kind is int and value < 0):
        raise ValueError(f"'{key}' is {value!r:.80}")
    return value
