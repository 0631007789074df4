"""Reciprocal rank fusion: joins rankings whose scores cannot be compared.

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
SIGIR 2009:

    score(d) = sum over rankings r that hold d:  1 / (k + rank_r(d)),   ranks from 1

k = 60 is their value, fixed in a pilot study and never tuned since.
"""

import asyncio
from collections.abc import Coroutine, Hashable, Sequence
from typing import Any, TypeVar

K = 60

T = TypeVar("T", bound=Hashable)
R = TypeVar("R")


def fuse(rankings: Sequence[Sequence[T]], k: int = K) -> list[tuple[T, float]]:
    """Join rankings.

    Args:
        rankings: each best first, without duplicates; may be empty.
        k: how little the first ranks stand out, at least 0.

    Returns:
        Every item that any of them holds with its score, best first; equal scores in order of first appearance.
    """
    scores: dict[T, float] = {}
    for ranking in rankings:
        for rank, item in enumerate(ranking, start=1):
            scores[item] = scores.get(item, 0.0) + 1 / (k + rank)
    return sorted(scores.items(), key=lambda scored: -scored[1])


async def both(first: Coroutine[Any, Any, R], second: Coroutine[Any, Any, R]) -> tuple[R, R]:
    """Run two searches side by side; where one fails, the other is cancelled, and has ended when this raises.

    Raises:
        Exception: what the first of them to fail raised.
    """
    try:
        async with asyncio.TaskGroup() as searches:
            tasks = searches.create_task(first), searches.create_task(second)
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()
