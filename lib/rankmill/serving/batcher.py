"""Forward passes of one scorer, shared by the requests that wait for it. Plain asyncio.

A call of the scorer takes a bounded number of tokens, from as many requests as fit, in the order of `FairOrder`; large
requests are spread over many calls. While a call computes in a thread of its own, the event loop takes in requests; the
next call is put together only when the one before has ended, so that a small request that came meanwhile is in it.
"""

import asyncio
import bisect
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import NonFiniteScoreError
from rankmill.serving.fair import FairOrder
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.slices import join, take
from rankmill.types import EncodedPairs

_log = logging.getLogger("rankmill")

Forward = Callable[[EncodedPairs], NDArray[np.float32]]

_MEMORY = 0.8
"""Weight of what was known of the speed before a call; one call says little."""


@dataclass(slots=True)
class Tally:
    """What a batcher has done since it was made."""

    calls: int = 0
    pairs: int = 0
    tokens: int = 0
    """Of the pairs, without padding."""
    seconds: float = 0.0
    """In forward passes."""
    overloaded: int = 0
    """Requests refused because too much was queued, or because their time would not have sufficed."""
    expired: int = 0
    """Requests whose time ran out."""
    cancelled: int = 0
    failed: int = 0
    """Requests whose forward pass failed."""


@dataclass(slots=True, eq=False)
class _Job:
    """A request on its way."""

    pairs: EncodedPairs
    costs: NDArray[np.int64]
    """Shape (n,): tokens per pair."""
    waiting: NDArray[np.int64]
    """Rows that are in no call yet, longest first, so that pairs of similar length share micro-batches."""
    end: float
    """On the fair clock."""
    deadline: float
    """On the clock of the event loop."""
    logits: NDArray[np.float32]
    tokens_left: int
    """Of rows without a logit."""
    done: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def take(self, budget: int, *, at_least_one: bool) -> NDArray[np.int64]:
        """The next rows that fit, no longer waiting."""
        fitting = int(np.searchsorted(np.cumsum(self.costs[self.waiting]), budget, side="right"))
        rows = self.waiting[: max(fitting, 1 if at_least_one else 0)]
        self.waiting = self.waiting[len(rows) :]
        return rows


@dataclass(frozen=True, slots=True)
class _Share:
    """One request's part of a call."""

    job: _Job
    rows: NDArray[np.int64]
    start: int
    """Position of its first pair in the call."""


