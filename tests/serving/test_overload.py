"""Who is taken in where more comes than can be done: whoever is, ends in time."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rankmill.serving.fair import FairOrder
from rankmill.serving.overload import MARGIN, Promise, hopeless, in_vain, promised

RATE = 1000.0
"""Tokens per second that the scorer is taken to do."""
CALL_TOKENS = 20
"""Computed without a break."""

Arrival = tuple[float, int, float]
"""Seconds since the one before, tokens, and the seconds that a request has."""


@dataclass(slots=True)
class Waiting:
    """A request that was taken in."""

    end: float
    due: float
    deadline: float
    tokens: int


class Simulation:
    """A scorer in a time of its own."""

    def __init__(self, arrivals: Sequence[Arrival], speed: float = 1.0) -> None:
        self.in_time = self.late = self.tried = self.refused = 0
        self._order = FairOrder()
        self._waiting: list[Waiting] = []
        times = accumulate(pause for pause, _, _ in arrivals)
        coming = deque((at, tokens, seconds) for at, (_, tokens, seconds) in zip(times, arrivals, strict=True))
        now = 0.0
        while coming or self._waiting:
            if not self._waiting:
                now = max(now, coming[0][0])
            while coming and coming[0][0] <= now:
                self._come(*coming.popleft())
            now += self._compute() / (RATE * speed)
            self._settle(now)

    def _come(self, at: float, tokens: int, seconds: float) -> None:
        end = self._order.end_of(tokens)
        ahead = sum(job.tokens for job in self._waiting if job.end <= end)
        behind = [Promise(job.tokens, job.due - at, job.deadline - at) for job in self._waiting if job.end > end]
        if self._waiting:
            refused, sure = in_vain(tokens, seconds, RATE, ahead=ahead, behind=behind), True
        else:
            refused, sure = hopeless(tokens, seconds, RATE), promised(tokens, seconds, RATE)
        if refused:
            self.refused += 1
        else:
            due = at + MARGIN * seconds if sure else math.inf
            self._waiting.append(Waiting(self._order.arrive(tokens), due, at + seconds, tokens))
            self._waiting.sort(key=lambda job: job.end)

    def _compute(self) -> int:
        left = CALL_TOKENS
        for job in self._waiting:
            part = min(job.tokens, left)
            job.tokens -= part
            left -= part
            self._order.serve(part)
        return CALL_TOKENS - left

    def _settle(self, now: float) -> None:
        for job in [job for job in self._waiting if not job.tokens]:
            self._waiting.remove(job)
            self.tried += job.due == math.inf
            self.in_time += job.due < math.inf and now <= job.deadline
            self.late += job.due < math.inf and now > job.deadline


requests = st.tuples(st.floats(0, 0.2), st.integers(1, 600), st.floats(0.7, 3))


@given(st.lists(requests, max_size=60), st.floats(0.85, 1.5))
@settings(deadline=None)
def test_whoever_is_taken_in_ends_in_time(arrivals: list[Arrival], speed: float) -> None:
    """Small ones, large ones, short and long times, and a speed that is not quite what is believed.

    Not so who was only tried, because nothing else waited.
    """
    outcome = Simulation(arrivals, speed)
    assert outcome.late == 0
    assert outcome.in_time + outcome.tried + outcome.refused == len(arrivals)


@pytest.mark.parametrize("tokens", [10, 100, 400])
def test_at_four_times_what_can_be_done_the_scorer_is_never_idle(tokens: int) -> None:
    arrivals = [(tokens / RATE / 4, tokens, 2.0)] * (80_000 // tokens)  # 20 s of them
    outcome = Simulation(arrivals)
    assert outcome.late == 0
    assert outcome.in_time * tokens >= 0.9 * 20 * RATE


def test_small_requests_do_not_make_a_large_one_late() -> None:
    small = [(10 / RATE / 4, 10, 2.0)] * 2000
    outcome = Simulation([(0.0, 500, 2.0), *small])
    assert outcome.late == 0
    assert outcome.in_time * 10 >= 0.9 * 5 * RATE


def test_one_that_was_only_tried_keeps_nobody_out() -> None:
    """It takes most of its time even alone: others would be refused for as long."""
    small = [(0.1, 10, 2.0)] * 10
    outcome = Simulation([(0.0, 1700, 2.0), *small])
    assert (outcome.tried, outcome.in_time, outcome.refused) == (1, 10, 0)


def test_one_that_is_late_anyway_keeps_nobody_out() -> None:
    assert in_vain(10, 2.0, RATE, ahead=0, behind=[Promise(5000, 0.5, 1.0)]) is None
    assert in_vain(10, 2.0, RATE, ahead=0, behind=[Promise(900, 0.5, 1.0)]) is not None
    assert in_vain(10, 2.0, RATE, ahead=0, behind=[Promise(400, 0.5, 1.0)]) is None


def test_what_takes_far_too_long_is_not_begun() -> None:
    assert hopeless(3999, 2.0, RATE) is None
    assert "takes this model about 4 s, and 2 s are left" in (hopeless(4001, 2.0, RATE) or "")
