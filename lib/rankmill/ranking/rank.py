"""The order of candidates: by logit, with every tie decided, so that the same input always gives the same ranking."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Order:
    """How to lay out the pairs of a shard as rankings."""

    rows: NDArray[np.int64]
    """Positions of the pairs, queries in order of first appearance, each query's pairs by rank; shape (kept,)."""
    rank: NDArray[np.int32]
    """Rank of each of those pairs in its query, 1 = best; shape (kept,)."""


def rank_pairs(
    query_codes: NDArray[np.int64],
    logits: NDArray[np.float32],
    retrieval_ranks: NDArray[np.int64] | None,
    top_k: int | None,
) -> Order:
    """Rank the candidates of each query.

    Order: logit descending (not score: a sigmoid saturates and would make ties), then retrieval rank, then input order.

    Args:
        query_codes: number of each pair's query, counted by first appearance; shape (n,).
        logits: finite; shape (n,).
        retrieval_ranks: rank in the first stage, 1 = best; shape (n,), or None when there is none.
        top_k: keep the best k of each query; None keeps all.
    """
    ties = np.zeros(len(logits), dtype=np.int64) if retrieval_ranks is None else retrieval_ranks
    rows = np.lexsort((np.arange(len(logits)), ties, -logits.astype(np.float64), query_codes))
    rank = _position_in_group(query_codes[rows])
    if top_k is not None:
        best = rank <= top_k
        rows, rank = rows[best], rank[best]
    return Order(rows=rows, rank=rank)


def retrieval_ranks(query_codes: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rank of each pair in its query by first-stage score, 1 = best; NaN (no score) last; ties in input order.

    Args:
        query_codes: number of each pair's query; shape (n,).
        scores: first-stage scores; shape (n,).
    """
    rows = np.lexsort((np.arange(len(scores)), np.where(np.isnan(scores), np.inf, -scores), query_codes))
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[rows] = _position_in_group(query_codes[rows])
    return ranks


def codes(ids: pa.Array) -> NDArray[np.int64]:
    """Number ids by first appearance; shape (n,)."""
    encoded = pc.dictionary_encode(ids)
    numbers: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64)
    return numbers


def _position_in_group(groups: NDArray[np.int64]) -> NDArray[np.int32]:
    """Position, from 1, of each element in its run of equal values."""
    if len(groups) == 0:
        return np.zeros(0, dtype=np.int32)
    starts = np.flatnonzero(np.concatenate([[True], groups[1:] != groups[:-1]]))
    lengths = np.diff(np.append(starts, len(groups)))
    return (np.arange(len(groups)) - np.repeat(starts, lengths) + 1).astype(np.int32)
