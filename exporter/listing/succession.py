"""What an incremental listing leaves behind for the next run; performs no I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exporter.listing.known import Anchor, Known, Thinned, Unfinished, cut_head, is_newest_first


@dataclass(frozen=True, slots=True)
class Came:
    """A new session, where it was seen first."""

    place: int
    total_count: int
    session_id: str
    create_time_ms: int | None
    digest: str | None
    """None of one that does not change any more."""


@dataclass(frozen=True, slots=True)
class Top:
    """An answer about page 1, without its rows."""

    page: int
    total_count: int
    session_ids: Sequence[str]
    times: Sequence[int | None]


def choose_top(tops: Iterable[Top]) -> Top:
    """The answer about page 1 that shows the newest session; the latest of these."""

    def newest(top: Top) -> tuple[int, int]:
        return max((time for time in top.times if time is not None), default=0), top.page

    return max(tops, key=newest)


def build_next(
    known: Known,
    top: Top,
    *,
    base: int,
    anchors: Iterable[Anchor],
    unfinished: Iterable[Unfinished],
    slack: int,
    full_at_ms: int,
) -> Known | None:
    """What is known at the instant of an answer about page 1, whose first row has the serial
    `base`; None where only a full listing can go on from it.
    """
    timed = [time for time in top.times if time is not None]
    if not timed or not is_newest_first(timed):
        return None
    count = cut_head(top.session_ids, top.times, total_count=top.total_count)
    head_times = [time for time in top.times[:count] if time is not None]
    if not head_times:
        return None
    thinned = Thinned()
    for anchor in anchors:
        thinned.add(anchor)
    return Known(
        total_count=top.total_count,
        expired_count=base + 1 - top.total_count,
        head=tuple(top.session_ids[:count]),
        head_oldest_ms=min(head_times),
        head_newest_ms=max(head_times),
        anchors=tuple(each for each, _ in thinned.kept() if each.serial <= base),
        unfinished=tuple(unfinished),
        slack=slack,
        page_cap=known.page_cap,
        full_at_ms=full_at_ms,
    )
