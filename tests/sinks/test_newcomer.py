"""A format is one module and one line of the registry; the rest of the package takes it as is."""

from pathlib import Path

import pytest
from pyarrow import csv

from exporter import Settings, export
from exporter.destinations.resolve import resolve_destination
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.server import open_emulator
from exporter.runs.verify import verify
from exporter.sinks.formats import FORMATS, FormatKind

SCENARIO = Scenario(seed=3, workspaces=build_workspaces(gateway_count=2, session_count=250))
CSV = FormatKind("a CSV file", "tests.support.csv_format", (".csv",), has_file_codecs=False)


@pytest.mark.parametrize("output", ["sessions.csv", "parts/", "partitions/"])
async def test_format_of_one_module_and_one_line_is_exported_and_verified(
    output: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FORMATS, "csv", CSV)  # type: ignore[misc]  # not in the literal
    output = f"{tmp_path}/{output}"

    async with open_emulator(SCENARIO) as emulator:
        settings = Settings(
            endpoint=emulator.endpoint,
            region=emulator.scenario.region_id,
            workspace=("all",),
            output=output,
            format="csv",  # type: ignore[arg-type]  # not in the literal
            partition_by=("queue",) if output.endswith("partitions/") else (),
        )
        environ = {
            "ALIBABA_CLOUD_ACCESS_KEY_ID": emulator.scenario.access_key_id,
            "ALIBABA_CLOUD_ACCESS_KEY_SECRET": emulator.scenario.access_key_secret,
        }
        manifest = await export(settings, environ=environ)

    destination = resolve_destination(output, chosen="csv")  # type: ignore[arg-type]  # as above
    names = [destination.name or each.path for each in manifest.files]
    paths = [destination.store.path_of(name) for name in names]
    assert (manifest.format, manifest.session_count) == ("csv", 500)
    assert verify(destination).problems == ()
    assert sum(csv.read_csv(path).num_rows for path in paths) == 500
