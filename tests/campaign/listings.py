"""One full listing of the campaign, judged."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from exporter.emulator.churn import Order, OrderBy
from exporter.emulator.generated_list import PageCache
from exporter.emulator.moving_list import MovingSessions, Truth
from exporter.listing.full import FullListing
from exporter.listing.interface import Listing
from exporter.model import ALL_TIME, RawSession, TimeRange
from tests.campaign.kinds import KINDS_BY_NAME, Case, draw_case
from tests.campaign.wire import FAULTS_OF_LISTINGS, CampaignWire, Trace, find_max_requests, no_trace
from tests.support.simulation import GATEWAY, NEWEST_MS, drive

MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class Judgement:
    """The result of one listing; a sequence of runs has one for each run."""

    kind: str
    seed: int
    proof: str
    lost_count: int = 0
    """Sessions that are owed and were not delivered."""
    stale_count: int = 0
    """Sessions that were delivered in a version which is not the last one."""
    doubled_count: int = 0
    foreign_count: int = 0
    request_count: int = 0
    page_count: int = 0
    """Most pages that the list had; of a part of it, those down to the last wanted session."""
    whole_page_count: int = 0
    """Most pages of the whole list: it is read to its end where nothing proves a part."""
    trouble: str = ""
    """An exception of the listing."""
    unnoticed_count: int = 0
    """Sessions that an incremental run cannot know of, and the next full one has to deliver."""
    fell_back: bool = False
    """Whether an incremental run became a full one."""
    examples: tuple[str, ...] = ()
    """Some of the sessions that are lost or stale."""
    because: str = ""
    """Why it fell back, or why it is unproven."""

    @property
    def is_unproven(self) -> bool:
        return self.proof == "unproven"

    @property
    def is_false(self) -> bool:
        """Whether a wrong listing claims a proof."""
        return not self.is_unproven and self.lost_count + self.stale_count > 0

    @property
    def is_wrong(self) -> bool:
        return bool(self.trouble) or self.is_false or self.doubled_count + self.foreign_count > 0

    @property
    def cost(self) -> float:
        """Requests relative to the pages."""
        return self.request_count / max(1, self.page_count)


def open_listing(case: Case, span: TimeRange) -> Listing:
    return FullListing(GATEWAY, page_size=case.shape.page_size, time_range=span)


def find_span(case: Case) -> TimeRange:
    if case.since_share is None:
        return ALL_TIME
    whole_ms = case.shape.session_count * case.shape.spacing_ms
    return TimeRange(since_ms=NEWEST_MS - round(whole_ms * case.since_share))


def read_time(row: RawSession) -> int | None:
    """The create time; None where it has none that can be compared."""
    time = row.get("createTime")
    return int(time) or None if isinstance(time, int | str) else None


def is_wanted(row: RawSession, span: TimeRange, *, if_timeless: bool) -> bool:
    time = read_time(row)
    return if_timeless if time is None else span.includes(time)


def warm_up(sessions: MovingSessions, case: Case) -> float:
    """Somebody else reads every page, in time for the caches; the second it ends."""
    step_s = case.shape.duration_s / (case.shape.page_count + 1)
    for page_num in range(1, case.shape.page_count + 1):
        sessions.list_rows(page_num, case.shape.page_size, page_num * step_s)
    return case.shape.duration_s


def build_sessions(case: Case, seed: int) -> MovingSessions:
    return MovingSessions(
        GATEWAY,
        case.churn,
        seed=seed,
        session_count=case.shape.session_count,
        newest_created_ms=NEWEST_MS,
        spacing_ms=case.shape.spacing_ms,
        cache=PageCache(0),
        brief=True,
    )


def count_pages(sessions: MovingSessions, case: Case, first_answer: int = 1) -> int:
    size = case.shape.page_size
    if case.churn.page_cap is not None and case.churn.page_cap_share >= 1:
        size = min(size, case.churn.page_cap)
    return max(1, -(-sessions.max_rows(first_answer) // size))


def narrow(
    sessions: MovingSessions, truth: Truth, case: Case, span: TimeRange, page_count: int
) -> tuple[Truth, int]:
    """The truth of a part of the list, and the pages down to its last wanted row."""
    wanted, last_place = set(), 0
    for place, row in enumerate(sessions.sessions()):
        if is_wanted(row, span, if_timeless=False):
            wanted.add(row["sessionId"])
            last_place = place
    if not is_by_create_time(case):
        return replace(truth, owed=truth.owed & wanted), page_count
    needed_count = last_place * page_count // max(1, sessions.max_rows()) + 1
    return replace(truth, owed=truth.owed & wanted), min(page_count, needed_count)


def is_by_create_time(case: Case) -> bool:
    """Whether old rows show that none behind them is wanted."""
    churn, shape = case.churn, case.shape
    tie_size = max(churn.tie_size, churn.time_step_ms / shape.spacing_ms)
    return (
        churn.order is Order.NEWEST_FIRST
        and churn.order_by is OrderBy.CREATE
        and churn.backdating.share == churn.timeless.share == 0
        and churn.shards == 1
        and not churn.twins_apart
        and tie_size < shape.page_size / 2
    )


def choose_examples(session_ids: Iterable[str]) -> tuple[str, ...]:
    """Sessions as the trace prints them."""
    return tuple(sorted(session_id[5:13] for session_id in session_ids)[:MAX_EXAMPLES])


def judge_listing(name: str, seed: int, *, trace: Trace = no_trace) -> Judgement:
    case = draw_case(KINDS_BY_NAME[name], seed)
    shape = case.shape
    sessions = build_sessions(case, seed)
    span = find_span(case)
    listing = open_listing(case, span)
    now_s = warm_up(sessions, case) if case.is_warm else 0.0
    first_answer = sessions.answer_count + 1
    wire = CampaignWire(
        sessions,
        latency_s=shape.latency_s,
        straggler_share=shape.straggler_share,
        seed=seed,
        now_s=now_s,
        trace=trace,
    )
    unwanted_count = 0
    seen: Counter[str] = Counter()
    trouble = ""
    max_requests = find_max_requests(shape.page_count)
    try:
        for row in drive(listing, wire, in_flight=shape.in_flight, max_requests=max_requests):
            seen[row["sessionId"]] += 1
            unwanted_count += not is_wanted(row, span, if_timeless=True)
    except FAULTS_OF_LISTINGS as exc:
        trouble = repr(exc)
    truth = sessions.truth(first_answer)
    page_count = whole_page_count = count_pages(sessions, case, first_answer)
    if span.has_bounds:
        truth, page_count = narrow(sessions, truth, case, span, page_count)
    facts = listing.facts
    return Judgement(
        kind=name,
        seed=seed,
        proof="unproven" if facts is None else facts.proof,
        lost_count=len(truth.lost(seen)),
        examples=choose_examples(truth.lost(seen)),
        doubled_count=seen.total() - len(seen),
        foreign_count=len(truth.foreign(seen)) + unwanted_count,
        request_count=wire.request_count,
        page_count=page_count,
        whole_page_count=whole_page_count,
        trouble=trouble,
        because="" if facts is None else facts.missing,
    )
