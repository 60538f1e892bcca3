"""Which pages of a list hold what an earlier run has not seen; performs no I/O.

The known sessions stand behind the new ones, so their first rows, met again, tell how many are new:
I. With the totals that tells how many have gone from the end: `D = I - (total - known total)`. And
with D it is known on which page any session is by now.

1. *Head.* Page 1, and on until the first known rows are met.
2. *Pursuit.* The pages where the sessions are that had not ended. If any have gone, a page near the
   end, too: a session there must have as many fewer behind it, or some went or came in between.
3. *Proof.* As many distinct new sessions were seen as there were when page 1 was read, by a D that
   was found no earlier; no session that was looked for tells another D. What is still open is read
   again, in rounds.

One answer that tells all is *quiescent*, more are *anchored*. Whatever does not fit falls back to a
full listing. Not noticed is what leaves all counts as they were: a session put in far behind the
head just when another one went from the end, or both, in and out, between two that are looked at.
"""

from collections import deque
from dataclasses import replace

from exporter.api.roa import SessionPage
from exporter.gateway import Gateway
from exporter.listing.coverage import Coverage
from exporter.listing.evidence import read_times
from exporter.listing.facts import ListingFacts, PageRequest, Purpose
from exporter.listing.intervals import find_gaps
from exporter.listing.known import (
    Anchor,
    Known,
    Thinned,
    Unfinished,
    cut_head,
    digest_of,
    find_unfinished,
    is_final,
    is_newest_first,
)
from exporter.listing.ledger import Ledger
from exporter.listing.pursuit import Answer, Wanted
from exporter.listing.windows import Window
from exporter.records import RawSession

LEAST_KNOWN_ROWS = 10
"""So many known rows have to be seen: a session that is shown late may stand behind some of them."""
PAGES_AT_ONCE = 2
"""Pages asked for ahead where nothing tells how many sessions are new."""
MOST_SHORT_TRIES = 3
MOST_LOOKS = 5
"""Rounds of reading again what does not fit yet."""
MOST_ROUNDS = 15
"""Rounds of any kind after the known rows were met."""

PRUNED = "the known sessions are not at the head of the list any more: it was pruned or reordered"
CHANGED = "sessions came or went in the middle of the list"
SHORT = "answers hold fewer sessions than asked for"
RESTLESS = "the list did not hold still long enough to tell what is new"


