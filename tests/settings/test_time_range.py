from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.errors import UsageError
from exporter.model import ALL_TIME, TimeRange
from exporter.runs.prepare import resolve_time_range
from exporter.settings.annotations import check_instant, parse_instant
from exporter.settings.load import load_settings
from exporter.times import LAST_MS, ceil_ms, format_ms

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)
NOW_MS = 1_795_348_800_000
NOVEMBER_MS = 1_793_491_200_000

OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda count: timezone(timedelta(minutes=count)))
INSTANTS = st.datetimes(
    datetime(1970, 1, 2),  # noqa: DTZ001 - the offset is drawn
    datetime(9999, 12, 30),  # noqa: DTZ001 - the offset is drawn
    timezones=OFFSETS,
)


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        ("2026-11-01", NOVEMBER_MS),
        (" 2026-11-01 ", NOVEMBER_MS),
        ("2026-11-01T00:00Z", NOVEMBER_MS),
        ("2026-11-01T08:00:00+08:00", NOVEMBER_MS),
        ("2026-10-31 19:00:00-05:00", NOVEMBER_MS),
        ("2026-11-01t00:00:00.5z", NOVEMBER_MS + 500),
        ("1969-12-31", 0),
        ("7d", NOW_MS - 7 * 86_400_000),
        ("1.5h", NOW_MS - 5_400_000),
        ("30 m", NOW_MS - 1_800_000),
        ("500ms", NOW_MS - 500),
        ("0s", NOW_MS),
        ("9" * 400 + "d", 0),
    ],
)
def test_instant_is_a_date_a_time_or_a_duration_back(text: str, at_ms: int) -> None:
    assert parse_instant(text, now=NOW) == at_ms


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026",
        "30",
        "-7d",
        "7 days",
        "2026-11",
        "2026-02-30",
        "2026-11-01T25:00Z",
        "01.11.2026",
        "2026-11-01T08:00:00+8",
        "٢٠٢٦-11-01",
        "nan",
        "1793491200000",
        "20261101",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="should be a da"):
        parse_instant(text, now=NOW)


def test_time_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="such as 2026-11-01T08:00:00Z"):
        parse_instant("2026-11-01T08:00:00", now=NOW)


@given(at=INSTANTS)
def test_time_means_the_same_in_every_offset(at: datetime) -> None:
    assert parse_instant(at.isoformat(), now=NOW) == ceil_ms(at)
    assert parse_instant(at.astimezone(UTC).isoformat(), now=NOW) == ceil_ms(at)


@given(at_ms=st.integers(0, LAST_MS))
def test_time_of_the_manifest_is_read_back(at_ms: int) -> None:
    text = format_ms(at_ms)

    assert text is not None
    assert parse_instant(text, now=NOW) == at_ms


@given(
    since=st.integers(1, 10),
    length=st.integers(1, 10),
    times=st.lists(st.integers(1, 30), max_size=20),
)
def test_spans_that_follow_each_other_part_the_sessions(
    since: int, length: int, times: list[int]
) -> None:
    middle, end = since + length, since + 2 * length
    whole, former, latter = TimeRange(since, end), TimeRange(since, middle), TimeRange(middle, end)

    for time in times:
        assert whole.includes(time) == former.includes(time) + latter.includes(time)
        assert TimeRange(since).includes(time) == (time >= since)
        assert TimeRange(until_ms=end).includes(time) == (time < end)


@pytest.mark.parametrize("create_time", [None, 0, "2026-11-01", True])
def test_session_without_a_create_time_is_kept(create_time: object) -> None:
    assert TimeRange(NOVEMBER_MS, NOW_MS).includes(create_time)


def test_nothing_given_is_all_time() -> None:
    assert resolve_time_range(None, None, now=NOW) == ALL_TIME
    assert not ALL_TIME.has_bounds


def test_both_are_counted_from_one_start() -> None:
    span = resolve_time_range("7d", "1d", now=NOW)

    assert span == TimeRange(NOW_MS - 7 * 86_400_000, NOW_MS - 86_400_000)


@pytest.mark.parametrize(
    ("since", "until", "words"),
    [
        ("1d", "7d", "--since 1d is not before --until 7d"),
        ("2026-11-01", "2026-11-01", "--since 2026-11-01 is not before"),
        ("2026-11-23", None, "--since 2026-11-23 is in the future: 2026-11-23T00:00:00.000Z"),
        ("soon", None, "--since 'soon' should be a date"),
        (None, "soon", "--until 'soon' should be a date"),
    ],
)
def test_span_that_can_hold_no_session_is_refused_with_a_hint(
    since: str | None, until: str | None, words: str
) -> None:
    with pytest.raises(UsageError, match=words) as raised:
        resolve_time_range(since, until, now=NOW)

    assert raised.value.hint


def test_until_may_be_to_come() -> None:
    assert resolve_time_range(None, "2027-01-01", now=NOW).until_ms == 1_798_761_600_000


def test_dates_and_times_of_toml_are_taken_as_their_texts() -> None:
    assert check_instant(date(2026, 11, 1)) == "2026-11-01"
    assert check_instant(datetime(2026, 11, 1, 8, tzinfo=UTC)) == "2026-11-01T08:00:00+00:00"


def test_bad_text_is_refused_where_settings_are_loaded() -> None:
    with pytest.raises(UsageError, match=r"--since 'last week': should be a date") as raised:
        load_settings({"since": "last week"}, environ={}, config_file=None)

    assert raised.value.hint is not None
    assert raised.value.exit_code == 2
