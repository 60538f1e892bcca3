"""The end of a list is found whatever its total says."""

from dataclasses import dataclass, field

from exporter.listing.ends import PROBE_WAITS_S, EndSearch
from exporter.listing.observations import PageObservation


@dataclass
class Seen:
    """Answers in their order, as an end search takes them in."""

    search: EndSearch = field(default_factory=EndSearch)
    count: int = 0

    def show(self, start: int, row_count: int, *, total_count: int, size: int = 100) -> None:
        page = PageObservation(start, row_count, size, total_count, 1, None, True)
        self.search.note(self.count, page)
        self.count += 1


def test_short_answer_shows_the_end_where_its_total_claims_no_more() -> None:
    seen = Seen()

    seen.show(0, 100, total_count=140)
    seen.show(100, 40, total_count=140)

    assert seen.search.page == 1


def test_full_answer_shows_no_end_even_where_the_total_ends_with_it() -> None:
    seen = Seen()

    seen.show(0, 100, total_count=100)

    assert not seen.search.is_found


def test_end_behind_the_total_takes_two_windows() -> None:
    seen = Seen()

    seen.show(0, 100, total_count=50)
    seen.show(100, 40, total_count=50)
    once = seen.search.is_found
    seen.show(90, 50, total_count=50, size=90)

    assert not once
    assert seen.search.is_found


def test_rows_that_always_end_at_one_place_show_a_depth() -> None:
    seen = Seen()

    seen.show(0, 100, total_count=500)
    for start, size in ((100, 100), (130, 65), (111, 37), (126, 63)):
        seen.show(start, 150 - start, total_count=500, size=size)

    assert not seen.search.is_found
    assert seen.search.depth == (150, 500)


def test_rows_that_end_at_several_places_show_a_total_of_some_time_ago() -> None:
    seen = Seen()

    seen.show(0, 100, total_count=155)
    seen.show(100, 50, total_count=155)
    seen.show(130, 21, total_count=155, size=65)

    assert seen.search.is_found


def test_answers_that_lack_rows_in_the_middle_show_no_end() -> None:
    seen = Seen()

    for start in range(0, 400, 100):
        seen.show(start, 100, total_count=400)
    for start in range(0, 300, 100):
        seen.show(start, 99, total_count=400)

    assert not seen.search.is_found


def test_looks_at_an_end_that_the_total_contradicts_outlast_a_minute_and_end() -> None:
    search = EndSearch()

    waits = [search.next_wait_s() for _ in range(len(PROBE_WAITS_S) + 1)]

    assert waits[-1] is None
    assert sum(wait for wait in waits if wait is not None) > 60


def test_empty_answers_show_no_end_behind_rows_that_claim_more() -> None:
    seen = Seen()

    # The list has moved since: what stood behind these rows stands in front of the place now.
    seen.show(0, 100, total_count=150)
    seen.search.note_empty(100)
    seen.search.note_empty(100)

    assert not seen.search.is_found


def test_end_is_none_any_more_once_rows_are_shown_behind_it() -> None:
    seen = Seen()

    seen.show(0, 1, total_count=1)
    was_found = seen.search.is_found
    seen.show(1, 1, total_count=0, size=1)

    assert was_found
    assert not seen.search.is_found


def test_end_stays_one_while_the_total_counts_the_sessions_that_came() -> None:
    seen = Seen()

    seen.show(100, 40, total_count=140)
    seen.show(100, 45, total_count=145)
    seen.show(45, 45, total_count=150, size=45)

    assert seen.search.page == 1


def test_rows_that_are_hidden_at_the_end_show_none_although_it_moves() -> None:
    seen = Seen()

    for total_count, size in ((140, 100), (141, 90), (143, 95)):
        start = 2 * size if 2 * size < total_count - 3 else size
        seen.show(start, total_count - 3 - start, total_count=total_count, size=size)

    assert not seen.search.is_found
