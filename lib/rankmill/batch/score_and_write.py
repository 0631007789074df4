"""Score and write in one worker: while a shard is written, or waits for what others score, the next one is scored.

Writing as a stage of its own would cost every shard another task of Ray Data and another way through the object store,
which is more than ranking and writing it take.
"""

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager

import pyarrow as pa

from rankmill.batch.stages import Write

Turn = AbstractContextManager[object]
"""Is held by a thread while it scores."""

CALLS = 2
"""At a time, of one worker: it scores one shard and writes another."""


class ScoreAndWrite:
    """A scoring worker; several threads may call it at once.

    Args:
        score: constructs what scores a shard; is called by several threads at once, and takes turns at scoring.
        write: commits it.
        workers: how many workers this one stands for; more than one only where scoring is waiting.
    """

    def __init__(
        self, score: Callable[[], Callable[[pa.Table, Turn], pa.Table]], write: Write, workers: int = 1
    ) -> None:
        self._score = score()
        self._write = write
        self._turns = threading.Semaphore(workers)

    def __call__(self, row: pa.Table) -> pa.Table:
        """Take one encoded shard, return its receipt."""
        return self._write(self._score(row, self._turns))
