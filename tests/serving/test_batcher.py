"""Requests that share forward passes: who gets what, in which order, and what is left out."""

import asyncio
import threading
import time
from collections.abc import Coroutine, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from rankmill.errors import NonFiniteScoreError
from rankmill.serving.backend import Work
from rankmill.serving.batcher import Batcher
from rankmill.serving.request_error import Kind, RequestError
from rankmill.types import EncodedPairs

LONG = 60.0
_request_ids = iter(range(1, 10**9))


def request(lengths: Sequence[int]) -> EncodedPairs:
    """Pairs whose every token says which request and which pair it belongs to."""
    number = next(_request_ids)
    return EncodedPairs(
        np.repeat(np.arange(len(lengths), dtype=np.int32) + 1000 * number, lengths),
        np.cumsum([0, *lengths]),
        np.zeros(len(lengths), dtype=np.int32),
        np.zeros(len(lengths), dtype=np.bool_),
    )


def expected(pairs: EncodedPairs) -> NDArray[np.float32]:
    return np.add.reduceat(pairs.token_ids, pairs.offsets[:-1]).astype(np.float32)


class Recorder:
    """A scorer that sums token ids, remembers its calls, and can be held up."""

    def __init__(self, error: type[BaseException] = RuntimeError) -> None:
        self.error = error
        self.calls: list[EncodedPairs] = []
        self.open = threading.Event()
        self.open.set()
        self.entered = threading.Semaphore(0)

    def __call__(self, pairs: EncodedPairs) -> NDArray[np.float32]:
        self.calls.append(pairs)
        self.entered.release()
        assert self.open.wait(30)
        bad = [i for i, start in enumerate(pairs.offsets[:-1]) if pairs.token_ids[start] < 0]
        if bad:
            raise NonFiniteScoreError("These have no score.", bad)
        if (pairs.token_ids == 0).any():
            raise self.error("This model cannot read the token 0.")
        return expected(pairs)

    async def busy(self) -> None:
        """Wait until a call has begun."""
        assert await asyncio.to_thread(self.entered.acquire, timeout=30)


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


def batcher(forward: Recorder, call_tokens: int = 20, queue_tokens: int = 10**6) -> Batcher:
    return Batcher(forward, call_tokens=call_tokens, queue_tokens=queue_tokens, call_seconds=0)


def longest_call(call_tokens: int, requests: int) -> int:
    """Tokens of a call while so many requests wait."""
    return call_tokens * min(1 + requests // 8, 4)


lengths_of_requests = st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=20), min_size=1, max_size=8)


@given(lengths_of_requests, st.integers(1, 100))
@settings(deadline=None, max_examples=60)
def test_every_pair_is_scored_once_and_goes_back_to_its_owner(lengths: list[list[int]], call_tokens: int) -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens)
        requests = [request(of_one) for of_one in lengths]
        found = await asyncio.gather(*(shared.score(pairs, LONG) for pairs in requests))
        for pairs, (logits, _) in zip(requests, found, strict=True):
            assert logits.dtype == np.float32
            np.testing.assert_array_equal(logits, expected(pairs))
        assert sum(map(len, scorer.calls)) == sum(map(len, requests))
        longest = longest_call(call_tokens, len(lengths))
        assert all(len(call) == 1 or call.lengths.sum() <= longest for call in scorer.calls)
        assert shared.queued_tokens == 0
        works = [work for _, work in found]
        assert [work.pairs for work in works] == list(map(len, requests))
        assert [work.tokens for work in works] == list(map(sum, lengths))
        whole = sum(works, Work())
        assert whole.calls == pytest.approx(len(scorer.calls)) == shared.work.calls
        assert (whole.pairs, whole.tokens) == (shared.work.pairs, shared.work.tokens)
        assert whole.seconds == pytest.approx(shared.work.seconds)
        await shared.close()

    run(test())


def test_requests_that_wait_together_share_a_call() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=100)
        await asyncio.gather(*(shared.score(request([5, 7]), LONG) for _ in range(7)))  # 7 x 14 tokens when padded
        assert len(scorer.calls) == 1

    run(test())


@given(st.lists(st.integers(1, 200), min_size=1, max_size=10), st.integers(1, 40))
@settings(deadline=None, max_examples=60)
def test_nobody_ends_later_than_with_equal_shares(sizes: list[int], call_tokens: int) -> None:
    """All requests wait from the start: with equal shares, one of s tokens ends after the sum of min(s, s') tokens."""

    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens)
        ended: dict[int, int] = {}

        async def one(i: int) -> None:
            await shared.score(request([1] * sizes[i]), LONG)
            ended[i] = sum(int(call.lengths.sum()) for call in scorer.calls)

        await asyncio.gather(*map(one, range(len(sizes))))
        for i, size in enumerate(sizes):
            # a call that has begun after the result was there may be counted as well
            assert ended[i] <= sum(min(size, other) for other in sizes) + 2 * longest_call(call_tokens, len(sizes))
        await shared.close()

    run(test())


