"""One live row at the bottom of a terminal, drawn with rich."""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.segment import ControlType, Segment, Segments
from rich.text import Text

from exporter.events import Event
from exporter.ui.stats import RunStats
from exporter.ui.text import (
    count_of,
    eta_text,
    expected_text,
    format_duration,
    format_rate,
    new_text,
    percent_text,
    quota_text,
    waiting_text,
)

REDRAWS_PER_S = 8
BAR_WIDTH_MIN = 10
BAR_WIDTH_MAX = 40
GAP = "  "

# A terminal that is made narrower wraps the row into several and keeps the cursor on its character.
# So the cursor is parked on the row's first character: however many rows it became, they reach from
# there to the end of the screen. rich has no name for these codes.
ERASE_BELOW = Segment("\x1b[J", None, [(ControlType.CLEAR,)])
PARK_CURSOR = Segment("\r", None, [(ControlType.CARRIAGE_RETURN,)])
# A terminal can be narrower than it reports: the row is cut off there, and stays one row.
WRAP_OFF = Segment("\x1b[?7l", None, [(ControlType.CLEAR,)])
WRAP_ON = Segment("\x1b[?7h", None, [(ControlType.CLEAR,)])


@dataclass(frozen=True, slots=True)
class Field:
    text: str
    importance: int
    """If a row is too long, the least important field is left out first."""
    style: str = ""
    short: str | None = None
    """A shorter text for a row that is too long, if there is one."""


BAR_FIELD = Field(" " * BAR_WIDTH_MIN, importance=6)
"""The place of the bar itself; it gets the width that the others leave."""


def build_fields(stats: RunStats, now_s: float) -> list[Field]:
    """All fields of the row, in order; padded, so that it does not jump as the numbers grow."""
    percent = percent_text(stats)
    if stats.listings_started == 0:
        return [
            BAR_FIELD,
            Field(waiting_text(stats), importance=9),
            Field(format_duration(stats.elapsed_s(now_s)), importance=8, style="dim"),
        ]
    throttled = stats.requests_throttled
    return [
        BAR_FIELD,
        *(_new_fields(stats) if percent is None else _total_fields(stats, percent, now_s)),
        Field(f"{stats.in_flight:>2} in flight", importance=4),
        Field(
            f"{throttled:,} throttled",
            importance=5 if throttled > 0 else 2,
            style="yellow" if throttled > 0 else "",
        ),
        *([] if stats.learnt_rps is None else [Field(quota_text(stats.learnt_rps), importance=1)]),
        Field(f"{eta_text(stats, now_s):<11}", importance=9, style="cyan"),
    ]


def _total_fields(stats: RunStats, percent: str, now_s: float) -> list[Field]:
    """The part of the total that is done."""
    expected = expected_text(stats)
    pages_expected = f"{max(stats.pages_expected, stats.pages_read):,}"
    sessions = f"{stats.sessions_written:>{len(expected)},}/{expected}"
    rate = stats.rate(now_s)
    return [
        Field(f"{percent:>4}", importance=10, style="bold"),
        Field(f"{sessions} sessions", importance=8, short=sessions),
        Field(f"{stats.pages_read:>{len(pages_expected)},}/{pages_expected} pages", importance=3),
        Field(f"{'-' if rate is None else format_rate(rate):>8}", importance=7),
    ]


def _new_fields(stats: RunStats) -> list[Field]:
    """The count so far, if the total is unknown."""
    return [
        Field(
            new_text(stats.sessions_written), importance=8, short=f"{stats.sessions_written:,} new"
        ),
        Field(count_of(stats.pages_read, "page"), importance=3),
    ]


def fit(fields: list[Field], width: int) -> list[Field]:
    """The fields that fit into `width` columns, shortened before any is left out.

    At least one is kept, whatever its width.
    """
    kept = list(fields)
    if _width_of(kept) > width:
        kept = [each if each.short is None else replace(each, text=each.short) for each in kept]
    while len(kept) > 1 and _width_of(kept) > width:
        kept.remove(min(kept, key=lambda field: field.importance))
    return kept


def _width_of(fields: list[Field]) -> int:
    return sum(len(field.text) for field in fields) + len(GAP) * (len(fields) - 1)


@dataclass(frozen=True, slots=True)
class Row:
    """The row for rich, which leaves the last column free: it may wrap."""

    stats: RunStats
    now_s: float

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, options.max_width - 1)
        fields = fit(build_fields(self.stats, self.now_s), width)
        room = width - _width_of(fields) + BAR_WIDTH_MIN
        yield WRAP_OFF
        for position, field in enumerate(fields):
            if position > 0:
                yield Segment(GAP)
            if field is BAR_FIELD:
                yield self._bar(min(room, BAR_WIDTH_MAX))
            else:
                yield Text(field.text[:width], style=field.style, end="")
        yield ERASE_BELOW
        yield WRAP_ON
        yield PARK_CURSOR

    def _bar(self, width: int) -> ProgressBar:
        fraction = self.stats.fraction
        return ProgressBar(
            total=1.0,
            completed=fraction or 0.0,
            width=width,
            pulse=fraction is None,
            complete_style="cyan",
            finished_style="green",
            pulse_style="cyan",
            animation_time=self.now_s,
        )


class Bar:
    """Draws the stats several times a second, in a thread of rich, so that events stay cheap."""

    def __init__(self, stats: RunStats, *, stream: TextIO, now_s: Callable[[], float]) -> None:
        self._stats = stats
        self._now_s = now_s
        self._stream = stream
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False)
        self._live = Live(
            console=self._console,
            get_renderable=self._row,
            refresh_per_second=REDRAWS_PER_S,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.stop()

    def draw(self, event: Event, now_s: float) -> None:
        """Do nothing: the next redraw reads the stats."""

    def write_line(self, line: str) -> None:
        """Write a line above the bar."""
        with suppress(OSError):
            self._console.print(
                Segments([ERASE_BELOW]), Text(line), sep="", soft_wrap=True, crop=False
            )

    def _row(self) -> Row:
        # The stream itself is asked each time: rich prefers $COLUMNS, or stdin. A serial line
        # does not know its size and reports 0: then rich's answer is used.
        with suppress(OSError):
            columns = os.get_terminal_size(self._stream.fileno()).columns
            if columns > 0:
                self._console.width = columns
        return Row(self._stats, self._now_s())
