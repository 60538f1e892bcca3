"""The command `verify`."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict

from exporter.api.connect import find_region
from exporter.cli.runner import read_settings
from exporter.destinations.access import build_store_access
from exporter.destinations.resolve import resolve_destination
from exporter.errors import VerificationError, printable
from exporter.model import FileFormat
from exporter.runs.verify import Problem, verify
from exporter.settings.files import require_name
from exporter.settings.settings import Settings
from exporter.stores.url import scheme_of
from exporter.tables.registry import find_format
from exporter.ui.errors import ErrorReporter
from exporter.ui.stdout import print_json, print_line, print_table


def run(arguments: argparse.Namespace, reporter: ErrorReporter) -> int:
    settings = read_settings(arguments, reporter).settings
    code = 0
    for each in show_verify(settings, arguments.target, environ=os.environ, as_json=arguments.json):
        code = reporter.report_error(VerificationError(each.message, hint=each.hint))
    return code


def show_verify(
    settings: Settings, output: str, *, environ: Mapping[str, str], as_json: bool
) -> tuple[Problem, ...]:
    """Read an output and print its counts beside the manifest's; returns its problems."""
    # The manifest tells the format, so the name need not.
    require_name(output, flag="OUTPUT", is_url=scheme_of(output) is not None)
    access = build_store_access(
        settings, region_id=find_region(settings, environ=environ), environ=environ
    )
    is_table = find_format(output, chosen=None, access=access) is not None
    chosen: FileFormat | None = None if is_table else "ndjson"
    destination = resolve_destination(
        output, chosen=chosen, access=access, catalogs=settings.paimon
    )
    found = verify(destination)
    if as_json:
        print_json(
            {
                "output": found.output,
                "is_as_promised": not found.problems,
                "run_id": None if found.manifest is None else found.manifest.run_id,
                "status": None if found.manifest is None else found.manifest.status,
                "checked": [asdict(each) for each in found.checked],
                "problems": [each.message for each in found.problems],
            }
        )
    elif found.manifest is not None:
        print_table(
            ("CHECKED", "MANIFEST", "FOUND"),
            [(each.what, f"{each.promised:,}", f"{each.found:,}") for each in found.checked],
        )
        if not found.problems:
            print_line(
                f"{printable(output)} is what run {printable(found.manifest.run_id)} published:"
                f" {printable(found.manifest.status)}"
            )
    return found.problems
