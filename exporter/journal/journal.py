"""What a run has read so far, on disk, so that a run after a kill need not ask for it again.

One file for a run: a frame that says whose it is, then frames of answers as Arrow segments, in the
order in which the listings took them in. Written without sync: the page cache outlives a kill, and
after a power cut the checksums tell what is left.
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
"""A journal grows no larger; the run goes on without."""
MAX_LOST: Final = 0.05
"""Answers that a kill may cost, relative to all that were taken in."""
MAX_UNWRITTEN: Final = 0.03
"""Writing begins before."""
MAX_UNWRITTEN_BYTES: Final = 1 << 20
"""This is held in memory, compressed."""
MAX_UNWRITTEN_S: Final = 1.0

PASSING: Final = (ApiError, CredentialsError, DeadlineError, DestinationError, NetworkError)
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Header:
    """Whose journal it is."""

    run_id: str
    started_at: datetime
    identity: Mapping[str, Any]
    """All that decides what a run asks for and makes of it; plain JSON."""


@dataclass(frozen=True, slots=True)
class Survey:
    """What is good of a journal that was found."""

    header: Header | None
    answer_count: int
    start: int
    """Where the answers begin."""
    stop: int
    written_ms: int
    """When the last of them were written."""


class Journal:
    """The journal of one run, and of the killed run that it resumes.

    Never a reason to fail: if it cannot be written, it ends there, which is logged once.
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
        """Take over what a run of the same identity left at `path`, and drop anything else.

        Blocks while all of it is checked. `identity` must hold whatever decides about requests and
        rows, but for the gateways; with `fresh` nothing is taken over.
        """
        self._gateways = gateways
        self._places = {gateway: place for place, gateway in enumerate(gateways)}
        self._utc_now = utc_now
        self._now_s = now_s
        self._max_bytes = max_bytes
        self._file: FrameFile | None = None
        self._stopped = False
        self._recorded = (0, 0)
        # What is noted is counted by the event loop only, what is written by one thread at a time.
        self._rows: list[SegmentRow] = []
        self._noted_count = 0
        self._noted_bytes = 0
        self._written_count = 0
        self._written_bytes = 0
        self._written_s = now_s()
        self._writing = anyio.Lock()
        self.resumed: ResumedRun | None = None
        """None where the run begins at the beginning."""
        self.dropped: str | None = None
        """Why the answers of a run before this one were thrown away, for a reader; None if none
        were."""
        named = [[each.region_id, each.workspace_id, each.gateway_id] for each in gateways]
        whole = {"journal_version": JOURNAL_VERSION, **identity, "gateways": named}
        # As it will be read: a tuple is a list then.
        header = Header(run_id, started_at, orjson.loads(orjson.dumps(whole)))
        try:
            make_folders(path.parent)
            self._file = FrameFile(path)
            self._begin(self._file, header, resume_within_s=resume_within_s, fresh=fresh)
        except BlockingIOError:
            self._stop("another run writes it")
        except OSError as exc:
            self._stop(exc.strerror or str(exc))

    @property
    def size_bytes(self) -> int:
        return self._file.size_bytes if self._file is not None else 0

    @property
    def has_recorded(self) -> bool:
        return self._recorded[0] < self._recorded[1]

    def read_recorded(self) -> Iterator[Sequence[RecordedAnswer]]:
        """What the resumed run kept, a segment at a time; each step blocks."""
        start, stop = self._recorded
        if self._file is not None and start < stop:
            for frame in self._file.read(start):
                yield [self._recall(row) for row in read_segment(frame.payload)]
                if frame.end >= stop:
                    return

    def note(self, listing: Listing, request: PageRequest, page: SessionPage) -> None:
        """Keep an answer, just before its listing takes it in; `page` has its body."""
        if self._stopped:
            return
        packed_body = pack_body(page.body)
        self._noted_count += 1
        self._noted_bytes += len(packed_body)
        self._rows.append(
            SegmentRow(
                gateway_index=self._places[request.gateway],
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
        """Wait until one more answer may be noted: what is not written then is at most the part of
        all answers that a kill may cost.
        """
        while self._is_full():
            async with self._writing:
                if self._is_full():
                    await self._flush()

    async def flush_if_due(self) -> None:
        """Write what was noted, if that is enough: one caller does, and nobody waits for it."""
        if self._is_due() and not self._writing.locked():
            async with self._writing:
                await self._flush()

    async def _flush(self) -> None:
        # The thread does no more than write: it would wait for the event loop's turns else.
        frame, count = self._pack()
        await anyio.to_thread.run_sync(self._write, frame, count)

    def close(self) -> int:
        """Write what is left, and keep the file for a run after this one; blocks.

        Returns how many answers are kept: a file without any is of no use, and does not stay.
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
        """Nothing is to be resumed: what was read is published, or of no use."""
        if self._file is not None:
            self._file.remove()
        self._stopped = True
        self._file = None

    def _begin(
        self, file: FrameFile, header: Header, *, resume_within_s: float, fresh: bool
    ) -> None:
        found = survey(file)
        age_s = self._utc_now().timestamp() - found.written_ms / 1000
        obstacle = find_obstacle(
            found.header, header, age_s=age_s, resume_within_s=resume_within_s, fresh=fresh
        )
        if found.header is not None and found.answer_count > 0 and obstacle is None:
            file.cut(found.stop)
            self._recorded = (found.start, found.stop)
            self.resumed = ResumedRun(
                found.header.run_id, found.header.started_at, found.answer_count
            )
            return
        if found.answer_count > 0 or (found.header is None and file.found_bytes > 0):
            self.dropped = obstacle
        file.cut(0)
        file.append(self._frame(orjson.dumps(header), 0))

    def _is_due(self) -> bool:
        return not self._stopped and is_flush_due(
            unwritten_count=self._noted_count - self._written_count,
            answer_count=self._answer_count,
            unwritten_bytes=self._noted_bytes - self._written_bytes,
            waited_s=self._now_s() - self._written_s,
        )

    def _is_full(self) -> bool:
        """Whether one answer more would be one too many; one alone never is."""
        unwritten_count = self._noted_count - self._written_count
        unwritten_bytes = self._noted_bytes - self._written_bytes
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
        return resumed_count + self._noted_count

    def _pack(self) -> tuple[bytes, int]:
        """All that was noted until now, and how many; it stays until it is written, since a
        cancelled caller may never come to that.
        """
        rows = self._rows[:]
        return self._frame(pack_segment(rows), len(rows)), len(rows)

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

    def _frame(self, payload: bytes, count: int) -> bytes:
        written_ms = int(self._utc_now().timestamp() * 1000)
        return build_frame(payload, count=count, written_ms=written_ms)

    def _stop(self, reason: str) -> None:
        self._stopped = True
        self._rows.clear()
        logger.warning("no journal from here on: %s; a kill now costs what is read next", reason)

    def _recall(self, row: SegmentRow) -> RecordedAnswer:
        gateway = self._gateways[row.gateway_index]
        request = PageRequest(gateway, row.page_num, row.page_size, row.number, row.purpose)
        return RecordedAnswer(request, row.asked_count, unpack_body(row))


def is_worth_resuming(error: BaseException) -> bool:
    """Whether to keep the journal of a run that ended so: a failure that what is recorded may have
    brought about would come again with it. Nor is room taken where it ran out.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(is_worth_resuming(each) for each in error.exceptions)
    if isinstance(error, NotFoundError) or (
        isinstance(error.__cause__, OSError) and error.__cause__.errno in NO_ROOM
    ):
        return False
    return isinstance(error, PASSING) or not isinstance(error, Exception)


def is_flush_due(
    *, unwritten_count: int, answer_count: int, unwritten_bytes: int, waited_s: float
) -> bool:
    """Whether a kill would cost more than it may; `answer_count` is of all answers so far."""
    return unwritten_count > 0 and (
        unwritten_count >= MAX_UNWRITTEN * answer_count
        or unwritten_bytes >= MAX_UNWRITTEN_BYTES
        or waited_s >= MAX_UNWRITTEN_S
    )


def find_obstacle(
    former: Header | None, header: Header, *, age_s: float, resume_within_s: float, fresh: bool
) -> str | None:
    """Why a run cannot take over what another one left, for a reader; None if it can."""
    if fresh:
        return "a fresh start is asked for"
    if former is None:
        return "its beginning is damaged"
    names = sorted({*former.identity, *header.identity})
    others = [name for name in names if former.identity.get(name) != header.identity.get(name)]
    if others:
        return f"it is of a run with another {', '.join(others).replace('_', ' ')}"
    # A clock that was set back by so much says nothing about the age.
    if abs(age_s) > resume_within_s:
        return f"it is older than {resume_within_s / 3600:g} h"
    return None


def survey(file: FrameFile) -> Survey:
    """Read all of a file; what it says of the end is where the last good frame ends."""
    frames = file.read()
    first = next(frames, None)
    header = parse_header(first) if first is not None else None
    if first is None or header is None:
        return Survey(None, 0, 0, 0, 0)
    answer_count, stop, written_ms = 0, first.end, first.written_ms
    for frame in frames:
        answer_count += frame.count
        stop, written_ms = frame.end, frame.written_ms
    return Survey(header, answer_count, first.end, stop, written_ms)


def parse_header(frame: Frame) -> Header | None:
    """None for what no version of this program wrote."""
    try:
        document = orjson.loads(frame.payload)
        return Header(
            run_id=document["run_id"],
            started_at=parse_rfc3339(document["started_at"]),
            identity=dict(document["identity"]),
        )
    except (ValueError, TypeError, KeyError):
        return None
