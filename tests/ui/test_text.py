"""Claims about the words and numbers of progress and summaries."""

from dataclasses import replace

import pytest

from exporter.events import (
    Event,
    GatewaysDiscovered,
    ListingStarted,
    PageRead,
    RequestEnded,
    RequestStarted,
    RetryScheduled,
    RunFinished,
    SessionsWritten,
)
from exporter.model import Gateway
from exporter.ui.stats import RunStats
from exporter.ui.text import (
    count_of,
    format_bytes,
    format_duration,
    format_eta,
    format_rate,
    progress_line,
    retry_line,
    summary_lines,
)
from tests.support.events import listing_finished

ONE = Gateway("cn-hangzhou", "w-1", "lc-1")
TWO = Gateway("cn-hangzhou", "w-1", "lc-2")


def stats_of(*events: Event) -> RunStats:
    stats = RunStats()
    for event in events:
        stats.apply(event, 0.0)
    return stats


def finished(
    *,
    session_count: int = 20_000,
    output: str = "out.parquet",
    status: str = "complete",
    incremental: bool = False,
) -> RunFinished:
    return RunFinished(
        output,
        "complete" if status == "complete" else "incomplete",
        session_count=session_count,
        size_bytes=2_012_345,
        elapsed_s=3.21,
        incremental=incremental,
    )


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (2_012_345, "1.9 MiB"),
        (1_048_575, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (5_000 * 1024**4, "5,000.0 TiB"),
    ],
)
def test_bytes_are_in_the_largest_unit_that_leaves_one(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [
        (0.0, "0.0s"),
        (3.21, "3.2s"),
        (9.96, "10s"),
        (42.4, "42s"),
        (59.6, "1m 00s"),
        (365, "6m 05s"),
        (3_720, "1h 02m"),
        (183_600, "2d 03h"),
    ],
)
def test_durations_have_about_two_figures(duration_s: float, text: str) -> None:
    assert format_duration(duration_s) == text


@pytest.mark.parametrize(
    ("eta_s", "text"),
    [(0.0, "0s"), (0.1, "1s"), (5.01, "6s"), (59.5, "1m 00s"), (3_599.2, "1h 00m")],
)
def test_eta_is_in_whole_seconds_rounded_up(eta_s: float, text: str) -> None:
    assert format_eta(eta_s) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(0.0, "0/s"), (3.21, "3.2/s"), (9.96, "10/s"), (1_240.4, "1,240/s")]
)
def test_rates_below_ten_have_a_decimal(rate: float, text: str) -> None:
    assert format_rate(rate) == text


def test_one_is_singular_and_none_is_plural() -> None:
    assert count_of(1, "gateway") == "1 gateway"
    assert count_of(0, "session") == "0 sessions"


def test_line_names_the_step_before_a_total_is_known() -> None:
    stats = stats_of(RequestStarted(in_flight=1))
    before = progress_line(stats, 2.0)

    stats.apply(GatewaysDiscovered(3), 2.0)
    after = progress_line(stats, 3.0)

    assert before == "finding gateways, 2.0s"
    assert after == "asking 3 gateways, 3.0s"


def test_line_has_counts_rate_and_eta() -> None:
    stats = stats_of(GatewaysDiscovered(1), ListingStarted(ONE, 20_000, 200))
    for page_num in range(1, 125):
        stats.apply(PageRead(ONE, page_num, 100), 1.0)
    stats.apply(RequestStarted(in_flight=32), 1.0)
    stats.apply(SessionsWritten(12_400), 1.0)

    line = progress_line(stats, 10.0)

    assert line == (
        "12,400 of 20,000 sessions (62%), 1,240/s, 124 of 200 pages, 32 in flight, ETA 7s"
    )


def test_line_names_throttles_and_retries_only_where_there_are_some() -> None:
    stats = stats_of(
        GatewaysDiscovered(1),
        ListingStarted(ONE, 100, 1),
        RequestEnded("throttled", in_flight=0, elapsed_s=0.1),
        RetryScheduled("page 1 of w-1/lc-1", 1, 0.5, "Throttling.User"),
    )

    line = progress_line(stats, 0.0)

    assert line == ("0 of 100 sessions (0%), 0 of 1 pages, 0 in flight, 1 throttled, 1 retried")


def test_line_marks_guesses_while_totals_are_missing() -> None:
    stats = stats_of(GatewaysDiscovered(2), ListingStarted(ONE, 100, 1), SessionsWritten(50))

    line = progress_line(stats, 1.0)

    assert "50 of 100+ sessions (25%)" in line
    assert line.endswith("ETA ~3s")


def test_percent_is_not_rounded_up_to_100() -> None:
    stats = stats_of(
        GatewaysDiscovered(1), ListingStarted(ONE, 100_000, 1_000), SessionsWritten(99_999)
    )

    assert "(99%)" in progress_line(stats, 0.0)


