"""The contract of every sink, over a real file: one suite, inherited once a format."""

import gzip
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest
import zstandard

from exporter.errors import DestinationError
from exporter.model import Gateway, RawSession
from exporter.sinks.formats import open_sink, resolve_format
from exporter.sinks.interface import Sink, SinkFacts
from exporter.stores.hashing import HashingFile
from exporter.stores.interface import FileFacts
from exporter.stores.local import LocalStore

FIRST = Gateway("cn-hangzhou", "w-1", "lc-1")
SECOND = Gateway("cn-hangzhou", "w-2", "lc-2")
EXPORTED_AT = datetime(2026, 1, 12, 10, 24, 0, 123456, tzinfo=UTC)
CREATED_MS = 1_768_213_240_000


def raw_session(number: int, **fields: Any) -> RawSession:
    return {
        "sessionId": f"livy-{number}",
        "name": f"nightly {number}",
        "state": "terminated",
        "info": "null",
        "sparkConf": '{"conf":{"spark.driver.cores":1}}',
        "createTime": CREATED_MS + number,
        "endTime": 0,
        "cuHours": number / 4,
        "vcoreSeconds": 2**53 + 1,
        "mbSeconds": number,
        **fields,
    }


def stage(folder: Path, name: str) -> HashingFile:
    return HashingFile(LocalStore(str(folder)).stage(name, run_id="run-1"))


class FailingStream:
    """A stream that fails at a write, as a full disk does."""

    def __init__(self, size_bytes: int) -> None:
        self.written = b""
        self._size_bytes = size_bytes
        self.failure_count = 0

    def write(self, chunk: bytes, /) -> int:
        if len(self.written) + len(chunk) > self._size_bytes:
            self.failure_count += 1
            raise DestinationError("no space left", hint="free some space")
        self.written += chunk
        return len(chunk)


