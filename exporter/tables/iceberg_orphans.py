"""Files of an Iceberg table that a run wrote and never committed, by their names."""

import logging
import re
import time
import uuid
from typing import Final

import pyarrow.fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table
from pyiceberg.table.locations import load_location_provider

logger = logging.getLogger(__name__)

MAX_ATTEMPTS: Final = 16
"""Attempts of one run to commit whose files are recognised."""

SKEW_S: Final = 60.0
"""Largest difference between the clocks of a store and of a writer."""

_NAMESPACE: Final = uuid.UUID("6d3c1f0e-8f55-4c1b-9a55-4f0f0c9b6d3a")


def build_write_id(run_id: str, attempt: int) -> uuid.UUID:
    """The id in the names of all files that one attempt of a run writes; attempts count from 1."""
    return uuid.uuid5(_NAMESPACE, f"{run_id}/{attempt}")


def is_written_by(file_name: str, run_id: str) -> bool:
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", file_name)
    attempts = range(1, MAX_ATTEMPTS + 1)
    return found is not None and found[0] in {str(build_write_id(run_id, n)) for n in attempts}


def remove_orphans(table: Table, run_id: str, *, keep_s: float) -> None:
    """Remove files of a run that has committed nothing.

    A file must be older than `keep_s`, or one that the run can no longer commit.
    """
    io = table.io
    if not isinstance(io, PyArrowFileIO):
        return
    snapshot = table.current_snapshot()
    last_commit_s = 0.0 if snapshot is None else snapshot.timestamp_ms / 1000
    data = load_location_provider(table.location(), table.metadata.properties).data_path
    for folder in {table.location(), data}:
        scheme, netloc, path = PyArrowFileIO.parse_location(folder, io.properties)
        files = io.fs_by_scheme(scheme, netloc)
        selector = pyarrow.fs.FileSelector(path, recursive=True, allow_not_found=True)
        for each in files.get_file_info(selector):
            if not each.is_file or not is_written_by(each.base_name, run_id):
                continue
            written_s = each.mtime.timestamp()
            # The run read the table before it wrote, so its snapshot is no longer current.
            is_fenced = last_commit_s > written_s + SKEW_S
            if is_fenced or time.time() - written_s >= keep_s:
                files.delete_file(each.path)
                logger.info("removed '%s', which a run that died left behind", each.path)