def test_a_small_request_that_comes_during_a_large_one_is_in_the_next_call() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        large = asyncio.create_task(shared.score(request([10] * 1000), LONG))
        await scorer.busy()
        pairs = request([5, 5])
        small = asyncio.create_task(shared.score(pairs, LONG))
        await asyncio.sleep(0)
        scorer.open.set()
        await small
        assert set(pairs.token_ids) <= set(scorer.calls[1].token_ids)
        await large
        await shared.close()

    run(test())


def test_what_ends_with_a_call_does_not_wait_for_much_that_does_not() -> None:
    """Beside a small request, a large one may fill a quarter of a call, and not all that is left of it."""

    async def test() -> None:
        for small, beside in (([4], 5), ([12], 5), ([4, 4], 5), ([18], 2)):
            scorer = Recorder()
            shared = batcher(scorer, call_tokens=20)
            scorer.open.clear()
            first = asyncio.create_task(shared.score(request([20]), LONG))
            await scorer.busy()
            large = asyncio.create_task(shared.score(request([1] * 100), LONG))
            await asyncio.sleep(0)
            little = asyncio.create_task(shared.score(request(small), LONG))
            await asyncio.sleep(0)
            scorer.open.set()
            await asyncio.gather(first, large, little)
            assert scorer.calls[1].lengths.sum() == sum(small) + beside
            assert [int(call.lengths.sum()) for call in scorer.calls[2:-1]] == [20] * len(scorer.calls[2:-1])
            await shared.close()

    run(test())


def test_calls_of_a_request_that_is_alone_end_where_another_one_comes() -> None:
    """They are planned together; newcomers, health checks and cancellations wait for one of them, not for all."""

    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        large = asyncio.create_task(shared.score(request([10] * 1000), LONG))
        await scorer.busy()
        check = asyncio.create_task(shared.alone(request([3])))
        await asyncio.sleep(0.05)
        scorer.open.set()
        await check
        assert len(scorer.calls[1]) == 1
        scorer.open.clear()
        while not large.cancelled():
            large.cancel()
            await asyncio.sleep(0)
        made = len(scorer.calls)
        scorer.open.set()
        await shared.close()
        assert len(scorer.calls) <= made + 1  # one may have begun as it was cancelled
        assert shared.queued_tokens == 0

    run(test())


@pytest.mark.parametrize(("waiting", "most"), [(7, 20), (8, 40), (16, 60), (30, 80)])
def test_calls_are_longer_where_many_requests_wait(waiting: int, most: int) -> None:
    async def test() -> None:
        scorer = Recorder()
        scorer.open.clear()
        shared = batcher(scorer, call_tokens=20)
        first = asyncio.create_task(shared.score(request([20]), LONG))
        await scorer.busy()
        others = [asyncio.create_task(shared.score(request([5, 5]), LONG)) for _ in range(waiting)]
        await asyncio.sleep(0)
        scorer.open.set()
        await asyncio.gather(first, *others)
        assert int(scorer.calls[1].lengths.sum()) == most
        await shared.close()

    run(test())


def test_padding_is_counted_by_call() -> None:
    async def test() -> None:
        shared = Batcher(
            lambda pairs: np.zeros(len(pairs), np.float32),
            call_tokens=20,
            queue_tokens=100,
            waste=lambda lengths: int(lengths.max()) * len(lengths) - int(lengths.sum()),
        )
        _, work = await shared.score(request([4, 10, 9]), LONG)  # 10 and 9 in a call, then 4
        assert (work.calls, work.tokens, work.padding) == (2, 23, 1)
        await shared.close()

    run(test())


def test_a_stream_of_small_requests_does_not_keep_a_large_one_waiting() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        large = asyncio.create_task(shared.score(request([10] * 20), LONG))
        small = 0
        while not large.done():
            await shared.score(request([10]), LONG)
            small += 1
            assert small < 100
        await shared.close()

    run(test())


def test_cancelled_requests_are_not_computed() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        first = asyncio.create_task(shared.score(request([20]), LONG))
        await scorer.busy()
        pairs = request([20, 20])
        second = asyncio.create_task(shared.score(pairs, LONG))
        third = asyncio.create_task(shared.score(request([20]), LONG))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        scorer.open.set()
        await asyncio.gather(first, third)
        assert len(scorer.calls) == 2
        assert not any(np.isin(call.token_ids, pairs.token_ids).any() for call in scorer.calls)
        assert shared.queued_tokens == 0
        await shared.close()

    run(test())


