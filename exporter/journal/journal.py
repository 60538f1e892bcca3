"""The journal: the answers a run has read so far, on disk, so that the run after a kill does not
ask for them again.

One file a run: a header frame that identifies the run, then frames of answers as Arrow segments, in
the order in which the listings accepted them. Written without sync: the page cache outlives a kill,
and after a power cut the checksums show which frames are intact.
"""

import errno
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.to_thread
import orjson

from exporter.errors import (
    ApiError,
    CredentialsError,
    DeadlineError,
    DestinationError,
    NetworkError,
    NotFoundError,
)
from exporter.journal.frames import Frame, FrameFile, build_frame
from exporter.journal.segments import SegmentRow, pack_body, pack_segment, read_segment, unpack_body
from exporter.listing.interface import Listing, PageRequest
from exporter.listing.replay import RecordedAnswer, ResumedRun
from exporter.model import Gateway, SessionPage
from exporter.stores.posix import make_folders
from exporter.times import parse_rfc3339

JOURNAL_VERSION: Final = 1

MAX_BYTES: Final = 4 << 30
"""Size at which a journal ends; the run goes on without one."""
MAX_LOST: Final = 0.05
"""Greatest share of all answers that a kill may lose."""
MAX_UNWRITTEN: Final = 0.03
"""Share of all answers at which unwritten ones are flushed."""
MAX_UNWRITTEN_BYTES: Final = 1 << 20
"""Compressed bytes in memory at which they are flushed."""
MAX_UNWRITTEN_S: Final = 1.0

RESUMABLE_ERRORS: Final = (
    ApiError,
    CredentialsError,
    DeadlineError,
    DestinationError,
    NetworkError,
)
DISK_FULL_ERRNOS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Header:
    """The run that a journal belongs to."""

    run_id: str
    started_at: datetime
    identity: Mapping[str, Any]
    """Everything that determines the requests and rows of a run, as plain JSON."""


@dataclass(frozen=True, slots=True)
class IntactPart:
    """The part of a journal file before its first corrupt frame."""

    header: Header | None
    answer_count: int
    start: int
    """Where the answers begin."""
    end: int
    written_ms: int
    """When the last answers were written."""


