import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.listing.windows import Window, centre_on, reach_from, reach_on, surround

places = st.integers(0, 30_000)
sizes = st.integers(1, 100)


def shown_by(windows: list[Window]) -> set[int]:
    return {place for window in windows for place in range(window.start, window.stop)}


@given(start=places, most=sizes)
def test_window_shows_its_start_and_reaches_the_furthest_of_all(start: int, most: int) -> None:
    window = reach_from(start, most=most)

    assert window.start <= start < window.stop
    assert window.page_size <= most
    assert window.stop == max((start // size + 1) * size for size in range(1, most + 1))


@given(shown=places, most=sizes, overlap=st.integers(0, 20))
def test_window_that_goes_on_leaves_nothing_out_and_gets_on(
    shown: int, most: int, overlap: int
) -> None:
    window = reach_on(shown, most=most, overlap=overlap)

    assert window.start <= shown < window.stop
    assert window.page_size <= most


@pytest.mark.parametrize("overlap", [1, 4, 12])
def test_window_of_a_hundred_rows_shares_as_many_as_asked_for(overlap: int) -> None:
    for shown in range(overlap, 20_000):
        window = reach_on(shown, most=100, overlap=overlap)

        assert window.start <= shown - overlap
        assert window.stop > shown


@pytest.mark.parametrize("boundary", [1, 50, 99, 100, 101, 150, 200, 4_700, 20_000])
def test_boundary_of_two_pages_falls_well_inside_a_window_laid_over_it(boundary: int) -> None:
    window = centre_on(boundary, boundary, most=100)

    assert boundary - window.start >= min(boundary, 33)
    assert window.stop - boundary >= 33


@given(
    start=places,
    length=st.integers(0, 500),
    margin=st.integers(0, 60),
    most=st.integers(10, 100),
    overlap=st.integers(0, 5),
)
def test_range_is_shown_whole(
    start: int, length: int, margin: int, most: int, overlap: int
) -> None:
    windows = surround(start, start + length, margin=margin, most=most, overlap=overlap)

    assert set(range(start, start + length)) <= shown_by(windows)
    assert len(windows) <= 2 + (length + 2 * margin) // (most // 3 - 2 * (overlap > 0))