def test_a_request_whose_time_is_over_is_answered_during_the_call_and_not_computed() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        running = asyncio.create_task(shared.score(request([20]), LONG))
        await scorer.busy()
        with pytest.raises(RequestError) as raised:
            await shared.score(request([20]), 0.01)  # the call is held up: this comes back before its end, or never
        assert raised.value.kind is Kind.DEADLINE
        scorer.open.set()
        await running
        assert len(scorer.calls) == 1
        with pytest.raises(RequestError) as raised:
            await shared.score(request([20]), 0.0)
        assert raised.value.kind is Kind.DEADLINE
        assert len(scorer.calls) == 1
        await shared.close()

    run(test())


@given(lengths_of_requests, st.sets(st.integers(0, 7)), st.integers(1, 60))
@settings(deadline=None, max_examples=40)
def test_cancelling_some_changes_nothing_for_the_others(
    lengths: list[list[int]], cancelled: set[int], call_tokens: int
) -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens)
        scorer.open.clear()
        requests = [request(of_one) for of_one in lengths]
        tasks = [asyncio.create_task(shared.score(pairs, LONG)) for pairs in requests]
        await scorer.busy()
        for i, task in enumerate(tasks):
            if i in cancelled:
                task.cancel()
        scorer.open.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        for i, answer in enumerate(found):
            if i in cancelled:
                assert isinstance(answer, asyncio.CancelledError)
            else:
                assert not isinstance(answer, BaseException)
                np.testing.assert_array_equal(answer[0], expected(requests[i]))
        assert shared.queued_tokens == 0
        await shared.close()

    run(test())


def test_only_the_owner_of_a_pair_without_a_score_fails() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=100)
        broken = request([3, 3])
        broken.token_ids[3:] = -1
        good = request([4, 2, 9])
        found = await asyncio.gather(shared.score(broken, LONG), shared.score(good, LONG), return_exceptions=True)
        assert isinstance(found[0], RequestError)
        assert found[0].kind is Kind.INTERNAL
        assert "1 of 2" in str(found[0])
        assert not isinstance(found[1], BaseException)
        np.testing.assert_array_equal(found[1][0], expected(good))
        await shared.close()

    run(test())


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_call_that_breaks_fails_its_requests_and_no_later_ones(error: type[BaseException]) -> None:
    async def test() -> None:
        scorer = Recorder(error)
        shared = batcher(scorer, call_tokens=100)
        broken = request([3])
        broken.token_ids[:] = 0
        with pytest.raises(RequestError) as raised:
            await shared.score(broken, LONG)
        assert raised.value.kind is Kind.INTERNAL
        assert "token 0" not in str(raised.value)  # what a model says may quote a document
        good = request([4])
        np.testing.assert_array_equal((await shared.score(good, LONG))[0], expected(good))
        await shared.close()

    run(test())


@pytest.mark.parametrize("stays", [False, True])
def test_a_long_call_that_nobody_waits_for_is_given_up_between_its_forward_passes(stays: bool) -> None:  # noqa: FBT001
    async def test() -> None:
        passes, entered, go_on = 0, threading.Event(), threading.Event()

        def passing(pairs: EncodedPairs) -> NDArray[np.float32]:
            nonlocal passes
            for _ in range(5):
                passes += 1
                entered.set()
                assert go_on.wait(30)
                shared.after_pass()
            return expected(pairs)

        shared = Batcher(passing, call_tokens=1000, queue_tokens=10**6)
        leaving = asyncio.create_task(shared.score(request([20]), LONG))
        staying = [asyncio.create_task(shared.score(request([20]), LONG)) for _ in range(stays)]
        assert await asyncio.to_thread(entered.wait, 30)
        leaving.cancel()
        await asyncio.wait([leaving])
        go_on.set()
        for answer in staying:
            await answer
        assert passes == (5 if stays else 1)
        passes = 0
        await shared.alone(request([20]))  # which is nobody's request
        await shared.score(request([20]), LONG)
        assert passes == 10
        await shared.close()

    run(test())


def test_calls_that_are_given_up_count_as_work_and_as_slow() -> None:
    async def test() -> None:
        def slow(pairs: EncodedPairs) -> NDArray[np.float32]:
            for _ in range(100):
                time.sleep(0.01)
                shared.after_pass()
            return expected(pairs)

        shared = Batcher(slow, call_tokens=1000, queue_tokens=10**6)
        with pytest.raises(RequestError) as raised:
            await shared.score(request([1000]), 0.05)
        assert raised.value.kind is Kind.DEADLINE
        await shared.close()
        assert 0.05 <= shared.work.seconds < 1.0
        assert shared.tokens_per_second is not None
        assert shared.tokens_per_second <= 1000 / 0.05

    run(test())


