"""Which answers are evidence of nothing until they were told twice; performs no I/O.

An answer with a session twice hides another one, and one that is cut short may lack any row.
"""

from collections import Counter
from collections.abc import Sequence

from exporter.listing.windows import Window
from exporter.model import SessionPage

MAX_TELLS = 4
"""A page is asked for so many times at most, while it is evidence of nothing."""


class Doubts:
    """Remembers how doubtful answers looked, by the windows they were about."""

    def __init__(self) -> None:
        self._tells: Counter[Window] = Counter()
        self._told: dict[Window, tuple[frozenset[str], int, str]] = {}

    def is_evidence(self, window: Window, page: SessionPage, *, end_is_told: bool = False) -> bool:
        """Whether an answer with rows shows all that stood between the first and the last.

        `end_is_told` says that rows have ended there before.
        """
        doubled = find_doubled(page.session_ids)
        stop = window.start + page.row_count
        is_cut = page.row_count < window.page_size and stop != page.total_count
        if not doubled and (not is_cut or end_is_told):
            return True
        former = self._told.get(window)
        last_id = page.session_ids[-1] if page.session_ids else ""
        self._told[window] = doubled, page.row_count, last_id
        self._tells[window] += 1
        # Rows come and go meanwhile: an end is the same at the same place, or behind the same row.
        return (
            former is not None
            and former[0] == doubled
            and (former[1] == page.row_count or former[2] == last_id)
        )

    def may_ask_again(self, window: Window) -> bool:
        return self._tells[window] < MAX_TELLS


def find_doubled(session_ids: Sequence[str]) -> frozenset[str]:
    """Those that stand in an answer twice."""
    if len(set(session_ids)) == len(session_ids):
        return frozenset()
    return frozenset(each for each, count in Counter(session_ids).items() if count > 1)
