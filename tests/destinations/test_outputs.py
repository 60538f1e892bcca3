"""The contract of every output, over a real folder: one suite, inherited once a kind and format."""

import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import duckdb
import pytest
from pyarrow import dataset

from exporter.destinations.open import open_output
from exporter.destinations.resolve import resolve_destination
from exporter.model import FileFormat, Gateway, RawSession
from exporter.runs.prepare import build_run_id
from exporter.runs.publish import Publisher
from exporter.sinks.dataset import is_part
from exporter.sinks.interface import Output, OutputFacts
from exporter.stores.hashing import digest
from tests.support.manifests import manifest_of

FIRST = Gateway("cn-hangzhou", "w-1", "lc-1")
SECOND = Gateway("cn-hangzhou", "w-2", "lc-2")
EXPORTED_AT = datetime(2026, 1, 12, 10, 24, 0, 123456, tzinfo=UTC)
CREATED_MS = 1_768_213_240_000

Batch = tuple[Gateway, list[RawSession]]


def raw_session(number: int, **fields: Any) -> RawSession:
    return {
        "sessionId": f"livy-{number:06}",
        "name": f"nightly {number}",
        "createTime": CREATED_MS + number,
        "cuHours": number / 4,
        "vcoreSeconds": 2**53 + 1,
        **fields,
    }


SELECT_PARQUET = """
    SELECT session_id, workspace_id, name, cu_hours, vcore_seconds, epoch_ms(create_time)
    FROM read_parquet('{files}') ORDER BY ALL
"""
SELECT_NDJSON = """
    SELECT sessionId, workspaceId, name, cuHours, vcoreSeconds, createTime
    FROM read_json('{files}', format = 'newline_delimited', columns = {{
        sessionId: 'VARCHAR', workspaceId: 'VARCHAR', name: 'VARCHAR', cuHours: 'DOUBLE',
        vcoreSeconds: 'BIGINT', createTime: 'BIGINT'}}) ORDER BY ALL
"""


