"""Events of runs that tests make up."""

from exporter.events import ListingFinished
from exporter.model import Gateway, ListingFacts, Proof


def listing_finished(
    gateway: Gateway,
    session_count: int,
    proof: Proof,
    *,
    moved: tuple[int, int, int, int] = (0, 0, 0, 0),
    incremental: bool = False,
    full_because: str = "",
) -> ListingFinished:
    """A listing that ended; `moved` counts insertions, deletions, overlaps and repair pages."""
    inserted_count, deleted_count, overlap_count, repair_page_count = moved
    return ListingFinished(
        ListingFacts(
            gateway=gateway,
            session_count=session_count,
            total_count_first=session_count,
            total_count_last=session_count,
            inserted_count=inserted_count,
            deleted_count=deleted_count,
            overlap_count=overlap_count,
            page_count=1,
            repair_page_count=repair_page_count,
            proof=proof,
            mode="incremental" if incremental else "full",
            full_because=full_because,
        )
    )
