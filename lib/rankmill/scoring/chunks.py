"""Long documents in overlapping chunks: where they start, and what a pair's logit is made of."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rankmill.errors import NonFiniteScoreError
from rankmill.scoring.scorer import Scorer
from rankmill.types import EncodedPairs


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits of `n` pairs, in input order."""

    logits: NDArray[np.float32]
    """Shape (n,), finite."""
    best: NDArray[np.int32] | None
    """Shape (n, 2): the characters `[start, end)` of the document that the best chunk covers, -1 and -1 for a document
    that was not cut into several; None where nothing is read in chunks."""


def chunk_starts(tokens: int, room: int, overlap: int | None) -> range:
    """Where the chunks of a document start.

    Every chunk but the last is full. A chunk is begun only where the one before does not reach the end, so that the
    last one holds more than `overlap` tokens, and every token lies in a chunk.

    Args:
        tokens: of the document; 0 makes one empty chunk.
        room: tokens that fit into a chunk, at least 1.
        overlap: tokens that neighbours share, less than `room`; None is a quarter of it.

    Returns:
        First tokens, ascending, beginning with 0.
    """
    step = room - (room // 4 if overlap is None else overlap)
    further = -(-max(0, tokens - room) // step)
    return range(0, (further + 1) * step, step)


def score(scorer: Scorer, pairs: EncodedPairs) -> Scored:
    """Score pairs; the logit of a pair in chunks is that of its best chunk, the first of equals.

    Raises:
        NonFiniteScoreError: naming the pairs with a chunk whose logit is NaN or infinite.
    """
    chunks = pairs.chunks
    if chunks is None:
        return Scored(scorer.logits(pairs), None)
    try:
        logits = scorer.logits(pairs.rows())
    except NonFiniteScoreError as error:
        owners = np.unique(chunks.owners[list(error.pairs)]).tolist()
        raise type(error)(
            f"{error} Long documents are read in chunks, and these are positions of chunks.", owners
        ) from error
    return best_of_chunks(logits, pairs)


def best_of_chunks(logits: NDArray[np.float32], pairs: EncodedPairs) -> Scored:
    """What the logits of `pairs.rows()` say of the pairs themselves: the best chunk counts, the first of equals.

    Args:
        logits: one per chunk, or one per pair where nothing is in chunks.
        pairs: what they belong to.
    """
    chunks = pairs.chunks
    if chunks is None:
        return Scored(logits, None)
    if not len(pairs):
        return Scored(logits, np.zeros((0, 2), dtype=np.int32))
    # the maximum of what is there, with nothing to start from: logits of irrelevant documents are all below 0
    highest = np.maximum.reduceat(logits, chunks.starts)
    best = np.flatnonzero(logits == highest[chunks.owners])
    first = best[np.unique(chunks.owners[best], return_index=True)[1]]
    return Scored(highest, np.where(chunks.counts[:, None] > 1, chunks.spans[first], np.int32(-1)))
