"""Sessions that the tests of tables write, and one model for tables of every format."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import duckdb
import pyarrow as pa
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from exporter.model import Gateway, RawSession
from exporter.records.schema import SCHEMA
from exporter.sinks.interface import Output, OutputFacts
from exporter.tables.interface import Commit, Table, TableMode
from exporter.tables.output import TableOutput
from tests.support.examples import scale_examples

FIRST: Final = Gateway("cn-hangzhou", "w-1", "lc-1")
SECOND: Final = Gateway("cn-hangzhou", "w-1", "lc-2")
EXPORTED_AT: Final = datetime(2026, 1, 12, 10, 24, 0, 123456, tzinfo=UTC)
CREATED_MS: Final = 1_768_213_240_123
HOUR_MS: Final = 3_600_000


def raw_session(number: int, **fields: Any) -> RawSession:
    return {
        "sessionId": f"livy-{number}",
        "name": f"nightly {number}",
        "state": "terminated",
        "createTime": CREATED_MS + number * HOUR_MS,
        "endTime": CREATED_MS + (number + 1) * HOUR_MS,
        "cuHours": number / 4,
        "vcoreSeconds": 2**53 + 1,
        **fields,
    }


def raw_sessions(*numbers: int, **fields: Any) -> list[RawSession]:
    return [raw_session(number, **fields) for number in numbers]


FIRST_ROW: Final = {
    **dict.fromkeys(SCHEMA.names),
    "session_id": "livy-1",
    "name": "nightly 1",
    "region_id": "cn-hangzhou",
    "workspace_id": "w-1",
    "compute_id": "lc-1",
    "state": "terminated",
    "create_time": datetime.fromtimestamp(CREATED_MS // 1000 + 3600, UTC)
    + timedelta(milliseconds=CREATED_MS % 1000),
    "end_time": datetime.fromtimestamp(CREATED_MS // 1000 + 7200, UTC)
    + timedelta(milliseconds=CREATED_MS % 1000),
    "cu_hours": 0.25,
    "vcore_seconds": 2**53 + 1,
    "exported_at": EXPORTED_AT.replace(microsecond=123000),
}
"""The row of `raw_session(1)`."""


def publish_sessions(
    output: Output, sessions: list[RawSession], *, gateway: Gateway = FIRST
) -> OutputFacts:
    """A whole run, from its first row to its end."""
    for start in range(0, len(sessions), 2000):
        output.write(gateway, sessions[start : start + 2000])
    facts = output.close()
    output.publish()
    output.discard()
    return facts


def open_table_output(table: Table, *, mode: TableMode, run_id: str) -> TableOutput:
    """A table as a run's output, which never sleeps."""
    return TableOutput(
        table,
        output="the table",
        mode=mode,
        commit=Commit(run_id=run_id, exporter_version="1.2.3"),
        exported_at=EXPORTED_AT,
        sleep=lambda _: None,
    )


def query(sessions: pa.Table, columns: str) -> list[tuple[Any, ...]]:
    """Rows that a table's own library has read, as DuckDB sees them."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        connection.register("sessions", sessions)
        return connection.execute(f"SELECT {columns} FROM sessions ORDER BY ALL").fetchall()  # noqa: S608


Run = tuple[TableMode, list[tuple[Gateway, list[tuple[int, bool, int]]]]]
"""Its mode, and each gateway's sessions: number, whether it has a time, and state."""

RUNS: Final[st.SearchStrategy[list[Run]]] = st.lists(
    st.tuples(
        st.sampled_from(["replace", "upsert", "upsert", "upsert"]),
        st.lists(
            st.tuples(
                st.sampled_from([FIRST, SECOND]),
                st.lists(st.tuples(st.integers(0, 40), st.booleans(), st.integers(0, 9))),
            ),
            max_size=3,
        ),
    ),
    max_size=5,
)
PARTITIONINGS: Final = st.sampled_from([(), ("dt",), ("dt", "state"), ("compute_id",)])

few_examples: Final = settings(
    max_examples=scale_examples(25),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

MODEL_COLUMNS: Final = "compute_id, session_id, state, create_time IS NOT NULL"


def publish_runs(
    runs: list[Run], open_output: Callable[[TableMode, str], Output]
) -> list[tuple[str, str, str, bool]]:
    """Publish all runs, each to the output of its mode and id.

    Returns the `MODEL_COLUMNS` of every row that a dictionary by key would have.
    """
    model: dict[tuple[str, str], tuple[str, bool]] = {}
    for number, (mode, parts) in enumerate([("replace", []), *runs]):
        if mode == "replace":
            model.clear()
        output = open_output(mode, f"run-{number}")
        for gateway, rows in parts:
            # A full listing gives a session once; only what is added to a table may repeat one.
            known = {key for key in model if key[0] == gateway.gateway_id}
            fresh = {row[0]: row for row in rows} if mode == "replace" else dict(enumerate(rows))
            sessions = []
            for session, timed, state in fresh.values():
                key = (gateway.gateway_id, f"livy-{session}")
                if mode == "replace" and key in known:
                    continue
                model[key] = (f"state-{state}", timed)
                created_ms = CREATED_MS + session * 5 * HOUR_MS if timed else 0
                sessions.append(raw_session(session, state=f"state-{state}", createTime=created_ms))
            output.write(gateway, sessions)
        output.close()
        output.publish()
    return sorted((*key, *value) for key, value in model.items())