def test_nobody_passes_what_is_being_computed() -> None:
    """A call that takes seconds, such as a long list: whoever would wait for most of their time is told at once."""

    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=1000)
        scorer.open.clear()
        first = asyncio.create_task(shared.score(request([1000]), LONG))
        await scorer.busy()
        await asyncio.sleep(0.2)
        scorer.open.set()
        await first  # 5,000 tokens a second at most
        scorer.open.clear()
        long = asyncio.create_task(shared.score(request([20_000]), LONG))
        await scorer.busy()
        with pytest.raises(RequestError) as raised:
            await shared.score(request([10]), 1.0)
        assert raised.value.kind is Kind.OVERLOADED
        waiting = asyncio.create_task(shared.score(request([10]), LONG))
        await asyncio.sleep(0)
        scorer.open.set()
        await asyncio.gather(long, waiting)
        await shared.close()

    run(test())


def test_after_an_error_of_the_accelerator_nothing_more_is_tried_here() -> None:
    async def test() -> None:
        calls = []

        def failing(pairs: EncodedPairs) -> NDArray[np.float32]:
            calls.append(pairs)
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        shared = Batcher(failing, call_tokens=20, queue_tokens=10**6)
        for _ in range(2):
            with pytest.raises(RequestError) as raised:
                await shared.score(request([3]), LONG)
            assert (raised.value.kind, raised.value.everywhere) == (Kind.UNAVAILABLE, False)
        assert shared.broken
        assert len(calls) == 1
        await shared.close()

    run(test())


def test_what_would_take_twice_its_time_is_not_begun_even_where_nothing_waits() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        slow = asyncio.create_task(shared.score(request([20]), LONG))
        await scorer.busy()
        await asyncio.sleep(0.05)  # 400 tokens a second at most
        scorer.open.set()
        await slow
        calls = len(scorer.calls)
        with pytest.raises(RequestError, match=r"takes this model about .* s, and 1 s are left") as raised:
            await shared.score(request([20] * 50), 1.0)
        assert raised.value.kind is Kind.DEADLINE
        assert len(scorer.calls) == calls
        await shared.score(request([20] * 50), LONG)
        await shared.close()

    run(test())


def test_a_full_queue_refuses() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20, queue_tokens=100)
        first = request([10] * 20)  # more than may wait, but nothing else does
        np.testing.assert_array_equal((await shared.score(first, LONG))[0], expected(first))
        scorer.open.clear()
        waiting = asyncio.create_task(shared.score(request([60]), LONG))
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as raised:
            await shared.score(request([50]), LONG)
        assert raised.value.kind is Kind.OVERLOADED
        assert raised.value.retry_after is not None
        assert raised.value.retry_after > 0
        fits = asyncio.create_task(shared.score(request([40]), LONG))
        scorer.open.set()
        await asyncio.gather(waiting, fits)
        await shared.close()

    run(test())


def test_a_request_that_would_wait_in_vain_is_refused_at_once() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        slow = asyncio.create_task(shared.score(request([20] * 5000), LONG))
        await scorer.busy()
        await asyncio.sleep(0.05)  # what makes this model slow: its speed is measured
        scorer.open.set()
        await scorer.busy()
        scorer.open.clear()
        with pytest.raises(RequestError) as raised:
            await shared.score(request([20] * 100), 1e-6)
        assert raised.value.kind is Kind.OVERLOADED
        scorer.open.set()
        await slow
        await shared.close()

    run(test())


def test_a_call_of_its_own_passes_the_queue() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        waiting = asyncio.create_task(shared.score(request([20] * 10), LONG))
        await scorer.busy()
        canary = request([3])
        answer = asyncio.create_task(shared.alone(canary))
        await asyncio.sleep(0)
        scorer.open.set()
        np.testing.assert_array_equal(await answer, expected(canary))
        np.testing.assert_array_equal(scorer.calls[1].token_ids, canary.token_ids)
        await waiting
        await shared.close()

    run(test())


def test_closing_finishes_what_waits_and_takes_in_nothing_more() -> None:
    async def test() -> None:
        scorer = Recorder()
        shared = batcher(scorer, call_tokens=20)
        scorer.open.clear()
        pairs = request([20] * 5)
        waiting = asyncio.create_task(shared.score(pairs, LONG))
        await scorer.busy()
        closing = asyncio.create_task(shared.close())
        await asyncio.sleep(0)
        with pytest.raises(RequestError) as raised:
            await shared.score(request([1]), LONG)
        assert raised.value.kind is Kind.UNAVAILABLE
        scorer.open.set()
        await closing
        np.testing.assert_array_equal((await waiting)[0], expected(pairs))

    run(test())


def test_no_pairs_and_empty_pairs() -> None:
    async def test() -> None:
        shared = Batcher(lambda pairs: np.ones(len(pairs), dtype=np.float32), call_tokens=20, queue_tokens=100)
        assert (await shared.score(request([]), LONG))[0].shape == (0,)
        np.testing.assert_array_equal((await shared.score(request([0, 0]), LONG))[0], [1, 1])
        await shared.close()

    run(test())
