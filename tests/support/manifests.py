"""Manifests of runs that tests make up."""

from collections.abc import Sequence
from typing import Any

from exporter.runs.manifest import Manifest, build_file_entry, parse_document
from exporter.sinks.interface import WrittenFile


def manifest_of(run_id: str, files: Sequence[WrittenFile] = (), **changes: Any) -> Manifest:
    """The manifest of a run that wrote these files and nothing else worth telling."""
    return parse_document(
        {
            "manifest_version": 1,
            "run_id": run_id,
            "status": "complete",
            "format": "ndjson",
            "session_count": sum(each.row_count for each in files),
            "files": [build_file_entry(each) for each in files],
            **changes,
        }
    )
