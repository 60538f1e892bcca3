from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from exporter.listing.lookups import MAX_TRIES, Lookup, PageTimes, summarize_times
from exporter.listing.windows import Window

PAGE_SIZE = 10
Row = tuple[str, int | None]


def show(rows: Sequence[Row], window: Window) -> PageTimes:
    times = [time for _, time in rows[window.start : window.stop]]
    return summarize_times(times, is_end=len(times) < window.page_size)


def look_for(rows: Sequence[Row], session_id: str, place: int, **changes: Any) -> Lookup:
    """A lookup after its search in a list that holds still."""
    time = changes.pop("create_time_ms", dict(rows).get(session_id))
    lookup = Lookup(0, session_id, time, page_size=PAGE_SIZE)
    shown: dict[Window, PageTimes] = {}
    while (window := lookup.choose_window(place, shown)) is not None:
        assert window not in shown
        assert len(shown) <= MAX_TRIES
        shown[window] = show(rows, window)
        found = [each for each, _ in rows[window.start : window.stop]]
        if session_id in found:
            lookup.place = window.start + found.index(session_id)
    assert not lookup.is_open
    return lookup


def build_rows(count: int, *, tie: int = 1) -> list[Row]:
    return [(f"s-{number}", (count - number) // tie * 1000 + 1000) for number in range(count)]


@given(
    count=st.integers(1, 400),
    share=st.floats(0, 0.999),
    off=st.integers(-400, 400),
    tie=st.sampled_from([1, 1, 2, 4]),
)
def test_session_is_found_wherever_it_was_expected(
    count: int, share: float, off: int, tie: int
) -> None:
    place = int(share * count)

    lookup = look_for(build_rows(count, tie=tie), f"s-{place}", place + off)

    assert lookup.place == place


@given(count=st.integers(2, 400), share=st.floats(0, 0.999), off=st.integers(-400, 400))
def test_session_that_went_is_shown_to_have_gone(count: int, share: float, off: int) -> None:
    rows = build_rows(count)
    session_id, time = rows.pop(int(share * count))

    lookup = look_for(rows, session_id, int(share * count) + off, create_time_ms=time)

    assert lookup.is_gone


def test_session_that_went_from_between_two_pages_is_shown_to_have_gone_by_one_that_has_both() -> (
    None
):
    rows = build_rows(100)
    session_id, time = rows.pop(50)
    lookup = Lookup(0, session_id, time, page_size=PAGE_SIZE)
    shown = {Window(page, PAGE_SIZE): show(rows, Window(page, PAGE_SIZE)) for page in (5, 6)}

    window = lookup.choose_window(50, shown)

    assert window is not None
    assert window.start < 50 < window.stop


def test_session_without_a_create_time_is_found_two_pages_away() -> None:
    rows: list[Row] = [*build_rows(100)]
    rows[70] = ("s-70", None)

    assert look_for(rows, "s-70", 50).place == 70


def test_session_without_a_create_time_is_lost_and_not_gone_where_it_is_not_seen() -> None:
    lookup = look_for(build_rows(100), "other", 50, create_time_ms=None)

    assert (lookup.is_lost, lookup.is_gone) == (True, False)


def test_session_among_disordered_rows_is_looked_for_beside_them() -> None:
    rows = build_rows(100)
    rows[51], rows[68] = rows[68], rows[51]

    assert look_for(rows, rows[68][0], 45).place == 68


def test_session_is_not_gone_because_a_disordered_answer_lacks_it() -> None:
    rows = build_rows(100)
    session_id, time = rows.pop(55)
    rows[51], rows[58] = rows[58], rows[51]

    lookup = look_for(rows, session_id, 55, create_time_ms=time)

    assert (lookup.is_lost, lookup.is_gone) == (True, False)


def test_session_in_a_tie_larger_than_a_page_is_lost_and_not_gone() -> None:
    rows: list[Row] = [*build_rows(100)]
    rows[30:60] = [(session_id, 5) for session_id, _ in rows[30:60]]
    rows[:30] = [(session_id, 9) for session_id, _ in rows[:30]]

    lookup = look_for(rows, "other", 40, create_time_ms=5)

    assert lookup.is_lost


def test_answer_that_ends_short_of_its_total_shows_nobody_gone() -> None:
    rows = build_rows(95)
    lookup = Lookup(0, "other", 1, page_size=PAGE_SIZE)
    shown: dict[Window, PageTimes] = {}
    while (window := lookup.choose_window(94, shown)) is not None:
        shown[window] = summarize_times(
            [row[1] for row in rows[window.start : window.stop]], is_end=False
        )

    assert (lookup.is_lost, lookup.is_gone) == (True, False)
