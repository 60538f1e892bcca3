"""The command `gateways`."""

import argparse
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict

from exporter.cli.runner import read_settings, run_async, start_run
from exporter.cli.watch import watch
from exporter.runs.plan import find_gateways
from exporter.settings.settings import Settings
from exporter.ui.errors import ErrorReporter
from exporter.ui.stdout import print_json, print_table

logger = logging.getLogger(__name__)


def run(arguments: argparse.Namespace, reporter: ErrorReporter) -> int:
    settings = read_settings(arguments, reporter).settings
    run_id = start_run(reporter)
    return run_async(
        lambda: show_gateways(settings, run_id=run_id, environ=os.environ, as_json=arguments.json),
        on_interrupt=reporter.report_interrupt,
    )


async def show_gateways(
    settings: Settings, *, run_id: str, environ: Mapping[str, str], as_json: bool
) -> None:
    with watch(settings, run_id=run_id, environ=environ, quiet=True) as emit:
        found = await find_gateways(settings, environ=environ, emit=emit)
        if not found:
            logger.warning("no Livy gateway found")
    if as_json:
        print_json(
            [
                {
                    **asdict(each.gateway),
                    "name": each.name,
                    "status": each.status,
                    "workspace_name": each.workspace_name,
                }
                for each in found
            ]
        )
    elif found:
        print_table(
            ("WORKSPACE", "GATEWAY", "NAME", "STATUS"),
            [
                (each.gateway.workspace_id, each.gateway.gateway_id, each.name, each.status)
                for each in found
            ],
        )
