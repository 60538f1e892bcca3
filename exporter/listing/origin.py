"""The list as the first answer found it: how much of it was seen since; performs no I/O."""

from collections.abc import Sequence

from exporter.api.roa import SessionPage


class Origin:
    """What every proof refers to: the first answer that had rows.

    In a list that is newest first, a session that is older than the first answer's newest one was
    in the list by then, and so were that answer's own; all others may have been created since.
    """

    def __init__(self, page: SessionPage, times: Sequence[int] | None) -> None:
        self.total_count = page.total_count
        self.session_ids = page.session_ids
        self.seen_count = len(set(page.session_ids))
        """Distinct sessions of the list at that instant that were seen, by their times."""
        self._known = frozenset(page.session_ids)
        self._newest_ms = 0 if times is None else max(times, default=0)

    def count(self, times: Sequence[int] | None, repeated: Sequence[int]) -> None:
        """Take in a later answer's rows, but for those that were seen before."""
        if not times:
            return
        if max(times) < self._newest_ms:
            self.seen_count += len(times) - len(repeated)
            return
        left_out = set(repeated)
        self.seen_count += sum(
            time < self._newest_ms
            for position, time in enumerate(times)
            if position not in left_out
        )

    def count_newcomers(self, page: SessionPage, times: Sequence[int] | None) -> int | None:
        """Rows of a later page 1 in front of the first list; None if nothing of that is left."""
        for position, session_id in enumerate(page.session_ids):
            is_older = times is not None and times[position] < self._newest_ms
            if is_older or session_id in self._known:
                return position
        return None
