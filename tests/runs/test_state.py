from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.listing.bookmark import Anchor, Bookmark, Unfinished
from exporter.model import Gateway
from exporter.runs.state import (
    FullRunNeeded,
    State,
    dump_state,
    next_exported_at,
    read_state,
    sum_content,
)

GATEWAY = Gateway("cn-hangzhou", "w-1", "lc-1")
OTHER = replace(GATEWAY, gateway_id="lc-2")
EXPORTED_AT = datetime(2026, 7, 1, 12, 0, 0, 123000, tzinfo=UTC)
KNOWN = Bookmark(
    total_count=250,
    expired_count=7,
    head=("livy-9", "会话"),
    head_oldest_ms=1_782_820_800_000,
    head_newest_ms=1_782_820_800_002,
    anchors=(Anchor(-7, "livy-0"), Anchor(200, "livy-5", 1_782_820_800_000)),
    unfinished=(Unfinished(256, "livy-9", 1_782_820_800_001, "ab" * 8, 1_782_820_800_009),),
    slack=2,
    page_cap=50,
    full_at_ms=1_782_820_800_005,
)
STATE = State(
    run_id="r-1",
    exporter_version="0.1.0",
    exported_at=EXPORTED_AT,
    region_id="cn-hangzhou",
    output="out/",
    format_name="parquet",
    gateways={GATEWAY: KNOWN},
)
TEXT = dump_state(STATE)

serials = st.integers(0, 2**53)
texts = st.text(st.characters(exclude_categories=["Cs"]))
knowns = st.builds(
    Bookmark,
    total_count=serials,
    expired_count=serials,
    head=st.lists(texts, max_size=3).map(tuple),
    head_oldest_ms=serials,
    head_newest_ms=st.none() | serials,
    anchors=st.lists(st.builds(Anchor, serials, texts, st.none() | serials), max_size=3).map(tuple),
    unfinished=st.lists(
        st.builds(Unfinished, serials, texts, serials, texts, serials), max_size=3
    ).map(tuple),
    slack=serials,
    page_cap=st.none() | serials,
    full_at_ms=serials,
)


def read(
    text: bytes,
    *,
    output: str = "out/",
    region_id: str = "cn-hangzhou",
    gateways: tuple[Gateway, ...] = (GATEWAY,),
) -> State | FullRunNeeded:
    return read_state(text, output=output, region_id=region_id, gateways=gateways)


@given(known=knowns, output=texts)
def test_state_that_was_written_is_read(known: Bookmark, output: str) -> None:
    state = replace(STATE, gateways={GATEWAY: known, OTHER: KNOWN}, output=output)

    assert read(dump_state(state), output=output) == state


@pytest.mark.parametrize("length", range(len(TEXT) - 1))
def test_truncated_state_needs_a_full_run(length: int) -> None:
    assert read(TEXT[:length]) == FullRunNeeded("the state of the last run is damaged")


@pytest.mark.parametrize("place", range(len(TEXT) - 1))
def test_flipped_byte_needs_a_full_run(place: int) -> None:
    for mask in (1, 2, 16, 128, 255):
        damaged = TEXT[:place] + bytes([TEXT[place] ^ mask]) + TEXT[place + 1 :]

        assert isinstance(read(damaged), FullRunNeeded)


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{}", b"7", b'"x"', b"\xff", b"[[" * 9999])
def test_what_is_no_state_needs_a_full_run(text: bytes) -> None:
    assert isinstance(read(text), FullRunNeeded)


def test_sound_checksum_over_other_fields_needs_a_full_run() -> None:
    content = {"state_version": 1, "run_id": "r-1"}

    assert isinstance(read(orjson.dumps(content | {"sha256": sum_content(content)})), FullRunNeeded)


def test_state_from_the_future_needs_a_full_run_and_says_so() -> None:
    assert read(orjson.dumps({"state_version": 3, "unheard_of": []})) == FullRunNeeded(
        "the state of the last run is of the newer version 3"
    )


def test_state_of_version_1_is_gone_on_from() -> None:
    content = orjson.loads(TEXT)
    del content["sha256"]
    content["state_version"] = 1
    (entry,) = content["gateways"]
    del entry["head_newest_ms"], entry["full_at_ms"]
    entry["anchors"] = [each[:2] for each in entry["anchors"]]
    entry["unfinished"] = [each[:4] for each in entry["unfinished"]]

    state = read(orjson.dumps(content | {"sha256": sum_content(content)}))

    assert isinstance(state, State)
    assert state.gateways[GATEWAY] == replace(
        KNOWN,
        head_newest_ms=None,
        full_at_ms=0,
        anchors=(Anchor(-7, "livy-0"), Anchor(200, "livy-5")),
        unfinished=(Unfinished(256, "livy-9", 1_782_820_800_001, "ab" * 8),),
    )


def test_state_says_a_version_that_earlier_programs_do_not_go_on_from() -> None:
    assert orjson.loads(TEXT)["state_version"] == 2


def test_state_of_another_output_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="another output: 'out/', not 'else/'") as caught:
        read(TEXT, output="else/")

    assert "--state" in (caught.value.hint or "")


def test_state_of_another_region_is_refused() -> None:
    with pytest.raises(UsageError, match="another region: cn-hangzhou, not cn-beijing"):
        read(TEXT, region_id="cn-beijing")


def test_state_of_other_gateways_only_is_refused() -> None:
    with pytest.raises(UsageError, match="other gateways: w-1/lc-1 and not w-1/lc-2"):
        read(TEXT, gateways=(OTHER,))


def test_gateway_more_than_the_state_has_is_fine() -> None:
    assert read(TEXT, gateways=(OTHER, GATEWAY)) == STATE


def test_state_of_lists_that_can_only_be_read_in_full_is_of_any_gateway() -> None:
    state = replace(STATE, gateways={})

    assert read(dump_state(state), gateways=(OTHER,)) == state


def test_rows_are_exported_now() -> None:
    now = datetime(2026, 7, 1, 15, 0, 0, 7999, tzinfo=timezone(timedelta(hours=1)))

    assert next_exported_at(now, None) == datetime(2026, 7, 1, 14, 0, 0, 7000, tzinfo=UTC)
    assert next_exported_at(now, STATE) == datetime(2026, 7, 1, 14, 0, 0, 7000, tzinfo=UTC)


@pytest.mark.parametrize("back_s", [0, 1, 86_400 * 365])
def test_rows_are_newer_than_the_last_runs_although_the_clock_was_set_back(back_s: int) -> None:
    now = EXPORTED_AT - timedelta(seconds=back_s)

    assert next_exported_at(now, STATE) == EXPORTED_AT + timedelta(milliseconds=1)
