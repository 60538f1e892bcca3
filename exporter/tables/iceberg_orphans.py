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
"""Commits of one run whose files are known by their names."""

SKEW_S: Final = 60.0
"""How far the clocks of a store and of whoever commits may be apart."""

_NAMESPACE: Final = uuid.UUID("6d3c1f0e-8f55-4c1b-9a55-4f0f0c9b6d3a")


def name_attempt(run_id: str, attempt: int) -> uuid.UUID:
    """What names all files that one attempt of a run to commit writes; attempts count from 1."""
    return uuid.uuid5(_NAMESPACE, f"{run_id}/{attempt}")


def is_of(file_name: str, run_id: str) -> bool:
    """Whether a run wrote a file, by its name."""
    found = re.search(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", file_name)
    attempts = range(1, MAX_ATTEMPTS + 1)
    return found is not None and found[0] in {str(name_attempt(run_id, n)) for n in attempts}


def remove_files_of(table: Table, run_id: str, *, keep_s: float) -> None:
    """Remove files of a run that has committed nothing, if they are older than `keep_s` or the run
    cannot commit them any more.
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
            if not each.is_file or not is_of(each.base_name, run_id):
                continue
            written_s = each.mtime.timestamp()
            # A run reads the table before it writes: its snapshot is the current one no more.
            is_fenced = last_commit_s > written_s + SKEW_S
            if is_fenced or time.time() - written_s >= keep_s:
                files.delete_file(each.path)
                logger.info("removed '%s', which a run that died left behind", each.path)
