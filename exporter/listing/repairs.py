"""Where to read again what answers left open; performs no I/O."""

from collections import Counter

from exporter.listing.evidence import Evidence
from exporter.listing.intervals import Interval
from exporter.listing.windows import Window, surround

Stretch = tuple[int, int, int]
"""Places from the first up to, but not including, the second, and a margin on both sides."""


class Repairs:
    """Remembers what was looked for in vain."""

    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._misses: Counter[Interval] = Counter()

    def find_in_ranks(self, first_total_count: int, *, overlap: int) -> list[Stretch]:
        """Where the ranks are by now that no answer has shown."""
        total_count = self._evidence.total_count
        return [
            (max(0, total_count - int(stop)), max(0, total_count - int(start)), overlap)
            for start, stop in self._evidence.find_rank_gaps(first_total_count)
        ]

    def find_in_times(self, *, since_ms: float, page_size: int, overlap: int) -> list[Stretch]:
        """Where the times are by now that no answer has shown in full."""
        stretches = []
        for gap, start, stop in self._evidence.locate_time_gaps(since_ms=since_ms):
            # What was not met where it was looked for has moved: look around.
            margin = overlap + self._misses[gap] * page_size // 2
            self._misses[gap] += 1
            stretches.append((start, stop, margin))
        return stretches


def lay_windows(stretches: list[Stretch], *, page_size: int, overlap: int) -> list[Window]:
    """Windows that show all of the stretches."""
    return [
        window
        for start, stop, margin in stretches
        for window in surround(start, stop, margin=margin, most=page_size, overlap=overlap)
    ]