class Batcher:
    """Shares a scorer among requests; lives on one event loop.

    Args:
        forward: logits of pairs, as `Scorer.logits`; called in a thread of its own, one call at a time.
        call_tokens: of a call at most; a longer pair is a call of its own.
        queue_tokens: at most so many wait; a larger request is taken in where nothing else waits.
    """

    def __init__(self, forward: Forward, *, call_tokens: int, queue_tokens: int) -> None:
        self.tally = Tally()
        self._forward = forward
        self._call_tokens = call_tokens
        self._queue_tokens = queue_tokens
        self._queued = 0
        self._rate: float | None = None
        self._jobs: list[_Job] = []  # by `end`
        self._order = FairOrder()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._worker: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def queued_tokens(self) -> int:
        """Tokens of all requests that have no logit yet, those that are being computed included."""
        return self._queued

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of the latest calls; None before the first."""
        return self._rate

    async def score(self, pairs: EncodedPairs, deadline: float) -> NDArray[np.float32]:
        """Score pairs, which are not in chunks.

        Args:
            pairs: n pairs.
            deadline: seconds from now.

        Returns:
            Shape (n,), input order.

        Raises:
            RequestError: OVERLOADED, UNAVAILABLE (closed), DEADLINE, or INTERNAL.
        """
        if self._closed:
            raise RequestError(Kind.UNAVAILABLE, "This scorer is shutting down; try again.", retry_after=1.0)
        if not len(pairs):
            return np.zeros(0, dtype=np.float32)
        if deadline <= 0:
            self.tally.expired += 1
            raise RequestError(Kind.DEADLINE, "The time of this request was over before it could be scored.")
        job = self._admit(pairs, deadline)
        try:
            async with asyncio.timeout(deadline):
                await job.done
        except TimeoutError:
            self.tally.expired += 1
            raise RequestError(Kind.DEADLINE, f"Not all pairs were scored within {deadline:.3g} s.") from None
        except asyncio.CancelledError:
            self.tally.cancelled += 1
            raise
        finally:
            self._forget(job)
        return job.logits

    async def alone(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Logits of a call of its own, right after the one that is being computed, however much waits."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._forward, pairs)

    async def close(self) -> None:
        """Take in nothing more, finish what waits, end the thread."""
        self._closed = True
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    def _admit(self, pairs: EncodedPairs, deadline: float) -> _Job:
        costs = np.maximum(pairs.lengths, 1)
        tokens = int(costs.sum())
        if self._queued:
            self._refuse_overload(tokens, deadline)
        else:
            self._order = FairOrder()
        job = _Job(
            pairs=pairs,
            costs=costs,
            waiting=np.argsort(-costs, kind="stable"),
            end=self._order.arrive(tokens),
            deadline=asyncio.get_running_loop().time() + deadline,
            logits=np.zeros(len(pairs), dtype=np.float32),
            tokens_left=tokens,
        )
        bisect.insort(self._jobs, job, key=lambda job: job.end)
        self._queued += tokens
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return job

    def _refuse_overload(self, tokens: int, deadline: float) -> None:
        """Refuse what does not fit into the queue, or would only wait there until its time is over."""
        wait = self._queued / self._rate if self._rate else None
        if self._queued + tokens > self._queue_tokens:
            self.tally.overloaded += 1
            raise RequestError(
                Kind.OVERLOADED,
                f"{self._queued:,} tokens wait to be scored, and at most {self._queue_tokens:,} may; try again later.",
                retry_after=1.0 if wait is None else wait,
            )
        if self._rate is None or wait is None:
            return
        equal_share = tokens * (len(self._jobs) + 1) / self._rate  # the worst case of `FairOrder`, were nobody to come
        needed = min(wait + tokens / self._rate, equal_share)
        if needed > deadline:
            self.tally.overloaded += 1
            raise RequestError(
                Kind.OVERLOADED,
                f"Scoring this request would take about {needed:.2g} s now, and {deadline:.2g} s are left.",
                retry_after=wait,
            )

    async def _work(self) -> None:
        """Run calls until nothing waits."""
        loop = asyncio.get_running_loop()
        while shares := self._next_call(loop.time()):
            pairs = join([take(share.job.pairs, share.rows) for share in shares])
            started = time.perf_counter()
            try:
                logits = await loop.run_in_executor(self._thread, self._forward, pairs)
            except NonFiniteScoreError as error:
                self._fail_some(shares, error.pairs)
            except Exception as error:  # noqa: BLE001 - whatever a model raises, the next call may do
                _log.exception("a forward pass of %s pairs failed", len(pairs))
                self._fail(shares, f"The model failed with {type(error).__name__}.")
            else:
                self._measure(pairs, time.perf_counter() - started)
                self._deliver(shares, logits)

    def _next_call(self, now: float) -> list[_Share]:
        shares: list[_Share] = []
        room, count = self._call_tokens, 0
        for job in self._jobs:
            if job.deadline <= now:  # its time-out is due as well, and will fire when the loop comes to it
                continue
            rows = job.take(room, at_least_one=not shares)
            if len(rows):
                shares.append(_Share(job, rows, count))
                room -= int(job.costs[rows].sum())
                count += len(rows)
            if room <= 0 or len(job.waiting):
                break
        return shares

    def _measure(self, pairs: EncodedPairs, seconds: float) -> None:
        tokens = int(np.maximum(pairs.lengths, 1).sum())
        self.tally.calls += 1
        self.tally.pairs += len(pairs)
        self.tally.tokens += tokens
        self.tally.seconds += seconds
        rate = tokens / max(seconds, 1e-6)
        if self._rate is None:
            self._rate = rate
        elif rate > self._rate or 2 * tokens >= self._call_tokens:  # calls of a few tokens look slow
            self._rate = _MEMORY * self._rate + (1 - _MEMORY) * rate

    def _deliver(self, shares: list[_Share], logits: NDArray[np.float32]) -> None:
        for share in shares:
            job, rows = share.job, share.rows
            tokens = int(job.costs[rows].sum())
            self._order.serve(tokens)
            if job.done.done():  # given up meanwhile
                continue
            job.logits[rows] = logits[share.start : share.start + len(rows)]
            job.tokens_left -= tokens
            self._queued -= tokens
            if not job.tokens_left:
                self._forget(job)
                job.done.set_result(None)

    def _fail(self, shares: list[_Share], message: str) -> None:
        for share in shares:
            if not share.job.done.done():
                self.tally.failed += 1
                self._forget(share.job)
                share.job.done.set_exception(RequestError(Kind.INTERNAL, message))

    def _fail_some(self, shares: list[_Share], bad: tuple[int, ...]) -> None:
        """End the requests that own the pairs without a score; what the others had in that call waits once more."""
        owned = [sum(share.start <= at < share.start + len(share.rows) for at in bad) for share in shares]
        if not any(owned):
            self._fail(shares, "The model gave scores that are not finite.")
            return
        for share, own in zip(shares, owned, strict=True):
            if own:
                self._fail([share], f"The model gave no finite score for {own} of {len(share.job.pairs)} documents.")
            else:
                share.job.waiting = np.concatenate([share.rows, share.job.waiting])

    def _forget(self, job: _Job) -> None:
        """Take a request out of the queue, done or not; its pairs in a running call are computed in vain."""
        if job not in self._jobs:
            return
        self._jobs.remove(job)
        self._queued -= job.tokens_left
        if job.tokens_left:
            self._order.leave(job.end)
