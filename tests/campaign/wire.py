"""Requests in flight in simulated time, and the trace of their answers."""

from collections.abc import Callable

from exporter.emulator.moving_list import MovingSessions
from exporter.listing.interface import PageRequest
from exporter.model import RawSession, SessionPage
from tests.support.simulation import EndlessError, StuckError, Wire

MAX_REQUESTS_PER_PAGE = 30
MAX_REQUESTS_BESIDES = 300


FAULTS_OF_LISTINGS = (
    EndlessError,
    StuckError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
"""Errors that a listing must not raise; reported with its seed instead of ending the campaign."""


def find_max_requests(page_count: int) -> int:
    return MAX_REQUESTS_PER_PAGE * page_count + MAX_REQUESTS_BESIDES


Trace = Callable[[float, PageRequest, SessionPage], None]
"""Called with the second of each answer."""


def no_trace(_now_s: float, _request: PageRequest, _page: SessionPage) -> None:
    pass


def print_trace(now_s: float, request: PageRequest, page: SessionPage) -> None:
    start = (request.page_num - 1) * request.page_size
    ids = page.session_ids
    ends = (
        f"{describe_row(page.sessions[0])} … {describe_row(page.sessions[-1])}" if ids else "no row"
    )
    print(
        f"{now_s:10.3f} #{request.number} {request.purpose} page {request.page_num} of"
        f" {request.page_size} (from {start}): total {page.total_count}, {len(ids)} rows, {ends}"
    )


def describe_row(row: RawSession) -> str:
    return f"{row['sessionId'][5:13]}@{row.get('createTime')}"


class CampaignWire(Wire):
    """A wire whose answers may straggle, and are traced."""

    def __init__(
        self,
        sessions: MovingSessions,
        *,
        latency_s: float,
        straggler_share: float,
        seed: int,
        now_s: float = 0.0,
        trace: Trace = no_trace,
    ) -> None:
        super().__init__(sessions, latency_s=latency_s, seed=seed, now_s=now_s)
        self._straggler_share = straggler_share
        self._trace = trace

    def _answer(self, request: PageRequest) -> SessionPage:
        # The rows themselves: their JSON would take most of a campaign's time.
        total_count, sessions = self._sessions.list_rows(
            request.page_num, request.page_size, self.now_s
        )
        page = SessionPage(total_count, sessions, [row["sessionId"] for row in sessions])
        self._trace(self.now_s, request, page)
        return page

    def _draw_travel_s(self, page: SessionPage | None) -> float:
        travel_s = super()._draw_travel_s(page)
        is_straggler = page is not None and self._chance.random() < self._straggler_share
        return travel_s * 10 if is_straggler else travel_s
