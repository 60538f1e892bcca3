"""How a writer knows, right before what it cannot take back, that its output is still its own."""

import math
from typing import Final, Protocol


class HeldLock(Protocol):
    """An output's lock as those see it who write to the output."""

    def ensure_held(self) -> float:
        """How many seconds nobody else can hold it from now on; infinite where only the death of
        this process ends it.

        To be called right before each request that cannot be undone: a commit, a replacement, a
        removal. Such a request, with all its retries, must be over when the time is. A lease that
        is about to end is renewed first. Blocks; raises LockLostError when another run may hold the
        lock, DestinationError when that cannot be told.
        """


class NoLock:
    """Stands for the lock of what nobody else can write: a stream, a file of a test."""

    def ensure_held(self) -> float:
        return math.inf


NO_LOCK: Final = NoLock()
