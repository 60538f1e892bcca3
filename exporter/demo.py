"""The demo: an emulator on loopback, one export to Parquet and one to NDJSON, and what came out."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio.to_thread

from exporter.commands import print_line, print_table, watching
from exporter.config import Settings
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.server import Emulator, open_emulator
from exporter.errors import DestinationError
from exporter.pipeline import build_run_id, export

SCENARIO = Scenario(
    seed=1,
    workspaces=build_workspaces(gateway_count=2, session_count=12_000),
    latency_s=0.02,
    jitter_s=0.02,
)


async def show_demo(directory: str, *, environ: Mapping[str, str]) -> None:
    """Export every emulated session to both formats below `directory`, and print a first look at them.

    Raises DestinationError when the directory cannot be made.
    """
    folder = Path(directory)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise DestinationError(
            f"cannot make {directory}: {exc.strerror}", hint="name another place with --directory"
        ) from exc
    parquet = folder / "sessions.parquet"
    async with open_emulator(SCENARIO) as emulator:
        print_line(f"emulator: {emulator.endpoint}, two gateways of 12,000 made-up sessions each")
        manifest = await export_to(parquet, emulator, environ=environ)
        await export_to(folder / "sessions.ndjson.zst", emulator, environ=environ)
    print_line("")
    await anyio.to_thread.run_sync(show_states, parquet)
    print_line("")
    proofs = ", ".join(f"{entry['gateway_id']} {entry['proof']}" for entry in manifest["gateways"])
    print_line(f"proof of completeness: {proofs}")
    for path in sorted(folder.glob("sessions.*")):
        print_line(f"  {path}  {path.stat().st_size:,} bytes")
    print_line("")
    print_line("try, with DuckDB:")
    print_line(
        f"  SELECT queue, count(*) AS sessions, round(sum(cu_hours), 1) AS cu_hours FROM '{parquet}'"
        " GROUP BY queue ORDER BY cu_hours DESC;"
    )


async def export_to(
    path: Path, emulator: Emulator, *, environ: Mapping[str, str]
) -> dict[str, Any]:
    settings = Settings(
        endpoint=emulator.endpoint,
        region=emulator.scenario.region_id,
        workspace=("all",),
        output=str(path),
    )
    run_id = build_run_id(datetime.now(UTC))
    with watching(settings, run_id=run_id, environ=environ, quiet=False) as emit:
        return await export(
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


def show_states(parquet: Path) -> None:
    """Sessions and CU hours by state, read back from the file."""
    import pyarrow.parquet as pq

    table = pq.read_table(parquet, columns=["state", "session_id", "cu_hours"])
    groups = table.group_by("state").aggregate([("session_id", "count"), ("cu_hours", "sum")])
    rows = sorted(groups.to_pylist(), key=lambda row: -row["session_id_count"])
    print_table(
        ("STATE", "SESSIONS", "CU HOURS"),
        [
            (row["state"], f"{row['session_id_count']:,}", f"{row['cu_hours_sum'] or 0:,.1f}")
            for row in rows
        ],
    )