class OutputContract:
    """Subclasses name the output; DuckDB reads it, as a user would."""

    output: ClassVar[str]
    files: ClassVar[str]
    """The pattern that a user gives DuckDB."""
    chosen: ClassVar[FileFormat | None] = None
    select: ClassVar[str] = SELECT_NDJSON
    partition_by: ClassVar[tuple[str, ...]] = ()

    @pytest.fixture(autouse=True)
    def working_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def begin(
        self, run_id: str, *, adds: bool = False, target_bytes: int = 128 << 20
    ) -> tuple[Publisher, Output]:
        destination = resolve_destination(self.output, chosen=self.chosen)
        assert destination.sidecars is not None
        publisher = Publisher(destination, destination.sidecars, state_at=None)
        publisher.recover()
        output = open_output(
            destination,
            run_id=run_id,
            exporter_version="1.2.3",
            exported_at=EXPORTED_AT,
            parquet_codec="zstd",
            adds=adds,
            partition_by=self.partition_by,
            target_bytes=target_bytes,
        )
        return publisher, output

    def export(self, *batches: Batch, target_bytes: int = 128 << 20) -> OutputFacts:
        """A run that replaces what is there."""
        run_id = build_run_id(EXPORTED_AT)
        publisher, output = self.begin(run_id, target_bytes=target_bytes)
        for gateway, sessions in batches:
            output.write(gateway, sessions)
        facts = output.close()
        publisher.publish(output, manifest_of(run_id, facts.files), None)
        publisher.remove_leftovers()
        return facts

    def rows(self) -> Sequence[tuple[Any, ...]]:
        with duckdb.connect() as connection:
            return connection.execute(self.select.format(files=self.files)).fetchall()

    def visible(self) -> set[str]:
        """The files that engines take for data: no part of their path begins with `.` or `_`."""
        return {
            str(path)
            for path in Path().rglob("*")
            if path.is_file() and not any(part.startswith((".", "_")) for part in path.parts)
        } - {f"{self.output}.manifest.json"}

    def test_rows_come_back_with_every_value(self) -> None:
        facts = self.export(
            (FIRST, [raw_session(number) for number in range(1000)]),
            (SECOND, [raw_session(1000)]),
            (FIRST, [raw_session(number) for number in range(1001, 1500)]),
        )

        assert self.rows() == [
            (
                f"livy-{number:06}",
                "w-2" if number == 1000 else "w-1",
                f"nightly {number}",
                number / 4,
                2**53 + 1,
                CREATED_MS + number,
            )
            for number in range(1500)
        ]
        assert facts.session_count == sum(file.row_count for file in facts.files) == 1500

    def test_nulls_and_text_of_any_script_come_back(self) -> None:
        odd = ["数据 夜间", "🦆🏳️‍🌈", "e\u0301", 'a"b\\c', "line\nline\r\n\t", "", "nul \x00.", None]

        self.export((FIRST, [raw_session(n, name=name) for n, name in enumerate(odd)]))

        assert [row[2] for row in self.rows()] == odd

    def test_nothing_exported_can_be_read(self) -> None:
        facts = self.export()

        assert facts.session_count == 0
        assert [file.row_count for file in facts.files] == [0]
        assert self.rows() == []

    def test_second_run_replaces_the_first(self) -> None:
        self.export((FIRST, [raw_session(number) for number in range(100)]))
        first = self.visible()

        self.export((FIRST, [raw_session(number) for number in range(200, 250)]))

        assert [row[0] for row in self.rows()] == [f"livy-{n:06}" for n in range(200, 250)]
        assert len(self.visible()) == len(first) == 1

    def test_facts_equal_a_second_reading(self) -> None:
        facts = self.export((FIRST, [raw_session(1)]))

        destination = resolve_destination(self.output, chosen=self.chosen)
        for file in facts.files:
            name = destination.name or file.facts.path
            assert destination.store.size_of(name) == file.facts.size_bytes
            assert digest(destination.store, name) == file.facts.sha256

    def test_discard_leaves_what_was_there(self) -> None:
        self.export((FIRST, [raw_session(1)]))
        before = {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()}
        _, output = self.begin(build_run_id(EXPORTED_AT))
        output.write(FIRST, [raw_session(number) for number in range(2000)])

        output.discard()
        output.discard()

        assert {path: path.read_bytes() for path in Path().rglob("*") if path.is_file()} == before

    def test_first_run_that_is_discarded_leaves_no_file(self) -> None:
        _, output = self.begin(build_run_id(EXPORTED_AT))
        output.write(FIRST, [raw_session(1)])
        output.close()

        output.discard()

        assert [path for path in Path().rglob("*") if path.is_file()] == []

    def test_readers_see_nothing_of_a_run_under_way(self) -> None:
        self.export((FIRST, [raw_session(1)]))
        before = self.visible()
        _, output = self.begin(build_run_id(EXPORTED_AT))
        output.write(FIRST, [raw_session(number) for number in range(2000)])
        output.close()

        assert [row[0] for row in self.rows()] == ["livy-000001"]
        assert self.visible() == before
        output.discard()

    def test_run_after_one_that_was_discarded_is_whole(self) -> None:
        _, output = self.begin(build_run_id(EXPORTED_AT))
        output.write(FIRST, [raw_session(1)])
        output.discard()

        self.export((FIRST, [raw_session(2)]))

        assert [row[0] for row in self.rows()] == ["livy-000002"]


class TestParquetFile(OutputContract):
    output = files = "out.parquet"
    select = SELECT_PARQUET


class ArrowRows:
    """DuckDB reads Arrow files through pyarrow."""

    files: ClassVar[str]

    def rows(self) -> Sequence[tuple[Any, ...]]:
        paths = sorted(map(str, Path().glob(self.files)))
        with duckdb.connect() as connection:
            connection.register("arrow_files", dataset.dataset(paths, format="ipc"))
            return connection.execute(
                SELECT_PARQUET.format(files="").replace("read_parquet('')", "arrow_files")
            ).fetchall()


class TestArrowFile(ArrowRows, OutputContract):
    output = files = "out.arrow"


class TestNdjsonFile(OutputContract):
    output = files = "out.ndjson"


