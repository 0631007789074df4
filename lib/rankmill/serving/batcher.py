"""Forward passes of one scorer, shared by the requests that wait for it. Plain asyncio.

A call of the scorer takes a bounded number of tokens, from as many requests as fit, in the order of `FairOrder`; large
requests are spread over many calls, but a list of a scorer of lists is never cut. While a call computes in a thread of
its own, the event loop takes in requests; the next call is put together only when the one before has ended, so that a
small request that came meanwhile is in it. The calls of a request that is alone are made one after the other without
waiting for the loop, until somebody comes.
"""

import asyncio
import bisect
import logging
import math
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import EndpointError, NonFiniteScoreError
from rankmill.scoring.poison import poisons
from rankmill.serving.backend import Work
from rankmill.serving.calls import Call, Forward, Job, Share, UnwantedError, Waste, next_call
from rankmill.serving.fair import FairOrder
from rankmill.serving.overload import MARGIN, Promise, hopeless, in_vain, promised
from rankmill.serving.request_error import Kind, RequestError
from rankmill.serving.slices import token_counts
from rankmill.serving.speed import Speed
from rankmill.serving.waiting import Waiting
from rankmill.types import EncodedPairs

_log = logging.getLogger("rankmill")

CALL_SECONDS = 0.05
"""Newcomers hardly notice a call of this length, and many short ones cost more."""
_MANY, _LONGEST = 8, 4
"""For every so many requests that wait, a call may be once its length longer, up to so many lengths: in such a queue a
newcomer hardly notices, and of more pairs the scorer makes better micro-batches."""
_RETRY_SECONDS = 1.0
"""Until a scorer that asks somebody else is worth another try."""