class SinkContract:
    """Subclasses name the file; DuckDB reads it, as a user does."""

    name: ClassVar[str]
    select: ClassVar[str]
    """A query of session id, workspace, name, CU hours, vcore seconds, and both times in ms."""
    nothing_is_counted: ClassVar[bool] = False

    def decoded(self, path: Path) -> bytes:
        """The file, decompressed by another library than the writer's."""
        return path.read_bytes()

    def open(self, stream: Any) -> Sink:
        output_format, codec = resolve_format(self.name, None)
        return open_sink(
            stream,
            output_format=output_format,
            file_codec=codec,
            parquet_codec="zstd",
            run_id="run-1",
            exporter_version="1.2.3",
            exported_at=EXPORTED_AT,
        )

    def export(
        self, folder: Path, *parts: tuple[Gateway, list[RawSession]]
    ) -> tuple[Path, SinkFacts, FileFacts]:
        file = stage(folder, self.name)
        sink = self.open(file)
        for gateway, sessions in parts:
            sink.write(gateway, sessions)
        facts = sink.close()
        file_facts = file.finish(str(folder / self.name))
        file.publish()
        return folder / self.name, facts, file_facts

    def rows(self, path: Path) -> list[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            connection.execute("SET TimeZone = 'Asia/Shanghai'")
            return connection.execute(self.select.format(path=path)).fetchall()

    def test_rows_come_back_in_order_with_every_value(self, tmp_path: Path) -> None:
        parts = [
            (FIRST, [raw_session(number) for number in range(1000)]),
            (SECOND, [raw_session(number) for number in range(1000, 1001)]),
            (FIRST, [raw_session(number) for number in range(1001, 3000)]),
        ]

        path, facts, _ = self.export(tmp_path, *parts)

        assert self.rows(path) == [
            (
                f"livy-{number}",
                "w-2" if number == 1000 else "w-1",
                f"nightly {number}",
                number / 4,
                2**53 + 1,
                CREATED_MS + number,
                int(EXPORTED_AT.timestamp() * 1000),
            )
            for number in range(3000)
        ]
        assert facts == SinkFacts(session_count=3000, coerced_value_count=0)

    def test_many_row_groups_keep_the_order(self, tmp_path: Path) -> None:
        parts = [
            (FIRST, [raw_session(number) for number in range(start, start + 5000)])
            for start in range(0, 150_000, 5000)
        ]

        path, facts, _ = self.export(tmp_path, *parts)

        assert [row[0] for row in self.rows(path)] == [f"livy-{n}" for n in range(150_000)]
        assert facts.session_count == 150_000

    def test_facts_equal_a_second_reading(self, tmp_path: Path) -> None:
        path, _, file_facts = self.export(tmp_path, (FIRST, [raw_session(1)]))

        content = path.read_bytes()
        assert file_facts == FileFacts(str(path), len(content), hashlib.sha256(content).hexdigest())

    def test_equal_sessions_are_equal_bytes(self, tmp_path: Path) -> None:
        (tmp_path / "again").mkdir()
        sessions = [raw_session(number) for number in range(100)]

        _, _, once = self.export(tmp_path, (FIRST, sessions))
        _, _, again = self.export(tmp_path / "again", (FIRST, sessions))

        assert once.sha256 == again.sha256

    def test_nothing_exported_is_a_file_that_can_be_read(self, tmp_path: Path) -> None:
        path, facts, _ = self.export(tmp_path)

        assert facts == SinkFacts(session_count=0, coerced_value_count=0)
        assert path.exists()
        self.assert_empty(path)

    def test_gateway_without_sessions_adds_nothing(self, tmp_path: Path) -> None:
        path, facts, _ = self.export(tmp_path, (FIRST, []), (SECOND, []))

        assert facts.session_count == 0
        self.assert_empty(path)

    def assert_empty(self, path: Path) -> None:
        assert self.decoded(path) == b""

    @pytest.mark.parametrize(
        "name",
        ["数据 夜间", "🦆🏳️‍🌈", "e\u0301", 'a"b\\c', "line\nline\r\n\t", "\u2028", "", "nul \x00."],
    )
    def test_text_of_any_script_comes_back(self, name: str, tmp_path: Path) -> None:
        path, _, _ = self.export(tmp_path, (FIRST, [raw_session(1, name=name)]))

        assert self.rows(path)[0][2] == name

    def test_nulls_and_absent_fields_come_back_as_nulls(self, tmp_path: Path) -> None:
        nulls = raw_session(1, name=None, cuHours=None)
        absent = {"sessionId": "livy-2", "createTime": CREATED_MS, "vcoreSeconds": 1}

        path, _, _ = self.export(tmp_path, (FIRST, [nulls, absent, raw_session(3)]))

        assert [row[2:4] for row in self.rows(path)] == [
            (None, None),
            (None, None),
            ("nightly 3", 0.75),
        ]

    def test_values_that_do_not_fit_are_counted_where_there_are_types(self, tmp_path: Path) -> None:
        odd = raw_session(1, mbSeconds="many", endTime="0")

        _, facts, _ = self.export(tmp_path, (FIRST, [odd]))

        assert facts.coerced_value_count == (0 if self.nothing_is_counted else 2)

    def test_abort_leaves_nothing(self, tmp_path: Path) -> None:
        file = stage(tmp_path, self.name)
        sink = self.open(file)
        sink.write(FIRST, [raw_session(number) for number in range(2000)])

        sink.abort()
        file.discard()

        assert list(tmp_path.iterdir()) == []

    def test_abort_writes_no_more(self) -> None:
        stream = FailingStream(1 << 30)
        sink = self.open(stream)
        sink.write(FIRST, [raw_session(number) for number in range(100)])
        before = stream.written

        sink.abort()
        del sink

        assert stream.written == before

    @pytest.mark.parametrize("size_bytes", [100, 10_000])
    def test_error_of_the_stream_comes_out_as_it_is(self, size_bytes: int) -> None:
        stream = FailingStream(size_bytes)
        sink = self.open(stream)

        with pytest.raises(DestinationError, match="no space left") as caught:
            write_until_it_fails(sink)
        failure_count = stream.failure_count
        sink.abort()
        del sink

        assert caught.value.hint == "free some space"
        assert stream.failure_count == failure_count


def write_until_it_fails(sink: Sink) -> None:
    for start in range(0, 100_000, 1000):
        sink.write(FIRST, [raw_session(number) for number in range(start, start + 1000)])
    sink.close()


class TestParquet(SinkContract):
    name = "out.parquet"
    select = """
        SELECT session_id, workspace_id, name, cu_hours, vcore_seconds, epoch_ms(create_time),
            epoch_ms(exported_at)
        FROM read_parquet('{path}')
    """

    def assert_empty(self, path: Path) -> None:
        with duckdb.connect() as connection:
            described = connection.execute(f"DESCRIBE FROM read_parquet('{path}')").fetchall()
        assert self.rows(path) == []
        assert [row[0] for row in described][:3] == ["session_id", "name", "region_id"]


class NdjsonContract(SinkContract):
    nothing_is_counted = True
    select = """
        SELECT sessionId, workspaceId, name, cuHours, vcoreSeconds, createTime,
            epoch_ms(exportedAt::TIMESTAMPTZ)
        FROM read_json('{path}', format = 'newline_delimited', columns = {{
            sessionId: 'VARCHAR', workspaceId: 'VARCHAR', name: 'VARCHAR', cuHours: 'DOUBLE',
            vcoreSeconds: 'BIGINT', createTime: 'BIGINT', exportedAt: 'VARCHAR'}})
    """

    def lines(self, folder: Path, *sessions: RawSession) -> list[str]:
        path, _, _ = self.export(folder, (FIRST, list(sessions)))
        return self.decoded(path).decode().splitlines()

    def test_line_is_the_record_as_received_and_three_fields(self, tmp_path: Path) -> None:
        odd = {"b": [1, {"z": None}], "sessionId": "livy-1", "a": "1", "createTime": True}

        [line] = self.lines(tmp_path, odd)

        assert line == (
            '{"b":[1,{"z":null}],"sessionId":"livy-1","a":"1","createTime":true,'
            '"regionId":"cn-hangzhou","workspaceId":"w-1","exportedAt":"2026-01-12T10:24:00.123Z"}'
        )

    def test_received_field_of_an_added_name_is_kept_under_another(self, tmp_path: Path) -> None:
        same = {"sessionId": "livy-1", "regionId": "cn-hangzhou"}
        other = {"regionId": 7, "sessionId": "livy-2", "received_regionId": "x"}

        first, second, third = self.lines(tmp_path, same, other, raw_session(3))

        added = {
            "regionId": "cn-hangzhou",
            "workspaceId": "w-1",
            "exportedAt": "2026-01-12T10:24:00.123Z",
        }
        assert json.loads(first) == same | added
        assert json.loads(second) == {
            "sessionId": "livy-2",
            "received_regionId": "x",
            "received_received_regionId": 7,
            **added,
        }
        assert json.loads(third) == raw_session(3) | added

    @pytest.mark.parametrize("value", [2**63, 2**64 - 1, 2**64, -(2**70), "\ud800", 0.1, 1e-300])
    def test_value_beyond_usual_types_is_the_same_when_read_again(
        self, value: Any, tmp_path: Path
    ) -> None:
        [line] = self.lines(tmp_path, raw_session(1, odd=value))

        assert json.loads(line)["odd"] == value

    def test_record_without_fields_is_still_json(self, tmp_path: Path) -> None:
        [line] = self.lines(tmp_path, {})

        assert json.loads(line).keys() == {"regionId", "workspaceId", "exportedAt"}


class TestNdjson(NdjsonContract):
    name = "out.ndjson"


class TestNdjsonGzip(NdjsonContract):
    name = "out.ndjson.gz"

    def decoded(self, path: Path) -> bytes:
        return gzip.decompress(path.read_bytes())


class TestNdjsonZstd(NdjsonContract):
    name = "out.jsonl.zst"

    def decoded(self, path: Path) -> bytes:
        return zstandard.ZstdDecompressor().decompressobj().decompress(path.read_bytes())
