import gc
import os
import signal
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import pytest

from exporter.cli.main import main
from exporter.cli.runner import run_async


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """What a command does to the garbage collector of its process ends with the test."""
    thresholds = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_cancels_the_command_and_is_reported(number: signal.Signals, code: int) -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            # The receiver of signals starts at the first pause.
            await anyio.lowlevel.checkpoint()
            os.kill(os.getpid(), number)
            await anyio.sleep(30)
        finally:
            steps.append("cleaned up")

    ended = run_async(work, on_interrupt=lambda: steps.append("reported"))

    assert ended == code
    assert steps == ["cleaned up", "reported"]


def test_second_signal_does_not_disturb_the_cleaning_up() -> None:
    steps: list[str] = []

    async def work() -> None:
        try:
            await anyio.lowlevel.checkpoint()
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep(30)
        finally:
            with anyio.CancelScope(shield=True):
                os.kill(os.getpid(), signal.SIGTERM)
                await anyio.sleep(0.01)
            steps.append("cleaned up")

    ended = run_async(work, on_interrupt=lambda: None)

    assert ended == 130
    assert steps == ["cleaned up"]


def test_signal_that_comes_too_late_changes_nothing() -> None:
    reported: list[str] = []

    async def work() -> None:
        await anyio.lowlevel.checkpoint()
        with anyio.CancelScope(shield=True):
            os.kill(os.getpid(), signal.SIGINT)
            await anyio.sleep(0.01)

    ended = run_async(work, on_interrupt=lambda: reported.append("reported"))

    assert ended == 0
    assert reported == []


def test_failure_of_the_command_is_raised() -> None:
    async def work() -> None:
        raise ValueError("no")

    with pytest.raises(ExceptionGroup) as caught:
        run_async(work, on_interrupt=lambda: None)

    assert caught.group_contains(ValueError, match="no")


@pytest.mark.parametrize(
    ("argument", "error"),
    [
        ("it's", 'error: unknown command "it\'s"'),
        ("a\nb", "error: unknown command 'a\\nb'"),
    ],
)
def test_odd_command_is_reported_in_one_line(
    argument: str, error: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main([argument])

    said = capsys.readouterr()
    assert code == 2
    assert said.err.splitlines()[0] == error
    assert len(said.err.splitlines()) == 2
    assert said.out == ""
