"""Builds the bookmark that an incremental run leaves for the next one; performs no I/O."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from exporter.listing.audit import Audit
from exporter.listing.bookmark import (
    Anchor,
    AnchorSample,
    Bookmark,
    Unfinished,
    cut_head,
    is_newest_first,
)
from exporter.listing.bookmark_head import BookmarkHead
from exporter.listing.lookups import Lookup


@dataclass(frozen=True, slots=True)
class NewSession:
    """A new session, where it was seen first."""

    place: int
    total_count: int
    session_id: str
    create_time_ms: int | None
    digest: str | None
    """None of one that does not change any more."""


@dataclass(frozen=True, slots=True)
class HeadPage:
    """An answer about page 1 that is evidence, without its rows."""

    page: int
    """Its index among the answers."""
    total_count: int
    session_ids: Sequence[str]
    times: Sequence[int | None]
    is_whole: bool
    """Whether it shows the whole list."""


def choose_head_page(pages: Iterable[HeadPage]) -> HeadPage | None:
    """The one that shows the newest session; the latest of these."""
    return max(
        pages,
        key=lambda each: (max((time or 0 for time in each.times), default=0), each.page),
        default=None,
    )


def update_bookmark(
    bookmark: Bookmark,
    *,
    head: BookmarkHead,
    page: HeadPage,
    audit: Audit,
    lookups: Sequence[Lookup],
    new_sessions: Sequence[NewSession],
    now_ms: int,
) -> Bookmark | None:
    """The bookmark after a run; None where only a full listing can find what is new."""
    times = [time for time in page.times if time is not None]
    count = cut_head(page.session_ids, page.times, is_whole=page.is_whole)
    head_times = [time for time in page.times[:count] if time is not None]
    if not head_times or not is_newest_first(times):
        return None
    base = head.estimate_base(page.total_count)
    kept = audit.find_kept(head.deepest)
    found = [each for each in lookups if each.place is not None]
    placed = place_new_sessions(new_sessions, head=head)
    anchors = build_anchors(kept, head=head, audit=audit, found=found, placed=placed)
    unfinished = [
        *(
            Unfinished(serial, each.session_id, each.create_time_ms or 0, each.digest, now_ms)
            for serial, each in placed
            if each.digest is not None
        ),
        *(
            Unfinished(
                each.serial, each.session_id, each.create_time_ms or 0, each.digest, each.since_ms
            )
            for each in found
            if each.digest is not None
        ),
    ]
    return Bookmark(
        total_count=page.total_count,
        expired_count=base + 1 - page.total_count,
        head=tuple(page.session_ids[:count]),
        head_oldest_ms=min(head_times),
        head_newest_ms=max(head_times),
        anchors=tuple(anchor for anchor in anchors if anchor.serial <= base),
        unfinished=tuple(unfinished),
        slack=abs(page.total_count - head.deepest.total_count) + (bookmark.slack if kept else 0),
        page_cap=bookmark.page_cap,
        full_at_ms=bookmark.full_at_ms,
    )


def place_new_sessions(
    new_sessions: Sequence[NewSession], *, head: BookmarkHead
) -> list[tuple[int, NewSession]]:
    """New sessions, each with its serial."""
    return [(head.estimate_base(each.total_count) - each.place, each) for each in new_sessions]


def build_anchors(
    kept: Sequence[Anchor],
    *,
    head: BookmarkHead,
    audit: Audit,
    found: Sequence[Lookup],
    placed: Sequence[tuple[int, NewSession]],
) -> list[Anchor]:
    """Anchors whose serials still hold, and all sessions whose place this run has seen."""
    anchors = AnchorSample()
    for anchor in kept:
        anchors.add(anchor)
    looked_for = audit.anchor
    if not kept and looked_for is not None and looked_for.place is not None:
        serial = head.estimate_base(looked_for.total_count) - looked_for.place
        anchors.add(Anchor(serial, looked_for.session_id, looked_for.create_time_ms))
    for each in found:
        anchors.add(Anchor(each.serial, each.session_id, each.create_time_ms))
    for serial, new in placed:
        anchors.add(Anchor(serial, new.session_id, new.create_time_ms))
    return [anchor for anchor, _ in anchors.read_all()]
