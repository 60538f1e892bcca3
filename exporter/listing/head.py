"""The head of a list as the first answer found it; performs no I/O."""

from collections.abc import Sequence


class Head:
    """The first answer about page 1, with which later ones are compared."""

    def __init__(self) -> None:
        self._ids: list[str] | None = None
        self._known: frozenset[str] = frozenset()
        self._newest_ms = 0

    def is_first(self, session_ids: Sequence[str]) -> bool:
        """Whether an answer shows the same rows as the first one."""
        if self._ids is None:
            return True
        size = min(len(session_ids), len(self._ids))
        return list(session_ids[:size]) == self._ids[:size]

    def count_newcomers(
        self, session_ids: Sequence[str], times: Sequence[int | None]
    ) -> int | None:
        """Rows in front of those of the first answer, or of older ones; None where there are none.

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
