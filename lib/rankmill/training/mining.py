"""Choosing candidates for a query and scoring them with the teacher: cosine of a bi-encoder plus a BM25 term."""

from collections.abc import Sequence
from dataclasses import dataclass

import bm25s
import numpy as np
from numpy.typing import NDArray

_K1, _B = 0.9, 0.4  # the usual values for passages


@dataclass(frozen=True, slots=True)
class Mix:
    """How many candidates of each origin a list gets, beside the labelled ones."""

    bm25_top: int = 3
    """From BM25's first 10."""
    bm25_tail: int = 2
    """From BM25's ranks 11 to 100."""
    dense_top: int = 3
    """From the bi-encoder's first 20."""
    random: int = 1
    """From anywhere."""

    @property
    def size(self) -> int:
        """Candidates in all, labelled ones not counted."""
        return self.bm25_top + self.bm25_tail + self.dense_top + self.random


class LexicalIndex:
    """BM25 over a fixed list of texts, as a fraction of what the query could reach at most.

    The fraction is comparable between queries of different length, which raw BM25 is not: 1 would mean that every
    query term that the collection knows occurs very often; half of the terms by weight, once each, give about .25.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        tokens = bm25s.tokenize(list(texts), stopwords="en", return_ids=False, show_progress=False)
        self._index = bm25s.BM25(k1=_K1, b=_B, method="lucene")
        self._index.index(tokens, show_progress=False)
        frequency: dict[str, int] = {}
        for row in tokens:
            for token in set(row):
                frequency[token] = frequency.get(token, 0) + 1
        n = len(texts)
        self._idf = {token: float(np.log(1 + (n - df + 0.5) / (df + 0.5))) for token, df in frequency.items()}
        self._size = n

    def fractions(self, query: str) -> NDArray[np.float32]:
        """BM25 of every text divided by the most the query could get: shape (n,), 0..1; zeros if no term is known."""
        known = [
            token
            for token in bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)[0]
            if token in self._idf
        ]
        most = sum(self._idf[token] for token in known)
        if most <= 0:
            return np.zeros(self._size, dtype=np.float32)
        scores: NDArray[np.float32] = np.asarray(self._index.get_scores(known), dtype=np.float32) / np.float32(most)
        return scores


def teacher_scores(
    cosines: NDArray[np.float32], fractions: NDArray[np.float32], bm25_weight: float
) -> NDArray[np.float32]:
    """The teacher: `cosine + bm25_weight * fraction`, elementwise, float32."""
    return (cosines + np.float32(bm25_weight) * fractions).astype(np.float32)


def choose(
    cosines: NDArray[np.float32],
    fractions: NDArray[np.float32],
    *,
    relevant: Sequence[int],
    excluded: frozenset[int],
    mix: Mix,
    rng: np.random.Generator,
) -> list[int]:
    """Pick the candidates of one query.

    Args:
        cosines: shape (n,), bi-encoder scores of all texts.
        fractions: shape (n,), BM25 fractions of all texts.
        relevant: positions that must be in the list.
        excluded: positions that must not.
        mix: how many of each origin.
        rng: source of the choice.

    Returns:
        Distinct positions, the relevant ones first; `mix.size + len(relevant)` of them, fewer in a small collection.
    """
    chosen = dict.fromkeys(relevant)
    by_bm25 = _best(fractions, 100)
    by_bm25 = by_bm25[fractions[by_bm25] > 0]
    pools = ((by_bm25[:10], mix.bm25_top), (by_bm25[10:], mix.bm25_tail), (_best(cosines, 20), mix.dense_top))
    for pool, count in pools:
        free = [int(i) for i in pool if int(i) not in chosen and int(i) not in excluded]
        if free:
            chosen.update(dict.fromkeys(int(i) for i in rng.choice(free, size=min(count, len(free)), replace=False)))
    wanted = min(mix.size + len(relevant), len(cosines) - len(excluded))
    while len(chosen) < wanted:
        i = int(rng.integers(len(cosines)))
        if i not in excluded:
            chosen[i] = None
    return list(chosen)


def _best(scores: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """Positions of the highest scores, best first; ties by position."""
    count = min(count, len(scores))
    top = np.argpartition(-scores, count - 1)[:count] if count < len(scores) else np.arange(len(scores))
    top = np.sort(top)
    best: NDArray[np.intp] = top[np.argsort(-scores[top], kind="stable")]
    return best
