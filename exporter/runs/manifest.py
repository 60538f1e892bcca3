"""The manifest: the facts of a run, as a JSON document beside its output; performs no I/O."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, get_args

import orjson

from exporter.model import (
    ALL_TIME,
    Gateway,
    ListingFacts,
    Mode,
    OutputFormat,
    Proof,
    RequestCounts,
    TimeRange,
)
from exporter.sinks.dataset import find_run_id
from exporter.sinks.formats import FORMATS
from exporter.sinks.interface import WrittenFile
from exporter.tables.registry import TABLES
from exporter.times import floor_ms, format_instant, format_ms, parse_rfc3339

T = TypeVar("T")

MANIFEST_VERSION: Final = 1

Status = Literal["complete", "incomplete"]


class NewerManifestError(ValueError):
    """Raised for a manifest of a newer version than this program knows."""


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A file of the output."""

    path: str
    """As the user named the output; relative to the dataset for a part."""
    row_count: int
    size_bytes: int
    sha256: str
    """In lower-case hexadecimal."""

    @property
    def run_id(self) -> str | None:
        """The run that wrote a part, by the part's name; None for any other file."""
        return find_run_id(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The facts of one run, as they were published with its output.

    A run that adds to an output names the earlier files too, so that `files` is all that a reader
    has to read; `session_count` is that of the run alone.
    """

    version: int
    run_id: str
    exporter_version: str
    status: Status
    started_at: datetime | None
    """UTC, to the millisecond; None where an old manifest lacks it."""
    finished_at: datetime | None
    output: str
    """As the user named it."""
    format: OutputFormat
    partition_by: tuple[str, ...]
    mode: Mode
    full_because: str
    """Why an incremental run listed in full, for a reader; empty if it did not."""
    time_range: TimeRange
    """Create times of the sessions that were kept."""
    session_count: int
    coerced_value_count: int
    """Values that were converted to fit their column, or kept in `extra` because they did not."""
    omitted: Mapping[str, int]
    """Omitted values by their field."""
    unreadable_count: int
    """Rows without a session id, which no output holds."""
    files: tuple[ManifestFile, ...]
    gateways: tuple[ListingFacts, ...]
    requests: RequestCounts
    learnt_rps: float | None
    """The quota estimated from throttled answers, in requests a second; None without any."""
    document: Mapping[str, Any] = field(repr=False)
    """The JSON document, including keys that this version does not know."""

    @property
    def row_count(self) -> int:
        """Rows in all files."""
        return sum(each.row_count for each in self.files)

    @property
    def own_row_count(self) -> int:
        """Rows in the parts of the manifest's own run, and in files that are not parts."""
        return sum(each.row_count for each in self.files if each.run_id in {None, self.run_id})

    def to_dict(self) -> dict[str, Any]:
        """A copy of the JSON document, which the caller may change."""
        return deepcopy(dict(self.document))

    def dump(self) -> bytes:
        """The document as the bytes of its file."""
        return orjson.dumps(self.document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def build_manifest(
    *,
    run_id: str,
    exporter_version: str,
    status: Status,
    started_at: datetime,
    finished_at: datetime,
    output: str,
    format_name: OutputFormat,
    partition_by: Sequence[str],
    mode: Mode,
    full_because: str,
    session_count: int,
    coerced_value_count: int,
    previous_files: Sequence[ManifestFile],
    files: Sequence[WrittenFile],
    listings: Sequence[ListingFacts],
    requests: RequestCounts,
    learnt_rps: float | None,
    time_range: TimeRange = ALL_TIME,
    unreadable_count: int = 0,
    unreadable: Sequence[Mapping[str, Any]] = (),
    omitted: Mapping[str, int] = MappingProxyType({}),
) -> Manifest:
    """The manifest of a run; `unreadable` names the first of its unreadable rows."""
    return parse_document(
        {
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
            "files": [
                *(asdict(file) for file in previous_files),
                *(build_file_entry(file) for file in files),
            ],
            "gateways": [build_gateway_entry(facts) for facts in listings],
            "requests": asdict(requests),
            "pacing": {"learnt_rps": None if learnt_rps is None else round(learnt_rps, 2)},
        }
    )


def build_file_entry(file: WrittenFile) -> dict[str, Any]:
    return {
        "path": file.facts.path,
        "row_count": file.row_count,
        "size_bytes": file.facts.size_bytes,
        "sha256": file.facts.sha256,
    }


def build_gateway_entry(facts: ListingFacts) -> dict[str, Any]:
    entry = asdict(facts)
    gateway = entry.pop("gateway")
    del entry["missing"]  # it concerns the run, not the published output
    return {**gateway, **entry, "full_because": facts.full_because or None}


def parse_manifest(content: bytes) -> Manifest:
    """The manifest in a file. Raises ValueError with the reason why it is none."""
    document = orjson.loads(content)
    if not isinstance(document, dict):
        raise ValueError("it is no JSON object")
    return parse_document(document)


def parse_document(document: Mapping[str, Any]) -> Manifest:
    """The manifest in a JSON document. Raises ValueError with the reason why it is none.

    Keys newer than the first version may be absent. The ValueError for an unknown newer version is
    NewerManifestError.
    """
    version = _take(document, "manifest_version", int)
    if version > MANIFEST_VERSION:
        raise NewerManifestError(
            f"its version {version} is of a newer livy-exporter, this one knows {MANIFEST_VERSION}"
        )
    format_name = _take(document, "format", str)
    formats: dict[str, OutputFormat] = {each: each for each in (*FORMATS, *TABLES)}
    if format_name not in formats:
        raise ValueError(f"its format {format_name!r} is unknown")
    status = _take(document, "status", str)
    pacing = _take(document, "pacing", dict, default={})
    return Manifest(
        version=version,
        run_id=_take(document, "run_id", str),
        exporter_version=_take(document, "exporter_version", str, default=""),
        status="complete" if status == "complete" else "incomplete",
        started_at=_parse_instant(document.get("started_at")),
        finished_at=_parse_instant(document.get("finished_at")),
        output=_take(document, "output", str, default=""),
        format=formats[format_name],
        partition_by=tuple(map(str, _take(document, "partition_by", list, default=[]))),
        mode="incremental" if document.get("mode") == "incremental" else "full",
        full_because=_take(document, "full_because", str, default=""),
        time_range=TimeRange(_parse_ms(document.get("since")), _parse_ms(document.get("until"))),
        session_count=_take(document, "session_count", int),
        coerced_value_count=_take(document, "coerced_value_count", int, default=0),
        omitted=_take(document, "omitted", dict, default={}),
        unreadable_count=_take(document, "unreadable_count", int, default=0),
        files=tuple(_parse_file(each) for each in _take(document, "files", list)),
        gateways=tuple(
            _parse_gateway(each) for each in _take(document, "gateways", list, default=[])
        ),
        requests=_parse_requests(_take(document, "requests", dict, default={})),
        learnt_rps=pacing.get("learnt_rps"),
        document=document,
    )


def _parse_file(entry: Any) -> ManifestFile:
    if not isinstance(entry, dict):
        raise ValueError("an entry of 'files' is no JSON object")
    return ManifestFile(
        path=_take(entry, "path", str),
        row_count=_take(entry, "row_count", int),
        size_bytes=_take(entry, "size_bytes", int),
        sha256=_take(entry, "sha256", str),
    )


def _parse_gateway(entry: Any) -> ListingFacts:
    if not isinstance(entry, dict):
        raise ValueError("an entry of 'gateways' is no JSON object")
    proofs: dict[str, Proof] = {each: each for each in get_args(Proof)}

    def count(name: str) -> int:
        return _take(entry, name, int, default=0)

    return ListingFacts(
        gateway=Gateway(
            _take(entry, "region_id", str),
            _take(entry, "workspace_id", str),
            _take(entry, "gateway_id", str),
        ),
        session_count=count("session_count"),
        total_count_first=count("total_count_first"),
        total_count_last=count("total_count_last"),
        inserted_count=count("inserted_count"),
        deleted_count=count("deleted_count"),
        overlap_count=count("overlap_count"),
        page_count=count("page_count"),
        repair_page_count=count("repair_page_count"),
        proof=proofs.get(_take(entry, "proof", str, default=""), "unproven"),
        mode="incremental" if entry.get("mode") == "incremental" else "full",
        full_because=_take(entry, "full_because", str, default=""),
    )


def _parse_requests(entry: Mapping[str, Any]) -> RequestCounts:
    names = RequestCounts.__dataclass_fields__
    return RequestCounts(**{name: count for name, count in entry.items() if name in names})


def _parse_instant(value: Any) -> datetime | None:
    """None for an invalid instant: no reader depends on it."""
    if not isinstance(value, str):
        return None
    try:
        return parse_rfc3339(value)
    except ValueError:
        return None


def _parse_ms(value: Any) -> int | None:
    at = _parse_instant(value)
    return None if at is None else floor_ms(at)


def _take(document: Mapping[str, Any], key: str, kind: type[T], *, default: T | None = None) -> T:
    """The value of a key, or the default where it is absent or null.

    Raises ValueError where it is absent, negative or of another type.
    """
    value: Any = document.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not kind or (isinstance(value, int) and value < 0):
        raise ValueError(f"'{key}' is {value!r:.80}")
    return value
