from collections.abc import Mapping

import pytest

from exporter.listing.lookups import MAX_TRIES, Lookup, PageTimes

PAGE_ROWS = 10
PAGES = 64


def show(times: list[int]) -> PageTimes:
    if not times:
        return PageTimes(None, None, is_sorted=True)
    return PageTimes(
        max(times), min(times), is_sorted=times == sorted(times, reverse=True), is_last=False
    )


def build_pages(*, without: int | None = None) -> dict[int, list[int]]:
    """Create times that fall by 1,000 s from row to row."""
    times = [1_000_000 * (PAGES * PAGE_ROWS - at) for at in range(PAGES * PAGE_ROWS)]
    times = [time for time in times if time != without]
    starts = range(0, len(times), PAGE_ROWS)
    return {at // PAGE_ROWS + 1: times[at : at + PAGE_ROWS] for at in starts}


def search(lookup: Lookup, pages: Mapping[int, list[int]], *, expected: int) -> list[int]:
    """The pages that were asked for."""
    shown: dict[int, PageTimes] = {}
    asked: list[int] = []
    while (page_num := lookup.choose_page(expected, shown)) is not None:
        asked.append(page_num)
        times = pages.get(page_num, [])
        shown[page_num] = show(times)
        if lookup.create_time_ms in times:
            lookup.place = (page_num - 1) * PAGE_ROWS + times.index(lookup.create_time_ms)
    return asked


@pytest.mark.parametrize("expected", [1, 5, 20, 31, 33, 60, 64, 70])
def test_session_that_moved_is_found_by_its_time(expected: int) -> None:
    pages = build_pages()
    lookup = Lookup(0, "s", pages[32][4])

    asked = search(lookup, pages, expected=expected)

    assert lookup.place == 31 * PAGE_ROWS + 4
    assert len(asked) <= MAX_TRIES
    if abs(expected - 32) == 1:
        assert asked == [expected, 32]


def test_session_that_is_where_it_should_be_costs_one_page() -> None:
    pages = build_pages()

    assert search(Lookup(0, "s", pages[32][4]), pages, expected=32) == [32]


def test_page_with_newer_and_older_sessions_shows_that_one_has_gone() -> None:
    gone_ms = build_pages()[32][4]
    lookup = Lookup(0, "s", gone_ms)

    asked = search(lookup, build_pages(without=gone_ms), expected=32)

    assert asked == [32]
    assert lookup.is_gone


def test_session_between_two_pages_has_gone_when_both_were_read_again() -> None:
    gone_ms = build_pages()[32][0]
    lookup = Lookup(0, "s", gone_ms)

    asked = search(lookup, build_pages(without=gone_ms), expected=32)

    assert asked == [32, 31, 31, 32]
    assert lookup.is_gone


def test_session_that_comes_to_light_when_its_pages_are_read_again_has_not_gone() -> None:
    pages = build_pages()
    wanted_ms = pages[32][0]
    without = build_pages(without=wanted_ms)
    lookup = Lookup(0, "s", wanted_ms)
    shown = {31: show(without[31]), 32: show(without[32])}

    page_num = lookup.choose_page(32, shown)

    assert page_num == 31
    assert not lookup.is_gone


def test_session_that_moves_while_it_is_looked_for_is_followed() -> None:
    pages = build_pages()
    wanted_ms = pages[30][4]
    shown = {each: show(pages[each]) for each in (31, 32)}
    # The page in front of them was read before it moved there.
    shown[30] = show(build_pages(without=wanted_ms)[29])
    lookup = Lookup(0, "s", wanted_ms)
    asked = []
    while (page_num := lookup.choose_page(32, shown)) is not None:
        asked.append(page_num)
        shown[page_num] = show(pages[page_num])
        if wanted_ms in pages[page_num]:
            lookup.place = 29 * PAGE_ROWS + 4

    assert asked[-1] == 30
    assert lookup.place == 29 * PAGE_ROWS + 4


@pytest.mark.parametrize(("behind_ms", "is_gone"), [(61_000, True), (30_000, False), (0, False)])
def test_session_older_than_the_end_of_the_list_has_gone(behind_ms: int, *, is_gone: bool) -> None:
    lookup = Lookup(0, "s", 1_000_000 - behind_ms)
    last = PageTimes(2_000_000, 1_000_000, is_sorted=True, is_last=True)

    page_num = lookup.choose_page(3, {3: last})

    assert lookup.is_gone == is_gone
    assert (page_num is None) == is_gone


def test_session_is_lost_where_a_page_is_out_of_order() -> None:
    lookup = Lookup(0, "s", 1_500_000)

    assert lookup.choose_page(3, {3: PageTimes(2_000_000, 1_000_000, is_sorted=False)}) is None
    assert lookup.is_lost
    assert not lookup.is_gone


def test_session_without_a_time_is_looked_for_where_it_should_be_alone() -> None:
    lookup = Lookup(0, "s", None)

    assert lookup.choose_page(3, {}) == 3
    assert lookup.choose_page(3, {3: PageTimes(2_000_000, 1_000_000, is_sorted=True)}) is None
    assert lookup.is_lost


def test_search_ends_after_so_many_pages() -> None:
    lookup = Lookup(0, "s", 5)
    shown: dict[int, PageTimes] = {}
    asked = 0
    while (page_num := lookup.choose_page(1, shown)) is not None:
        asked += 1
        shown[page_num] = PageTimes(2_000_000, 1_000_000, is_sorted=True)

    assert asked == MAX_TRIES
    assert lookup.is_lost
