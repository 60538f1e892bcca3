"""What a listing asks for, and what it comes to; performs no I/O."""

from dataclasses import dataclass
from typing import Literal

from exporter.gateway import Gateway

Proof = Literal["quiescent", "anchored", "stitched", "recounted", "unproven"]
Purpose = Literal["sweep", "sentinel", "repair"]


@dataclass(frozen=True, slots=True)
class PageRequest:
    gateway: Gateway
    page_num: int
    page_size: int
    number: int
    """Its place among the listing's requests, from 1: the order in which rows leave."""
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class ListingFacts:
    """What was read of one gateway, and what that proves."""

    gateway: Gateway
    session_count: int
    total_count_first: int
    total_count_last: int
    inserted_count: int
    """Sessions in front of the first answer's, when the head was read again; at least so many."""
    deleted_count: int
    """As the totals and the insertions tell; at least so many."""
    overlap_count: int
    """Rows that were seen again and left out, but for those of the sentinel."""
    page_count: int
    """Pages read in all, the sentinel and repairs included."""
    repair_page_count: int
    proof: Proof
    missing: str = ""
    """Why the listing is unproven, for a reader; empty if it is proven."""
