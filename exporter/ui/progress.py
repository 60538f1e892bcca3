"""Progress of a run as a bar, plain lines or JSON lines, and its summary at the end."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Literal, Protocol, TextIO, assert_never

from exporter.events import Event, ListingFinished, ListingStarted, RetryScheduled, RunFinished
from exporter.settings.settings import LogFormat, ProgressMode
from exporter.ui.json_text import json_line
from exporter.ui.logs import WriteLine, line_writer
from exporter.ui.stats import RunStats
from exporter.ui.text import progress_line, retry_line, summary_lines

DrawingName = Literal["bar", "plain", "json", "none"]

LINE_INTERVAL_S = 10.0
"""Between two lines of progress without a bar."""

logger = logging.getLogger(__name__)


class Drawing(Protocol):
    """One way to show a run's stats."""

    def draw(self, event: Event, now_s: float) -> None:
        """Show the effect of `event`, which the stats have counted already. Must not block."""

    def write_line(self, line: str) -> None:
        """Show another line without garbling the drawing."""


class Progress:
    """A listener that counts a run's events and has them drawn."""

    def __init__(self, stats: RunStats, drawing: Drawing, *, now_s: Callable[[], float]) -> None:
        self.stats = stats
        self._drawing = drawing
        self._now_s = now_s

    def __call__(self, event: Event) -> None:
        now_s = self._now_s()
        self.stats.apply(event, now_s)
        self._drawing.draw(event, now_s)
        if isinstance(event, RetryScheduled):
            logger.info(
                "%s",
                retry_line(event),
                extra={
                    "event": "retry",
                    "gateway": event.gateway,
                    "call": event.call,
                    "attempt": event.attempt,
                    "wait_s": event.wait_s,
                    "error": event.error,
                },
            )

    def write_line(self, line: str) -> None:
        """Write a line to the stream, above the bar if there is one. From any thread."""
        self._drawing.write_line(line)


