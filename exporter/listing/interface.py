"""The interface of a listing: its requests, its rows and its outcome; performs no I/O."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from exporter.model import Gateway, ListingFacts, RawSession, SessionPage

Purpose = Literal["sweep", "sentinel", "repair"]


@dataclass(frozen=True, slots=True)
class PageRequest:
    gateway: Gateway
    page_num: int
    page_size: int
    number: int
    """Its place among the listing's requests, from 1: the order in which rows leave."""
    purpose: Purpose
    wait_s: float = field(default=0.0, compare=False)
    """The wait before it is sent: an answer may have been out of date."""


class Listing(Protocol):
    """The state of one gateway's listing: what to ask next, and the rows that may leave, in order.

    Plain code that decides; its caller sends the requests and hands the rows on. Answers may come
    in any order. Given the same answers at the same places between its requests, it decides the
    same.
    """

    @property
    def gateway(self) -> Gateway: ...

    @property
    def is_incremental(self) -> bool:
        """Whether it reads only what is new; once it reads the whole list, this stays false."""

    @property
    def page_count(self) -> int | None:
        """Pages that the listing is likely to read; None before the first answer."""

    @property
    def asked_count(self) -> int:
        """Requests that `next_request` gave so far."""

    @property
    def held_count(self) -> int:
        """Pages asked for whose rows have not been taken yet: this listing holds them in memory, or
        will.
        """

    @property
    def ready_count(self) -> int:
        """Pages whose rows can be taken."""

    @property
    def facts(self) -> ListingFacts | None:
        """The outcome; None until the listing is concluded."""

    def next_request(self) -> PageRequest | None:
        """The next request; None while that depends on answers in flight, and at the end."""

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        """Take in the answer to a request of `next_request`; any order of answers will do.

        The listing owns the page's sessions from then on, and removes those that are not to leave.
        """

    def take_rows(self, most: int) -> list[RawSession]:
        """The next rows in list order: whole pages, until `most` rows are reached; empty when none
        is ready.
        """
