"""Reciprocal rank fusion: joins rankings whose scores cannot be compared.

Cormack, Clarke and Buettcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning Methods",
SIGIR 2009:

    score(d) = sum over rankings r that hold d:  1 / (k + rank_r(d)),   ranks from 1

k = 60 is their value, fixed in a pilot study and never tuned since.
"""

from collections.abc import Hashable, Sequence
from typing import TypeVar

K = 60

T = TypeVar("T", bound=Hashable)


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
