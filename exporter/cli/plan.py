"""The command `plan`."""

import argparse
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from exporter.cli.runner import read_settings, run_async, start_run
from exporter.cli.watch import watch
from exporter.journal.journal import MAX_BYTES
from exporter.runs.plan import PlannedListing, plan
from exporter.settings.settings import Settings
from exporter.stores.registry import is_object_store
from exporter.ui.errors import ErrorReporter
from exporter.ui.stdout import print_json, print_line, print_table
from exporter.ui.text import count_of, format_bytes, format_duration


def run(arguments: argparse.Namespace, reporter: ErrorReporter) -> int:
    settings = read_settings(arguments, reporter).settings
    run_id = start_run(reporter)
    return run_async(
        lambda: show_plan(settings, run_id=run_id, environ=os.environ, as_json=arguments.json),
        on_interrupt=reporter.report_interrupt,
    )


async def show_plan(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], as_json: bool
) -> None:
    with watch(settings, run_id=run_id, environ=environ, quiet=True) as emit:
        planned = await plan(settings, environ=environ, emit=emit)
    session_count = sum(each.session_count for each in planned)
    request_count = sum(each.request_count for each in planned)
    seconds = estimate_s(planned, concurrency=settings.concurrency)
    journal_bytes = estimate_journal(planned, settings)
    if as_json:
        print_json(
            {
                "gateways": [
                    {
                        **asdict(each.gateway),
                        "session_count": each.session_count,
                        "page_count": each.page_count,
                        "request_count": each.request_count,
                    }
                    for each in planned
                ],
                "session_count": session_count,
                "request_count": request_count,
                "estimated_s": round(seconds, 1),
                "journal_bytes": journal_bytes,
            }
        )
        return
    print_table(
        ("WORKSPACE", "GATEWAY", "SESSIONS", "PAGES", "REQUESTS"),
        [
            (
                each.gateway.workspace_id,
                each.gateway.gateway_id,
                f"{each.session_count:,}",
                f"{each.page_count:,}",
                f"{each.request_count:,}",
            )
            for each in planned
        ],
    )
    print_line(
        f"{count_of(session_count, 'session')}, {count_of(request_count, 'request')}, about"
        f" {format_duration(seconds)} with {settings.concurrency} in flight and no throttling"
    )
    if journal_bytes > 0:
        print_line(f"journal: about {format_bytes(journal_bytes)} on disk until it is published")
    if settings.since is not None:
        print_line("this is for all sessions: with --since, fewer may do")
    if settings.incremental:
        print_line("this is for all sessions: a run that goes on from another asks for less")


def estimate_s(planned: Sequence[PlannedListing], *, concurrency: int) -> float:
    """Seconds that an export takes at the measured latency without throttling."""
    if not planned:
        return 0.0
    latency_s = sum(each.latency_s for each in planned) / len(planned)
    rounds = math.ceil(sum(each.request_count for each in planned) / concurrency)
    # The first page and the sentinel of the last gateway have nothing to overlap with.
    return latency_s * (rounds + 2)


def estimate_journal(planned: Sequence[PlannedListing], settings: Settings) -> int:
    """The largest size of a run's journal, in bytes; 0 if it cannot be resumed."""
    output = settings.output or ""
    has_place = settings.spool is not None or not is_object_store(output)
    if not settings.resume or output == "-" or not has_place:
        return 0
    return min(MAX_BYTES, sum(each.journal_bytes for each in planned))
