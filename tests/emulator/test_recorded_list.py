import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
import zstandard

from exporter.emulator.recorded_list import read_ndjson
from exporter.emulator.scenario import Scenario, build_workspaces
from exporter.errors import UsageError
from exporter.model import Gateway

SCENARIO = Scenario(workspaces=build_workspaces(session_count=2_000))

PACK: dict[str, Callable[[bytes], bytes]] = {
    "sessions.ndjson": bytes,
    "sessions.jsonl": bytes,
    "sessions.ndjson.gz": gzip.compress,
    "sessions.jsonl.zst": zstandard.compress,
}


def export_lines(scenario: Scenario) -> bytes:
    """The records of an export of all gateways of the scenario."""
    lines = [
        orjson.dumps(
            {
                **session,
                "regionId": gateway.region_id,
                "workspaceId": gateway.workspace_id,
                "exportedAt": "2026-07-01T00:00:00.000Z",
            }
        )
        for gateway, sessions in scenario.build_session_lists().items()
        for session in sessions.sessions()
    ]
    return b"\n".join(lines) + b"\n"


def write_lines(path: Path, *sessions: dict[str, Any]) -> Path:
    path.write_bytes(b"".join(orjson.dumps(session) + b"\n" for session in sessions))
    return path


def session_of(gateway_id: str, session_id: str, **more: object) -> dict[str, Any]:
    known = {"sessionId": session_id, "computeId": gateway_id}
    return {**known, "workspaceId": "w-1", "regionId": "cn-hangzhou", **more}


@pytest.mark.parametrize("name", PACK)
def test_export_of_a_scenario_is_served_as_that_scenario(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(PACK[name](export_lines(SCENARIO)))

    recorded = Scenario().serving(path)

    for gateway, sessions in SCENARIO.build_session_lists().items():
        served = recorded.build_session_lists()[gateway]
        assert list(served.sessions()) == list(sessions.sessions())
        page, expected = served.page(20, 100), sessions.page(20, 100)
        assert page.total_count == expected.total_count
        assert orjson.loads(page.rows) == orjson.loads(expected.rows)
        assert served.page(21, 100).rows == b"[]"


@pytest.mark.parametrize("name", ["parts.ndjson.gz", "parts.ndjson.zst"])
def test_compressed_file_written_in_several_parts_is_read_to_its_end(
    name: str, tmp_path: Path
) -> None:
    pack = gzip.compress if name.endswith(".gz") else zstandard.compress
    lines = [orjson.dumps(session_of("lc-a", f"s{number}")) + b"\n" for number in range(3)]
    path = tmp_path / name
    path.write_bytes(b"".join(pack(line) for line in lines))

    recordings = read_ndjson(path)

    assert [len(recording) for recording in recordings.values()] == [3]


def test_rows_are_grouped_by_gateway_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "mixed.ndjson",
        session_of("lc-b", "s3"),
        session_of("lc-a", "s2"),
        session_of("lc-b", "s1", odd={"deep": [1, None]}),
    )

    recordings = read_ndjson(path)

    assert list(recordings) == [
        Gateway("cn-hangzhou", "w-1", "lc-b"),
        Gateway("cn-hangzhou", "w-1", "lc-a"),
    ]
    assert list(recordings[Gateway("cn-hangzhou", "w-1", "lc-b")].sessions()) == [
        {"sessionId": "s3", "computeId": "lc-b"},
        {"sessionId": "s1", "computeId": "lc-b", "odd": {"deep": [1, None]}},
    ]


def test_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "gaps.jsonl"
    path.write_bytes(b"\n" + orjson.dumps(session_of("lc-a", "s1")) + b"\n\n")

    recordings = read_ndjson(path)

    assert [len(recording) for recording in recordings.values()] == [1]


def test_scenario_takes_the_region_of_the_file(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "x.ndjson", session_of("lc-a", "s1", regionId="eu-central-1"))

    scenario = Scenario(latency_s=0.5).serving(path)

    assert (scenario.region_id, scenario.latency_s) == ("eu-central-1", 0.5)


def test_file_of_two_regions_is_refused(tmp_path: Path) -> None:
    path = write_lines(
        tmp_path / "x.ndjson",
        session_of("lc-a", "s1"),
        session_of("lc-a", "s2", regionId="eu-central-1"),
    )

    with pytest.raises(UsageError, match="several regions: cn-hangzhou, eu-central-1"):
        Scenario().serving(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"sessionId": "s', "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[1, 2]", "not a JSON object"),
        (b'{"sessionId": "s", "computeId": "lc"}', "no text under 'regionId'"),
        (b'{"regionId": "r", "computeId": "lc"}', "no text under 'workspaceId'"),
        (b'{"regionId": "r", "workspaceId": "w"}', "no text under 'computeId'"),
        (b'{"regionId": "r", "workspaceId": ""}', "no text under 'workspaceId'"),
        (b'{"regionId": "r", "workspaceId": 5}', "no text under 'workspaceId'"),
    ],
)
def test_bad_line_is_refused_with_its_number_and_a_remedy(
    line: bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.ndjson"
    path.write_bytes(orjson.dumps(session_of("lc-a", "s1")) + b"\n" + line + b"\n")

    with pytest.raises(UsageError) as caught:
        read_ndjson(path)

    assert str(caught.value).startswith(f"{path}:2: {reason}")
    assert caught.value.hint is not None


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.ndjson': No such file") as caught:
        read_ndjson(tmp_path / "absent.ndjson")

    assert caught.value.hint is not None


def test_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.ndjson").mkdir()

    with pytest.raises(UsageError, match="Is a directory"):
        read_ndjson(tmp_path / "folder.ndjson")


@pytest.mark.parametrize("name", ["sessions.parquet", "sessions.gz", "sessions", "sessions.json"])
def test_file_that_is_not_named_like_ndjson_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not named like NDJSON"):
        read_ndjson(tmp_path / name)


def test_file_without_sessions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.ndjson").write_bytes(b"\n")

    with pytest.raises(UsageError, match="holds no session"):
        read_ndjson(tmp_path / "empty.ndjson")


@pytest.mark.parametrize("name", ["cut.ndjson.gz", "cut.ndjson.zst"])
def test_compressed_file_that_is_cut_off_is_refused(name: str, tmp_path: Path) -> None:
    pack = gzip.compress if name.endswith(".gz") else zstandard.compress
    path = tmp_path / name
    path.write_bytes(pack(export_lines(SCENARIO))[:-200])

    with pytest.raises(UsageError, match=f"{name}' after line"):
        read_ndjson(path)


@pytest.mark.parametrize("name", ["plain.ndjson.gz", "plain.ndjson.zst"])
def test_file_that_is_only_named_as_compressed_is_refused(name: str, tmp_path: Path) -> None:
    path = write_lines(tmp_path / name, session_of("lc-a", "s1"))

    with pytest.raises(UsageError, match="cannot read"):
        read_ndjson(path)
