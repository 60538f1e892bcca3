import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args

import duckdb
import pyarrow.parquet as pq
import pytest

from exporter.model import Gateway, ParquetCodec, RawSession
from exporter.records.schema import SCHEMA
from exporter.sinks.interface import SinkOptions
from exporter.sinks.parquet import ParquetSink
from exporter.sinks.row_groups import ROW_GROUP_ROWS

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
EXPORTED_AT = datetime(2026, 1, 12, 10, 24, tzinfo=UTC)


def raw_sessions(count: int, **fields: Any) -> list[RawSession]:
    return [
        {"sessionId": f"livy-{number}", "createTime": 1_768_213_240_000 - number, **fields}
        for number in range(count)
    ]


def write_parquet(parts: list[list[RawSession]], *, codec: ParquetCodec = "zstd") -> pq.ParquetFile:
    stream = io.BytesIO()
    sink = ParquetSink(stream, SinkOptions("none", codec, "run-1", "1.2.3", EXPORTED_AT))
    for sessions in parts:
        sink.write(GATEWAY, sessions)
    sink.close()
    return pq.ParquetFile(io.BytesIO(stream.getvalue()))


def test_file_names_its_schema_its_run_and_its_exporter() -> None:
    file = write_parquet([raw_sessions(1)])

    assert file.schema_arrow.equals(SCHEMA)
    assert file.metadata.metadata[b"livy_exporter.run_id"] == b"run-1"
    assert file.metadata.metadata[b"livy_exporter.version"] == b"1.2.3"


@pytest.mark.parametrize("codec", get_args(ParquetCodec))
def test_every_codec_is_used_as_asked_for(codec: ParquetCodec) -> None:
    file = write_parquet([raw_sessions(10)], codec=codec)

    used = file.metadata.row_group(0).column(0).compression
    assert used == ("UNCOMPRESSED" if codec == "none" else codec.upper())
    assert file.read().num_rows == 10


def test_batches_are_gathered_to_row_groups() -> None:
    file = write_parquet([raw_sessions(2000)] * 40)

    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [34_000, 34_000, 12_000]
    assert groups[0].num_rows >= ROW_GROUP_ROWS


def test_large_sessions_end_a_row_group_early() -> None:
    file = write_parquet([raw_sessions(100, sparkConf="x" * 100_000)] * 10)

    assert [file.metadata.row_group(number).num_rows for number in range(2)] == [200, 200]


def test_only_columns_of_few_values_have_dictionaries() -> None:
    group = write_parquet([raw_sessions(100, state="error", queue="q")]).metadata.row_group(0)

    columns = [group.column(number) for number in range(group.num_columns)]
    assert {column.path_in_schema for column in columns if column.has_dictionary_page} == {
        "region_id",
        "workspace_id",
        "compute_id",
        "state",
        "queue",
        "info",
        "exported_at",
    }


def test_columns_that_are_filtered_by_have_statistics() -> None:
    group = write_parquet([raw_sessions(100)]).metadata.row_group(0)

    statistics = {
        group.column(number).path_in_schema: group.column(number).statistics
        for number in range(group.num_columns)
    }
    assert statistics["create_time"].max == datetime(2026, 1, 12, 10, 20, 40, tzinfo=UTC)
    assert statistics["session_id"].has_min_max
    assert statistics["spark_conf"] is None


def test_times_are_utc_wherever_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    with path.open("wb") as stream:
        sink = ParquetSink(stream, SinkOptions("none", "zstd", "r", "1", EXPORTED_AT))
        sink.write(GATEWAY, raw_sessions(1))
        sink.close()

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'Asia/Shanghai'")
        [row] = connection.execute(
            "SELECT typeof(create_time), create_time::VARCHAR FROM read_parquet(?)", [str(path)]
        ).fetchall()

    assert row == ("TIMESTAMP WITH TIME ZONE", "2026-01-12 18:20:40+08")
