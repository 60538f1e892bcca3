"""The promise, tried on lists and servers of all kinds at once."""

import os
import subprocess
import sys

import pytest

from exporter.emulator.churn import Churn
from tests.campaign.kinds import KINDS, KINDS_BY_NAME, Kind, draw_case
from tests.campaign.listings import judge_listing
from tests.campaign.runs import judge_sequence
from tests.campaign.sequences import SEQUENCES, SEQUENCES_BY_NAME, SequenceKind, draw_sequence
from tests.campaign.table import describe_judgement
from tests.support.examples import thin_out


@pytest.mark.campaign
def test_no_proof_is_false_and_no_goal_is_missed_over_thousands_of_listings_and_runs() -> None:
    command = [sys.executable, "-m", "tests.campaign.run", "--listings", "10000", "--runs", "5000"]

    found = subprocess.run(command, capture_output=True, text=True, check=False)

    print(found.stdout)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize(
    "name", [name for name, kind in KINDS_BY_NAME.items() if not (kind.beyond or kind.misleads)]
)
@pytest.mark.parametrize("seed", thin_out([1, 2], 2))
def test_listing_proves_nothing_that_is_wrong(name: str, seed: int) -> None:
    judgement = judge_listing(name, seed)

    assert not judgement.is_wrong, describe_judgement(judgement)


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("by end time", 12),  # sessions that ended stood in two answers, and joined these
        ("by end time", 82),  # one ended in the last rows, and moved to where was read
        ("by end time", 198),  # one ended in the first rows, and did
        ("since: by end time", 210),
        ("by update time", 451),
        ("since: by update time", 57),  # many touched at once lay in the same order by chance
    ],
)
def test_listing_proves_no_more_what_it_once_did_wrongly(name: str, seed: int) -> None:
    judgement = judge_listing(name, seed)

    assert not judgement.is_wrong, describe_judgement(judgement)


@pytest.mark.parametrize(
    "name", [name for name, kind in SEQUENCES_BY_NAME.items() if not kind.beyond]
)
def test_runs_deliver_all_together(name: str) -> None:
    for judgement in judge_sequence(name, 1):
        assert not judgement.is_wrong, describe_judgement(judgement)


@pytest.mark.parametrize("kind", KINDS_BY_NAME.values(), ids=lambda kind: kind.name)
def test_each_kind_draws_lists_that_differ_and_are_the_same_for_one_seed(kind: Kind) -> None:
    cases = [draw_case(kind, seed) for seed in range(20)]

    assert cases == [draw_case(kind, seed) for seed in range(20)]
    assert len({case.shape for case in cases}) == 20
    assert kind.name.endswith("quiet") or any(case.churn != Churn() for case in cases)


@pytest.mark.parametrize("kind", SEQUENCES_BY_NAME.values(), ids=lambda kind: kind.name)
def test_each_kind_of_runs_draws_sequences_of_five_to_ten(kind: SequenceKind) -> None:
    lengths = {len(draw_sequence(kind, seed).pauses_s) + 1 for seed in range(40)}

    assert lengths == {5, 6, 7, 8, 9, 10}


def test_listing_asks_the_same_in_every_process() -> None:
    """A run that goes on from a journal is one: texts have another hash there."""
    command = [sys.executable, "-m", "tests.campaign.run", "--trace", "--seed", "3"]
    for name in ("mixture", "replicas", "by update time", "runs: mixture"):
        command += ["--kind", name]

    printed = [
        subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            env=os.environ | {"PYTHONHASHSEED": seed},
        )
        for seed in ("1", "2")
    ]

    assert printed[0].stderr == printed[1].stderr == ""
    assert printed[0].stdout.count("\n") > 100
    assert printed[0].stdout == printed[1].stdout


def test_names_of_kinds_are_unique() -> None:
    names = [kind.name for kind in (*KINDS, *SEQUENCES)]

    assert len(set(names)) == len(names)
