"""How long one request takes: a query and some candidates, tokenised and scored while nothing else is going on."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rankmill.bench.measure import percentile

CANDIDATES = (1, 10, 50, 100, 200)
_FEWEST = 3
_MOST = 100
_OVERRUN = 4
"""A size is left out where the fewest requests, and the first one, would take this many times the time set aside."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Of requests of one size."""

    candidates: int
    requests: int
    """How many were timed; 0 where they would take too long."""
    p50_ms: float | None
    p99_ms: float | None
    """The slowest of all where fewer than 100 were timed."""


def how_many(candidates: int, pairs_per_second: float, seconds: float) -> int:
    """Most requests to time, judged by the throughput: 3 to 100, or none where 3 would take far longer than `seconds`.

    Small requests take longer than that, because a device is not full with them: the clock has the last word.
    """
    each = candidates / pairs_per_second
    if (_FEWEST + 1) * each > _OVERRUN * seconds:
        return 0
    return max(_FEWEST, min(_MOST, int(seconds / each)))


def request(queries: Sequence[str], texts: Sequence[str], candidates: int, number: int) -> tuple[list[str], list[str]]:
    """The `number`-th request: the query of some row, and the texts of that row and those after it, round and round."""
    start = number * candidates % len(texts)
    rows = [(start + i) % len(texts) for i in range(candidates)]
    return [queries[start]] * candidates, [texts[row] for row in rows]


def measure(
    score: Callable[[list[str], list[str]], object],
    queries: Sequence[str],
    texts: Sequence[str],
    pairs_per_second: float,
    seconds: float,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Time requests of 1 to 200 candidates, each with other texts than the one before.

    A size ends with the request during which its time runs out, but not before 3 are timed.

    Args:
        score: answers one request.
        queries: of the pairs that requests are made from, at least one.
        texts: of the same pairs.
        pairs_per_second: the throughput, to judge how many requests there is time for.
        seconds: for each size, its first request included, which is not counted.
        clock: seconds that have passed since some moment.
    """
    found = []
    for candidates in CANDIDATES:
        count = how_many(candidates, pairs_per_second, seconds)
        times: list[float] = []
        begun = clock()
        for number in range(count + 1 if count else 0):
            if number > _FEWEST and clock() - begun > seconds:
                break
            asked = request(queries, texts, candidates, number)
            started = clock()
            score(*asked)
            times.append(1000 * (clock() - started))
        timed = times[1:]  # the first one of a shape is slow
        p50, p99 = (percentile(timed, percent) if timed else None for percent in (50, 99))
        found.append(Latency(candidates, len(timed), p50, p99))
    return found