class Batcher:
    """Shares a scorer among requests; lives on one event loop.

    Args:
        forward: logits of pairs, as `Scorer.logits`; called in a thread of its own, one call at a time.
        call_tokens: of a call at most, more where it is fast, or much waits; a longer pair or list is a call alone.
        call_seconds: that a call may take even so, where little waits.
        queue_tokens: at most so many wait; a larger request is taken in where nothing else waits.
        ids_per_token: that all tokens here are counted by; see `ModelCard.ids_per_token`.
        waste: counts the padding; None where there is none.
        thread: one, which the batcher ends; None for a new one.
    """

    def __init__(
        self,
        forward: Forward,
        *,
        call_tokens: int,
        queue_tokens: int,
        call_seconds: float = CALL_SECONDS,
        ids_per_token: int = 1,
        waste: Waste | None = None,
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        self.work = Work()
        """What it has done since it was made."""
        self.broken = False
        """Whether nothing will ever be scored in this process again, after an error of the accelerator."""
        self._ids_per_token = ids_per_token
        self._waste = waste
        self._forward = forward
        self._call_tokens = call_tokens
        self._call_seconds = call_seconds
        self._queue_tokens = queue_tokens
        self._queued = 0
        self._speed = Speed(enough=call_tokens // 2)
        self._jobs: list[Job] = []  # by `end`
        self._order = FairOrder()
        self._thread = thread or ThreadPoolExecutor(1, thread_name_prefix="forward")
        self._running: Call | None = None  # in the thread
        self._passed_at = time.monotonic()
        self._worker: asyncio.Task[None] | None = None
        self._interrupted = False
        """Whether the thread should leave the calls that it has not begun to the loop."""
        self._closed = False

    @property
    def queued_tokens(self) -> int:
        """Tokens of all requests that have no logit yet, those that are being computed included."""
        return self._queued

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of the latest calls; None before the first."""
        return self._speed.rate

    @property
    def seconds_since_pass(self) -> float:
        """How long ago the latest forward pass ended, of which a call may have many."""
        return time.monotonic() - self._passed_at

    def after_pass(self) -> None:
        """To be called by the scorer after each forward pass, in the batcher's thread.

        Raises:
            UnwantedError: for the scorer to let through; the call is given up.
        """
        self._passed_at = time.monotonic()
        if self._running is not None and not self._running.wanted:
            raise UnwantedError

    async def score(self, pairs: EncodedPairs, deadline: float) -> tuple[NDArray[np.float32], Work]:
        """Score pairs, which are not in chunks.

        Args:
            pairs: n pairs.
            deadline: seconds from now.

        Returns:
            Logits, shape (n,), input order; and what it took.

        Raises:
            RequestError: OVERLOADED, UNAVAILABLE (closed, or its endpoint gives no scores), DEADLINE, or INTERNAL.
        """
        if self._closed or self.broken:
            raise RequestError(Kind.UNAVAILABLE, "This scorer is shutting down; try again.", retry_after=1.0)
        if not len(pairs):
            return np.zeros(0, dtype=np.float32), Work()
        if deadline <= 0:
            raise RequestError(Kind.DEADLINE, "The time of this request was over before it could be scored.")
        job = self._admit(pairs, deadline)
        try:
            async with asyncio.timeout(deadline):
                await job.done
        except TimeoutError:
            raise RequestError(Kind.DEADLINE, f"Not all pairs were scored within {deadline:.3g} s.") from None
        finally:
            self._forget(job)
        return job.logits, job.work

    async def alone(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        """Logits of a call of its own, right after the one that is being computed, however much waits."""
        self._interrupted = True
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._forward, pairs)

    async def close(self) -> None:
        """Take in nothing more, finish what waits, end the thread."""
        self._closed = True
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    def _admit(self, pairs: EncodedPairs, deadline: float) -> Job:
        costs = np.maximum(token_counts(pairs, self._ids_per_token), 1)
        tokens = int(costs.sum())
        now = asyncio.get_running_loop().time()
        sure = self._refuse_overload(tokens, deadline, now)
        if not self._queued:
            self._order = FairOrder()
        self._interrupted = True
        job = Job(
            pairs=pairs,
            costs=costs,
            waiting=Waiting(costs, pairs.lists),
            end=self._order.arrive(tokens),
            due=now + MARGIN * deadline if sure else math.inf,
            deadline=now + deadline,
            logits=np.zeros(len(pairs), dtype=np.float32),
            tokens_left=tokens,
        )
        bisect.insort(self._jobs, job, key=_end)
        self._queued += tokens
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return job

    def _refuse_overload(self, tokens: int, deadline: float, now: float) -> bool:
        """Refuse what does not fit into the queue, comes to nothing there, or makes others come to nothing.

        Returns:
            Whether a request that is not refused is sure to be in time.
        """
        if not self._queued:
            rate = self._speed.of(tokens, now)
            if rate is not None and (why := hopeless(tokens, deadline, rate)):
                raise RequestError(Kind.DEADLINE, why)
            return promised(tokens, deadline, rate)
        wait = self._queued / self._speed.rate if self._speed.rate else 1.0
        if self._queued + tokens > self._queue_tokens:
            raise RequestError(
                Kind.OVERLOADED,
                f"{self._queued:,} tokens wait to be scored, and at most {self._queue_tokens:,} may; try again later.",
                retry_after=wait,
            )
        rate = self._speed.of(self._queued + tokens, now)
        if rate is None:
            return False
        place = bisect.bisect_right(self._jobs, self._order.end_of(tokens), key=_end)
        before, passed = self._jobs[:place], self._jobs[place:]
        running, done = self._in_work(rate)
        # nobody passes what is being computed, be it for somebody who has gone
        ahead = sum(job.tokens_left for job in before) - done
        ahead += sum(part for job, part in running.items() if job not in before)
        behind = (Promise(job.tokens_left - running.get(job, 0), job.due - now, job.deadline - now) for job in passed)
        if why := in_vain(tokens, deadline, rate, ahead=ahead, behind=behind):
            raise RequestError(Kind.OVERLOADED, why, retry_after=wait)
        return True

    def _in_work(self, rate: float) -> tuple[dict[Job, int], int]:
        """Tokens of the call that is being computed, by request, and how many of them will be done by now."""
        call = self._running
        if call is None or not call.started:
            return {}, 0
        tokens = {share.job: int(share.job.costs[share.rows].sum()) for share in call.shares}
        return tokens, min(sum(tokens.values()), int(rate * (time.perf_counter() - call.started)))

    async def _work(self) -> None:
        """Run calls until nothing waits."""
        loop = asyncio.get_running_loop()
        while calls := self._next_calls(loop.time()):
            self._interrupted = False
            made = await loop.run_in_executor(self._thread, self._make, calls, loop)
            for call in reversed(calls[made:]):
                for share in call.shares:
                    share.job.waiting.put_back(share.rows)

    def _next_calls(self, now: float) -> list[Call]:
        """The next call; where only one request waits, all that it needs."""
        budget = max(self._call_tokens, int(self._call_seconds * (self._speed.rate or 0)))
        budget *= min(1 + len(self._jobs) // _MANY, _LONGEST)
        calls: list[Call] = []
        while (not calls or len(self._jobs) == 1) and (call := next_call(self._jobs, budget, now)):
            calls.append(call)
        return calls

    def _make(self, calls: list[Call], loop: asyncio.AbstractEventLoop) -> int:
        """Make calls in the thread, each settled on the loop while the next one computes; how many were made."""
        for number, call in enumerate(calls):
            if number and self._interrupted:
                return number
            self._running = call
            call.make(self._forward, self._waste)
            self._running = None
            loop.call_soon_threadsafe(self._settle, call)
        return len(calls)

    def _settle(self, call: Call) -> None:
        """Hand out what a call gave."""
        match call.outcome:
            case NonFiniteScoreError() as error:
                self._fail_some(call.shares, error.pairs)
            case EndpointError() as error:
                _log.error("a forward pass of %s pairs failed: %s", len(call.lengths), error.message)
                if error.passing:
                    self._fail(call.shares, "The endpoint of this model gives no scores now.", Kind.UNAVAILABLE)
                else:
                    self._fail(call.shares, "The endpoint of this model refused.")
            case UnwantedError():  # it would have taken longer still
                self.work += Work(seconds=call.seconds)
                self._speed.learn_most(call.tokens, call.seconds, asyncio.get_running_loop().time())
            case BaseException() as error:
                _log.error("a forward pass of %s pairs failed", len(call.lengths), exc_info=error)
                if poisons(error):
                    self.broken = True
                    self._fail(call.shares, "The accelerator failed.", Kind.UNAVAILABLE, everywhere=False)
                else:
                    self._fail(call.shares, f"The model failed with {type(error).__name__}.")
            case np.ndarray() as logits:
                self._deliver(call.shares, logits, self._measure(call))

    def _measure(self, call: Call) -> Work:
        tokens = call.tokens
        work = Work(1, len(call.lengths), tokens, call.padding, call.seconds)
        self.work += work
        self._speed.learn(tokens, call.seconds, asyncio.get_running_loop().time())
        return work

    def _deliver(self, shares: list[Share], logits: NDArray[np.float32], work: Work) -> None:
        for share in shares:
            job, rows = share.job, share.rows
            tokens = int(job.costs[rows].sum())
            self._order.serve(tokens)
            if job.done.done():  # given up meanwhile
                continue
            job.logits[rows] = logits[share.start : share.start + len(rows)]
            job.tokens_left -= tokens
            self._queued -= tokens
            part = tokens / work.tokens
            job.work += Work(part, len(rows), tokens, part * work.padding, part * work.seconds)
            if not job.tokens_left:
                self._forget(job)
                job.done.set_result(None)

    def _fail(self, shares: list[Share], message: str, kind: Kind = Kind.INTERNAL, *, everywhere: bool = True) -> None:
        retry_after = _RETRY_SECONDS if kind is Kind.UNAVAILABLE else None
        for share in shares:
            if not share.job.done.done():
                self._forget(share.job)
                share.job.done.set_exception(
                    RequestError(kind, message, retry_after=retry_after, everywhere=everywhere)
                )

    def _fail_some(self, shares: list[Share], bad: tuple[int, ...]) -> None:
        """End the requests that own the pairs without a score; what the others had in that call waits once more."""
        owned = [sum(share.start <= at < share.start + len(share.rows) for at in bad) for share in shares]
        if not any(owned):
            self._fail(shares, "The model gave scores that are not finite.")
            return
        for share, own in zip(shares, owned, strict=True):
            if own:
                self._fail([share], f"The model gave no finite score for {own} of {len(share.job.pairs)} documents.")
            else:
                share.job.waiting.put_back(share.rows)

    def _forget(self, job: Job) -> None:
        """Take a request out of the queue, done or not; a running call that nobody else shares ends after its pass."""
        if job not in self._jobs:
            return
        self._interrupted = True  # what the thread has of it need not be computed any more
        self._jobs.remove(job)
        self._queued -= job.tokens_left
        if job.tokens_left:
            self._order.leave(job.end)


def _end(job: Job) -> float:
    return job.end
