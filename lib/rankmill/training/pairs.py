"""Pairs of training lists: encoded once as the scorer encodes them, cut shorter when a step asks for it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rankmill.scoring.families.classifier import Classifier
from rankmill.scoring.template import PairTemplate
from rankmill.training.lists import TrainingList
from rankmill.types import EncodedPairs


class ListPairs:
    """The pairs of all candidates of training lists.

    Args:
        served: the model as the scorer sees it, with the longest length that is trained on.
        lists: the lists.
    """

    def __init__(self, served: Classifier, lists: Sequence[TrainingList]) -> None:
        self._template = served.template
        self._starts = np.cumsum([0, *(len(item.candidates) for item in lists)])
        self._pairs = served.encoder().encode(
            [item.query for item in lists for _ in item.candidates],
            [candidate.text for item in lists for candidate in item.candidates],
        )

    def of(self, lists: Sequence[int], max_length: int) -> EncodedPairs:
        """The pairs of the lists at these positions, one list after the other, each of at most `max_length` tokens."""
        rows = np.concatenate([np.arange(self._starts[i], self._starts[i + 1]) for i in lists])
        return shortened(self._pairs, rows, self._template, max_length)


def shortened(pairs: EncodedPairs, rows: NDArray[np.int64], template: PairTemplate, max_length: int) -> EncodedPairs:
    """Some pairs as the scorer would have encoded them with a smaller length, without tokenising again.

    Possible because a smaller length never keeps a token that a larger one cuts off.

    Args:
        pairs: encoded with the default limit of the query: half of what the special tokens leave.
        rows: positions into `pairs`, shape (n,).
        template: their pair format.
        max_length: most tokens per pair; at least two more than the special tokens.

    Returns:
        n pairs, in the order of `rows`.
    """
    prefix, middle, suffix = map(len, template.parts)
    room = max_length - template.special_tokens
    ends, starts = pairs.offsets[rows + 1], pairs.document_starts[rows]
    begins = pairs.offsets[rows]
    queries = np.minimum(starts - prefix - middle, room // 2)
    documents = np.minimum(ends - begins - starts - suffix, room - queries)
    pieces: list[NDArray[np.int32]] = []
    for begin, end, start, query, document in zip(begins, ends, starts, queries, documents, strict=True):
        ids = pairs.token_ids[begin:end]
        pieces += (ids[: prefix + query], ids[start - middle : start + document], ids[len(ids) - suffix :])
    lengths = queries + documents + template.special_tokens
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return EncodedPairs(
        token_ids=np.concatenate(pieces),
        offsets=offsets,
        document_starts=(prefix + queries + middle).astype(np.int32),
        truncated=pairs.truncated[rows] | (lengths < ends - begins),
    )