class Journal:
    """The journal of one run, and of the killed run that it resumes.

    It never fails the run: where it cannot be written, it ends, with one warning.
    """

    def __init__(
        self,
        path: Path,
        *,
        identity: Mapping[str, Any],
        gateways: Sequence[Gateway],
        run_id: str,
        started_at: datetime,
        resume_within_s: float,
        fresh: bool = False,
        utc_now: Callable[[], datetime] = lambda: datetime.now(UTC),
        now_s: Callable[[], float] = time.monotonic,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Resume the journal that a run of the same identity left at `path`; discard any other.

        Blocks while the whole file is checked. `identity` must hold everything that determines
        requests and rows, except the gateways. With `fresh` nothing is resumed.
        """
        self._gateways = gateways
        self._gateway_indexes = {gateway: index for index, gateway in enumerate(gateways)}
        self._utc_now = utc_now
        self._now_s = now_s
        self._max_bytes = max_bytes
        self._file: FrameFile | None = None
        self._stopped = False
        self._resumed_bytes = (0, 0)
        """Where the answers of the resumed run begin and end in the file."""
        # Only the event loop changes `recorded`; one thread at a time changes `written`.
        self._rows: list[SegmentRow] = []
        self._recorded_count = 0
        self._recorded_bytes = 0
        self._written_count = 0
        self._written_bytes = 0
        self._written_s = now_s()
        self._writing = anyio.Lock()
        self.resumed: ResumedRun | None = None
        """None where nothing is resumed."""
        self.dropped: str | None = None
        """Why an earlier run's answers were discarded, for a reader; None if none were."""
        names = [[each.region_id, each.workspace_id, each.gateway_id] for each in gateways]
        document = {"journal_version": JOURNAL_VERSION, **identity, "gateways": names}
        # A round trip through JSON, so that it equals what is read back: tuples become lists.
        header = Header(run_id, started_at, orjson.loads(orjson.dumps(document)))
        try:
            make_folders(path.parent)
            self._file = FrameFile(path)
            self._open(self._file, header, resume_within_s=resume_within_s, fresh=fresh)
        except BlockingIOError:
            self._stop("another run writes it")
        except OSError as exc:
            self._stop(exc.strerror or str(exc))

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes if self._file is not None else 0

    @property
    def has_recorded(self) -> bool:
        return self._resumed_bytes[0] < self._resumed_bytes[1]

    def read_recorded(self) -> Iterator[Sequence[RecordedAnswer]]:
        """The answers of the resumed run, a segment at a time; each step blocks."""
        start, end = self._resumed_bytes
        if self._file is not None and start < end:
            for frame in self._file.read(start):
                yield [self._build_answer(row) for row in read_segment(frame.payload)]
                if frame.end >= end:
                    return

    def record(self, listing: Listing, request: PageRequest, page: SessionPage) -> None:
        """Record an answer just before its listing accepts it; `page` has the body."""
        if self._stopped:
            return
        packed_body = pack_body(page.body)
        self._recorded_count += 1
        self._recorded_bytes += len(packed_body)
        self._rows.append(
            SegmentRow(
                gateway_index=self._gateway_indexes[request.gateway],
                asked_count=listing.asked_count,
                number=request.number,
                page_num=request.page_num,
                page_size=request.page_size,
                purpose=request.purpose,
                body_bytes=len(page.body),
                packed_body=packed_body,
            )
        )

    async def make_room(self) -> None:
        """Wait until one more answer may be recorded, so that a kill loses at most `MAX_LOST`."""
        while self._is_full():
            async with self._writing:
                if self._is_full():
                    await self._flush()

    async def flush_if_due(self) -> None:
        """Write the recorded answers if a flush is due and none is under way."""
        if self._is_due() and not self._writing.locked():
            async with self._writing:
                await self._flush()

    async def _flush(self) -> None:
        # Packed here: in the thread, packing would wait for the interpreter lock.
        frame, count = self._pack()
        await anyio.to_thread.run_sync(self._write, frame, count)

    def close(self) -> int:
        """Write the remaining answers, and keep the file for the next run; blocks.

        Returns how many answers are kept; a file without any is removed.
        """
        if self._file is None:
            return 0
        if self._rows and not self._stopped:
            self._write(*self._pack())
        kept_count = self._written_count
        if self.resumed is not None:
            kept_count += self.resumed.answer_count
        if kept_count > 0:
            self._file.close()
        else:
            self._file.remove()
        self._stopped = True
        self._file = None
        return kept_count

    def remove(self) -> None:
        """Remove the file: its answers are published, or of no use."""
        if self._file is not None:
            self._file.remove()
        self._stopped = True
        self._file = None

    def _open(
        self, file: FrameFile, header: Header, *, resume_within_s: float, fresh: bool
    ) -> None:
        intact = find_intact_part(file)
        previous = intact.header
        age_s = self._utc_now().timestamp() - intact.written_ms / 1000
        reason = explain_fresh_start(
            previous, header, age_s=age_s, resume_within_s=resume_within_s, fresh=fresh
        )
        if previous is not None and intact.answer_count > 0 and reason is None:
            file.cut(intact.end)
            self._resumed_bytes = (intact.start, intact.end)
            self.resumed = ResumedRun(previous.run_id, previous.started_at, intact.answer_count)
            return
        if intact.answer_count > 0 or (previous is None and file.found_bytes > 0):
            self.dropped = reason
        file.cut(0)
        file.append(self._build_frame(orjson.dumps(header), 0))

    def _is_due(self) -> bool:
        return not self._stopped and is_flush_due(
            unwritten_count=self._recorded_count - self._written_count,
            answer_count=self._answer_count,
            unwritten_bytes=self._recorded_bytes - self._written_bytes,
            waited_s=self._now_s() - self._written_s,
        )

    def _is_full(self) -> bool:
        """Whether one more unwritten answer would exceed a limit; the first one never does."""
        unwritten_count = self._recorded_count - self._written_count
        unwritten_bytes = self._recorded_bytes - self._written_bytes
        return (
            not self._stopped
            and unwritten_count > 0
            and (
                unwritten_count + 1 > MAX_LOST * (self._answer_count + 1)
                or unwritten_bytes > 2 * MAX_UNWRITTEN_BYTES
            )
        )

    @property
    def _answer_count(self) -> int:
        resumed_count = self.resumed.answer_count if self.resumed is not None else 0
        return resumed_count + self._recorded_count

    def _pack(self) -> tuple[bytes, int]:
        """A frame of all recorded answers, and their number. They stay in memory until they are
        written: a cancelled caller may never get that far.
        """
        rows = self._rows[:]
        return self._build_frame(pack_segment(rows), len(rows)), len(rows)

    def _write(self, frame: bytes, count: int) -> None:
        if self._file is None or self._stopped:
            return
        if self._file.size_bytes + len(frame) > self._max_bytes:
            self._stop(f"it would grow beyond {self._max_bytes >> 20:,} MiB")
            return
        try:
            self._file.append(frame)
        except OSError as exc:
            self._stop(exc.strerror or str(exc))
            return
        self._written_count += count
        self._written_bytes += sum([len(row.packed_body) for row in self._rows[:count]])
        self._written_s = self._now_s()
        del self._rows[:count]

    def _build_frame(self, payload: bytes, count: int) -> bytes:
        written_ms = int(self._utc_now().timestamp() * 1000)
        return build_frame(payload, count=count, written_ms=written_ms)

    def _stop(self, reason: str) -> None:
        self._stopped = True
        self._rows.clear()
        logger.warning("no journal from here on: %s; a kill now costs what is read next", reason)

    def _build_answer(self, row: SegmentRow) -> RecordedAnswer:
        gateway = self._gateways[row.gateway_index]
        request = PageRequest(gateway, row.page_num, row.page_size, row.number, row.purpose)
        return RecordedAnswer(request, row.asked_count, unpack_body(row))


def is_worth_resuming(error: BaseException) -> bool:
    """Whether to keep the journal of a run that ended with this error.

    Not after an error that the recorded answers may have caused: it would come again with them. Nor
    after one of a full disk.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_worth_resuming(each) for each in error.exceptions)
    if isinstance(error, NotFoundError) or (
        isinstance(error.__cause__, OSError) and error.__cause__.errno in DISK_FULL_ERRNOS
    ):
        return False
    return isinstance(error, RESUMABLE_ERRORS) or not isinstance(error, Exception)


def is_flush_due(
    *, unwritten_count: int, answer_count: int, unwritten_bytes: int, waited_s: float
) -> bool:
    """Whether a flush limit is reached; `answer_count` counts all answers so far."""
    return unwritten_count > 0 and (
        unwritten_count >= MAX_UNWRITTEN * answer_count
        or unwritten_bytes >= MAX_UNWRITTEN_BYTES
        or waited_s >= MAX_UNWRITTEN_S
    )


def explain_fresh_start(
    previous: Header | None, header: Header, *, age_s: float, resume_within_s: float, fresh: bool
) -> str | None:
    """Why a run cannot resume the previous run's journal, for a reader; None if it can."""
    if fresh:
        return "a fresh start is asked for"
    if previous is None:
        return "its beginning is damaged"
    names = sorted({*previous.identity, *header.identity})
    others = [name for name in names if previous.identity.get(name) != header.identity.get(name)]
    if others:
        return f"it is of a run with another {', '.join(others).replace('_', ' ')}"
    # A clock that was set back by that much says nothing about the age either.
    if abs(age_s) > resume_within_s:
        return f"it is older than {resume_within_s / 3600:g} h"
    return None


def find_intact_part(file: FrameFile) -> IntactPart:
    """Reads the whole file, up to its last intact frame."""
    frames = file.read()
    first = next(frames, None)
    header = parse_header(first) if first is not None else None
    if first is None or header is None:
        return IntactPart(None, 0, 0, 0, 0)
    answer_count, end, written_ms = 0, first.end, first.written_ms
    for frame in frames:
        answer_count += frame.count
        end, written_ms = frame.end, frame.written_ms
    return IntactPart(header, answer_count, first.end, end, written_ms)


def parse_header(frame: Frame) -> Header | None:
    """None for a frame that is no header."""
    try:
        document = orjson.loads(frame.payload)
        return Header(
            run_id=document["run_id"],
            started_at=parse_rfc3339(document["started_at"]),
            identity=dict(document["identity"]),
        )
    except (ValueError, TypeError, KeyError):
        return None
