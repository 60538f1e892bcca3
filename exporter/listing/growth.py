"""What has come, changed and gone in a list since an earlier run, as its answers tell; performs no
I/O.
"""

from itertools import permutations

from exporter.api.roa import SessionPage
from exporter.listing.evidence import read_times
from exporter.listing.facts import PageRequest
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
from exporter.listing.pursuit import Answer, Came, Top, Wanted
from exporter.listing.windows import Window
from exporter.records import RawSession

LEAST_KNOWN_ROWS = 10
"""So many have to be seen: a session that is shown late may stand behind some of them."""
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


class Growth:
    """Takes in answers by the order of their requests, and says which pages to ask for next."""

    def __init__(self, known: Known, *, page_size: int) -> None:
        self._known = known
        self._page_size = page_size
        self._places = {session_id: place for place, session_id in enumerate(known.head)}
        self._wanted = {
            each.session_id: Wanted(each.serial, each.session_id, each.create_time_ms, each.digest)
            for each in known.unfinished
        }
        self.trouble = ""
        """Why only a full listing will do, for a reader; empty while it will not."""
        self.new: set[str] = set()
        """Ids of the new sessions that left."""
        self.changed: set[str] = set()
        """Ids of the sessions that had not ended, and left in a later version."""
        self.overlap_count = 0
        self._round_num = 1
        self._answers: dict[int, Answer] = {}
        self._sightings: list[Answer] = []
        self._top = Top(Answer(Window(1, page_size), 0, 0, 0, 0, 0), [], None)
        self._short_tries: dict[int, int] = {}
        self._swept_to = 1
        self._look_count = 0
        self._misfit = 0
        """Sessions by which a count was wrong, because some went while others were read."""
        self._late_rounds = 0
        self._in_front = 0
        """New sessions in front of the known ones, at least."""
        self._reached = -1
        """The place in the known head of the deepest of its rows that was met."""
        self._interposed = False
        """Whether a session has come behind one that is known."""
        self._anchor: Wanted | None = None
        self._came: list[Came] = []
        self._new_anchors = Thinned()

    def has_left(self, session_id: str) -> bool:
        return session_id in self.new or session_id in self.changed

    def was_asked(self, page_num: int) -> bool:
        return page_num in self._answers

    @property
    def total_count_first(self) -> int:
        return self._sightings[0].total_count

    @property
    def total_count_last(self) -> int:
        return self._latest.total_count

    @property
    def inserted_count(self) -> int:
        """Since the first answer, as far as the total tells."""
        return max(0, self._top.answer.total_count - self.total_count_first)

    @property
    def deleted_count(self) -> int:
        """While the list was read."""
        told = [each.vanished for each in self._met]
        return max(told) - min(told)

    # What an answer tells

    def take_in(self, request: PageRequest, page: SessionPage) -> list[RawSession]:
        """The rows that leave; none once there is trouble."""
        if self.trouble:
            return []
        ids, window = page.session_ids, Window(request.page_num, request.page_size)
        times = read_times(page.sessions)
        met = [(at, self._places[each]) for at, each in enumerate(ids) if each in self._places]
        places = [place for _, place in met]
        if places != list(range(places[0], places[0] + len(places)) if places else ()):
            self.trouble = PRUNED if places != sorted(places) else CHANGED
            return []
        if not met and times and max(times) < self._known.head_oldest_ms and self._reached < 0:
            self.trouble = PRUNED
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
        reached = met[-1][1] if met else -1
        in_front = window.start + met[-1][0] - met[-1][1] if met else 0
        answer = Answer(
            window,
            self._round_num,
            page.total_count,
            len(page.session_ids),
            max(times or [0]),
            min(times or [0]),
            reached,
            in_front - grown if met else 0,
        )
        self._answers[window.page_num] = answer
        self._sightings.append(answer)
        if window.page_num == 1:
            self._top = Top(answer, page.session_ids, times)
        return answer

    def _find_stop(self, answer: Answer, met: list[tuple[int, int]]) -> int:
        """The position on a page from which on no row can be new."""
        if not met:
            # Where the known sessions begin only moves on: a page that starts no later and shows
            # none of them lies in front of them.
            is_in_front = self._reached < 0 or answer.window.start <= self._in_front
            return answer.row_count if is_in_front else 0
        at, place = met[-1]
        self._in_front = max(self._in_front, answer.window.start + at - place)
        self._reached = max(self._reached, place)
        return at if place == len(self._places) - 1 else answer.row_count

    def _note_new(
        self, answer: Answer, page: SessionPage, times: list[int] | None, fresh: list[int]
    ) -> list[int]:
        """The positions of those that were not seen yet."""
        ids = page.session_ids
        first_seen = []
        for at in fresh:
            if ids[at] in self.new:
                self.overlap_count += 1
            else:
                self.new.add(ids[at])
                first_seen.append(at)
        if first_seen:
            self._new_anchors.add(answer.rank_at(first_seen[0]), ids[first_seen[0]])
            unfinished = set(find_unfinished(page.sessions))
            self._came += [
                Came(
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
            self.changed.add(wanted.session_id)
        return changed

    # What to ask next

    def plan(self) -> list[int]:
        """The pages of the next round, when all answers are in; none when all is proven, or when
        there is trouble.
        """
        pages = [] if self.trouble else self._plan_round()
        self._round_num += 1
        return [] if self.trouble else sorted(set(pages))

    def _plan_round(self) -> list[int]:
        short = self._find_short()
        if short or self.trouble:
            return short
        if self._reached < 0:
            return self._read_on()
        self._late_rounds += 1
        if self._late_rounds > MOST_ROUNDS:
            self.trouble = RESTLESS
            return []
        pages = self._read_deeper() + self._pursue()
        return pages or ([] if self.trouble else self._verify())

    def _find_short(self) -> list[int]:
        """Pages in front of the known sessions that lack rows."""
        pages = [
            page_num
            for page_num, each in self._answers.items()
            if each.is_short and (self._reached < 0 or each.window.start <= self._in_front)
        ]
        for page_num in pages:
            self._short_tries[page_num] = self._short_tries.get(page_num, 0) + 1
            if self._short_tries[page_num] >= MOST_SHORT_TRIES:
                self.trouble = SHORT
        return pages

    def _read_on(self) -> list[int]:
        """The next pages to look for the known sessions on."""
        total_count = self._latest.total_count
        if self._swept_to * self._page_size >= total_count:
            self.trouble = PRUNED
            return []
        grown = total_count - self._known.total_count + LEAST_KNOWN_ROWS
        first = self._swept_to + 1
        # Growth alone tells where they are, unless sessions have gone from the end.
        told = -(-grown // self._page_size)
        stop = told if told >= first else first + PAGES_AT_ONCE - 1
        self._swept_to = min(stop, -(-total_count // self._page_size))
        return list(range(first, self._swept_to + 1))

    def _read_deeper(self) -> list[int]:
        """The page behind the deepest known row, if more of them have to be seen."""
        deepest = max(self._met, key=lambda each: (each.reached, each.round_num))
        reached, vanished = deepest.reached, deepest.vanished
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
        vanished = max(each.vanished for each in self._met)
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
                self.trouble = CHANGED
            elif page != "expired":
                each.tries += 1
                pages.append(page)
        return [] if self.trouble else pages

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
        return [each for each in self._sightings if each.reached >= 0]

    def _verify(self) -> list[int]:
        """The pages to read again; none when all is proven, or nothing can be."""
        top = self._top.answer
        # Sessions go and do not come back: a D that was found later is no smaller.
        later = [each for each in self._met if each is top or each.round_num > top.round_num]
        if not later:
            vanished = max(each.vanished for each in self._met)
            place = self._latest.total_count - self._known.total_count + vanished
            return [max(place, self._in_front) // self._page_size + 1]
        deepest = max(later, key=lambda each: (each.reached, each.round_num))
        vanished, slack = deepest.vanished, self._known.slack
        told = self._tell_vanished()
        least = min(each.vanished for each in self._met) - slack
        if vanished < 0 or min(told, default=vanished) < least or self._contradict():
            self.trouble = CHANGED
            return []
        new_count = top.total_count - self._known.total_count + vanished
        if new_count == len(self.new) and max(told, default=vanished) <= vanished + slack:
            return []
        self._misfit = max(self._misfit, abs(new_count - len(self.new)))
        self._look_count += 1
        if self._look_count > MOST_LOOKS:
            self.trouble = CHANGED if max(told, default=0) > vanished + slack else RESTLESS
            return []
        return self._find_open_pages(vanished) or [1]

    def _tell_vanished(self) -> list[int]:
        """D by each session that was looked for."""
        found = [*self._wanted.values(), *([self._anchor] if self._anchor is not None else [])]
        first = self._known.expired_count
        return [each.serial - first - each.rank for each in found if each.rank is not None]

    def _contradict(self) -> bool:
        """Whether a known row tells a smaller D than one in front of it did before: one between
        the two is gone.
        """
        return any(
            later.vanished < former.vanished
            for former, later in permutations(self._met, 2)
            if later.round_num > former.round_num and later.reached >= former.reached
        )

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

    def take_down(self) -> Known | None:
        """What is known by now, once there is nothing more to ask."""
        known, top = self._known, self._top.answer
        ids, times = self._top.session_ids, self._top.times
        if times is None or not is_newest_first(times):
            return None
        vanished = len(self.new) - (top.total_count - known.total_count)
        gone = known.expired_count + vanished
        told = [*self._tell_vanished(), *(each.vanished for each in self._met)]
        spread = max(self._misfit, max(told) - min(told))
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
                *(
                    Unfinished(each.rank + gone, each.session_id, each.create_time_ms, each.digest)
                    for each in self._came
                ),
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
