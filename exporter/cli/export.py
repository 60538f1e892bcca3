"""The command `export`."""

import argparse
import os
from collections.abc import Mapping

from exporter.cli.runner import read_settings, run_async, start_run
from exporter.cli.watch import watch
from exporter.events import Event, Listener
from exporter.runs.export import export
from exporter.settings.settings import Settings
from exporter.ui.errors import ErrorReporter


def run(arguments: argparse.Namespace, reporter: ErrorReporter) -> int:
    from exporter.ui.prometheus import open_metrics, run_with_metrics

    settings = read_settings(arguments, reporter).settings
    run_id = start_run(reporter)
    metrics = open_metrics(
        settings.metrics_file, output=settings.output, manifest=settings.manifest
    )
    # Output on stdout cannot be taken back.
    consequence = "the output is cut short" if settings.output == "-" else "nothing was published"
    return run_with_metrics(
        lambda: run_async(
            lambda: show_export(settings, run_id=run_id, environ=os.environ, listen=metrics),
            on_interrupt=lambda: reporter.report_interrupt(consequence),
        ),
        metrics,
        reporter=reporter,
    )


async def show_export(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], listen: Listener | None
) -> None:
    """Export, with progress and logs; `listen` gets the events too."""
    with watch(settings, run_id=run_id, environ=environ, quiet=settings.quiet) as draw:

        def emit(event: Event) -> None:
            draw(event)
            if listen is not None:
                listen(event)

        await export(settings, run_id=run_id, environ=environ, emit=emit)
