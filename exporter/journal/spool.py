"""The spool: the local folder of the journals of outputs in object stores."""

import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from exporter.journal.frames import FrameFile, is_framed


def remove_stale(spool: Path, *, now: datetime, resume_within_s: float) -> None:
    """Remove the journals in a spool that are too old to be resumed, whatever their output.

    Files of other names, and those that do not begin as a journal does, are not ours and stay.
    """
    with suppress(OSError):
        for path in spool.iterdir():
            if re.fullmatch(r"[0-9a-f]{32}\.journal", path.name) is None or not is_framed(path):
                continue
            if now.timestamp() - path.stat().st_mtime > resume_within_s:
                with suppress(OSError):
                    FrameFile(path).remove()
