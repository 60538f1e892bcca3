"""What a manifest promises of an output's files, read back; performs no I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, get_args

import orjson

from exporter.runs.manifest import MANIFEST_VERSION
from exporter.sinks import Format, TableFormat


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
