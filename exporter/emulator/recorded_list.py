"""Session lists from an exported NDJSON file, to be served again."""

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

import orjson

from exporter.emulator.generated_list import RawSession, SessionPage
from exporter.errors import UsageError
from exporter.model import Gateway
from exporter.settings.files import open_regular

ADDED_KEYS = ("regionId", "workspaceId", "exportedAt")
"""Keys that an export adds to each received record."""


class RecordedSessions:
    """A recorded list; holds all rows encoded, about 600 bytes each."""

    def __init__(self, rows: list[bytes]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def page(self, page_num: int, page_size: int) -> SessionPage:
        start = (page_num - 1) * page_size
        rows = b",".join(self._rows[start : start + page_size])
        return SessionPage(len(self._rows), b"[%b]" % rows)

    def sessions(self) -> Iterator[RawSession]:
        return (orjson.loads(row) for row in self._rows)


def read_ndjson(path: Path) -> dict[Gateway, RecordedSessions]:
    """The sessions of a file that `livy-exporter export` wrote, plain or with `.gz` or `.zst`.

    Gateways and sessions keep the order of their lines. Blocks while it reads. Raises UsageError,
    with file and line, for any other file.
    """
    if not path.name.removesuffix(".gz").removesuffix(".zst").endswith((".ndjson", ".jsonl")):
        raise UsageError(
            f"'{path}' is not named like NDJSON",
            hint="give a file that ends in .ndjson or .jsonl, with .gz or .zst when compressed",
        )
    rows_by_gateway: dict[Gateway, list[bytes]] = {}
    line_num = 0
    try:
        with _open_lines(path) as lines:
            for line_num, line in enumerate(lines, start=1):
                if line.strip():
                    gateway, row = _parse_line(line, where=f"{path}:{line_num}")
                    rows_by_gateway.setdefault(gateway, []).append(row)
    # A broken stream raises OSError; gzip raises the other two for a truncated one.
    except (OSError, EOFError, zlib.error) as exc:
        reason = getattr(exc, "strerror", None) or exc
        where = f"'{path}'" if line_num == 0 else f"'{path}' after line {line_num}"
        raise UsageError(
            f"cannot read {where}: {reason}",
            hint="name a readable file written by livy-exporter export --format ndjson",
        ) from exc
    if not rows_by_gateway:
        raise UsageError(f"'{path}' holds no session", hint="export at least one session first")
    return {gateway: RecordedSessions(rows) for gateway, rows in rows_by_gateway.items()}


@contextmanager
def _open_lines(path: Path) -> Iterator[IO[bytes]]:
    with open_regular(path) as file:
        match path.suffix:
            case ".gz":
                with gzip.open(file) as lines:
                    yield cast("IO[bytes]", lines)
            case ".zst":
                import io

                import pyarrow as pa

                with (
                    pa.CompressedInputStream(pa.PythonFile(file, mode="r"), "zstd") as stream,
                    io.BufferedReader(stream) as lines,
                ):
                    yield lines
            case _:
                yield file


def _parse_line(line: bytes, *, where: str) -> tuple[Gateway, bytes]:
    try:
        session = orjson.loads(line)
    except orjson.JSONDecodeError as exc:
        raise UsageError(
            f"{where}: not JSON: {exc}", hint="each line must hold one session as a JSON object"
        ) from exc
    if not isinstance(session, dict):
        raise UsageError(
            f"{where}: not a JSON object", hint="each line must hold one session as a JSON object"
        )
    gateway = Gateway(
        region_id=_text(session, "regionId", where=where),
        workspace_id=_text(session, "workspaceId", where=where),
        gateway_id=_text(session, "computeId", where=where),
    )
    for key in ADDED_KEYS:
        session.pop(key, None)
    return gateway, orjson.dumps(session)


def _text(session: RawSession, key: str, *, where: str) -> str:
    value = session.get(key)
    if not isinstance(value, str) or value == "":
        raise UsageError(
            f"{where}: no text under '{key}'",
            hint="name a file written by livy-exporter export --format ndjson",
        )
    return value
