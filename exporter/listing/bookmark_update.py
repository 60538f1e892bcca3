"""What an incremental run leaves for the next one; performs no I/O."""

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
from exporter.listing.lookups import Lookup
from exporter.listing.meetings import KnownHead


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


def build_known(
    known: Bookmark,
    *,
    head: KnownHead,
    page: HeadPage,
    audit: Audit,
    lookups: Sequence[Lookup],
    came: Sequence[NewSession],
    now_ms: int,
) -> Bookmark | None:
    """What is known by now; None where only a full listing can tell what is new next time."""
    times = [time for time in page.times if time is not None]
    count = cut_head(page.session_ids, page.times, is_whole=page.is_whole)
    head_times = [time for time in page.times[:count] if time is not None]
    if not head_times or not is_newest_first(times):
        return None
    base = head.estimate_base(page.total_count)
    kept = audit.find_kept(head.deepest)
    found = [each for each in lookups if each.place is not None]
    return Bookmark(
        total_count=page.total_count,
        expired_count=base + 1 - page.total_count,
        head=tuple(page.session_ids[:count]),
        head_oldest_ms=min(head_times),
        head_newest_ms=max(head_times),
        anchors=build_anchors(kept, head=head, audit=audit, found=found, came=came, base=base),
        unfinished=(
            *(
                Unfinished(
                    head.estimate_base(each.total_count) - each.place,
                    each.session_id,
                    each.create_time_ms or 0,
                    each.digest,
                    now_ms,
                )
                for each in came
                if each.digest is not None
            ),
            *(
                Unfinished(
                    each.serial,
                    each.session_id,
                    each.create_time_ms or 0,
                    each.digest,
                    each.since_ms,
                )
                for each in found
                if each.digest is not None
            ),
        ),
        slack=abs(page.total_count - head.deepest.total_count) + (known.slack if kept else 0),
        page_cap=known.page_cap,
        full_at_ms=known.full_at_ms,
    )


def build_anchors(
    kept: Sequence[Anchor],
    *,
    head: KnownHead,
    audit: Audit,
    found: Sequence[Lookup],
    came: Sequence[NewSession],
    base: int,
) -> tuple[Anchor, ...]:
    """Those that are where they were, and all sessions whose place this run has seen."""
    anchors = AnchorSample()
    for anchor in kept:
        anchors.add(anchor)
    looked_for = audit.anchor
    if not kept and looked_for is not None and looked_for.place is not None:
        serial = head.estimate_base(looked_for.total_count) - looked_for.place
        anchors.add(Anchor(serial, looked_for.session_id, looked_for.create_time_ms))
    for each in found:
        anchors.add(Anchor(each.serial, each.session_id, each.create_time_ms))
    for new in came:
        serial = head.estimate_base(new.total_count) - new.place
        anchors.add(Anchor(serial, new.session_id, new.create_time_ms))
    return tuple(anchor for anchor, _ in anchors.kept() if anchor.serial <= base)
