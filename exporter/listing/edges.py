"""Whether one end of a list was read often enough to see all that moved there; performs no I/O."""

from collections.abc import Sequence

from exporter.listing.overlap import judge_overlap


class EdgeWatch:
    """Compares each answer about one end of a list with the one before it.

    Where two of them share sessions that stayed, the later one shows all that came to this end in
    between.
    """

    def __init__(self, *, at_head: bool) -> None:
        self._at_head = at_head
        self._first_ids: list[str] = []
        self._first_known: frozenset[str] = frozenset()
        self._newest_ms = 0
        self._ids: list[str] = []
        self.looks = 0
        self.is_joined = True
        """Whether each answer was joined to the one before it."""

    def is_first(self, ids: Sequence[str]) -> bool:
        """Whether an answer shows just what the first one did."""
        size = min(len(ids), len(self._first_ids))
        return self.looks == 0 or list(ids[:size]) == self._first_ids[:size]

    def count_newcomers(self, ids: Sequence[str], times: Sequence[int | None]) -> int | None:
        """Rows in front of what the first answer showed, or of older ones; None without any."""
        for at, (session_id, time) in enumerate(zip(ids, times, strict=True)):
            if session_id in self._first_known or (time is not None and time < self._newest_ms):
                return at
        return None if self.looks > 0 else 0

    def note(self, session_ids: Sequence[str], times: Sequence[int | None]) -> None:
        """Take in the sessions of an answer, in list order."""
        ids = list(session_ids)
        self.looks += 1
        if self.looks == 1:
            self._first_ids = self._ids = ids
            self._first_known = frozenset(ids)
            self._newest_ms = max((time for time in times if time is not None), default=0)
            return
        places = {session_id: at for at, session_id in enumerate(self._ids)}
        shared = [(places[each], at) for at, each in enumerate(ids) if each in places]
        found = shared and judge_overlap(
            [then for then, _ in shared],
            [now for _, now in shared],
            row_counts=(len(self._ids), len(ids)),
            both_at_head=self._at_head,
            both_at_end=not self._at_head,
        )
        self.is_joined &= found == "joined"
        self._ids = ids
