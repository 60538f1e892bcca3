from math import inf

from hypothesis import given
from hypothesis import strategies as st

from exporter.listing.intervals import find_gaps

bounds = st.integers(-20, 20)


@given(intervals=st.lists(st.tuples(bounds, bounds)), start=bounds, length=st.integers(0, 30))
def test_gaps_are_what_no_interval_holds(
    intervals: list[tuple[int, int]], start: int, length: int
) -> None:
    held = {number for low, high in intervals for number in range(low, high)}

    gaps = find_gaps(intervals, start, start + length)

    open_numbers = [number for low, high in gaps for number in range(int(low), int(high))]
    assert open_numbers == [n for n in range(start, start + length) if n not in held]
    assert all(low < high for low, high in gaps)


def test_whole_line_is_covered_only_by_intervals_that_leave_no_number_out() -> None:
    assert find_gaps([(-inf, 5), (5, inf)], -inf, inf) == []
    assert find_gaps([(-inf, 5), (6, inf)], -inf, inf) == [(5, 6)]
    assert find_gaps([(-inf, 5)], -inf, inf) == [(5, inf)]
    assert find_gaps([], -inf, inf) == [(-inf, inf)]
