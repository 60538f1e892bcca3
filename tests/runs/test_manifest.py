from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson

from exporter.model import Gateway, ListingFacts, RequestCounts, TimeRange
from exporter.runs.manifest import ManifestFile, build_manifest, parse_manifest
from exporter.sinks.interface import WrittenFile
from exporter.stores.interface import FileFacts
from tests.support.manifests import manifest_of

STARTED_AT = datetime(2026, 7, 1, 12, 0, 0, 123000, tzinfo=UTC)
FINISHED_AT = datetime(2026, 7, 1, 14, 0, 5, tzinfo=timezone(timedelta(hours=2)))
LISTING = ListingFacts(
    gateway=Gateway("cn-hangzhou", "w-1", "lc-1"),
    session_count=250,
    total_count_first=248,
    total_count_last=251,
    inserted_count=4,
    deleted_count=1,
    overlap_count=3,
    page_count=5,
    repair_page_count=2,
    proof="quiescent",
)


FACTS: dict[str, Any] = {
    "run_id": "r-1",
    "exporter_version": "0.1.0",
    "status": "complete",
    "started_at": STARTED_AT,
    "finished_at": FINISHED_AT,
    "output": "out.parquet",
    "partition_by": (),
    "format_name": "parquet",
    "mode": "full",
    "full_because": "",
    "session_count": 250,
    "coerced_value_count": 2,
    "previous_files": (),
    "files": [WrittenFile(FileFacts("out.parquet", 4096, "ab" * 32), 250)],
    "listings": [LISTING],
    "requests": RequestCounts(sent=9, ok=6, throttled=1, retried=3, failed=2),
    "learnt_rps": 39.987,
}


def build(**changes: Any) -> dict[str, Any]:
    manifest: dict[str, Any] = orjson.loads(build_manifest(**FACTS | changes).dump())
    return manifest


def test_manifest_has_these_keys_and_no_other() -> None:
    manifest = build()

    assert list(manifest) == [
        "manifest_version",
        "run_id",
        "exporter_version",
        "status",
        "started_at",
        "finished_at",
        "output",
        "format",
        "partition_by",
        "mode",
        "full_because",
        "since",
        "until",
        "session_count",
        "coerced_value_count",
        "omitted",
        "unreadable_count",
        "unreadable",
        "files",
        "gateways",
        "requests",
        "pacing",
    ]


def test_files_gateways_and_requests_have_these_keys_and_no_other() -> None:
    manifest = build()

    assert [list(entry) for entry in manifest["files"]] == [
        ["path", "row_count", "size_bytes", "sha256"]
    ]
    assert [list(entry) for entry in manifest["gateways"]] == [
        [
            "region_id",
            "workspace_id",
            "gateway_id",
            "session_count",
            "total_count_first",
            "total_count_last",
            "inserted_count",
            "deleted_count",
            "overlap_count",
            "page_count",
            "repair_page_count",
            "proof",
            "mode",
            "full_because",
        ]
    ]
    assert list(manifest["requests"]) == ["sent", "ok", "throttled", "retried", "failed"]


def test_each_fact_stands_under_its_own_key() -> None:
    manifest = build()

    assert manifest["manifest_version"] == 1
    assert manifest["format"] == "parquet"
    assert manifest["session_count"] == 250
    assert manifest["coerced_value_count"] == 2
    assert manifest["files"] == [
        {"path": "out.parquet", "row_count": 250, "size_bytes": 4096, "sha256": "ab" * 32}
    ]
    assert manifest["gateways"] == [
        {
            "region_id": "cn-hangzhou",
            "workspace_id": "w-1",
            "gateway_id": "lc-1",
            "session_count": 250,
            "total_count_first": 248,
            "total_count_last": 251,
            "inserted_count": 4,
            "deleted_count": 1,
            "overlap_count": 3,
            "page_count": 5,
            "repair_page_count": 2,
            "proof": "quiescent",
            "mode": "full",
            "full_because": None,
        }
    ]
    assert manifest["requests"] == {"sent": 9, "ok": 6, "throttled": 1, "retried": 3, "failed": 2}
    assert manifest["pacing"] == {"learnt_rps": 39.99}


def test_run_that_adds_names_all_files_of_the_output_and_counts_its_own_sessions() -> None:
    previous = ManifestFile("part-1", row_count=7, size_bytes=10, sha256="cd" * 32)

    manifest = build(mode="incremental", previous_files=[previous])

    assert manifest["mode"] == "incremental"
    assert [file["path"] for file in manifest["files"]] == ["part-1", "out.parquet"]
    assert manifest["session_count"] == 250


def test_times_are_utc_and_tell_so() -> None:
    manifest = build()

    assert manifest["started_at"] == "2026-07-01T12:00:00.123Z"
    assert manifest["finished_at"] == "2026-07-01T12:00:05.000Z"


def test_gateways_keep_their_order() -> None:
    second = replace(LISTING, gateway=Gateway("cn-hangzhou", "w-0", "lc-0"), proof="unproven")

    manifest = build(listings=[LISTING, second], status="incomplete")

    assert manifest["status"] == "incomplete"
    assert [entry["gateway_id"] for entry in manifest["gateways"]] == ["lc-1", "lc-0"]
    assert [entry["proof"] for entry in manifest["gateways"]] == ["quiescent", "unproven"]


def test_text_is_indented_and_ends_in_a_line_end() -> None:
    text = manifest_of("r", output="用户.parquet").dump().decode()

    assert text.startswith('{\n  "manifest_version": 1,\n')
    assert text.endswith('  "output": "用户.parquet"\n}\n')


def test_manifest_is_read_as_it_was_written() -> None:
    manifest = build_manifest(**FACTS, time_range=TimeRange(86_400_000, None))

    read = parse_manifest(manifest.dump())

    assert read == manifest
    assert read.gateways == (LISTING,)
    assert read.requests == FACTS["requests"]
    assert read.time_range == TimeRange(86_400_000, None)
    assert (read.started_at, read.finished_at) == (STARTED_AT, FINISHED_AT)


def test_keys_of_a_later_version_are_kept() -> None:
    manifest = manifest_of("r", later={"key": 1})

    assert parse_manifest(manifest.dump()).to_dict()["later"] == {"key": 1}


def test_document_is_the_caller_s_own() -> None:
    manifest = manifest_of("r")
    manifest.to_dict()["files"].append("more")

    assert manifest.to_dict()["files"] == []


def test_filter_by_create_time_is_stated() -> None:
    manifest = build(time_range=TimeRange(since_ms=1_793_491_200_000, until_ms=None))

    assert manifest["since"] == "2026-11-01T00:00:00.000Z"
    assert manifest["until"] is None
    assert build()["since"] is None