@contextmanager
def open_progress(
    *,
    mode: ProgressMode,
    log_format: LogFormat,
    stream: TextIO,
    quiet: bool,
    environ: Mapping[str, str],
    now_s: Callable[[], float] = time.monotonic,
    now_at: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> Iterator[Progress]:
    """A listener that draws on `stream` within the block; then a finished run's summary is written.

    With `quiet` nothing is drawn, and only an incomplete run has a summary. `now_s` is a monotonic
    clock in seconds, `now_at` the time of day for JSON lines.
    """
    name = choose_drawing(
        mode, log_format=log_format, is_terminal=stream.isatty(), quiet=quiet, environ=environ
    )
    stats = RunStats()
    drawing, drawn = _open_drawing(name, stats, stream=stream, now_s=now_s, now_at=now_at)
    try:
        with drawn:
            yield Progress(stats, drawing, now_s=now_s)
    finally:
        finished = stats.finished
        if finished is not None and (not quiet or finished.status == "incomplete"):
            write_line = line_writer(stream)
            match log_format:
                case "text":
                    for line in summary_lines(stats, finished):
                        write_line(line)
                case "json":
                    write_line(_finished_json(stats, finished, now_at()))
                case _:
                    assert_never(log_format)


def choose_drawing(
    mode: ProgressMode,
    *,
    log_format: LogFormat,
    is_terminal: bool,
    quiet: bool,
    environ: Mapping[str, str],
) -> DrawingName:
    """The drawing to use.

    JSON lines are never mixed with others. A bar needs a terminal that can move its cursor, and
    with $CI set it is drawn only on request.
    """
    if quiet or mode == "none":
        return "none"
    if log_format == "json":
        return "json"
    has_bar = is_terminal and environ.get("TERM", "") not in {"", "dumb", "unknown"}
    match mode:
        case "auto":
            return "bar" if has_bar and environ.get("CI", "") == "" else "plain"
        case "bar":
            return "bar" if has_bar else "plain"
        case "plain":
            return "plain"
        case _:
            assert_never(mode)


def _open_drawing(
    name: DrawingName,
    stats: RunStats,
    *,
    stream: TextIO,
    now_s: Callable[[], float],
    now_at: Callable[[], datetime],
) -> tuple[Drawing, AbstractContextManager[object]]:
    """A drawing, and the context for its use."""
    match name:
        case "bar":
            from exporter.ui.bar import Bar

            bar = Bar(stats, stream=stream, now_s=now_s)
            return bar, bar
        case "plain":
            return PlainLines(stats, line_writer(stream)), nullcontext()
        case "json":
            return JsonLines(stats, line_writer(stream), now_at=now_at), nullcontext()
        case "none":
            return NoDrawing(line_writer(stream)), nullcontext()
        case _:
            assert_never(name)


class NoDrawing:
    """Draws nothing."""

    def __init__(self, write_line: WriteLine) -> None:
        self.write_line = write_line

    def draw(self, event: Event, now_s: float) -> None:
        """Nothing."""


class Cadence:
    """Decides when a line is due: once all totals are known, and after each interval.

    If all listings are incremental, the first line too comes after an interval.
    """

    def __init__(self, stats: RunStats) -> None:
        self._stats = stats
        self._is_first = True
        self._due_s: float | None = None

    def is_due(self, now_s: float) -> bool:
        """Asked once per event. True starts the next interval."""
        if self._due_s is None:
            self._due_s = now_s + LINE_INTERVAL_S
        knows_most = self._stats.has_all_totals and self._stats.listings_in_full > 0
        if now_s < self._due_s and not (self._is_first and knows_most):
            return False
        self._is_first = False
        self._due_s = now_s + LINE_INTERVAL_S
        return True


class PlainLines:
    """Progress as lines of text, now and then."""

    def __init__(self, stats: RunStats, write_line: WriteLine) -> None:
        self._stats = stats
        self._cadence = Cadence(stats)
        self.write_line = write_line

    def draw(self, event: Event, now_s: float) -> None:
        if self._cadence.is_due(now_s) and not isinstance(event, RunFinished):
            self.write_line(progress_line(self._stats, now_s))


class JsonLines:
    """A JSON object a line: each listing's start and finish, and progress now and then."""

    def __init__(
        self, stats: RunStats, write_line: WriteLine, *, now_at: Callable[[], datetime]
    ) -> None:
        self._stats = stats
        self._cadence = Cadence(stats)
        self._now_at = now_at
        self.write_line = write_line

    def draw(self, event: Event, now_s: float) -> None:
        match event:
            case ListingStarted():
                self._write(
                    "listing_started",
                    {
                        **asdict(event.gateway),
                        "total_count": event.total_count,
                        "page_count": event.page_count,
                        "mode": mode_text(event.incremental),
                    },
                )
            case ListingFinished():
                self._write(
                    "listing_finished",
                    {
                        **asdict(event.gateway),
                        "session_count": event.facts.session_count,
                        "proof": event.facts.proof,
                        "inserted_count": event.facts.inserted_count,
                        "deleted_count": event.facts.deleted_count,
                        "overlap_count": event.facts.overlap_count,
                        "repair_page_count": event.facts.repair_page_count,
                        "mode": event.facts.mode,
                        "full_because": event.facts.full_because or None,
                    },
                )
            case _:
                pass
        if self._cadence.is_due(now_s) and not isinstance(event, RunFinished):
            self._write("progress", progress_fields(self._stats, now_s))

    def _write(self, event: str, fields: Mapping[str, object]) -> None:
        named = {"event": event, "run_id": self._stats.run_id, **fields}
        self.write_line(json_line(named, at=self._now_at(), level="info"))


def mode_text(incremental: bool) -> str:
    """The mode as the manifest names it."""
    return "incremental" if incremental else "full"


def progress_fields(stats: RunStats, now_s: float) -> dict[str, object]:
    """The fields of a progress line; null where unknown."""
    rate, eta_s = stats.rate(now_s), stats.eta_s(now_s)
    return {
        "sessions": stats.sessions_written,
        "sessions_expected": stats.sessions_expected if stats.is_exact else None,
        "pages": stats.pages_read,
        "pages_resumed": stats.pages_resumed,
        "pages_expected": stats.pages_expected if stats.is_exact else None,
        "gateways": stats.gateway_count,
        "gateways_finished": stats.listings_finished,
        "sessions_per_s": None if rate is None else round(rate, 1),
        "in_flight": stats.in_flight,
        "sent": stats.requests_sent,
        "throttled": stats.requests_throttled,
        "retried": stats.retries,
        "failed": stats.requests_failed,
        "learnt_rps": None if stats.learnt_rps is None else round(stats.learnt_rps, 2),
        "eta_s": None if eta_s is None else round(eta_s, 1),
    }


def _finished_json(stats: RunStats, finished: RunFinished, at: datetime) -> str:
    fields: dict[str, object] = {
        "event": "run_finished",
        "run_id": stats.run_id,
        "status": finished.status,
        "mode": mode_text(finished.incremental),
        "output": finished.output,
        "session_count": finished.session_count,
        "size_bytes": finished.size_bytes,
        "elapsed_s": round(finished.elapsed_s, 3),
        "pages_resumed": stats.pages_resumed,
        "gateways": [
            {
                **asdict(gateway),
                "session_count": listing.facts and listing.facts.session_count,
                "proof": listing.facts and listing.facts.proof,
                "mode": mode_text(listing.incremental),
                "full_because": (listing.facts and listing.facts.full_because) or None,
            }
            for gateway, listing in sorted(stats.gateways.items())
        ],
        "requests": {
            "sent": stats.requests_sent,
            "ok": stats.requests_ok,
            "throttled": stats.requests_throttled,
            "retried": stats.retries,
            "failed": stats.requests_failed,
        },
    }
    return json_line(fields, at=at, level="info" if finished.status == "complete" else "warning")
