"""The interface of a listing: its requests, its rows and its outcome; performs no I/O."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from exporter.listing.bookmark import Bookmark
from exporter.model import Gateway, ListingFacts, RawSession, SessionPage

Purpose = Literal["sweep", "sentinel", "repair"]


@dataclass(frozen=True, slots=True)
class PageRequest:
    gateway: Gateway
    page_num: int
    page_size: int
    number: int
    """The request's place among those of its listing, from 1: the order of the rows."""
    purpose: Purpose
    wait_s: float = field(default=0.0, compare=False)
    """Seconds to wait before it is sent: an earlier answer may have been out of date."""


class Listing(Protocol):
    """The state of one gateway's listing: its next requests, and the rows that are ready, in order.

    It decides; its caller does the I/O. Answers may come in any order. Given the same answers at
    the same places between its requests, it decides the same.
    """

    @property
    def gateway(self) -> Gateway: ...

    @property
    def is_incremental(self) -> bool:
        """Whether it reads only new and changed sessions; false for good once it reads all."""

    @property
    def page_count(self) -> int | None:
        """Pages that the listing expects to read; None before the first answer."""

    @property
    def asked_count(self) -> int:
        """Requests that `next_request` has returned so far."""

    @property
    def held_count(self) -> int:
        """Pages requested whose rows have not been taken: the listing holds them, or will."""

    @property
    def ready_count(self) -> int:
        """Pages whose rows can be taken."""

    @property
    def facts(self) -> ListingFacts | None:
        """The outcome; None until the listing is concluded."""

    @property
    def bookmark(self) -> Bookmark | None:
        """The bookmark for the next run; None where that has to list in full."""

    def next_request(self) -> PageRequest | None:
        """The next request; None while it depends on answers in flight, and at the end."""

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        """Accept the answer to a request of `next_request`, in any order; the page stays whole."""

    def take_rows(self, most: int) -> list[RawSession]:
        """The next rows in list order: whole pages, until `most` rows are reached; empty when none
        is ready.
        """
