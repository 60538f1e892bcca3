import resource
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.model import FileFormat, Gateway, RawSession
from exporter.sinks import partitioned as module
from exporter.sinks.dataset import Parts
from exporter.sinks.formats import open_partition_buffer, open_sink
from exporter.sinks.hive import empty_folder
from exporter.sinks.interface import ByteStream, Rows, Sink
from exporter.sinks.partitioned import PartitionedOutput, choose_largest
from exporter.sinks.row_groups import RowGroup
from exporter.stores.local import LocalStore

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
EXPORTED_AT = datetime(2026, 1, 12, tzinfo=UTC)
FORMATS: list[FileFormat] = ["parquet", "ndjson"]


def open_partitioned(
    folder: Path,
    *,
    output_format: FileFormat = "ndjson",
    target_bytes: int = 1 << 30,
    stands_alone: bool = True,
) -> PartitionedOutput:
    def open_file_sink(stream: ByteStream) -> Sink:
        return open_sink(
            stream,
            output_format=output_format,
            file_codec="none",
            parquet_codec="zstd",
            run_id="run-1",
            exporter_version="1.2.3",
            exported_at=EXPORTED_AT,
        )

    return PartitionedOutput(
        Parts(
            LocalStore(str(folder)),
            run_id="run-1",
            output_format=output_format,
            open_sink=open_file_sink,
        ),
        open_partition_buffer(output_format, ["queue"], exported_at=EXPORTED_AT),
        target_bytes=target_bytes,
        empty_folder=empty_folder(["queue"]) if stands_alone else None,
    )


def sessions_of(queues: int, count: int, *, text_bytes: int = 0) -> list[RawSession]:
    return [
        {"sessionId": f"livy-{n}", "queue": f"q{n % queues:04}", "info": "x" * text_bytes}
        for n in range(count)
    ]


def paths(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def few_files() -> Iterator[int]:
    """Limit open files to the number that a run of few partitions needs."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, limits[1]))
    yield 100
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("output_format", FORMATS)
def test_more_partitions_than_files_may_be_open_come_out_whole(
    output_format: FileFormat, few_files: int, tmp_path: Path
) -> None:
    output = open_partitioned(tmp_path, output_format=output_format)

    for _ in range(3):
        output.write(GATEWAY, sessions_of(500, 20_000))
    facts = output.close()
    output.publish()

    assert facts.session_count == sum(file.row_count for file in facts.files) == 60_000
    assert {file.facts.path.partition("/")[0] for file in facts.files} == {
        f"queue=q{number:04}" for number in range(500)
    }
    assert all((tmp_path / file.facts.path).is_file() for file in facts.files)


def test_discard_of_many_parts_leaves_no_folder(few_files: int, tmp_path: Path) -> None:
    output = open_partitioned(tmp_path)
    output.write(GATEWAY, sessions_of(200, 20_000))
    output.close()
    assert len(paths(tmp_path)) == 400

    output.discard()
    output.discard()

    assert paths(tmp_path) == []


def test_rows_that_wait_are_bounded_and_the_largest_partition_is_written_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 4 << 20)
    output = open_partitioned(tmp_path)

    # Nine of ten rows are of one partition; the others wait until the end.
    for start in range(0, 60_000, 1000):
        rows = sessions_of(1, 900, text_bytes=100) + sessions_of(100, 100, text_bytes=100)
        output.write(GATEWAY, [{**row, "sessionId": f"{start}-{n}"} for n, row in enumerate(rows)])
        assert output._waiting_bytes <= 4 << 20
    facts = output.close()

    assert len(facts.files) == 100
    output.discard()


def test_partition_that_is_met_again_has_one_more_part(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES", 0)
    monkeypatch.setattr(module, "MAX_OPEN", 2)
    output = open_partitioned(tmp_path)

    for _ in range(2):
        output.write(GATEWAY, sessions_of(3, 20_001))
    facts = output.close()

    assert [file.row_count for file in facts.files] == [6667] * 6
    output.discard()


def test_part_ends_where_it_is_large_enough(tmp_path: Path) -> None:
    output = open_partitioned(tmp_path, target_bytes=2_000_000)

    for _ in range(8):
        output.write(GATEWAY, sessions_of(2, 20_000, text_bytes=300))
    facts = output.close()

    sizes = [file.facts.size_bytes for file in facts.files]
    assert all(2_000_000 <= size < 24_000_000 for size in sizes)
    assert sum(file.row_count for file in facts.files) == 160_000
    output.discard()


@pytest.mark.parametrize("stands_alone", [True, False])
@pytest.mark.parametrize("output_format", FORMATS)
def test_nothing_to_write_is_one_empty_part_or_none(
    output_format: FileFormat, stands_alone: bool, tmp_path: Path
) -> None:
    output = open_partitioned(tmp_path, output_format=output_format, stands_alone=stands_alone)
    output.write(GATEWAY, [])

    facts = output.close()
    output.publish()

    folder = "queue=__HIVE_DEFAULT_PARTITION__"
    part = f"{folder}/part-run-1-00000.{output_format}"
    assert [file.row_count for file in facts.files] == [0] * stands_alone
    assert paths(tmp_path) == ([folder, part] if stands_alone else [])


def test_values_that_do_not_fit_are_counted(tmp_path: Path) -> None:
    output = open_partitioned(tmp_path, output_format="parquet")
    output.write(GATEWAY, [{"sessionId": "livy-1", "queue": 7, "endTime": "0"}])

    facts = output.close()

    assert facts.coerced_value_count == 2
    assert facts.files[0].facts.path.startswith("queue=__HIVE_DEFAULT_PARTITION__/")
    output.discard()


def test_fewest_partitions_make_room() -> None:
    waiting: dict[str, RowGroup[Rows]] = {}
    for name, size_bytes in (("small", 1), ("large", 50), ("middle", 20)):
        waiting[name] = RowGroup()
        waiting[name].add(Rows(b"", 1, size_bytes), row_count=1, size_bytes=size_bytes)

    assert choose_largest(waiting, down_to=30) == ["large"]
    assert choose_largest(waiting, down_to=20) == ["large", "middle"]
    assert choose_largest(waiting, down_to=71) == []
