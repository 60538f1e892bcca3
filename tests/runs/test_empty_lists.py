"""An empty list does not remove published sessions."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from exporter.destinations.resolve import resolve_destination
from exporter.errors import EmptiedError
from exporter.model import ALL_TIME, Gateway, ListingFacts, TimeRange
from exporter.runs.empty_lists import require_no_loss
from exporter.runs.manifest import Manifest
from exporter.runs.state import State, dump_state, read_state
from exporter.sinks.interface import WrittenFile
from exporter.stores.interface import FileFacts
from tests.support.manifests import manifest_of
from tests.support.program import Program

EXPORT = ("export", "--progress", "none", "--output")
OF_ONE = ("--workspace", "w-1", "--gateway", "lc-a")
OF_NONE = ("--workspace", "w-2", "--gateway", "lc-empty")
ONE, TWO = Gateway("cn-hangzhou", "w-1", "lc-1"), Gateway("cn-hangzhou", "w-1", "lc-2")


@pytest.mark.parametrize("output", ["out.parquet", "out.ndjson.gz", "out/"])
def test_gateway_that_shows_nothing_replaces_no_export_of_another(
    program: "Program", output: str
) -> None:
    program.run(*EXPORT, output, *OF_ONE)
    before = program.listing()

    ended = program.run(*EXPORT, output, *OF_NONE)

    assert ended.code == 4
    assert ended.stderr_lines == [
        f"error: no session was found of w-2/lc-empty, and '{output}' holds 205 sessions",
        (
            "hint: nothing was published: check --workspace, --gateway, --since and --until, and"
            " run again; --allow-empty publishes it without them"
        ),
    ]
    after = program.listing()
    assert {name: after[name] for name in before} == before

    meant = program.run(*EXPORT, output, *OF_NONE, "--allow-empty")
    assert meant.code == 0, meant.stderr


def test_first_export_may_be_empty_and_so_may_the_next(program: "Program") -> None:
    first = program.run(*EXPORT, "out.parquet", *OF_NONE)
    second = program.run(*EXPORT, "out.parquet", *OF_NONE)

    assert (first.code, second.code) == (0, 0)
    assert pq.read_metadata(program.folder / "out.parquet").num_rows == 0


def test_stdout_takes_an_empty_export(program: "Program") -> None:
    ended = program.run(*EXPORT, "-", *OF_NONE)

    assert (ended.code, ended.stdout) == (0, "")


@pytest.mark.parametrize(
    ("content", "is_kept"), [(b'{"sessionId":"s"}\n', True), (b"no JSON", True), (b"", False)]
)
def test_file_without_a_manifest_is_looked_into(
    program: "Program", content: bytes, is_kept: bool
) -> None:
    (program.folder / "out.ndjson").write_bytes(content)

    ended = program.run(*EXPORT, "out.ndjson", *OF_NONE)

    assert ended.code == (4 if is_kept else 0), ended.stderr
    assert (program.folder / "out.ndjson").read_bytes() == (content if is_kept else b"")


def test_output_that_was_removed_is_not_missed(program: "Program") -> None:
    program.run(*EXPORT, "out.parquet", *OF_ONE)
    (program.folder / "out.parquet").unlink()

    assert program.run(*EXPORT, "out.parquet", *OF_NONE).code == 0


def test_span_without_sessions_takes_no_other_ones_away(program: "Program") -> None:
    program.run(*EXPORT, "out.parquet", *OF_ONE)

    ended = program.run(*EXPORT, "out.parquet", *OF_ONE, "--until", "2001-01-01")

    assert ended.code == 4
    assert "--since and --until" in ended.stderr


def facts_of(gateway: Gateway, session_count: int, total_count: int) -> ListingFacts:
    return ListingFacts(
        gateway=gateway,
        session_count=session_count,
        total_count_first=total_count,
        total_count_last=total_count,
        inserted_count=0,
        deleted_count=0,
        overlap_count=0,
        page_count=1,
        repair_page_count=0,
        proof="quiescent",
    )


HELD = WrittenFile(FileFacts("out.ndjson", 7, ""), 9)


def held_before(files: Sequence[WrittenFile] = (HELD,), **changes: Any) -> Manifest:
    entries = [
        {
            "region_id": "cn-hangzhou",
            "workspace_id": "w-1",
            "gateway_id": name,
            "session_count": count,
            "total_count_last": 9,
        }
        for name, count in (("lc-1", 9), ("lc-2", 0))
    ]
    return manifest_of("r", files, **{"gateways": entries, **changes})


DAY = TimeRange(0, 86_400_000)
OF_DAY: dict[str, Any] = {"since": "1970-01-01T00:00:00.000Z", "until": "1970-01-02T00:00:00.000Z"}


@pytest.mark.parametrize(
    ("manifest", "span", "total_count", "is_kept"),
    [
        pytest.param(held_before(), ALL_TIME, 0, True, id="it had sessions"),
        pytest.param(held_before(), DAY, 0, True, id="it shows nothing at all"),
        pytest.param(held_before(), DAY, 5, False, id="it has some of another time"),
        pytest.param(held_before(**OF_DAY), DAY, 5, True, id="the output has some of that time"),
        pytest.param(held_before(gateways=[]), ALL_TIME, 0, False, id="it is new"),
        pytest.param(held_before(files=[]), ALL_TIME, 0, False, id="the output is empty"),
    ],
)
def test_gateway_is_missed_where_the_output_has_sessions_of_it(
    manifest: Manifest, span: TimeRange, total_count: int, is_kept: bool, tmp_path: Path
) -> None:
    (tmp_path / "out.ndjson").write_bytes(b"9 lines")
    destination = resolve_destination(str(tmp_path / "out.ndjson"), chosen=None)
    listings = [facts_of(ONE, 0, total_count), facts_of(TWO, 3, 3)]

    if not is_kept:
        require_no_loss(destination, manifest, listings, time_range=span)
        return
    with pytest.raises(EmptiedError, match=r"no session was found of w-1/lc-1, and .* of it"):
        require_no_loss(destination, manifest, listings, time_range=span)


def test_gateway_of_a_dataset_that_was_added_to_is_known_by_its_total(tmp_path: Path) -> None:
    (tmp_path / "out.ndjson").write_bytes(b"9 lines")
    destination = resolve_destination(str(tmp_path / "out.ndjson"), chosen=None)
    listings = [facts_of(ONE, 3, 3), facts_of(TWO, 0, 0)]

    require_no_loss(destination, held_before(), listings, time_range=ALL_TIME)
    with pytest.raises(EmptiedError, match="lc-2"):
        require_no_loss(destination, held_before(mode="incremental"), listings, time_range=ALL_TIME)


def test_incremental_run_says_that_a_gateway_fell_silent(program: "Program") -> None:
    """Add a bookmark with sessions for a gateway whose list is empty."""
    run = (*EXPORT, "out/", "--incremental", "--workspace", "w-1", "--workspace", "w-2")
    program.run(*run)
    path = program.folder / "out/_exporter/state.json"
    state = read_state(
        path.read_bytes(), output=str(path.parent.parent), region_id="cn-hangzhou", gateways=()
    )
    assert isinstance(state, State)
    empty = Gateway("cn-hangzhou", "w-2", "lc-empty")
    known = state.gateways[Gateway("cn-hangzhou", "w-1", "lc-a")]
    path.write_bytes(dump_state(replace(state, gateways={**state.gateways, empty: known})))

    ended = program.run(*run)

    assert ended.code == 0, ended.stderr
    assert "warning: w-2/lc-empty shows no session, and had 205 before" in ended.stderr
    kept = json.loads(path.read_bytes())["gateways"]
    assert [each["total_count"] for each in kept if each["gateway_id"] == "lc-empty"] == [205]

    meant = program.run(*run, "--allow-empty")
    assert "shows no session" not in meant.stderr
    assert "lc-empty" not in path.read_text()
