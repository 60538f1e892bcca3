"""Outputs that could harm one another are refused by the command, before the service is asked."""

import json

import pytest

from tests.support.forks import Ended
from tests.support.program import Program

EXPORT = ("export", "--workspace", "w-1", "-q")


def assert_refused(ended: "Ended", says: str) -> None:
    assert ended.code == 2, ended.stderr
    error, hint = ended.stderr_lines
    assert says in error
    assert hint.startswith("hint: ")


@pytest.mark.parametrize(
    ("first", "second", "says"),
    [
        ("outer/", "outer/inner/", "is in the folder of another output"),
        ("outer/", "outer/inner.parquet", "is in the folder of another output"),
        ("outer/inner/", "outer/", "holds another output"),
    ],
)
def test_nested_outputs_are_refused_and_the_first_stays(
    first: str, second: str, says: str, program: "Program"
) -> None:
    (program.folder / "outer").mkdir()
    assert program.run(*EXPORT, "-o", first).code == 0
    before = program.listing()

    ended = program.run(
        *EXPORT, "-o", second, environ={"LIVY_EXPORTER_ENDPOINT": "http://127.0.0.1:9"}
    )

    assert_refused(ended, says.rsplit("|", maxsplit=1)[-1])
    assert program.listing() == before


def test_full_run_with_the_state_of_another_output_is_refused(program: "Program") -> None:
    state = ("--state", "shared.json")
    assert program.run(*EXPORT, *state, "-o", "one/").code == 0
    before = program.listing()

    ended = program.run(
        *EXPORT, *state, "-o", "two/", environ={"LIVY_EXPORTER_ENDPOINT": "http://127.0.0.1:9"}
    )

    assert_refused(ended, "the state belongs to another output")
    assert program.listing() == before
    assert program.run(*EXPORT, *state, "-o", "one/").code == 0
    assert json.loads((program.folder / "shared.json").read_bytes())["output"].endswith("/one")
