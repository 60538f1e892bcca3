import resource
from datetime import UTC, datetime
from pathlib import Path

import pytest

from exporter.errors import DestinationError
from exporter.model import Gateway
from exporter.sinks.dataset import DatasetOutput, Parts
from exporter.sinks.formats import open_sink
from exporter.sinks.interface import ByteStream, Sink
from exporter.stores.local import LocalStore

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")


def open_ndjson(stream: ByteStream) -> Sink:
    return open_sink(
        stream,
        output_format="ndjson",
        file_codec="none",
        parquet_codec="none",
        run_id="run-1",
        exporter_version="1.2.3",
        exported_at=datetime(2026, 1, 12, tzinfo=UTC),
    )


def open_dataset(
    folder: Path, *, target_bytes: int = 0, stands_alone: bool = True, run_id: str = "run-1"
) -> DatasetOutput:
    parts = Parts(
        LocalStore(str(folder)), run_id=run_id, output_format="ndjson", open_sink=open_ndjson
    )
    return DatasetOutput(parts, target_bytes=target_bytes, stands_alone=stands_alone)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def write_one(output: DatasetOutput, number: int) -> None:
    output.write(GATEWAY, [{"sessionId": f"livy-{number}", "info": "x" * 300_000}])


def write_many(output: DatasetOutput) -> None:
    for number in range(20):
        write_one(output, number)


def test_part_ends_where_it_is_large_enough(tmp_path: Path) -> None:
    output = open_dataset(tmp_path, target_bytes=1_000_000)

    for number in range(10):
        write_one(output, number)
    facts = output.close()

    assert [file.row_count for file in facts.files] == [4, 4, 2]
    assert [file.facts.path for file in facts.files] == [
        f"part-run-1-{number:05}.ndjson" for number in range(3)
    ]
    assert facts.session_count == 10
    output.discard()


def test_nothing_is_visible_before_publish_and_all_of_it_after(tmp_path: Path) -> None:
    output = open_dataset(tmp_path)
    write_one(output, 1)
    write_one(output, 2)
    output.close()
    before = names(tmp_path)

    output.publish()
    output.discard()

    assert all(name.startswith(".") for name in before)
    assert names(tmp_path) == ["part-run-1-00000.ndjson", "part-run-1-00001.ndjson"]


@pytest.mark.parametrize("stands_alone", [True, False])
def test_nothing_to_write_is_one_empty_part_or_none(stands_alone: bool, tmp_path: Path) -> None:
    output = open_dataset(tmp_path, stands_alone=stands_alone)
    output.write(GATEWAY, [])

    facts = output.close()
    output.publish()

    assert [file.row_count for file in facts.files] == [0] * stands_alone
    assert names(tmp_path) == ["part-run-1-00000.ndjson"] * stands_alone


def test_discard_takes_back_the_open_part_and_those_that_are_full(tmp_path: Path) -> None:
    output = open_dataset(tmp_path, target_bytes=500_000)
    for number in range(5):
        write_one(output, number)
    assert len(names(tmp_path)) == 3

    output.discard()
    output.discard()

    assert names(tmp_path) == []


def test_discard_after_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    output = open_dataset(tmp_path, target_bytes=1 << 30)
    try:
        with pytest.raises(DestinationError, match="File too large"):
            write_many(output)
        output.discard()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    assert names(tmp_path) == []
