"""The command `demo`: an emulator on loopback, one export to Parquet and one to NDJSON."""

import argparse
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread

from exporter.cli.runner import read_settings, run_async
from exporter.cli.watch import watch
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.server import Emulator, open_emulator
from exporter.errors import DestinationError, shorten
from exporter.runs.export import export
from exporter.runs.prepare import build_run_id
from exporter.settings.files import require_name
from exporter.settings.settings import Settings
from exporter.ui.errors import ErrorReporter
from exporter.ui.stdout import build_table, print_text

SCENARIO = Scenario(
    seed=1,
    workspaces=build_workspaces(gateway_count=2, session_count=12_000),
    latency_s=0.02,
    jitter_s=0.02,
)


def run(arguments: argparse.Namespace, reporter: ErrorReporter) -> int:
    settings = read_settings(arguments, reporter).settings
    return run_async(
        lambda: show_demo(arguments.directory, ui=settings, environ=os.environ),
        on_interrupt=reporter.report_interrupt,
    )


async def show_demo(directory: str, *, ui: Settings, environ: Mapping[str, str]) -> None:
    """Export all emulated sessions to both formats in `directory`, and print a summary of them.

    `ui` gives the settings of progress and logs. Raises UsageError and DestinationError if the
    directory cannot be made.
    """
    folder = Path(require_name(directory, flag="--directory"))
    is_new = make_folder(folder)
    parquet, ndjson = folder / "sessions.parquet", folder / "sessions.ndjson.zst"
    try:
        async with open_emulator(SCENARIO) as emulator:
            print_text(
                f"emulator at {emulator.endpoint}: 2 gateways of 12,000 made-up sessions each\n"
            )
            await export_to(parquet, emulator, ui=ui, environ=environ)
            await export_to(ndjson, emulator, ui=ui, environ=environ)
    except BaseException:
        if is_new:
            remove_if_empty(folder)
        raise
    states = await anyio.to_thread.run_sync(build_states_table, parquet)
    print_text(f"\n{states}\n{build_closing(parquet)}")


def make_folder(folder: Path) -> bool:
    """Make the folder; False if it exists already."""
    try:
        folder.mkdir(parents=True)
    except OSError as exc:
        if folder.is_dir():
            return False
        raise DestinationError(
            f"cannot make the folder '{shorten(str(folder))}': {exc.strerror}",
            hint="name another one with --directory",
        ) from exc
    return True


def remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()


async def export_to(
    path: Path, emulator: Emulator, *, ui: Settings, environ: Mapping[str, str]
) -> None:
    settings = Settings(
        endpoint=emulator.endpoint,
        region=emulator.scenario.region_id,
        workspace=("all",),
        output=str(path),
        progress=ui.progress,
        log_format=ui.log_format,
        verbose=ui.verbose,
        quiet=ui.quiet,
    )
    run_id = build_run_id(datetime.now(UTC))
    with watch(settings, run_id=run_id, environ=environ, quiet=settings.quiet) as emit:
        await export(
            settings,
            run_id=run_id,
            environ={
                **environ,
                "ALIBABA_CLOUD_ACCESS_KEY_ID": emulator.scenario.access_key_id,
                "ALIBABA_CLOUD_ACCESS_KEY_SECRET": emulator.scenario.access_key_secret,
                "ALIBABA_CLOUD_SECURITY_TOKEN": "",
            },
            emit=emit,
        )


def build_states_table(parquet: Path) -> str:
    """Sessions and CU hours by state, read from the file."""
    import pyarrow.parquet as pq

    table = pq.read_table(parquet, columns=["state", "session_id", "cu_hours"])
    groups = table.group_by("state").aggregate([("session_id", "count"), ("cu_hours", "sum")])
    rows = sorted(groups.to_pylist(), key=lambda row: -row["session_id_count"])
    return build_table(
        ("STATE", "SESSIONS", "CU HOURS"),
        [
            (row["state"], f"{row['session_id_count']:,}", f"{row['cu_hours_sum'] or 0:,.1f}")
            for row in rows
        ],
    )


def build_closing(parquet: Path) -> str:
    """The text that names the manifest and a query to try."""
    quoted = str(parquet).replace("'", "''")
    query = (
        "  SELECT queue, count(*) AS sessions, round(sum(cu_hours)) AS cu_hours\n"  # noqa: S608
        f"  FROM '{quoted}' GROUP BY queue ORDER BY cu_hours DESC;\n"  # printed, never run
    )
    return f"""\
How it was proven that each session is in it exactly once:
  {parquet}.manifest.json

A query to try, with DuckDB:
{query}"""