def test_counts_above_the_expected_ones_read_well() -> None:
    stats = stats_of(
        GatewaysDiscovered(1),
        ListingStarted(ONE, 100, 1),
        PageRead(ONE, 1, 100),
        PageRead(ONE, 1, 100),
        SessionsWritten(101),
    )

    line = progress_line(stats, 0.0)

    assert line.startswith("101 of 101 sessions (100%), 2 of 2 pages")


def test_line_shows_that_only_the_output_remains() -> None:
    stats = stats_of(
        GatewaysDiscovered(1),
        ListingStarted(ONE, 1, 1),
        SessionsWritten(1),
        listing_finished(ONE, 1, "quiescent"),
    )

    assert progress_line(stats, 0.0).endswith(", finishing")


def test_summary_of_one_gateway_is_two_lines() -> None:
    stats = stats_of(
        GatewaysDiscovered(1),
        ListingStarted(ONE, 1, 1),
        RequestStarted(1),
        RequestEnded("ok", 0, 0.1),
        listing_finished(ONE, 1, "quiescent"),
    )

    lines = summary_lines(stats, finished(session_count=1))

    assert lines == [
        "1 session of w-1/lc-1 written to out.parquet (1.9 MiB) in 3.2s",
        "requests: 1 sent, 1 ok, 0 throttled, 0 retried; proof: quiescent",
    ]


def test_summary_of_a_table_has_no_size() -> None:
    stats = stats_of(GatewaysDiscovered(1), listing_finished(ONE, 1, "quiescent"))

    lines = summary_lines(stats, replace(finished(session_count=1, output="t/"), size_bytes=0))

    assert lines[0] == "1 session of w-1/lc-1 written to t/ in 3.2s"


def test_summary_names_each_of_a_few_gateways() -> None:
    stats = stats_of(
        GatewaysDiscovered(2),
        listing_finished(TWO, 8_000, "anchored"),
        listing_finished(ONE, 12_000, "quiescent"),
    )

    lines = summary_lines(stats, finished(output="-"))

    assert lines == [
        "20,000 sessions of 2 gateways written to stdout (1.9 MiB) in 3.2s",
        "  w-1/lc-1  12,000 sessions  quiescent",
        "  w-1/lc-2   8,000 sessions  anchored",
        "requests: 0 sent, 0 ok, 0 throttled, 0 retried; proofs: 1 anchored, 1 quiescent",
    ]


def test_summary_shows_how_a_list_changed_while_it_was_read() -> None:
    moved = listing_finished(ONE, 12_000, "stitched", moved=(1_500, 1, 20, 1))
    still = listing_finished(TWO, 8_000, "quiescent")

    alone = summary_lines(stats_of(moved), finished())
    both = summary_lines(stats_of(moved, still), finished())

    text = "1,500 sessions came, 1 went, 20 rows seen again, 1 page read in repair"
    assert alone[1] == f"while it was read: {text}"
    assert both[1:3] == [
        f"  w-1/lc-1  12,000 sessions  stitched; {text}",
        "  w-1/lc-2   8,000 sessions  quiescent",
    ]


def test_summary_of_many_gateways_counts_proofs_instead() -> None:
    gateways = [Gateway("cn-hangzhou", "w-1", f"lc-{number}") for number in range(11)]
    stats = stats_of(*(listing_finished(gateway, 5, "quiescent") for gateway in gateways[:10]))
    stats.apply(listing_finished(gateways[10], 5, "stitched"), 1.0)

    lines = summary_lines(stats, finished(session_count=55))

    assert len(lines) == 2
    assert lines[1].endswith("; proofs: 10 quiescent, 1 stitched")


def test_summary_of_an_incomplete_run_begins_with_that() -> None:
    stats = stats_of(listing_finished(ONE, 5, "unproven"))

    lines = summary_lines(stats, finished(status="incomplete"))

    assert lines[0] == "INCOMPLETE: not every session is proven to be in the output"
    assert lines[-1].endswith("proof: unproven")


def test_line_of_an_incremental_run_expects_no_number() -> None:
    stats = stats_of(
        GatewaysDiscovered(2),
        ListingStarted(ONE, 20_033, 1, incremental=True),
        PageRead(ONE, 1, 100),
        SessionsWritten(33),
    )
    during = progress_line(stats, 10.0)

    for gateway in (ONE, TWO):
        stats.apply(listing_finished(gateway, 33, "quiescent", incremental=True), 10.0)

    assert during == "33 new or changed sessions so far, 1 page, 0 in flight"
    assert progress_line(stats, 10.0).endswith(", finishing")