class TestNdjsonGzipFile(OutputContract):
    output = files = "out.ndjson.gz"


class TestNdjsonZstdFile(OutputContract):
    output = files = "out.jsonl.zst"


class DatasetContract(OutputContract):
    output = "set/"
    part_sessions: ClassVar[int]
    """At least as many sessions as are buffered before bytes are counted."""

    def test_parts_are_the_files_and_are_known_by_their_names(self) -> None:
        facts = self.export((FIRST, [raw_session(1)]))

        assert self.visible() == {f"set/{file.facts.path}" for file in facts.files}
        assert all(is_part(file.facts.path) for file in facts.files)

    def test_parts_end_at_their_size_and_are_one_table(self) -> None:
        count = self.part_sessions

        facts = self.export(
            *[
                (FIRST, [raw_session(n) for n in range(start, start + count)])
                for start in range(0, 3 * count, count)
            ],
            target_bytes=1000,
        )

        assert [file.row_count for file in facts.files] == [count] * 3
        assert [row[0] for row in self.rows()] == [f"livy-{n:06}" for n in range(3 * count)]

    def test_names_of_parts_never_collide_and_added_ones_leave_the_others(self) -> None:
        first = self.export((FIRST, [raw_session(1)]))
        run_id = build_run_id(EXPORTED_AT)
        publisher, output = self.begin(run_id, adds=True)
        output.write(FIRST, [raw_session(2)])
        added = output.close()

        manifest = manifest_of(run_id, (*first.files, *added.files))
        publisher.publish(output, manifest, None)
        publisher.remove_leftovers()

        assert len(self.visible()) == 2
        assert [row[0] for row in self.rows()] == ["livy-000001", "livy-000002"]

    def test_run_that_adds_nothing_adds_no_part(self) -> None:
        self.export((FIRST, [raw_session(1)]))
        before = self.visible()
        _, output = self.begin(build_run_id(EXPORTED_AT), adds=True)

        facts = output.close()
        output.publish()

        assert facts == replace(facts, session_count=0, files=())
        assert self.visible() == before

    def test_engines_find_nothing_but_parts_in_any_folder(self) -> None:
        self.export((FIRST, [raw_session(1)]))
        _, output = self.begin(build_run_id(EXPORTED_AT))
        output.write(FIRST, [raw_session(2)])
        Path("set/_exporter/journal").mkdir(parents=True)
        Path("set/_exporter/publishing.json").write_text("{}")
        suffix = os.path.splitext(self.files)[1]  # noqa: PTH122 - of a pattern, not of a path

        with duckdb.connect() as connection:
            found = connection.execute("SELECT file FROM glob(?)", [f"set/**/*{suffix}"]).fetchall()

        assert {name for (name,) in found} == self.visible()
        assert len(found) == 1
        output.discard()


class TestParquetDataset(DatasetContract):
    files = "set/*.parquet"
    select = SELECT_PARQUET
    part_sessions = 40_000


class TestArrowDataset(ArrowRows, DatasetContract):
    files = "set/*.arrow"
    chosen = "arrow"
    part_sessions = 40_000


class TestArrowByDateAndQueue(ArrowRows, DatasetContract):
    files = "set/**/*.arrow"
    chosen = "arrow"
    partition_by = ("dt", "queue")
    part_sessions = 40_000


class TestNdjsonDataset(DatasetContract):
    files = "set/*.ndjson"
    chosen = "ndjson"
    part_sessions = 4_000


class TestParquetByDateAndQueue(DatasetContract):
    files = "set/**/*.parquet"
    select = SELECT_PARQUET
    partition_by = ("dt", "queue")
    part_sessions = 40_000


class TestNdjsonByDateAndQueue(DatasetContract):
    files = "set/**/*.ndjson"
    chosen = "ndjson"
    partition_by = ("dt", "queue")
    part_sessions = 40_000


class TestParquetByWorkspaceAndState(DatasetContract):
    files = "set/**/*.parquet"
    select = SELECT_PARQUET
    partition_by = ("workspace_id", "state")
    part_sessions = 40_000
