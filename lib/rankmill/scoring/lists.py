"""Lists: the documents of one query, for scorers whose score of a document depends on the others beside it.

What is scored together must then be what is ranked together: a list is never cut, never mixed with another, and no
score of it is good for the same pair elsewhere.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from rankmill.types import EncodedPairs


def in_lists(pairs: EncodedPairs, queries: Sequence[str]) -> EncodedPairs:
    """The pairs with their `lists`: neighbours with the same query share one.

    Args:
        pairs: n pairs.
        queries: n texts.
    """
    new = [i == 0 or query != queries[i - 1] for i, query in enumerate(queries)]
    return replace(pairs, lists=np.cumsum(new, dtype=np.int32) - np.int32(1))


def list_edges(lists: NDArray[np.int32]) -> NDArray[np.int64]:
    """Where lists begin, and behind them where the last one ends: 0, …, n; just 0 for no pairs."""
    changes = np.flatnonzero(np.diff(lists)) + 1
    return np.concatenate([[0], changes, [len(lists)]]) if len(lists) else np.zeros(1, dtype=np.int64)


def each_list(pairs: EncodedPairs) -> list[slice]:
    """Rows of each list, in order.

    Raises:
        ValueError: the pairs are in none. This is a bug of the caller.
    """
    if pairs.lists is None:
        raise ValueError("A scorer of lists got pairs that are in none. This is a bug.")
    return [slice(start, stop) for start, stop in pairwise(list_edges(pairs.lists).tolist())]
