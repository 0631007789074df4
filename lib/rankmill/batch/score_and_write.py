"""Score and write in one worker: while a shard is written, the next one is scored.

Writing as a stage of its own would cost every shard another task of Ray Data and another way through the object store,
which is more than ranking and writing it take.
"""

import threading
from collections.abc import Callable

import pyarrow as pa

from rankmill.batch.stages import Write

CALLS = 2
"""At a time, of one worker: it scores one shard and writes another."""


class ScoreAndWrite:
    """A scoring worker; several threads may call it at once.

    Args:
        score: constructs what scores a shard; no more than `workers` threads call that at once.
        write: commits it.
        workers: how many workers this one stands for; more than one only where scoring is waiting.
    """

    def __init__(self, score: Callable[[], Callable[[pa.Table], pa.Table]], write: Write, workers: int = 1) -> None:
        self._score = score()
        self._write = write
        self._turns = threading.Semaphore(workers)

    def __call__(self, row: pa.Table) -> pa.Table:
        """Take one encoded shard, return its receipt."""
        with self._turns:
            scored = self._score(row)
        return self._write(scored)
