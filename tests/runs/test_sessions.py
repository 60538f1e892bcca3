"""The sessions of a proven export, read into the program by the libraries that users have."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import duckdb
import pyarrow as pa
import pytest

import exporter
from exporter import IncompleteError, Settings, UsageError
from exporter.emulator.churn import Churn
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.emulator.server import Emulator
from exporter.records.schema import SCHEMA
from tests.support.program import serving

SESSION_COUNT = 1_250
SCENARIO = Scenario(
    seed=5, workspaces=build_workspaces(gateway_count=2, session_count=SESSION_COUNT // 2)
)


@pytest.fixture(scope="module")
def served() -> Iterator[Emulator]:
    with serving(SCENARIO) as emulator:
        yield emulator


def settings_for(emulator: Emulator, **changes: Any) -> Settings:
    settings = Settings(
        endpoint=emulator.endpoint, region=emulator.scenario.region_id, workspace=("all",)
    )
    return replace(settings, **changes)


def environ_of(emulator: Emulator) -> dict[str, str]:
    return {
        "ALIBABA_CLOUD_ACCESS_KEY_ID": emulator.scenario.access_key_id,
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET": emulator.scenario.access_key_secret,
    }


@pytest.fixture
def sessions(served: Emulator, tmp_path: Path) -> Iterator[exporter.Sessions]:
    with exporter.read_sessions(
        settings_for(served), spool=str(tmp_path), environ=environ_of(served)
    ) as read:
        yield read


def test_rows_are_those_of_the_parquet_output(
    served: Emulator, sessions: exporter.Sessions, tmp_path: Path
) -> None:
    output = str(tmp_path / "out.parquet")
    anyio.run(
        lambda: exporter.export(settings_for(served, output=output), environ=environ_of(served))
    )

    with duckdb.connect() as connection:
        different = connection.execute(
            "SELECT count(*) FROM (SELECT * EXCLUDE exported_at FROM sessions"
            " EXCEPT ALL SELECT * EXCLUDE exported_at FROM read_parquet(?))",
            [output],
        ).fetchone()

    assert different == (0,)
    assert sessions.manifest.session_count == SESSION_COUNT


def test_stream_is_read_any_number_of_times(sessions: exporter.Sessions) -> None:
    first, second = pa.table(sessions), pa.table(sessions)

    assert first.equals(second)
    assert first.num_rows == SESSION_COUNT
    assert pa.schema(sessions) == sessions.schema == SCHEMA


def test_two_readers_do_not_disturb_each_other(sessions: exporter.Sessions) -> None:
    first, second = sessions.to_reader(), sessions.to_reader()
    begun = first.read_next_batch()

    assert second.read_all().num_rows == SESSION_COUNT
    assert begun.num_rows + first.read_all().num_rows == SESSION_COUNT


def test_duckdb_takes_the_variable_by_its_name(sessions: exporter.Sessions) -> None:
    with duckdb.connect() as connection:
        found = connection.execute("SELECT count(DISTINCT session_id) FROM sessions").fetchone()

    assert found == (SESSION_COUNT,)


def test_spool_goes_with_the_block(served: Emulator, tmp_path: Path) -> None:
    with exporter.read_sessions(
        settings_for(served), spool=str(tmp_path), environ=environ_of(served)
    ) as read:
        spooled = list(tmp_path.rglob("*.arrow"))

    assert len(spooled) == 1
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="after their block has ended"):
        pa.table(read)


def test_block_that_fails_leaves_no_spool(served: Emulator, tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="of the caller"),
        exporter.read_sessions(
            settings_for(served), spool=str(tmp_path), environ=environ_of(served)
        ),
    ):
        raise RuntimeError("of the caller")

    assert list(tmp_path.iterdir()) == []


def test_call_works_where_a_loop_runs_as_in_a_notebook(served: Emulator) -> None:
    async def cell() -> int:
        with exporter.read_sessions(settings_for(served), environ=environ_of(served)) as sessions:
            row_count: int = pa.table(sessions).num_rows
            return row_count

    assert asyncio.run(cell()) == SESSION_COUNT


async def test_async_caller_is_not_blocked(served: Emulator, tmp_path: Path) -> None:
    thread = threading.get_ident()
    heard: set[int] = set()

    async with exporter.aread_sessions(
        settings_for(served),
        spool=str(tmp_path),
        environ=environ_of(served),
        listener=lambda _: heard.add(threading.get_ident()),
    ) as sessions:
        assert pa.table(sessions).num_rows == SESSION_COUNT

    assert heard == {thread}
    assert await anyio.to_thread.run_sync(os.listdir, tmp_path) == []


async def test_cancelled_caller_leaves_no_spool(served: Emulator, tmp_path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with exporter.aread_sessions(
            settings_for(served),
            spool=str(tmp_path),
            environ=environ_of(served),
            listener=lambda _: scope.cancel(),
        ):
            pytest.fail("it was cancelled")

    assert scope.cancelled_caught
    assert await anyio.to_thread.run_sync(os.listdir, tmp_path) == []


def test_unproven_sessions_are_not_given(tmp_path: Path) -> None:
    workspaces = build_workspaces(gateway_count=1, session_count=SESSION_COUNT)
    (workspace,) = workspaces
    (gateway,) = workspace.gateways
    cut_off = replace(gateway, churn=Churn(depth=SESSION_COUNT // 2))
    scenario = Scenario(seed=5, workspaces=(replace(workspace, gateways=(cut_off,)),))

    with (
        serving(scenario) as emulator,
        pytest.raises(IncompleteError),
        exporter.read_sessions(
            settings_for(emulator), spool=str(tmp_path), environ=environ_of(emulator)
        ),
    ):
        pytest.fail("nothing was proven")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"output": "x.parquet"},
        {"format": "parquet"},
        {"incremental": True},
        {"partition_by": ("dt",)},
        {"manifest": "m.json"},
        {"state": "s.json"},
    ],
    ids=str,
)
def test_setting_of_an_output_is_refused(served: Emulator, changes: dict[str, Any]) -> None:
    (name,) = changes
    with (
        pytest.raises(UsageError, match=f"'{name}' has no meaning"),
        exporter.read_sessions(settings_for(served, **changes), environ=environ_of(served)),
    ):
        pytest.fail("it was refused")


def test_spool_that_cannot_be_made_is_named(served: Emulator, tmp_path: Path) -> None:
    missing = str(tmp_path / "gone")
    with (
        pytest.raises(exporter.DestinationError, match=f"cannot make a spool in '{missing}'"),
        exporter.read_sessions(settings_for(served), spool=missing, environ=environ_of(served)),
    ):
        pytest.fail("it was refused")


@pytest.mark.campaign
def test_polars_and_pandas_take_it_as_it_is(sessions: exporter.Sessions) -> None:
    import pandas as pd
    import polars as pl

    assert pl.DataFrame(sessions).shape == (SESSION_COUNT, len(SCHEMA))
    assert pd.DataFrame.from_arrow(sessions).shape == (SESSION_COUNT, len(SCHEMA))


@pytest.mark.campaign
def test_deltalake_takes_it_as_it_is(sessions: exporter.Sessions, tmp_path: Path) -> None:
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(str(tmp_path / "table"), sessions)

    assert DeltaTable(str(tmp_path / "table")).to_pyarrow_table().num_rows == SESSION_COUNT


@pytest.mark.campaign
def test_adbc_takes_it_as_it_is(sessions: exporter.Sessions, tmp_path: Path) -> None:
    from adbc_driver_sqlite import dbapi

    database = str(tmp_path / "sessions.db")
    with dbapi.connect(database) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("sessions", sessions)
        connection.commit()

    with closing(sqlite3.connect(database)) as reader:
        found = reader.execute("SELECT count(DISTINCT session_id) FROM sessions").fetchone()
    assert found == (SESSION_COUNT,)


@pytest.mark.campaign
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of its own making
def test_dlt_merges_it_by_the_key(
    sessions: exporter.Sessions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.chdir(tmp_path)
    import dlt

    database = str(tmp_path / "livy.duckdb")
    pipeline = dlt.pipeline(
        "livy", destination=dlt.destinations.duckdb(database), pipelines_dir=str(tmp_path / "p")
    )
    for _ in range(2):
        pipeline.run(
            sessions.to_reader(),
            table_name="sessions",
            write_disposition="merge",
            primary_key=["region_id", "workspace_id", "compute_id", "session_id"],
        )

    with duckdb.connect(database) as connection:
        found = connection.execute("SELECT count(*) FROM livy_dataset.sessions").fetchone()
    assert found == (SESSION_COUNT,)