def test_line_expects_all_sessions_once_a_list_is_read_in_full() -> None:
    stats = stats_of(
        GatewaysDiscovered(2),
        ListingStarted(TWO, 500, 1, incremental=True),
        ListingStarted(ONE, 20_000, 3, incremental=True),
        ListingStarted(ONE, 20_000, 203),
        SessionsWritten(5_000),
    )
    during = progress_line(stats, 10.0)

    stats.apply(listing_finished(TWO, 4, "quiescent", incremental=True), 10.0)
    stats.apply(listing_finished(ONE, 20_000, "quiescent"), 10.0)

    assert "5,000 of 20,000+ sessions (25%)" in during
    assert "0 of 204 pages" in during
    assert "5,000 of 20,004 sessions" in progress_line(stats, 10.0)


def test_line_counts_resumed_pages_and_takes_no_rate_from_them() -> None:
    stats = stats_of(GatewaysDiscovered(1), ListingStarted(ONE, 20_000, 200))
    for page_num in range(1, 101):
        stats.apply(SessionsWritten(100), 1.0)
        stats.apply(PageRead(ONE, page_num, 100, resumed=True), 1.0)
    stats.apply(SessionsWritten(1_000), 2.0)

    line = progress_line(stats, 2.0)

    assert line == (
        "11,000 of 20,000 sessions (55%), 1,000/s, 100 of 200 pages, 100 resumed, 0 in flight,"
        " ETA 9s"
    )


def test_summary_of_an_incremental_run_names_its_output() -> None:
    stats = stats_of(
        ListingStarted(ONE, 20_033, 1, incremental=True),
        listing_finished(ONE, 33, "quiescent", incremental=True),
    )

    some = summary_lines(stats, finished(session_count=33, output="sessions/", incremental=True))
    one = summary_lines(stats, finished(session_count=1, output="sessions/", incremental=True))

    assert some[0] == (
        "33 new or changed sessions of w-1/lc-1 added to sessions/ (1.9 MiB) in 3.2s"
    )
    assert one[0].startswith("1 new or changed session of w-1/lc-1 added to sessions/ ")


def test_summary_of_an_incremental_run_without_news_is_one_line() -> None:
    stats = stats_of(listing_finished(ONE, 0, "quiescent", incremental=True))

    lines = summary_lines(stats, finished(session_count=0, output="sessions/", incremental=True))

    assert lines[0] == "nothing new or changed in w-1/lc-1; sessions/ stays as it is"


def test_summary_names_the_reason_of_a_full_listing() -> None:
    full = listing_finished(ONE, 12_000, "quiescent", full_because="it was pruned")
    new = listing_finished(TWO, 8, "quiescent", incremental=True)
    gateways = [Gateway("cn-hangzhou", "w-1", f"lc-{n}") for n in range(11)]
    many = [
        listing_finished(each, 5, "quiescent", full_because="it was pruned") for each in gateways
    ]

    alone = summary_lines(stats_of(full), finished(output="sessions/", incremental=True))
    both = summary_lines(stats_of(full, new), finished(output="sessions/", incremental=True))
    all_of_them = summary_lines(stats_of(*many), finished(output="sessions/", incremental=True))

    assert alone[0].startswith("20,000 sessions of w-1/lc-1 added to sessions/ ")
    assert alone[1] == "listed in full: it was pruned"
    assert both[1] == "  w-1/lc-1  12,000 sessions  quiescent; listed in full: it was pruned"
    assert all_of_them[1] == "11 gateways listed in full: it was pruned"


def test_summary_counts_pages_taken_over_from_an_earlier_run() -> None:
    stats = stats_of(
        ListingStarted(ONE, 200, 2),
        PageRead(ONE, 1, 100, resumed=True),
        PageRead(ONE, 2, 100),
        listing_finished(ONE, 200, "quiescent"),
    )

    lines = summary_lines(stats, finished(session_count=200))

    assert lines[1] == "1 page taken over from an earlier run"


def test_summary_counts_failures_only_where_there_are_some() -> None:
    stats = stats_of(RequestStarted(1), RequestEnded("failed", 0, 0.1))

    lines = summary_lines(stats, finished())

    assert lines[-1] == "requests: 1 sent, 0 ok, 0 throttled, 1 failed, 0 retried; proof: none"


def test_retry_line_has_the_error_and_the_wait() -> None:
    event = RetryScheduled("page 17 of w-1/lc-2", 2, 1.52, "page 17 of w-1/lc-2: HTTP 429")

    line = retry_line(event)

    assert line == "attempt 2 failed, next in 1.5s: page 17 of w-1/lc-2: HTTP 429"


def test_rows_seen_again_in_a_still_list_are_no_movement() -> None:
    still = listing_finished(ONE, 200, "quiescent", moved=(0, 0, 44, 0))

    lines = summary_lines(stats_of(still), finished())

    assert not any("while it was read" in line for line in lines)
