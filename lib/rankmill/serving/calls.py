"""Requests on their way through a batcher, and the calls of the scorer that they share; no loop and no thread."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rankmill.serving.backend import Work
from rankmill.serving.slices import join, take
from rankmill.serving.waiting import Waiting
from rankmill.types import EncodedPairs

Forward = Callable[[EncodedPairs], NDArray[np.float32]]

Waste = Callable[[NDArray[np.int64]], int]
"""Tokens of padding of a call, by the lengths of its pairs."""


class UnwantedError(Exception):
    """Nobody waits any more for what a call computes: it need not go on."""


@dataclass(slots=True, eq=False)
class Job:
    """A request on its way."""

    pairs: EncodedPairs
    costs: NDArray[np.int64]
    """Shape (n,): tokens per pair; an empty one counts as one token."""
    waiting: Waiting
    """Rows that are in no call yet."""
    end: float
    """On the fair clock."""
    due: float
    """When it should have ended, on the clock of the event loop; infinity where that was not promised."""
    deadline: float
    """When nobody wants it any more."""
    logits: NDArray[np.float32]
    tokens_left: int
    """Of rows without a logit."""
    work: Work = field(default_factory=Work)
    """What it took so far."""
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


@dataclass(frozen=True, slots=True)
class Share:
    """One request's part of a call."""

    job: Job
    rows: NDArray[np.int64]
    start: int
    """Position of its first pair in the call."""


@dataclass(slots=True)
class Call:
    """One call of the scorer, before and after it was made."""

    shares: list[Share]
    lengths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Shape (n,): ids per pair; known when it was made, as is what follows."""
    outcome: NDArray[np.float32] | BaseException | None = None
    """Logits, shape (n,), or what the scorer raised."""
    started: float = 0.0
    """On the clock of `time.perf_counter`; 0 before."""
    seconds: float = 0.0
    padding: int = 0
    """Tokens that were computed beside those of its pairs."""

    @property
    def wanted(self) -> bool:
        """Whether anybody still waits for it."""
        return any(not share.job.done.done() for share in self.shares)

    @property
    def tokens(self) -> int:
        """Of its pairs, as their requests count them."""
        return sum(int(share.job.costs[share.rows].sum()) for share in self.shares)

    def make(self, forward: Forward, waste: Waste | None) -> None:
        """Put the pairs together, score them, and count the padding; raises nothing."""
        self.started = time.perf_counter()
        try:
            pairs = join([take(share.job.pairs, share.rows) for share in self.shares])
            self.lengths = pairs.lengths
            self.outcome = forward(pairs)
            self.padding = waste(self.lengths) if waste else 0
        except BaseException as error:  # noqa: BLE001 - whatever a model raises (SystemExit too), the next call may do
            self.outcome = error
        self.seconds = time.perf_counter() - self.started


def next_call(jobs: Sequence[Job], budget: int, now: float) -> Call | None:
    """Take the pairs of the next call out of the requests that wait; a list is taken whole or not.

    Requests share a call in their order, as long as they fit into it whole. One that does not adds a quarter of the
    budget at most, or one pair or list: what ends with this call should not wait long for what does not.

    Args:
        jobs: in the order in which they are served.
        budget: tokens; a single pair or list of more is a call of its own.
        now: on the clock of deadlines.

    Returns:
        None where nothing waits.
    """
    shares: list[Share] = []
    taken = count = 0
    for job in jobs:
        if job.deadline <= now:  # its time-out is due as well, and will fire when the loop comes to it
            continue
        room = budget - taken
        whole = not shares or job.waiting.cost <= room
        least_fits = 0 < job.waiting.least <= room
        rows = job.waiting.take(room if whole else min(room, budget // 4), at_least_one=not shares or least_fits)
        if len(rows):
            shares.append(Share(job, rows, count))
            taken += int(job.costs[rows].sum())
            count += len(rows)
        if len(job.waiting):
            break
    return Call(shares) if shares else None
