"""Claims about the choice of a drawing, its lines and its row."""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from typing import Any, get_args

import pytest

from exporter.events import (
    GatewaysDiscovered,
    ListingStarted,
    PageRead,
    RequestEnded,
    RetryScheduled,
    RunFinished,
    RunStarted,
    SessionsWritten,
)
from exporter.model import Gateway
from exporter.settings.settings import LogFormat, ProgressMode
from exporter.ui.bar import build_fields, fit
from exporter.ui.logs import configure_logging
from exporter.ui.progress import (
    LINE_INTERVAL_S,
    Progress,
    choose_drawing,
    open_progress,
)
from exporter.ui.stats import RunStats
from tests.support.events import listing_finished

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ONE = Gateway("cn-hangzhou", "w-1", "lc-1")
TWO = Gateway("cn-hangzhou", "w-1", "lc-2")
COMPLETE = RunFinished("out.parquet", "complete", 200, size_bytes=10, elapsed_s=1.0)
INCOMPLETE = RunFinished("out.parquet", "incomplete", 200, size_bytes=10, elapsed_s=1.0)
TERMINAL = {"TERM": "xterm-256color"}


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class GoneReader(StringIO):
    """A stream whose other end was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@contextmanager
def opened(
    stream: StringIO,
    *,
    clock: Clock | None = None,
    mode: ProgressMode = "auto",
    log_format: LogFormat = "text",
    quiet: bool = False,
) -> Iterator[Progress]:
    with open_progress(
        mode=mode,
        log_format=log_format,
        stream=stream,
        quiet=quiet,
        environ=TERMINAL,
        now_s=clock or Clock(),
        now_at=lambda: NOON,
    ) as progress:
        yield progress


def start(progress: Progress) -> None:
    progress(RunStarted("r-1", "out.parquet", NOON))
    progress(GatewaysDiscovered(1))
    progress(ListingStarted(ONE, 200, 2))


def objects(stream: StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize("mode", get_args(ProgressMode))
@pytest.mark.parametrize("log_format", get_args(LogFormat))
@pytest.mark.parametrize("is_terminal", [True, False])
def test_quiet_draws_nothing(mode: ProgressMode, log_format: LogFormat, is_terminal: bool) -> None:
    name = choose_drawing(
        mode, log_format=log_format, is_terminal=is_terminal, quiet=True, environ=TERMINAL
    )

    assert name == "none"


@pytest.mark.parametrize(
    ("mode", "environ", "name"),
    [
        ("auto", TERMINAL, "bar"),
        ("auto", TERMINAL | {"NO_COLOR": "1"}, "bar"),
        ("auto", TERMINAL | {"CI": "true"}, "plain"),
        ("auto", {"TERM": "dumb"}, "plain"),
        ("auto", {}, "plain"),
        ("bar", TERMINAL | {"CI": "true"}, "bar"),
        ("bar", {"TERM": "dumb"}, "plain"),
        ("plain", TERMINAL, "plain"),
        ("none", TERMINAL, "none"),
    ],
)
def test_a_bar_is_drawn_where_a_terminal_can_and_someone_watches(
    mode: ProgressMode, environ: dict[str, str], name: str
) -> None:
    chosen = choose_drawing(mode, log_format="text", is_terminal=True, quiet=False, environ=environ)

    assert chosen == name


@pytest.mark.parametrize("mode", ["auto", "bar", "plain"])
def test_no_bar_goes_anywhere_but_to_a_terminal(mode: ProgressMode) -> None:
    chosen = choose_drawing(
        mode, log_format="text", is_terminal=False, quiet=False, environ=TERMINAL
    )

    assert chosen == "plain"


@pytest.mark.parametrize("mode", ["auto", "bar", "plain"])
def test_json_lines_are_mixed_with_nothing_else(mode: ProgressMode) -> None:
    chosen = choose_drawing(
        mode, log_format="json", is_terminal=True, quiet=False, environ=TERMINAL
    )

    assert chosen == "json"


def test_the_first_line_comes_when_the_total_is_known() -> None:
    stream = StringIO()

    with opened(stream) as progress:
        progress(RunStarted("r-1", "out.parquet", NOON))
        progress(GatewaysDiscovered(1))
        before = stream.getvalue()
        progress(ListingStarted(ONE, 200, 2))

    assert before == ""
    assert stream.getvalue() == "0 of 200 sessions (0%), 0 of 2 pages, 0 in flight\n"


def test_first_line_of_an_incremental_run_waits_for_an_interval() -> None:
    stream = StringIO()

    with opened(stream, mode="plain") as progress:
        progress(GatewaysDiscovered(1))
        progress(ListingStarted(ONE, 20_033, 1, incremental=True))

    assert stream.getvalue() == ""


def test_a_line_comes_each_interval_however_many_events() -> None:
    stream, clock = StringIO(), Clock()

    with opened(stream, clock=clock) as progress:
        start(progress)
        for step in range(1_000):
            clock.now_s = step * 0.035
            progress(PageRead(ONE, 1, 0))

    lines = stream.getvalue().splitlines()
    assert len(lines) == 1 + int(34.965 / LINE_INTERVAL_S)


def test_a_line_comes_after_the_interval_although_totals_are_missing() -> None:
    stream, clock = StringIO(), Clock()

    with opened(stream, clock=clock) as progress:
        progress(GatewaysDiscovered(2))
        clock.now_s = LINE_INTERVAL_S
        progress(RequestEnded("throttled", in_flight=0, elapsed_s=0.1))

    assert stream.getvalue() == "asking 2 gateways, 10s\n"


def test_the_summary_comes_last() -> None:
    stream = StringIO()

    with opened(stream) as progress:
        start(progress)
        progress(listing_finished(ONE, 200, "quiescent"))
        progress(COMPLETE)
        progress.write_line("one more word")

    assert stream.getvalue().splitlines()[-3:] == [
        "one more word",
        "200 sessions of w-1/lc-1 written to out.parquet (10 B) in 1.0s",
        "requests: 0 sent, 0 ok, 0 throttled, 0 retried; proof: quiescent",
    ]


def test_a_run_that_did_not_finish_is_not_summed_up() -> None:
    stream = StringIO()

    def interrupted() -> None:
        with opened(stream, mode="none") as progress:
            start(progress)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()

    assert stream.getvalue() == ""


def test_no_progress_still_gets_a_summary() -> None:
    stream = StringIO()

    with opened(stream, mode="none") as progress:
        start(progress)
        progress(COMPLETE)

    assert len(stream.getvalue().splitlines()) == 2


@pytest.mark.parametrize("log_format", get_args(LogFormat))
def test_quiet_is_silent_about_a_complete_run(log_format: LogFormat) -> None:
    stream = StringIO()

    with opened(stream, quiet=True, log_format=log_format) as progress:
        start(progress)
        progress(COMPLETE)

    assert stream.getvalue() == ""


@pytest.mark.parametrize("log_format", get_args(LogFormat))
def test_quiet_still_reports_an_incomplete_run(log_format: LogFormat) -> None:
    stream = StringIO()

    with opened(stream, quiet=True, log_format=log_format) as progress:
        start(progress)
        progress(INCOMPLETE)

    assert "incomplete" in stream.getvalue().lower()


def test_json_lines_follow_the_run_in_order() -> None:
    stream, clock = StringIO(), Clock()

    with opened(stream, clock=clock, log_format="json") as progress:
        start(progress)
        progress(SessionsWritten(200))
        progress(listing_finished(ONE, 200, "quiescent"))
        progress(COMPLETE)

    shown = objects(stream)
    assert [each["event"] for each in shown] == [
        "listing_started",
        "progress",
        "listing_finished",
        "run_finished",
    ]
    assert {each["run_id"] for each in shown} == {"r-1"}
    assert {each["ts"] for each in shown} == {"2026-01-01T12:00:00.000Z"}
    ids = {"region_id": "cn-hangzhou", "workspace_id": "w-1", "gateway_id": "lc-1"}
    assert shown[0] == shown[0] | ids
    assert shown[2] == shown[2] | ids
    assert shown[3]["gateways"] == [
        {
            **ids,
            "session_count": 200,
            "proof": "quiescent",
            "mode": "full",
            "full_because": None,
        }
    ]


def test_json_lines_name_full_listings_and_their_reasons() -> None:
    stream = StringIO()

    with opened(stream, log_format="json") as progress:
        progress(GatewaysDiscovered(2))
        progress(ListingStarted(ONE, 200, 1, incremental=True))
        progress(ListingStarted(ONE, 200, 3))
        progress(listing_finished(ONE, 200, "quiescent", full_because="it was pruned"))
        progress(ListingStarted(TWO, 900, 1, incremental=True))
        progress(listing_finished(TWO, 7, "anchored", incremental=True))
        progress(replace(COMPLETE, incremental=True))

    shown = [each for each in objects(stream) if each["event"] != "progress"]
    modes = [each["mode"] for each in shown]
    assert modes == ["incremental", "full", "full", "incremental", "incremental", "incremental"]
    assert [each["full_because"] for each in shown if "full_because" in each] == [
        "it was pruned",
        None,
    ]
    assert [(each["mode"], each["full_because"]) for each in shown[-1]["gateways"]] == [
        ("full", "it was pruned"),
        ("incremental", None),
    ]


def test_json_progress_of_an_incremental_run_expects_no_number() -> None:
    stream, clock = StringIO(), Clock()

    with opened(stream, clock=clock, log_format="json") as progress:
        progress(GatewaysDiscovered(1))
        progress(ListingStarted(ONE, 20_033, 1, incremental=True))
        clock.now_s = LINE_INTERVAL_S
        progress(PageRead(ONE, 1, 100))

    (line,) = (each for each in objects(stream) if each["event"] == "progress")
    assert (line["sessions"], line["sessions_expected"], line["pages_expected"]) == (0, None, None)


def test_json_progress_has_numbers_and_null_for_the_unknown() -> None:
    stream, clock = StringIO(), Clock()

    with opened(stream, clock=clock, log_format="json") as progress:
        start(progress)
        clock.now_s = LINE_INTERVAL_S
        progress(SessionsWritten(50))

    first, second = (each for each in objects(stream) if each["event"] == "progress")
    assert (first["sessions"], first["sessions_per_s"], first["eta_s"]) == (0, None, None)
    assert (second["sessions"], second["sessions_per_s"], second["eta_s"]) == (50, 5.0, 30.0)
    assert (second["sessions_expected"], second["pages_expected"]) == (200, 2)


def test_an_incomplete_run_is_a_warning_in_json() -> None:
    stream = StringIO()

    with opened(stream, log_format="json") as progress:
        start(progress)
        progress(INCOMPLETE)

    assert objects(stream)[-1]["level"] == "warning"
    assert objects(stream)[-1]["status"] == "incomplete"


def test_each_retry_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    stream = StringIO()
    caplog.set_level(logging.INFO, logger="exporter.ui.progress")

    with opened(stream, mode="none") as progress:
        progress(RetryScheduled("page 2 of w-1/lc-1", 1, 0.5, "page 2 of w-1/lc-1: 100% busy"))

    assert caplog.messages == ["attempt 1 failed, next in 0.5s: page 2 of w-1/lc-1: 100% busy"]
    assert caplog.records[0].levelname == "INFO"
    assert stream.getvalue() == ""


def test_a_retry_in_json_names_its_run_and_its_gateway() -> None:
    stream = StringIO()
    configure_logging(verbosity=1, log_format="json", stream=stream, run_id="r-1")

    with opened(StringIO(), mode="none") as progress:
        progress(RetryScheduled("page 2 of w-1/lc-1", 1, 0.5, "busy", ONE))

    (shown,) = objects(stream)
    assert shown == shown | {
        "event": "retry",
        "run_id": "r-1",
        "region_id": "cn-hangzhou",
        "workspace_id": "w-1",
        "gateway_id": "lc-1",
    }


def test_a_reader_that_went_away_does_not_fail_the_run() -> None:
    with opened(GoneReader()) as progress:
        start(progress)
        progress(COMPLETE)

    assert progress.stats.finished == COMPLETE


def running_stats(*, throttled: bool = False) -> RunStats:
    stats = RunStats()
    stats.apply(GatewaysDiscovered(1), 0.0)
    stats.apply(ListingStarted(ONE, 20_000, 200), 0.0)
    stats.apply(SessionsWritten(12_400), 10.0)
    if throttled:
        stats.apply(RequestEnded("throttled", in_flight=31, elapsed_s=0.1), 10.0)
    return stats


def row(stats: RunStats, width: int) -> str:
    return "  ".join(field.text.strip() for field in fit(build_fields(stats, 10.0), width))


@pytest.mark.parametrize("width", range(5, 130))
@pytest.mark.parametrize("throttled", [True, False])
def test_a_row_fits_whatever_the_width(width: int, throttled: bool) -> None:
    fields = fit(build_fields(running_stats(throttled=throttled), 10.0), width)

    assert len("  ".join(field.text for field in fields)) <= width


def test_a_wide_row_has_everything() -> None:
    assert row(running_stats(), 119).split("  ") == [
        "",
        "62%",
        "12,400/20,000 sessions",
        "0/200 pages",
        "1,240/s",
        "0 in flight",
        "0 throttled",
        "ETA 7s",
    ]


def test_a_row_of_an_incremental_run_has_a_count_and_no_percentage() -> None:
    stats = RunStats()
    stats.apply(GatewaysDiscovered(1), 0.0)
    stats.apply(ListingStarted(ONE, 20_033, 1, incremental=True), 0.0)
    stats.apply(PageRead(ONE, 1, 100), 0.0)
    stats.apply(SessionsWritten(33), 0.0)

    fields = [field.text.strip() for field in build_fields(stats, 2.0)]

    assert stats.fraction is None
    assert fields[1:4] == ["33 new or changed sessions", "1 page", "0 in flight"]
    assert not any("20,033" in field or "%" in field for field in fields)


def test_a_narrow_row_keeps_the_most_important_fields() -> None:
    assert row(running_stats(), 79).split("  ") == [
        "",
        "62%",
        "12,400/20,000",
        "1,240/s",
        "0 in flight",
        "ETA 7s",
    ]
    assert row(running_stats(), 20) == "62%  ETA 7s"
    assert row(running_stats(), 5) == "62%"


def test_throttling_is_worth_its_place_only_when_it_happens() -> None:
    assert "throttled" not in row(running_stats(), 79)
    assert "1 throttled" in row(running_stats(throttled=True), 79)


def test_a_row_does_not_change_its_width_as_numbers_grow() -> None:
    early, late = RunStats(), running_stats()
    early.apply(GatewaysDiscovered(1), 0.0)
    early.apply(ListingStarted(ONE, 20_000, 200), 0.0)

    widths = {
        len("  ".join(field.text for field in build_fields(stats, 10.0))) for stats in (early, late)
    }

    assert len(widths) == 1


def test_a_terminal_that_does_not_know_its_size_gets_a_bar_and_lines() -> None:
    master, slave = os.openpty()

    with (
        os.fdopen(slave, "w", encoding="utf-8") as stream,
        open_progress(
            mode="bar",
            log_format="text",
            stream=stream,
            quiet=False,
            environ=TERMINAL,
        ) as progress,
    ):
        start(progress)
        progress(SessionsWritten(150))
        progress.write_line("[bold]a line, as it is[/bold]")
        shown = b""
        while b"as it is" not in shown or b" 75%" not in shown:  # the bar is drawn again and again
            shown += os.read(master, 65_536)
    os.close(master)

    assert b"[bold]a line, as it is[/bold]" in shown
