"""How tests wait on a busy machine: for what happens, not for so long."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

HANG_S = 180.0
"""What takes longer hangs: no machine that runs tests is so busy."""

ANSWER_S = 0.005
"""About as long as eight requests in flight leave between two answers of the emulator."""


def wait_until(reached: Callable[[], object], *, glance_s: float = 0.01) -> None:
    until_s = time.monotonic() + HANG_S
    while not reached():
        assert time.monotonic() < until_s, "what was waited for never came"
        time.sleep(glance_s)


class AnswerClock:
    """Time that passes with answers: lists move by it as much on a busy machine as on an idle
    one.
    """

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._now_s = 0.0
        self._is_held = False

    def __call__(self) -> float:
        if not self._is_held:
            self._now_s += self._answer_s
        return self._now_s

    def go_on(self, seconds: float) -> None:
        self._now_s += seconds

    @contextmanager
    def held(self) -> Iterator[None]:
        self._is_held = True
        yield
        self._is_held = False
