import math
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from exporter.errors import DestinationError, LockLostError
from exporter.locks.interface import Holder, parse_holder
from exporter.locks.lease import LeaseBackend
from exporter.stores.interface import Store
from exporter.stores.local import LocalStore
from tests.support.examples import scale_examples
from tests.support.lease_simulation import (
    BEGIN,
    DURATION_S,
    NAME,
    Contender,
    MemoryStore,
    Odds,
    World,
)


@dataclass
class Clock:
    """One clock of all runs; their times of day may be off."""

    now_s: float = 1000.0

    def read(self) -> float:
        return self.now_s

    def at(self, skew_s: float) -> datetime:
        return BEGIN + timedelta(seconds=self.now_s + skew_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def backend_of(store: Store, run_id: str, clock: Clock, *, skew_s: float = 0.0) -> LeaseBackend:
    holder = Holder(f"host-{run_id}", 7, run_id, clock.at(skew_s))
    return LeaseBackend(
        store,
        NAME,
        holder,
        now_s=clock.read,
        now=lambda: clock.at(skew_s),
        duration_s=DURATION_S,
    )


def test_free_lock_is_got_by_one_lease(clock: Clock) -> None:
    store = MemoryStore()

    contention = backend_of(store, "a", clock).try_acquire()

    assert contention is None
    ((name, content),) = store.files.items()
    assert name == f"{NAME}.00000001"
    holder = parse_holder(content)
    assert holder is not None
    assert (holder.host, holder.pid, holder.run_id) == ("host-a", 7, "a")


def test_second_run_learns_the_holder_and_has_nothing_to_wait_for(clock: Clock) -> None:
    store = MemoryStore()
    backend_of(store, "a", clock).try_acquire()

    contention = backend_of(store, "b", clock).try_acquire()

    assert contention is not None
    assert contention.holder is not None
    assert contention.holder.run_id == "a"
    assert contention.clear_at_s <= clock.now_s


def test_released_lease_is_followed_at_once(clock: Clock) -> None:
    store = MemoryStore()
    first, second = backend_of(store, "a", clock), backend_of(store, "b", clock)
    first.try_acquire()
    second.try_acquire()

    first.release()

    assert second.try_acquire() is None
    assert max(store.files) == f"{NAME}.00000002"


def test_release_leaves_the_highest_lease_alone(clock: Clock) -> None:
    store = MemoryStore()
    for run_id in "abc":
        backend = backend_of(store, run_id, clock)
        backend.try_acquire()
        backend.release()

    assert list(store.files) == [f"{NAME}.00000003"]
    assert orjson.loads(store.files[f"{NAME}.00000003"])["released"] is True


def test_dead_holder_is_followed_once_its_lease_has_ended(clock: Clock) -> None:
    store = MemoryStore()
    backend_of(store, "dead", clock).try_acquire()
    clock.now_s += 3600
    backend = backend_of(store, "b", clock)

    contention = backend.try_acquire()
    clock.now_s += DURATION_S - 1
    still = backend.try_acquire()
    clock.now_s += 1

    assert contention is not None
    assert still is not None
    assert contention.clear_at_s == still.clear_at_s == clock.now_s
    assert backend.try_acquire() is None


@pytest.mark.parametrize("skew_s", [-86400.0, -120.0, 120.0, 86400.0])
def test_living_holder_with_a_wrong_clock_is_found_alive_by_its_renewal(
    clock: Clock, skew_s: float
) -> None:
    store = MemoryStore()
    first, second = backend_of(store, "a", clock, skew_s=skew_s), backend_of(store, "b", clock)
    first.try_acquire()

    watching = second.try_acquire()
    clock.now_s += first.renew_s
    first.renew()
    contention = second.try_acquire()

    assert watching is not None
    assert watching.clear_at_s > clock.now_s
    assert contention is not None
    assert contention.clear_at_s <= clock.now_s


def test_lease_that_cannot_be_read_ends_too(clock: Clock) -> None:
    store = MemoryStore({f"{NAME}.00000004": b"{"})
    backend = backend_of(store, "a", clock)

    contention = backend.try_acquire()
    clock.now_s += DURATION_S

    assert contention is not None
    assert contention.holder is None
    assert backend.try_acquire() is None
    assert f"{NAME}.00000005" in store.files


def test_files_of_other_names_are_no_leases(clock: Clock) -> None:
    store = MemoryStore(dict.fromkeys([f"{NAME}.bak", f"{NAME}.1", f"{NAME}x.00000009"], b""))

    assert backend_of(store, "a", clock).try_acquire() is None
    assert f"{NAME}.00000001" in store.files


def test_renewal_holds_the_lease_from_its_beginning(clock: Clock) -> None:
    backend = backend_of(MemoryStore(), "a", clock)
    backend.try_acquire()
    clock.now_s += 20

    backend.renew()

    assert backend.valid_until_s == clock.now_s + DURATION_S


def test_renewal_that_ends_after_the_lease_does_not_count(clock: Clock) -> None:
    """Other runs could take the lease meanwhile."""

    def arrive() -> None:
        clock.now_s += delays.pop() if delays else 0

    delays: list[float] = []
    backend = backend_of(MemoryStore(arrive=arrive), "a", clock)
    backend.try_acquire()
    delays.append(DURATION_S)

    with pytest.raises(LockLostError, match="could not be renewed for 60s"):
        backend.renew()


def test_stopped_run_finds_its_lease_lost(clock: Clock) -> None:
    store = MemoryStore()
    backend = backend_of(store, "a", clock)
    backend.try_acquire()
    clock.now_s += DURATION_S

    with pytest.raises(LockLostError, match=r"the lock 'memory://bucket/_exporter/lock' was lost"):
        backend.renew()


def test_higher_lease_takes_the_lock_from_a_run_whose_clock_stood_still(clock: Clock) -> None:
    """A virtual machine does not notice that it was frozen."""
    store = MemoryStore()
    frozen = backend_of(store, "frozen", Clock())
    frozen.try_acquire()
    other = backend_of(store, "b", clock)
    other.try_acquire()
    clock.now_s += DURATION_S
    assert other.try_acquire() is None
    before = dict(store.files)

    with pytest.raises(LockLostError, match="another run took it"):
        frozen.renew()
    frozen.release()
    other.renew()

    assert store.files.keys() == before.keys()


def test_removed_number_is_not_taken_again(clock: Clock) -> None:
    """A run that slept between its read and its write gets the number, and gives it back."""
    late = MemoryStore()

    def overtake() -> None:
        if late.files.keys() == {f"{NAME}.00000001"} and not done:
            done.append(True)
            for run_id in "bc":
                backend = backend_of(MemoryStore(late.files), run_id, clock)
                assert backend.try_acquire() is None
                if run_id == "b":
                    backend.release()
            late.files.pop(f"{NAME}.00000002")

    done: list[bool] = []
    first = backend_of(late, "a", clock)
    first.try_acquire()
    first.release()
    sleepy = backend_of(MemoryStore(late.files, leave=overtake), "sleepy", clock)

    contention = sleepy.try_acquire()

    assert contention is not None
    assert contention.holder is not None
    assert contention.holder.run_id == "c"
    assert list(late.files) == [f"{NAME}.00000003"]


def test_write_that_was_sent_twice_is_ours(clock: Clock) -> None:
    class Repeating(MemoryStore):
        def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
            super().create(name, content)
            return super().create(name, bytes(bytearray(content)))

    backend = backend_of(Repeating(), "a", clock)

    assert backend.try_acquire() is None


def test_write_without_an_answer_blocks_nobody(clock: Clock) -> None:
    class Broken(MemoryStore):
        def create(self, name: str, content: bytes, *, within_s: float = math.inf) -> bool:
            super().create(name, content)
            raise DestinationError("connection reset")

    store = Broken()
    backend = backend_of(store, "a", clock)
    with pytest.raises(DestinationError):
        backend.try_acquire()

    backend.release()

    assert backend_of(MemoryStore(store.files), "b", clock).try_acquire() is None


def test_released_backend_writes_no_more(clock: Clock) -> None:
    store = MemoryStore()
    backend = backend_of(store, "a", clock)
    backend.try_acquire()
    backend.release()
    before = dict(store.files)

    assert backend.try_acquire() is not None
    with pytest.raises(LockLostError):
        backend.renew()
    backend.release()

    assert store.files == before


def test_leases_of_a_folder_are_files_in_it(clock: Clock, tmp_path: pytest.TempPathFactory) -> None:
    store = LocalStore(str(tmp_path))
    first, second = backend_of(store, "a", clock), backend_of(store, "b", clock)

    assert first.try_acquire() is None
    assert second.try_acquire() is not None
    first.renew()
    first.release()
    assert second.try_acquire() is None
    second.release()

    assert [each.name for each in store.list_files()] == [f"{NAME}.00000002"]


@dataclass
class Race:
    """Contenders for one lock, and whether two ever held it."""

    seed: int
    odds: Odds
    world: World = field(default_factory=World)
    files: dict[str, bytes] = field(default_factory=dict)
    contenders: list[Contender] = field(default_factory=list)

    def run(self, contender_count: int) -> None:
        for number in range(contender_count):
            chance = random.Random(f"{self.seed}/{number}")  # noqa: S311 - an interleaving is no secret
            contender = Contender(
                self.world,
                self.files,
                f"host-{number}",
                self.odds,
                chance,
                wait_s=chance.choice([0.0, 300.0]),
            )
            self.contenders.append(contender)
            self.world.start(lambda contender=contender: contender.live(4))  # type: ignore[misc] # bound now
        self.world.run(self.observe)

    def observe(self) -> None:
        holders = [each.host for each in self.contenders if each.believes]
        assert len(holders) <= 1, f"at {self.world.now_s:.3f}s: {holders}"


ODDS = {
    "calm": Odds(),
    "wrong clocks": Odds(skew_s=7200),
    "slow": Odds(stall=0.05, skew_s=5),
    "broken": Odds(failure=0.05, skew_s=5),
    "deadly": Odds(kill=0.03, skew_s=5),
    "all of it": Odds(stall=0.03, failure=0.03, kill=0.03, skew_s=7200),
}


@pytest.mark.parametrize("odds", ODDS.values(), ids=ODDS)
@given(seed=st.integers(0, 2**32))
@hypothesis_settings(max_examples=scale_examples(40), deadline=None)
def test_two_runs_never_hold_the_lease_and_the_next_one_gets_it(odds: Odds, seed: int) -> None:
    race = Race(seed, odds)

    race.run(3)

    if odds == Odds():
        assert any(each.holds_count > 0 for each in race.contenders)
    clock = Clock(race.world.now_s)
    last = backend_of(MemoryStore(race.files), "last", clock)
    if last.try_acquire() is not None:
        clock.now_s += DURATION_S
        assert last.try_acquire() is None
