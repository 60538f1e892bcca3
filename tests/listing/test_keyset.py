import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporter.listing.keyset import MIN_SLOTS, KeySet


def model_add_all(known: set[str], keys: list[str]) -> list[int]:
    """The same with a Python set."""
    repeated = []
    for position, key in enumerate(keys):
        if key in known:
            repeated.append(position)
        known.add(key)
    return repeated


@given(
    steps=st.lists(st.lists(st.text(max_size=3) | st.sampled_from(["", "a", "b"]))),
    expected_count=st.integers(0, 50),
)
def test_keys_are_new_and_repeated_as_in_a_python_set(
    steps: list[list[str]], expected_count: int
) -> None:
    known: set[str] = set()
    keys = KeySet(expected_count)

    for step in steps:
        assert keys.add_all(step) == model_add_all(known, step)
        assert len(keys) == len(known)


@pytest.mark.parametrize("expected_count", [0, 1, 100, 20_000, 100_000])
@pytest.mark.parametrize("step", [1, 100, 20_000])
def test_set_grows_far_beyond_the_expected_count(expected_count: int, step: int) -> None:
    ids = [f"livy-{number}" for number in range(20_000)]
    keys = KeySet(expected_count)

    repeated = [keys.add_all(ids[start : start + step]) for start in range(0, len(ids), step)]

    assert not any(repeated)
    assert len(keys) == 20_000
    assert keys.add_all(ids) == list(range(20_000))
    assert len(keys) == 20_000


@pytest.mark.parametrize("count", [MIN_SLOTS - 1, MIN_SLOTS, MIN_SLOTS + 1, 5 * MIN_SLOTS])
def test_one_step_larger_than_the_table_fits(count: int) -> None:
    keys = KeySet(0)

    assert keys.add_all([str(number) for number in range(count)]) == []

    assert len(keys) == count


def test_key_twice_in_one_step_is_new_once() -> None:
    keys = KeySet(0)

    assert keys.add_all(["a", "b", "a", "a", "b"]) == [2, 3, 4]

    assert len(keys) == 2


def test_key_whose_hash_is_zero_is_a_key() -> None:
    keys = KeySet(0)
    assert hash("") == 0

    assert keys.add_all(["", ""]) == [1]

    assert len(keys) == 1


@pytest.mark.parametrize("count", [100_000, 87_382, 174_763])
def test_expected_keys_cost_at_most_24_bytes_each(count: int) -> None:
    tracemalloc.start()
    keys = KeySet(count)
    for start in range(0, count, 100):
        keys.add_all([f"livy-{number}" for number in range(start, min(start + 100, count))])

    size_bytes, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(keys) == count
    assert size_bytes < 24 * count + 10_000
    # No growing on the way: for that, old and new table are there at once.
    assert peak_bytes < 24 * count + 100_000