class Increment:
    """The state of one gateway's listing, from what an earlier run knew of it.

    Invariant: answers are taken in by the order of their requests; `_taken` of them were, `_early`
    holds those behind a gap, all others up to `_asked` are in flight. A round ends when none is.
    """

    def __init__(self, gateway: Gateway, known: Known | None, *, page_size: int) -> None:
        """Without anything known, a full listing."""
        self._gateway = gateway
        self._most_page_size = page_size
        self._ledger = Ledger()
        self._full: Coverage | None = None
        self._full_from = 0
        self._full_because = ""
        self._facts: ListingFacts | None = None
        self._next_known: Known | None = None
        # Requests and rows on their way.
        self._asked = 0
        self._taken = 0
        self._planned: deque[tuple[int, Purpose]] = deque()
        self._early: dict[int, tuple[PageRequest, SessionPage]] = {}
        self._ready: deque[list[RawSession]] = deque()
        # What was seen.
        self._round_num = 1
        self._answers: dict[int, Answer] = {}
        self._sightings: list[Answer] = []
        self._short_tries: dict[int, int] = {}
        self._swept_to = 1
        self._look_count = 0
        self._late_rounds = 0
        self._repair_count = 0
        self._overlap_count = 0
        self._new: set[str] = set()
        self._changed: set[str] = set()
        self._seen_again: set[str] = set()
        self._in_front = 0
        """New sessions in front of the known ones, at least."""
        self._reached: int | None = None
        self._anchor: Wanted | None = None
        self._came: list[tuple[int, str, int, str]] = []
        self._new_anchors = Thinned()
        self._interposed = False
        self._top: tuple[Answer, list[str], list[int] | None] | None = None
        if known is None or not known.head:
            self._begin_full()
            return
        self._known = known
        self._page_size = min(page_size, known.page_cap or page_size)
        self._places = {session_id: place for place, session_id in enumerate(known.head)}
        self._wanted = {
            each.session_id: Wanted(each.serial, each.session_id, each.create_time_ms, each.digest)
            for each in known.unfinished
        }
        self._planned.append((1, "sweep"))

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    @property
    def asked_count(self) -> int:
        return self._asked

    @property
    def page_count(self) -> int | None:
        if self._full is not None:
            if self._full_from == 0:
                return self._full.page_count
            return self._full_from + (self._full.page_count or 1)
        return None if self._taken == 0 else self._asked + len(self._planned)

    @property
    def held_count(self) -> int:
        if self._full is not None:
            return len(self._ready) + self._full.held_count
        return self._asked - self._taken + len(self._ready)

    @property
    def ready_count(self) -> int:
        return len(self._ready) + (0 if self._full is None else self._full.ready_count)

    @property
    def facts(self) -> ListingFacts | None:
        return self._facts

    @property
    def known(self) -> Known | None:
        """For the next run, once the facts are settled; None where only a full listing will do."""
        return self._next_known

    def next_request(self) -> PageRequest | None:
        if self._full is not None:
            request = self._full.next_request()
            if request is None:
                return None
            self._asked += 1
            return replace(request, number=self._full_from + request.number)
        if not self._planned:
            return None
        page_num, purpose = self._planned.popleft()
        self._asked += 1
        self._repair_count += purpose == "repair"
        return PageRequest(self._gateway, page_num, self._page_size, self._asked, purpose)

    def accept(self, request: PageRequest, page: SessionPage) -> None:
        self._ledger.note(request, page)
        if self._full is not None:
            self._accept_in_full(self._full, request, page)
            return
        self._early[request.number] = request, page
        while (found := self._early.pop(self._taken + 1, None)) is not None:
            self._taken += 1
            rows = [] if self._full_because else self._take_in(*found)
            if rows:
                self._ready.append(rows)
        if self._taken == self._asked and not self._planned:
            self._end_round()

    def take_rows(self, most: int) -> list[RawSession]:
        rows: list[RawSession] = []
        while self._ready and len(rows) < most:
            rows += self._ready.popleft()
        # What has left must not leave again; a step of nothing else is no end of the rows.
        while self._full is not None and not rows and self._full.ready_count > 0:
            rows = self._full.take_rows(most)
            if self._new or self._changed:
                rows = [row for row in rows if not self._has_left(row["sessionId"])]
        return rows

    def _has_left(self, session_id: str) -> bool:
        return session_id in self._new or session_id in self._changed

    # The full listing

    def _begin_full(self) -> None:
        self._full = Coverage(self._gateway, page_size=self._most_page_size)
        self._full_from = self._asked

    def _accept_in_full(self, full: Coverage, request: PageRequest, page: SessionPage) -> None:
        if self._new or self._changed:
            again = filter(self._has_left, page.session_ids)
            self._seen_again.update(again)
        full.accept(replace(request, number=request.number - self._full_from), page)
        facts = full.facts
        if facts is None or self._facts is not None:
            return
        self._facts = replace(
            facts,
            session_count=facts.session_count
            + len(self._new | self._changed)
            - len(self._seen_again),
            page_count=self._full_from + facts.page_count,
            full_because=self._full_because,
        )
        self._next_known = self._ledger.known(facts)

    # What an answer tells

    def _take_in(self, request: PageRequest, page: SessionPage) -> list[RawSession]:
        """The rows that leave."""
        ids, window = page.session_ids, Window(request.page_num, request.page_size)
        times = read_times(page.sessions)
        met = [(at, self._places[each]) for at, each in enumerate(ids) if each in self._places]
        places = [place for _, place in met]
        if places != list(range(places[0], places[0] + len(places)) if places else ()):
            self._full_because = PRUNED if places != sorted(places) else CHANGED
            return []
        if not met and times and max(times) < self._known.head_oldest_ms and self._reached is None:
            self._full_because = PRUNED
            return []
        answer = self._note_answer(window, page, times, met)
        stop = self._find_stop(answer, met)
        fresh = [
            at
            for at, each in enumerate(ids[:stop])
            if each not in self._places and each not in self._wanted
        ]
        self._interposed |= bool(met) and any(at > met[0][0] for at in fresh)
        leaving = self._note_new(answer, page, times, fresh)
        for at, each in enumerate(ids):
            if each in self._wanted and self._note_found(answer, page, at):
                leaving.append(at)
        if self._anchor is not None and self._anchor.session_id in ids:
            self._anchor.rank = answer.rank_at(ids.index(self._anchor.session_id))
        return [page.sessions[at] for at in sorted(leaving)]

    def _note_answer(
        self,
        window: Window,
        page: SessionPage,
        times: list[int] | None,
        met: list[tuple[int, int]],
    ) -> Answer:
        grown = page.total_count - self._known.total_count
        reached = met[-1][1] if met else None
        in_front = window.start + met[-1][0] - met[-1][1] if met else 0
        answer = Answer(
            window,
            self._round_num,
            page.total_count,
            len(page.session_ids),
            max(times or [0]),
            min(times or [0]),
            reached,
            in_front - grown if met else None,
        )
        self._answers[window.page_num] = answer
        self._sightings.append(answer)
        if window.page_num == 1:
            self._top = answer, page.session_ids, times
        return answer

    def _find_stop(self, answer: Answer, met: list[tuple[int, int]]) -> int:
        """The position on a page from which on no row can be new."""
        if not met:
            # Where the known sessions begin only moves on: a page that starts no later and shows
            # none of them lies in front of them.
            is_in_front = self._reached is None or answer.window.start <= self._in_front
            return answer.row_count if is_in_front else 0
        at, place = met[-1]
        self._in_front = max(self._in_front, answer.window.start + at - place)
        self._reached = max(self._reached or 0, place)
        return at if place == len(self._places) - 1 else answer.row_count

    def _note_new(
        self, answer: Answer, page: SessionPage, times: list[int] | None, fresh: list[int]
    ) -> list[int]:
        """The positions of those that were not seen yet."""
        ids = page.session_ids
        first_seen = []
        for at in fresh:
            if ids[at] in self._new:
                self._overlap_count += 1
            else:
                self._new.add(ids[at])
                first_seen.append(at)
        if first_seen:
            self._new_anchors.add(answer.rank_at(first_seen[0]), ids[first_seen[0]])
            unfinished = set(find_unfinished(page.sessions))
            self._came += [
                (
                    answer.rank_at(at),
                    ids[at],
                    0 if times is None else times[at],
                    digest_of(page.sessions[at]),
                )
                for at in first_seen
                if at in unfinished
            ]
        return first_seen

    def _note_found(self, answer: Answer, page: SessionPage, at: int) -> bool:
        """Whether a session that had not ended is to leave: once, if it has changed."""
        wanted, session = self._wanted[page.session_ids[at]], page.sessions[at]
        if wanted.rank is not None:
            return False
        wanted.rank = answer.rank_at(at)
        digest = digest_of(session)
        changed = digest != wanted.digest
        wanted.digest = None if is_final(session) else digest
        if changed:
            self._changed.add(wanted.session_id)
        return changed

    # What to ask next

    def _end_round(self) -> None:
        """Nothing is in flight and nothing planned."""
        pages = [] if self._full_because else self._plan()
        if self._full_because:
            self._begin_full()
        elif pages:
            self._round_num += 1
            known_pages = self._answers
            self._planned.extend(
                (page_num, "repair" if page_num in known_pages else "sweep")
                for page_num in sorted(set(pages))
            )
        else:
            self._conclude()

    def _plan(self) -> list[int]:
        """The pages of the next round; none when all is proven, or nothing can be."""
        assert self._top is not None
        short = self._find_short()
        if short or self._full_because:
            return short
        if self._reached is None:
            return self._read_on()
        self._late_rounds += 1
        if self._late_rounds > MOST_ROUNDS:
            self._full_because = RESTLESS
            return []
        pages = self._read_deeper() + self._pursue()
        return pages or ([] if self._full_because else self._verify())

    def _find_short(self) -> list[int]:
        """Pages in front of the known sessions that lack rows."""
        pages = [
            page_num
            for page_num, each in self._answers.items()
            if each.is_short and (self._reached is None or each.window.start <= self._in_front)
        ]
        for page_num in pages:
            self._short_tries[page_num] = self._short_tries.get(page_num, 0) + 1
            if self._short_tries[page_num] >= MOST_SHORT_TRIES:
                self._full_because = SHORT
        return pages

    def _read_on(self) -> list[int]:
        """The next pages to look for the known sessions on."""
        total_count = self._latest.total_count
        if self._swept_to * self._page_size >= total_count:
            self._full_because = PRUNED
            return []
        grown = total_count - self._known.total_count + LEAST_KNOWN_ROWS
        first = self._swept_to + 1
        stop = max(-(-grown // self._page_size), first + PAGES_AT_ONCE - 1)
        self._swept_to = min(stop, -(-total_count // self._page_size))
        return list(range(first, self._swept_to + 1))

    def _read_deeper(self) -> list[int]:
        """The page behind the deepest known row, if more of them have to be seen."""
        deepest = max(self._met, key=lambda each: (each.reached, each.round_num))
        reached, vanished = deepest.reached, deepest.vanished
        assert reached is not None
        assert vanished is not None
        # Sessions behind that row that are new make it seem as if some had come at the end.
        wanted = len(self._places) if vanished < 0 else min(LEAST_KNOWN_ROWS, len(self._places))
        page_num = deepest.window.page_num + 1
        at_end = deepest.window.stop >= deepest.total_count
        if reached + 1 >= wanted or at_end or page_num in self._answers:
            return []
        self._swept_to = max(self._swept_to, page_num)
        return [page_num]

    def _pursue(self) -> list[int]:
        """The pages where the sessions are by now that were not found yet."""
        known, latest = self._known, self._latest
        vanished = max(each.vanished or 0 for each in self._met)
        gone = known.expired_count + vanished
        wanted = [
            each
            for each in self._wanted.values()
            if each.rank is None and each.serial >= gone - known.slack
        ]
        anchor = self._choose_anchor(gone) if vanished > 0 else None
        if anchor is not None and anchor.rank is None:
            wanted.append(anchor)
        pages = []
        for each in wanted:
            page = each.find_page(
                place=latest.total_count + gone - 1 - each.serial,
                total_count=latest.total_count,
                page_size=self._page_size,
                answers=self._answers,
            )
            if page == "gone":
                self._full_because = CHANGED
            elif page != "expired":
                each.tries += 1
                pages.append(page)
        return [] if self._full_because else pages

    def _choose_anchor(self, gone: int) -> Wanted | None:
        """The one nearest to the end of those that must still be there."""
        known = self._known
        if self._anchor is None or self._anchor.serial < gone + known.slack:
            left = [each for each in known.anchors if each.serial >= gone + known.slack]
            nearest = min(left, key=lambda each: each.serial, default=None)
            self._anchor = (
                None if nearest is None else Wanted(nearest.serial, nearest.session_id, None, "")
            )
        return self._anchor

    # What it proves

    @property
    def _latest(self) -> Answer:
        return self._sightings[-1]

    @property
    def _met(self) -> list[Answer]:
        """Answers that show known rows of the head."""
        return [each for each in self._sightings if each.reached is not None]

    def _verify(self) -> list[int]:
        """The pages to read again; none when all is proven, or nothing can be."""
        assert self._top is not None
        top = self._top[0]
        # Sessions go and do not come back: a D that was found later is no smaller.
        later = [each for each in self._met if each is top or each.round_num > top.round_num]
        if not later:
            vanished = max(each.vanished or 0 for each in self._met)
            place = self._latest.total_count - self._known.total_count + vanished
            return [max(place, self._in_front) // self._page_size + 1]
        deepest = max(later, key=lambda each: (each.reached, each.round_num))
        vanished, slack = deepest.vanished, self._known.slack
        assert vanished is not None
        told = self._tell_vanished()
        if vanished < 0 or min(told, default=vanished) < self._least_vanished - slack:
            self._full_because = CHANGED
            return []
        new_count = top.total_count - self._known.total_count + vanished
        if new_count == len(self._new) and max(told, default=vanished) <= vanished + slack:
            return []
        self._look_count += 1
        if self._look_count > MOST_LOOKS:
            self._full_because = CHANGED if max(told, default=0) > vanished + slack else RESTLESS
            return []
        return self._find_open_pages(vanished) or [1]

    def _tell_vanished(self) -> list[int]:
        """D by each session that was looked for."""
        found = [*self._wanted.values(), *([self._anchor] if self._anchor is not None else [])]
        first = self._known.expired_count
        return [each.serial - first - each.rank for each in found if each.rank is not None]

    @property
    def _least_vanished(self) -> int:
        return min(each.vanished or 0 for each in self._met)

    def _find_open_pages(self, vanished: int) -> list[int]:
        """Pages that show the new sessions no answer has shown, if D was the same all along."""
        if self._look_count > 1:
            # Looking where they should be did not help: all again.
            return list(range(1, self._in_front // self._page_size + 2))
        base = self._known.total_count - vanished
        intervals = [
            (each.total_count - each.window.start - each.row_count, each.rank_at(-1))
            for each in self._sightings
        ]
        total_count = self._latest.total_count
        return [
            place // self._page_size + 1
            for low, high in find_gaps(intervals, base, total_count)
            for place in {total_count - int(high), total_count - 1 - int(low)}
        ]

    def _conclude(self) -> None:
        assert self._top is not None
        top, ids, times = self._top
        known, sightings = self._known, self._sightings
        vanished = len(self._new) - (top.total_count - known.total_count)
        self._facts = ListingFacts(
            gateway=self._gateway,
            session_count=len(self._new) + len(self._changed),
            total_count_first=sightings[0].total_count,
            total_count_last=self._latest.total_count,
            inserted_count=max(0, top.total_count - sightings[0].total_count),
            deleted_count=max(0, max(each.vanished or 0 for each in self._met) - vanished),
            overlap_count=self._overlap_count,
            page_count=self._taken,
            repair_page_count=self._repair_count,
            proof="quiescent" if self._taken == 1 else "anchored",
            mode="incremental",
        )
        if times is not None and is_newest_first(times):
            self._next_known = self._take_down(top, ids, times, vanished)

    def _take_down(self, top: Answer, ids: list[str], times: list[int], vanished: int) -> Known:
        known = self._known
        gone = known.expired_count + vanished
        told = [*self._tell_vanished(), *(each.vanished or 0 for each in self._met)]
        spread = max(told) - min(told)
        count = cut_head(ids, times, total_count=top.total_count)
        # Sessions that were shown late moved the ones in front of them.
        highest = known.total_count + known.expired_count - len(known.head) * self._interposed
        anchors = Thinned()
        for anchor in known.anchors:
            if gone <= anchor.serial < highest:
                anchors.add(anchor.serial, anchor.session_id)
        for rank, session_id, _ in self._new_anchors.kept():
            anchors.add(rank + gone, session_id)
        return Known(
            total_count=top.total_count,
            expired_count=gone,
            head=tuple(ids[:count]),
            head_oldest_ms=min(times[:count]),
            anchors=tuple(Anchor(serial, each) for serial, each, _ in anchors.kept()),
            unfinished=(
                *(Unfinished(rank + gone, *rest) for rank, *rest in self._came),
                *(
                    Unfinished(
                        # Found in a list that held still, a serial is exact.
                        each.serial if spread > 0 else each.rank + gone,
                        each.session_id,
                        each.create_time_ms or 0,
                        each.digest,
                    )
                    for each in self._wanted.values()
                    if each.rank is not None and each.digest is not None
                ),
            ),
            slack=max(known.slack, spread),
            page_cap=known.page_cap,
        )
