"""The head of a list as the first answer found it; performs no I/O."""

from collections.abc import Sequence


class Head:
    """What later answers about page 1 are compared with."""

    def __init__(self) -> None:
        self._ids: list[str] | None = None
        self._known: frozenset[str] = frozenset()
        self._newest_ms = 0

    def is_first(self, session_ids: Sequence[str]) -> bool:
        """Whether an answer shows just what the first one did."""
        if self._ids is None:
            return True
        size = min(len(session_ids), len(self._ids))
        return list(session_ids[:size]) == self._ids[:size]

    def count_newcomers(
        self, session_ids: Sequence[str], times: Sequence[int | None]
    ) -> int | None:
        """Rows in front of what the first answer showed, or of older ones; None without any.

        The first answer is kept.
        """
        if self._ids is None:
            self._ids = list(session_ids)
            self._known = frozenset(session_ids)
            self._newest_ms = max((time for time in times if time is not None), default=0)
        for at, (session_id, time) in enumerate(zip(session_ids, times, strict=True)):
            if session_id in self._known or (time is not None and time < self._newest_ms):
                return at
        return None
